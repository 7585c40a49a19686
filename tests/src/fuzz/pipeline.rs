//! Pipeline files: loaded, and printed for each engine.

use sluice::dag::{Dag, DagFormat};
use sluice::pipeline::Pipeline;

use super::refused_well;

pub(super) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let pipeline = match Pipeline::load(text, "fuzz", "fuzz.toml") {
        Ok(pipeline) => pipeline,
        Err(e) => return refused_well(&e),
    };
    let dag = Dag::of(&pipeline);
    for format in [DagFormat::Json, DagFormat::Argo, DagFormat::Kubernetes] {
        format.print(&dag).expect("a DAG can be printed");
    }
    check_resolved(&pipeline);
}

/// The file that a run records gives the same command lines.
fn check_resolved(pipeline: &Pipeline) {
    let given = pipeline.parameters.iter().filter(|p| p.default.is_none());
    let given: Vec<_> = given
        .map(|p| (p.name.clone(), vec!["1".to_owned()]))
        .collect();
    let values = pipeline.values(&given).expect("parameters of its own");
    let kept = pipeline.file.resolved(&values);
    let text = toml::to_string(&kept).expect("a pipeline can be written");
    let again = Pipeline::load(&text, "fuzz", "pipeline.toml");
    let again = again.unwrap_or_else(|e| panic!("{e}: {text}"));
    let lines = |pipeline: &Pipeline, values| {
        let nodes = pipeline.nodes.iter();
        nodes
            .map(|node| node.command("run", values))
            .collect::<Vec<_>>()
    };
    let values_again = again.values(&[]).expect("defaults");
    assert_eq!(
        lines(&again, &values_again),
        lines(pipeline, &values),
        "{text}"
    );
}
