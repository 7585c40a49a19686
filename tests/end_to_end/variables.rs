//! Environment variables: where they apply, and the errors for invalid values.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::CommandFactory;
use serde_json::Value;
use sluice::programs::PROGRAMS;
use sluice_tests::{Finished, Process};

use crate::support::word;

fn run(variables: &[(&str, &str)], line: &[&str]) -> Finished {
    let limit = Duration::from_secs(60);
    let mut process = Process::new(env!("CARGO_BIN_EXE_sluice-tests-step"), limit).unwrap();
    for (name, value) in variables {
        process = process.with(name, value);
    }
    process.run(line).unwrap()
}

/// Returns the variables of all flags of all programs.
fn all_variables() -> BTreeSet<String> {
    fn of(command: &clap::Command) -> Vec<String> {
        let own = command.get_arguments().filter_map(|arg| arg.get_env());
        let own = own.map(|name| name.to_str().unwrap().to_owned());
        own.chain(command.get_subcommands().flat_map(of)).collect()
    }
    let programs = PROGRAMS.iter().map(|program| (program.command)());
    let commands = programs.chain([sluice::Args::command()]);
    commands.flat_map(|command| of(&command)).collect()
}

#[test]
fn no_variable_changes_what_a_pipeline_is() {
    let names = all_variables();
    assert!(names.len() > 40, "{names:?}");
    // The log format applies to all programs, so it must be valid.
    let all = |value: &'static str| -> Vec<(&str, &str)> {
        let names = names.iter().map(String::as_str);
        names
            .filter(|name| value.is_empty() || *name != "SLUICE_LOG_FORMAT")
            .map(|name| (name, value))
            .collect()
    };
    let steps = ["sluice", "pipeline", "show", "--steps"];
    let expected = run(&all(""), &steps);
    assert_eq!(expected.code, 0, "{}", expected.stderr);
    for value in ["?", "1", "exact"] {
        let shown = run(&all(value), &steps);
        assert_eq!(shown.stdout, expected.stdout, "{value}: {}", shown.stderr);
    }
    // An empty variable counts as unset.
    for line in [
        &["sluice", "dag"][..],
        &["sluice", "run", "--output", "memory://variables/out"],
        &["sluice-partition", "--run", "memory://variables/run"],
    ] {
        let [empty, none] = [all(""), Vec::new()].map(|variables| {
            let models = ("SLUICE_MODELS", "");
            run(&[&variables[..], &[models]].concat(), line)
        });
        let error = |finished: &Finished| {
            let result: Value = serde_json::from_str(&finished.stdout).unwrap();
            result["error"].clone()
        };
        assert_eq!(empty.code, none.code, "{line:?}: {}", empty.stderr);
        assert_eq!(error(&empty), error(&none), "{line:?}");
    }
}

#[test]
fn a_wrong_variable_is_named() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("mine.toml");
    std::fs::write(&file, "[[steps]]\nstage = 'read'\n").unwrap();
    let file = word(&file);
    let at = "memory://variables/run";
    let default = ["sluice", "run", "--input", "memory://variables/in"];
    let whole = [&default[..], &["--output", "memory://variables/out"]].concat();
    let mine = [&default[..], &["--run", at, "--pipeline", file]].concat();
    let cases: &[(&str, &str, &[&str])] = &[
        ("SLUICE_JOBS", "many", &["sluice-read", "--run", at]),
        ("SLUICE_JOBS", "0", &default),
        ("SLUICE_FORCE", "perhaps", &["sluice-read", "--run", at]),
        ("SLUICE_EPS", "15", &["sluice-dedup", "match", "--run", at]),
        (
            "SLUICE_PARTITIONS",
            "3",
            &[
                "sluice-read",
                "--run",
                at,
                "--task-index=0",
                "--task-count=1",
            ],
        ),
        ("SLUICE_FORMAT", "yaml", &["sluice", "dag"]),
        ("SLUICE_EPS", "15", &["sluice", "dag"]),
        ("SLUICE_MIN_SIDE", "-1", &["sluice", "dag"]),
        ("SLUICE_MAX_ASPECT", "0", &whole),
        ("SLUICE_KEEP", "worst", &whole),
        // Settings of steps do not apply to a pipeline file. For the default pipeline, only its
        // parameters do.
        ("SLUICE_EPS", "0.1", &mine),
        ("SLUICE_MIN_SIDE", "3", &mine),
        ("SLUICE_IMAGES_PER_SHARD", "5", &mine),
        ("SLUICE_METHODS", "exact", &mine),
        ("SLUICE_METHODS", "exact", &default),
        ("SLUICE_MIN", "aesthetic=1", &default),
        ("SLUICE_TASK_INDEX", "0", &default),
        ("SLUICE_EPS", "0.1", &["sluice", "pipeline", "check", file]),
        ("SLUICE_EPS", "0.1", &["sluice", "dag", "--pipeline", file]),
        ("SLUICE_RULE", "r=true", &["sluice", "dag"]),
    ];
    for (name, value, line) in cases {
        let finished = run(&[(name, value)], line);
        assert_eq!(finished.code, 2, "{name}: {line:?}: {}", finished.stderr);
        assert!(
            finished.stderr.contains(name),
            "{name}: {}",
            finished.stderr
        );
    }
}

#[test]
fn a_short_parameter_s_variable_counts_as_its_flag() {
    let dag = ["sluice", "dag"];
    let by_variable = run(&[("SLUICE_EPS", "0.125"), ("SLUICE_OUTPUT", "out")], &dag);
    let by_flag = run(&[], &[&dag[..], &["--eps", "0.125"]].concat());
    assert_eq!(by_variable.stdout, by_flag.stdout, "{}", by_variable.stderr);
    assert!(by_flag.stdout.contains("\"0.125\""), "{}", by_flag.stdout);
}

#[test]
fn arguments_that_do_not_parse_have_a_result() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("result.json");
    let wrong = [
        "sluice",
        "run",
        "--eps",
        "--no-such",
        "--result",
        word(&file),
    ];
    let finished = run(&[], &wrong);
    assert_eq!(finished.code, 2, "{}", finished.stderr);
    let saved = std::fs::read_to_string(&file).unwrap();
    for text in [&finished.stdout, &saved] {
        let result: Value = serde_json::from_str(text).unwrap();
        assert_eq!(result["status"], "failed");
        assert_eq!(result["error"]["kind"], "usage");
    }
}
