//! The command lines of the workflow engines' files.

use std::path::Path;
use std::process::Command;

use crate::commands;

/// What prints the command lines that the containers of an engine's files run, one JSON array a line.
const GENERATORS: [&str; 2] = [
    "workflows/argo/generate.py",
    "workflows/kubernetes/generate.py",
];

#[test]
fn every_command_line_of_the_workflow_files_parses() {
    let Some(python) = sluice_tests::python() else {
        return;
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for generator in GENERATORS {
        let printed = Command::new(&python)
            .args(["-B", generator, "--commands"])
            .current_dir(&root)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&printed.stderr);
        assert!(printed.status.success(), "{generator}: {said}");
        let lines = String::from_utf8(printed.stdout).unwrap();
        let mut programs = 0;
        for line in lines.lines() {
            let words: Vec<String> = serde_json::from_str(line).unwrap();
            let words = sluice_harness::arguments(words.into_iter().map(Into::into)).unwrap();
            let words: Vec<String> = words
                .into_iter()
                .map(|w| w.into_string().unwrap())
                .collect();
            commands::check(&words).unwrap_or_else(|e| panic!("{generator}: {line}\n{e}"));
            programs += 1;
        }
        assert!(programs >= sluice_manifest::dag::STEPS.len(), "{generator}");
    }
}
