//! Tasks of workflow engines: shares of the work, locations in pods, and several steps in one
//! process.

use std::time::Duration;

use serde_json::Value;
use sluice_testkit::Shard;
use sluice_testkit::pictures::{png, waves};
use sluice_tests::{Finished, Process};

use crate::support::word;

/// A rule that every image meets.
const RULE: &str = "--rule=wide=width >= 1";

fn run(variables: &[(&str, &str)], line: &[&str]) -> Finished {
    let limit = Duration::from_secs(60);
    let mut process = Process::new(env!("CARGO_BIN_EXE_sluice-tests-step"), limit).unwrap();
    for (name, value) in variables {
        process = process.with(name, value);
    }
    process.run(line).unwrap()
}

fn fine(variables: &[(&str, &str)], line: &[&str]) -> Value {
    let finished = run(variables, line);
    assert_eq!(finished.code, 0, "{line:?}: {}", finished.stderr);
    serde_json::from_str(&finished.stdout).unwrap()
}

/// Returns a folder with four shards of one image each.
fn shards() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for index in 0..4 {
        let shard = Shard::new()
            .with("a.png", png(&waves(index, 64, 64)))
            .finish();
        std::fs::write(folder.path().join(format!("{index}.tar")), shard).unwrap();
    }
    folder
}

#[test]
fn the_next_step_names_the_shares_that_were_not_done() {
    let folder = shards();
    let (input, at) = (word(folder.path()), folder.path().with_extension("run"));
    let at = word(&at);
    let partition = [
        "sluice-partition",
        "--run",
        at,
        "--input",
        input,
        "--shards-per-partition=1",
    ];
    fine(&[], &partition);
    let task = |program: &str, index: &str, more: &[&str]| {
        let line = [&[program, "--run", at, "--task-count=3"][..], more].concat();
        run(&[("JOB_COMPLETION_INDEX", index)], &line)
    };
    assert_eq!(task("sluice-read", "0", &[]).code, 0);
    // A pod with an index beyond the shares has no work.
    assert_eq!(task("sluice-read", "5", &[]).code, 0);
    let next = task("sluice-filter", "0", &[RULE]);
    assert_eq!(next.code, 3, "{}", next.stderr);
    for text in [
        "read is not done: 2 of 4 units are missing: part-00001-part-00002",
        "the shares 1-2 of --task-count 3, or --partitions 1-2",
    ] {
        assert!(next.stderr.contains(text), "{text}: {}", next.stderr);
    }
    fine(&[], &["sluice-read", "--run", at, "--partitions=1-2"]);
    assert_eq!(task("sluice-filter", "0", &[RULE]).code, 0);
    std::fs::remove_dir_all(at).unwrap();
}

#[test]
fn a_pod_refuses_places_that_are_gone_with_it() {
    let folder = shards();
    let (input, at) = (word(folder.path()), folder.path().with_extension("run"));
    let line = ["sluice-partition", "--run", word(&at), "--input", input];
    let refused = run(&[("KUBERNETES_SERVICE_HOST", "10.96.0.1")], &line);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("deleted with the pod"),
        "{}",
        refused.stderr
    );
    assert!(!at.exists());
}

#[test]
fn one_process_does_steps_in_a_row_and_looks_at_later_ones() {
    let folder = shards();
    let list = folder.path().join("list.txt");
    std::fs::write(&list, format!("{}/0.tar\n", word(folder.path()))).unwrap();
    let (list, at) = (
        format!("@file://{}", word(&list)),
        folder.path().with_extension("run"),
    );
    let at = word(&at);
    let partition = ["sluice-partition", "--run", at, "--input", &list];
    let read = ["sluice-read", "--run", at];
    let filter = ["sluice-filter", "--run", at, "--step=usable", RULE];
    let steps = |mark: &str| {
        let given = [
            "sluice",
            "steps",
            "--given=run,json",
            "--known=run,input",
            "--",
        ];
        let name: &[&str] = if mark == "?" { &["read"] } else { &[] };
        let looked_at = ["?", "usable"];
        let line = [
            &given[..],
            &partition,
            &[mark],
            name,
            &read,
            &looked_at,
            &filter,
        ]
        .concat();
        fine(&[], &line)
    };
    let first = steps("?");
    assert_eq!(first["fan_out"]["partitions"], 1, "{first}");
    assert_eq!(first["needed"], serde_json::json!({"read": 1, "usable": 1}));
    assert_eq!(steps("+")["then"][0]["result"]["counts"]["kept"], 1);
    fine(&[], &filter);
    assert_eq!(
        steps("?")["needed"],
        serde_json::json!({"read": 0, "usable": 0})
    );
    let line = [
        "sluice",
        "steps",
        "--given=inputs",
        "--known=run,input",
        "--",
    ];
    let misspelt = run(&[], &[&line[..], &read].concat());
    assert_eq!(misspelt.code, 2);
    assert!(
        misspelt.stderr.contains("is it input?"),
        "{}",
        misspelt.stderr
    );
    std::fs::remove_dir_all(at).unwrap();
}
