//! `sluice dag --format kubernetes`: a pipeline as Jobs, and a ConfigMap with its parameters.
//!
//! Kubernetes replaces `$(VARIABLE)`, and `$$` by `$`, in the arguments of containers, but not in
//! text that it has inserted. Each `$` of a text is therefore doubled. Parameters are environment
//! variables, which can have any value.

use askama::Template;

use super::engine::{
    Arguments, DEADLINE_SECONDS, IMAGE, Piece, RUN_HELP, TASKS, arguments, check_names, comment,
    default, help, parameters, quote, resources,
};
use super::{Dag, DagNode, DagParameter, Retry};
use sluice_manifest::{Error, Result};

const DAY: u32 = 24 * 3600;

#[derive(Debug, Template)]
#[template(path = "kubernetes.yaml", syntax = "yaml", escape = "none")]
struct Jobs<'a> {
    name: &'a str,
    settings: Vec<ConfigEntry<'a>>,
    jobs: Vec<Job<'a>>,
    retry: &'a Retry,
    /// Exit codes that are retried, as a list.
    exit_codes: String,
}

/// An entry of the ConfigMap.
#[derive(Debug)]
struct ConfigEntry<'a> {
    name: &'a str,
    value: String,
    help: String,
}

/// A node.
#[derive(Debug)]
struct Job<'a> {
    name: &'a str,
    /// The nodes that it waits for, as text for people.
    after: String,
    fan_out: &'a str,
    /// Whether it has several pods.
    is_indexed: bool,
    class: &'a str,
    cpus: u32,
    memory_mib: u32,
    program: &'a str,
    words: Vec<String>,
    files: Vec<&'a str>,
}

/// Returns a pipeline as a ConfigMap and Jobs in order, a stream of YAML.
///
/// # Errors
/// Fails if a name is not valid in Kubernetes or is reserved.
pub(super) fn kubernetes(dag: &Dag) -> Result<String> {
    check_names(dag)?;
    let codes: Vec<String> = dag.retry.exit_codes.iter().map(u8::to_string).collect();
    let jobs = Jobs {
        name: &dag.name,
        settings: parameters(dag).into_iter().map(setting).collect(),
        jobs: dag
            .steps
            .iter()
            .map(|node| job(dag, node))
            .collect::<Result<_>>()?,
        retry: &dag.retry,
        exit_codes: codes.join(", "),
    };
    let text = jobs.render();
    text.map_err(|e| Error::bug(format!("kubernetes.yaml: {e}")))
}

fn setting(parameter: &DagParameter) -> ConfigEntry<'_> {
    let example = format!("s3://bucket/{}", parameter.name);
    ConfigEntry {
        name: &parameter.name,
        value: quote(default(parameter).unwrap_or(&example)),
        help: comment(&help(parameter)),
    }
}

fn job<'a>(dag: &'a Dag, node: &'a DagNode) -> Result<Job<'a>> {
    let resources = resources(dag, node)?;
    let is_indexed = node.counted_by.is_some();
    let mut own = vec![format!("--run={}", write(Piece::Value("run")))];
    own.extend(is_indexed.then(|| format!("--task-count={}", write(Piece::Value("tasks")))));
    let Arguments { words, files } = arguments(dag, node, own, write)?;
    Ok(Job {
        name: &node.name,
        after: node.after.join(" and "),
        fan_out: &node.fan_out,
        is_indexed,
        class: &node.resources,
        cpus: resources.cpus,
        memory_mib: resources.memory_mib,
        program: &node.program,
        words: words.iter().map(|word| quote(word)).collect(),
        files,
    })
}

fn write(piece: Piece<'_>) -> String {
    match piece {
        Piece::Text(text) => text.replace('$', "$$"),
        Piece::Value(name) => format!("$({name})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dag::engine::readers::{self, TEXTS, TextValues, expected, pipeline, string};

    #[test]
    fn every_text_reaches_the_program_unchanged() {
        for text in TEXTS {
            let yaml = kubernetes(&pipeline(text)).unwrap();
            let default = string(&yaml, "\"mine\": ", "");
            assert_eq!(default, text);
            let word = string(&yaml, "- ", "--text=");
            let values = [("mine", default.as_str()), ("run", "x")];
            let values: TextValues = values.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
            assert_eq!(readers::kubernetes(&word, &values), expected(text));
        }
    }

    #[test]
    fn a_stream_has_the_parameters_and_a_job_for_each_node_in_order() {
        let dag = pipeline("x");
        let yaml = kubernetes(&dag).unwrap();
        assert!(yaml.ends_with("FallbackToLogsOnError\n"));
        assert!(!yaml.contains("<%") && !yaml.contains("<{"));
        let names = yaml
            .lines()
            .filter_map(|line| line.strip_prefix("  name: sluice-"));
        let nodes = dag.steps.iter().map(|node| node.name.as_str());
        assert!(names.eq(["run"].into_iter().chain(nodes)));
    }
}
