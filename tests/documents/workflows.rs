//! The files of the workflow engines match the output of `sluice dag`, and the programs accept
//! their command lines.

use std::path::Path;

use sluice::dag::{Dag, DagNode, DagParameter};
use sluice::pipeline;
use sluice::pipeline::words::substitute;

use crate::commands;

/// The formats of `sluice dag`, with the files in the repository.
const PRINTED: [(&str, &str); 2] = [
    ("argo", "workflows/argo/curate.yaml"),
    ("kubernetes", "workflows/kubernetes/curate.yaml"),
];
const DAG_JSON: &str = "workflows/airflow/src/sluice_airflow/dag.json";

#[expect(clippy::disallowed_methods, reason = "the files are on local disk")]
fn file(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::fs::read_to_string(root.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn printed(format: &str) -> String {
    let said = sluice_tests::sluice(&["dag", "--format", format]).unwrap();
    assert!(said.failed.is_none(), "{:?}", said.failed);
    said.out
}

#[test]
fn the_files_are_what_the_program_prints() {
    for (format, path) in PRINTED {
        assert!(
            file(path) == printed(format),
            "{path} is not what `sluice dag --format {format}` prints: print it again"
        );
    }
    let parse = |text: &str| -> serde_json::Value { serde_json::from_str(text).unwrap() };
    assert!(
        parse(&file(DAG_JSON)) == parse(&printed("json")),
        "{DAG_JSON} is not what `sluice dag` prints: print it again"
    );
}

/// Returns an example of a parameter's value.
fn sample(parameter: &DagParameter) -> &'static str {
    match (parameter.name.as_str(), parameter.value.as_str()) {
        ("precision", _) => "int8",
        ("device", _) => "cpu",
        ("keep", _) => "hard",
        ("hashes", _) => "md5,pdq",
        ("hash", _) => "pdq",
        ("images", _) => "all",
        ("eps", _) => "0.1",
        ("bytes-per-shard", _) => "1000000",
        ("format", _) => "parquet",
        ("keep-captions", _) => "all",
        ("resize", _) => "512:crop",
        ("encode", _) => "webp",
        ("split", _) => "train=0.9,val=0.1",
        (_, "") => "true",
        (_, "SCORE") => "0.5",
        (_, "URI") => "data",
        (_, "MODEL") => "my-model",
        _ => "3",
    }
}

/// Returns a node's command line, as an engine builds it.
fn command(node: &DagNode, values: &pipeline::ParameterValues) -> Vec<String> {
    let mut words = vec![node.program.clone()];
    words.extend(node.subcommand.clone());
    let engine = [
        "--run=runs/a",
        "--task-index=0",
        "--task-count=2",
        "--result=r",
    ];
    words.extend(engine.map(str::to_owned));
    words.extend(substitute(&node.arguments, values));
    words
}

#[test]
fn every_command_line_of_the_default_pipeline_parses() {
    let dag = Dag::of(&pipeline::open(&sluice_tests::shared().storage, None).unwrap());
    let default = |parameter: &DagParameter| match (&parameter.default, parameter.required) {
        (_, true) => sample(parameter).to_owned(),
        (default, false) => default.clone().unwrap_or_default(),
    };
    let pair = |parameter: &DagParameter, value: String| (parameter.name.clone(), vec![value]);
    let defaults: pipeline::ParameterValues =
        dag.parameters.iter().map(|p| pair(p, default(p))).collect();
    // One parameter at a time, because some exclude each other.
    let mut cases = vec![defaults.clone()];
    for parameter in &dag.parameters {
        let mut values = defaults.clone();
        values.extend([pair(parameter, sample(parameter).to_owned())]);
        cases.push(values);
    }
    for values in &cases {
        for node in &dag.steps {
            let words = command(node, values);
            let program = commands::check(&words).unwrap_or_else(|e| panic!("{words:?}\n{e}"));
            assert_eq!(program.as_deref(), Some(node.program.as_str()));
        }
    }
}

#[test]
fn empty_parameters_leave_their_flags_out() {
    let dag = Dag::of(&pipeline::open(&sluice_tests::shared().storage, None).unwrap());
    let empty = pipeline::ParameterValues::from([("input".to_owned(), vec!["data".to_owned()])]);
    for node in &dag.steps {
        for word in substitute(&node.arguments, &empty) {
            let is_empty = word.ends_with('=') && word.matches('=').count() == 1;
            assert!(!is_empty, "{}: {word}", node.name);
        }
    }
}
