//! Situations that users of similar tools reported, with the desired outcome. The cases are in the
//! fixtures and in `field_cases.py`. A case of the fixtures that the script does not have fails.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use sluice_tests::{fixtures, models, python};

use crate::support::word;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/end_to_end/field_cases.py");
/// The result of `load_dataset` on the output is tested by the stage that writes it.
const ELSEWHERE: &str = "card-for-hubs";
const PROGRAMS: [&str; 11] = [
    "sluice",
    "sluice-partition",
    "sluice-read",
    "sluice-embed",
    "sluice-aesthetic",
    "sluice-nsfw",
    "sluice-score",
    "sluice-filter",
    "sluice-dedup",
    "sluice-export",
    "sluice-report",
];

/// Runs a case in a temporary folder.
fn case(name: &str) {
    let Some(fixtures) = fixtures() else {
        return;
    };
    let (Some(models), Some(python)) = (
        models(&["efficientnet-lite0", "opennsfw"]),
        python("PIL, numpy"),
    ) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    write_programs(folder.path());
    let script = folder.path().join("case.py");
    fs::copy(SCRIPT, &script).unwrap();
    let mut command = Command::new(python);
    command.args([
        "-B",
        word(&script),
        word(&fixtures.join("field-cases")),
        name,
    ]);
    command.env("SLUICE_BIN", folder.path());
    command.env("SLUICE_MODELS", fs::canonicalize(models).unwrap());
    let finished = command.output().unwrap();
    let said = String::from_utf8_lossy(&finished.stderr);
    assert!(finished.status.success(), "{name}: {said}");
}

/// Writes scripts that start the tests' program under the names of the stages' programs.
fn write_programs(folder: &Path) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    for name in PROGRAMS {
        let path = folder.join(name);
        let step = env!("CARGO_BIN_EXE_sluice-tests-step");
        let text = format!("#!/bin/bash\nexec -a {name} {step} \"$@\"\n");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// Defines a test for each case.
macro_rules! cases {
    ($($test:ident: $name:literal,)*) => {
        const CASES: &[&str] = &[$($name),*];
        $(
            #[test]
            fn $test() {
                case($name);
            }
        )*
    };
}

cases! {
    names_with_brackets_are_taken: "brackets",
    the_duplicate_with_a_caption_stays: "caption-lost-with-duplicate",
    a_dot_before_names_is_left_out: "dot-prefix",
    empty_variables_are_unset: "empty-variables",
    hidden_files_are_passed_over: "hidden-files",
    what_cannot_work_is_refused_at_once: "late-validation",
    nan_is_refused: "nonfinite-thresholds",
    a_used_output_is_refused_or_cleared: "output-used-twice",
    missing_shards_of_a_range_are_named: "range-gaps",
    no_image_leaves_unjudged_without_a_word: "second-image",
    an_unreadable_folder_is_passed_over: "unreadable-folder",
    an_input_without_a_sample_is_no_success: "unreadable-shards",
    a_run_is_judged_by_its_steps: "verify-partial-run",
    white_drawings_are_no_duplicates: "white-on-transparent",
}

#[test]
fn every_case_of_the_fixtures_is_run() {
    let Some(fixtures) = fixtures() else {
        return;
    };
    for entry in fs::read_dir(fixtures.join("field-cases")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let is_case = entry.path().join("make.py").exists();
        let known = CASES.contains(&name.as_str()) || name == ELSEWHERE;
        assert!(!is_case || known, "{name} is not run");
    }
}
