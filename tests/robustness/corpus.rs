//! Replays the inputs of the fuzz targets: inputs that reach deep into a parser, and inputs that
//! once revealed a fault.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sluice_tests::fuzz::TARGETS;

/// The time limit of an input. A slower one indicates a loop: the slowest takes a tenth of a
/// second.
const LIMIT: Duration = Duration::from_secs(10);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

fn inputs(target: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder().join(target)).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_input_of_the_corpus_passes() {
    let mut wrong = Vec::new();
    for target in TARGETS {
        let files = inputs(target.name);
        assert!(!files.is_empty(), "{}", target.name);
        for file in files {
            let data = std::fs::read(&file).unwrap();
            let started = Instant::now();
            let outcome = std::panic::catch_unwind(|| (target.run)(&data));
            if outcome.is_err() || started.elapsed() > LIMIT {
                wrong.push(file);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The programs for libFuzzer run the same targets.
#[test]
fn every_target_has_a_program() {
    let manifest = std::fs::read_to_string(folder().join("../Cargo.toml")).unwrap();
    for target in TARGETS {
        let name = target.name;
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        let program = format!("targets/{name}.rs");
        assert!(manifest.contains(&program), "{program}");
        assert!(folder().join("..").join(&program).exists(), "{program}");
    }
}
