//! CONTRIBUTING.md: its example compiles and runs, and only the lines that it lists name a stage
//! outside the stage's folder.

#[path = "example/lib.rs"]
#[expect(unreachable_pub, reason = "a module here, a crate in CONTRIBUTING.md")]
mod colour;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sluice_harness::run_step;
use sluice_testkit::{Shard, pictures};
use sluice_tests::Run;

use crate::document;
use crate::markdown::{blocks, files};

/// An existing scorer, which must be registered in the same lines as a new one.
const EXISTING: &str = "nsfw";
const EXAMPLE: &str = "colour";

#[expect(clippy::disallowed_methods, reason = "the repository is on local disk")]
pub(crate) fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::fs::read_to_string(root.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Returns the file of the example at this path.
fn example(path: &str) -> String {
    let text = document("CONTRIBUTING.md").text;
    let mark = format!("\n`{path}`:\n");
    let (_, after) = text
        .split_once(&mark)
        .unwrap_or_else(|| panic!("CONTRIBUTING.md: {path}"));
    blocks(after).remove(0).text
}

#[test]
fn the_example_is_the_code_that_the_tests_compile() {
    assert_eq!(
        example("stages/colour/src/lib.rs"),
        read("tests/documents/example/lib.rs"),
        "CONTRIBUTING.md and tests/documents/example/lib.rs differ"
    );
}

#[test]
fn the_example_has_the_files_that_stages_have() {
    let renamed = |path: &str| read(path).replace(EXISTING, EXAMPLE);
    assert_eq!(
        example("stages/colour/src/main.rs"),
        renamed("stages/nsfw/src/main.rs")
    );
    let (ours, theirs) = (
        example("stages/colour/Cargo.toml"),
        renamed("stages/nsfw/Cargo.toml"),
    );
    let head = |text: &str| text.split("[dependencies]").next().map(str::to_owned);
    assert_eq!(head(&ours), head(&theirs));
    // Every dependency is one of the workspace's, and every crate that the code uses is listed.
    let workspace = read("Cargo.toml");
    let (_, dependencies) = ours.split_once("[dependencies]\n").unwrap();
    let mut crates = BTreeSet::new();
    for line in dependencies.lines() {
        let name = line
            .strip_suffix(".workspace = true")
            .unwrap_or_else(|| panic!("{line}"));
        assert!(workspace.contains(&format!("\n{name} = ")), "{name}");
        crates.insert(name.replace('-', "_"));
    }
    let code = example("stages/colour/src/lib.rs");
    let uses = code.lines().filter_map(|line| line.strip_prefix("use "));
    let used: BTreeSet<&str> = uses.filter_map(|line| line.split("::").next()).collect();
    assert_eq!(
        crates.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        used
    );
}

#[test]
fn the_example_scores_and_a_filter_reads_it() {
    let run = Run::at("memory://documents/run").unwrap();
    let input = Run::at("memory://documents/input").unwrap();
    let shard = Shard::new()
        .with(
            "grey.png",
            pictures::png(&pictures::flat([90, 90, 90], 64, 64)),
        )
        .with(
            "red.png",
            pictures::png(&pictures::flat([200, 0, 0], 64, 64)),
        );
    input.store.put("a.tar", shard.finish()).unwrap();
    let at = format!("--run={}", run.uri);
    let from = format!("--input={}", input.uri);
    sluice_tests::run(&["sluice-partition", &at, &from]).unwrap();
    sluice_tests::run(&["sluice-read", &at]).unwrap();
    let words = ["sluice-colour", &at].map(str::to_owned);
    let step = || run_step::<colour::Args>(&words, sluice_tests::shared()).unwrap();
    assert_eq!(step().units, 1);
    assert_eq!(step().up_to_date, 1);
    let scores: BTreeMap<String, f32> = run.scores(EXAMPLE).unwrap().into_iter().collect();
    assert_eq!(scores["a/grey"], 0.0);
    // The standard deviation is 0: 0.3 * sqrt(200^2 + 100^2).
    assert!((scores["a/red"] - 67.08).abs() < 0.01, "{scores:?}");
    let done = sluice_tests::run(&["sluice-filter", &at, "--min=colour=15"]).unwrap();
    assert_eq!((done.counts.input, done.counts.kept), (2, 1));
}

/// Returns the registrations in CONTRIBUTING.md, by file, with the name of another stage.
fn registrations(stage: &str) -> BTreeMap<String, String> {
    let contributing = document("CONTRIBUTING.md");
    let section = contributing.section("A scorer");
    let (_, table) = section
        .split_once("| file | line |")
        .expect("a table of lines");
    let table = table.split("\n\n").next().unwrap_or_default();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let pairs = rows.map(|row| {
        let mut cells = row.split('`').skip(1).step_by(2);
        let file = cells.next().expect("a file").to_owned();
        (file, cells.next().expect("a line").replace(EXAMPLE, stage))
    });
    pairs.collect()
}

/// Whether a file defines a part of the build: Rust sources, Cargo's files, scripts, the images.
pub(crate) fn is_source(path: &str) -> bool {
    let own = format!("stages/{EXISTING}/");
    let elsewhere = [
        own.as_str(),
        "tests/",
        "workflows/argo/",
        "workflows/kubernetes/",
        // The labels of classifiers.
        "shared/model/src/labels.rs",
    ];
    let name = path.rsplit('/').next().unwrap_or(path);
    let kinds = [
        ".rs",
        ".sh",
        "Cargo.toml",
        "Makefile",
        "Dockerfile",
        "deny.toml",
        "clippy.toml",
    ];
    let is_source =
        kinds.iter().any(|kind| name.ends_with(kind)) || path.starts_with("containers/");
    let is_test = path.contains("/tests/") || path.contains("/tests.rs");
    let is_example = path.contains("/examples/");
    let is_document = name.ends_with(".md");
    is_source
        && !is_test
        && !is_example
        && !is_document
        && !elsewhere.iter().any(|folder| path.starts_with(folder))
}

/// Returns the lines of a file that contain one of the words. Comments and unit tests do not count.
pub(crate) fn lines_with(path: &str, words: &[&str]) -> Vec<String> {
    let text = read(path);
    let code = text
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default();
    let is_comment = |line: &str| ["//", "#!", "# "].iter().any(|mark| line.starts_with(mark));
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let matches = |line: &str| {
        let mut found = line.split(|c: char| !is_part(c));
        found.any(|word| words.contains(&word))
    };
    let lines = code.lines().map(str::trim);
    let lines = lines.filter(|line| !is_comment(line) && matches(line));
    lines.map(str::to_owned).collect()
}

/// Returns the lines of a file that name the stage, as a word or in its crate's name.
fn naming(path: &str, stage: &str) -> Vec<String> {
    let [program, module] = [format!("sluice-{stage}"), format!("sluice_{stage}")];
    lines_with(path, &[stage, &program, &module])
}

#[test]
fn a_stage_is_registered_in_three_lines() {
    let expected = registrations(EXISTING);
    assert_eq!(expected.len(), 3);
    let sources = files().into_iter().filter(|path| is_source(path));
    // The existing stage can share a pass over the images.
    let line = |line: String| line.replace("image_program::<", "program::<");
    let named = |path: &str| -> Vec<String> {
        let lines = naming(path, EXISTING).into_iter();
        lines.map(line).collect()
    };
    let found = sources.map(|path| (named(&path), path));
    let found: BTreeMap<String, Vec<String>> = found
        .filter(|(lines, _)| !lines.is_empty())
        .map(|(lines, path)| (path, lines))
        .collect();
    let expected: BTreeMap<String, Vec<String>> = expected
        .into_iter()
        .map(|(path, line)| (path, vec![line]))
        .collect();
    assert_eq!(found, expected);
}
