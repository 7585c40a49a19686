//! Helpers of the end-to-end tests.

use std::path::Path;
use std::process::Command;

use sluice_testkit::Shard;
use sluice_tests::{Run, run};

/// Returns a path as a word of a command line.
pub(crate) fn word(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}

/// Runs a Python script, which must succeed, and returns its output.
pub(crate) fn run_script(python: &Path, script: &str, arguments: &[&Path]) -> Vec<u8> {
    let mut command = Command::new(python);
    let finished = command.args(["-B", script]).args(arguments).output();
    let finished = finished.unwrap();
    let words = String::from_utf8_lossy(&finished.stderr);
    assert!(finished.status.success(), "{script}: {words}");
    finished.stdout
}

/// Returns a CSV file's rows. The fixtures have no quoted cells.
pub(crate) fn csv(path: &Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    let cells = |line: &str| line.split(',').map(str::to_owned).collect::<Vec<_>>();
    text.lines().map(cells).collect()
}

/// Returns the column with this name in a CSV file's first row.
pub(crate) fn column(rows: &[Vec<String>], name: &str) -> usize {
    let found = rows[0].iter().position(|cell| cell == name);
    found.unwrap_or_else(|| panic!("no column {name} in {:?}", rows[0]))
}

/// Returns a shard of the files in a folder, in the order of their names, one sample each.
pub(crate) fn shard_of(folder: &Path) -> Vec<u8> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let shard = files.iter().fold(Shard::new(), |shard, file| {
        let name = word(Path::new(file.file_name().unwrap()));
        shard.with(name, std::fs::read(file).unwrap())
    });
    shard.finish()
}

/// Runs `partition` and `read`.
pub(crate) fn read(input: &str, uri: &str, partition: &[&str]) -> Run {
    let mut command = vec!["sluice-partition", "--run", uri, "--input", input];
    command.extend(partition);
    run(&command).unwrap();
    run(&["sluice-read", "--run", uri]).unwrap();
    Run::at(uri).unwrap()
}

/// Returns the cosine of the angle between two vectors.
pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b));
        products.sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
