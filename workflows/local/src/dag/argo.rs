//! `sluice dag --format argo`: a pipeline as one WorkflowTemplate of Argo.
//!
//! A text passes through two substitutions before a program reads it. Argo replaces `{{tags}}`
//! several times, also in text that it has inserted. Kubernetes replaces `$(VARIABLE)`, and `$$` by
//! `$`, in the arguments of containers. Each `$` of a text is therefore doubled, and each `{` is
//! written as the variable `$(BRACE)`, which Kubernetes replaces after Argo.

use std::collections::BTreeSet;

use askama::Template;

use super::engine::{
    Arguments, DEADLINE_SECONDS, IMAGE, Piece, RUN_HELP, TASKS, arguments, check_names, default,
    help, parameters, pieces, quote, resources,
};
use super::{Dag, DagNode, DagParameter, Retry, UnitCount};
use sluice_manifest::{self as manifest, Error, Result};

/// The name of the entrypoint: the template that runs the nodes.
const ENTRYPOINT: &str = "dag";

/// Classes of resources.
const LIGHT: &str = manifest::Resources::Light.as_str();
const MODEL: &str = manifest::Resources::Model.as_str();

/// An expression for the names of the parameters that the workflow was submitted with.
const GIVEN: &str = "{{=join(keys(workflow.parameters), ',')}}";

/// The file to which a program writes its result.
const RESULT: &str = "/tmp/result.json";

/// A limit on concurrent pods, above what two nodes have with `max-tasks` 256. It is a safety net.
const PARALLELISM: u32 = 600;

const DAY: u32 = 24 * 3600;

#[derive(Debug, Template)]
#[template(path = "argo.yaml", syntax = "yaml", escape = "none")]
struct WorkflowTemplate<'a> {
    name: &'a str,
    /// The required parameters, by name.
    required: Vec<&'a str>,
    /// All parameters, by name.
    known: String,
    inputs: Vec<WorkflowParameter<'a>>,
    tasks: Vec<ArgoTask<'a>>,
    /// The last export node that runs once. Its result is the result of the workflow.
    summary: Option<&'a str>,
    retry: &'a Retry,
    /// Exit codes that are retried, as a list of strings.
    exit_codes: String,
    /// Whether some text contains a `{`.
    brace: bool,
}

/// A parameter of the workflow.
#[derive(Debug)]
struct WorkflowParameter<'a> {
    name: &'a str,
    value: Option<String>,
    description: String,
}

/// A node: a task of the DAG, and the template of its pods.
#[derive(Debug)]
struct ArgoTask<'a> {
    name: &'a str,
    depends: String,
    /// The number of pods as an expression; `None` for a node that runs once.
    count: Option<String>,
    /// An expression that is 1 if the node has work, else 0; `None` for a node that always runs.
    needed: Option<String>,
    /// Whether it runs a model.
    has_model: bool,
    /// Whether it is the first node, which validates the parameters and looks for work in later
    /// nodes.
    is_first: bool,
    class: &'a str,
    cpus: u32,
    memory_mib: u32,
    program: &'a str,
    words: Vec<String>,
    files: BTreeSet<&'a str>,
}

/// Returns a pipeline as a WorkflowTemplate, one YAML document.
///
/// # Errors
/// Fails if a name is not valid in Kubernetes or is reserved, or if a number of units cannot be
/// determined.
pub(super) fn argo(dag: &Dag) -> Result<String> {
    check_names(dag)?;
    let groups = groups(dag);
    let tasks = groups.iter().map(|group| task(dag, group));
    let tasks = tasks.collect::<Result<Vec<_>>>()?;
    let inputs = parameters(dag).into_iter().map(input);
    let inputs = inputs.collect::<Result<Vec<_>>>()?;
    let required = dag.parameters.iter().filter(|p| p.required);
    let codes = dag.retry.exit_codes.iter();
    let codes = codes.map(|code| format!("'{code}', "));
    let words = tasks.iter().flat_map(|task| &task.words);
    let values = inputs.iter().flat_map(|input| &input.value);
    let template = WorkflowTemplate {
        name: &dag.name,
        required: required.map(|p| p.name.as_str()).collect(),
        known: known(&inputs),
        summary: summary(dag),
        retry: &dag.retry,
        exit_codes: codes.chain(["'-1'".to_owned()]).collect(),
        brace: words.chain(values).any(|text| text.contains(BRACE)),
        tasks,
        inputs,
    };
    let text = template.render();
    text.map_err(|e| Error::bug(format!("argo.yaml: {e}")))
}

fn summary(dag: &Dag) -> Option<&str> {
    let once = |node: &&DagNode| node.stage == "export" && node.counted_by.is_none();
    let last = dag.steps.iter().rev().find(once);
    last.map(|node| node.name.as_str())
}

fn input(parameter: &DagParameter) -> Result<WorkflowParameter<'_>> {
    let value = match (default(parameter), parameter.many) {
        // A file, not an argument: Kubernetes does not substitute in it.
        (Some(text), true) if text.contains("{{") => {
            let text = format!("parameter {}: the default has \"{{{{\"", parameter.name);
            return Err(Error::usage(text).hint("Argo would replace it: leave the default empty"));
        }
        (Some(text), true) => Some(quote(text)),
        (Some(text), false) => Some(quote(&escape(text))),
        (None, _) => None,
    };
    Ok(WorkflowParameter {
        name: &parameter.name,
        value,
        // Replaced twice, because of three braces in a row.
        description: quote(&help(parameter).replace("{{", "{ {").replace("{{", "{ {")),
    })
}

fn known(inputs: &[WorkflowParameter<'_>]) -> String {
    let own = inputs.iter().map(|input| input.name);
    let names: Vec<&str> = ["run", "max-tasks", "gpus"]
        .into_iter()
        .chain(own)
        .collect();
    names.join(",")
}

/// Returns the nodes in groups. One pod runs a group one node after the other: consecutive light
/// nodes that run once.
fn groups(dag: &Dag) -> Vec<&[DagNode]> {
    let is_row = |a: &DagNode, b: &DagNode| {
        let are_light = [a, b]
            .iter()
            .all(|n| n.resources == LIGHT && n.counted_by.is_none());
        let others = dag.steps.iter().filter(|node| node.name != b.name);
        let mut after_a = others.filter(|node| node.after.contains(&a.name));
        are_light && b.after == [a.name.as_str()] && after_a.next().is_none()
    };
    dag.steps.chunk_by(is_row).collect()
}

/// Returns the words of a node's command line after its program.
fn words<'a>(dag: &'a Dag, node: &'a DagNode) -> Result<Arguments<'a>> {
    let mut own = vec![format!("--run={}", write(Piece::Value("run")))];
    if node.counted_by.is_some() {
        let share = ["task-index", "task-count"];
        own.extend(share.map(|name| format!("--{name}={{{{inputs.parameters.{name}}}}}")));
    }
    let mut all = arguments(dag, node, own, write)?;
    all.words.extend(["--result", RESULT].map(str::to_owned));
    Ok(all)
}

/// Returns the nodes in which the first pod looks for work: those after it, up to the last one that
/// fans out.
fn looked_at(dag: &Dag) -> &[DagNode] {
    let last = dag.steps.iter().rposition(|node| node.counted_by.is_some());
    last.map_or(&[], |last| &dag.steps[1..=last])
}

/// Returns the arguments of a pod that runs several nodes, or looks for work in others.
fn several<'a>(dag: &'a Dag, group: &'a [DagNode]) -> Result<Arguments<'a>> {
    let is_first = group[0].name == dag.steps[0].name;
    let mut all = Arguments::default();
    all.words.push("steps".to_owned());
    if is_first {
        all.words.push(format!("--given={GIVEN}"));
        all.words.push("--known=$(known)".to_owned());
    }
    all.words
        .extend(["--result", RESULT, "--"].map(str::to_owned));
    let done = group.iter().map(|node| ("+", node));
    let looked_at = looked_at(dag).iter().filter(|_| is_first);
    for (at, (mark, node)) in done.chain(looked_at.map(|node| ("?", node))).enumerate() {
        all.words.extend((at > 0).then(|| mark.to_owned()));
        all.words.extend((mark == "?").then(|| node.name.clone()));
        all.words.push(node.program.clone());
        // The share of a task is not known yet, so the whole node is inspected.
        let own = [format!("--run={}", write(Piece::Value("run")))];
        let Arguments { words, files } = arguments(dag, node, own, write)?;
        all.words.extend(words);
        all.files.extend(files);
    }
    Ok(all)
}

fn task<'a>(dag: &'a Dag, group: &'a [DagNode]) -> Result<ArgoTask<'a>> {
    let node = &group[0];
    if node.name == ENTRYPOINT {
        let text = format!("step {ENTRYPOINT:?}: the template that runs the steps has that name");
        return Err(Error::usage(text).hint("give the step another name"));
    }
    let resources = resources(dag, node)?;
    let counted_by = node.counted_by.as_ref();
    let count = counted_by.map(|by| count(dag, node, by)).transpose()?;
    let is_first = node.name == dag.steps[0].name;
    let is_several = group.len() > 1 || is_first;
    let Arguments { words, files } = if is_several {
        several(dag, group)?
    } else {
        words(dag, node)?
    };
    let counts = |other: &DagNode| other.counted_by == Some(UnitCount::Step(node.name.clone()));
    let is_looked_at = looked_at(dag).iter().any(|other| other.name == node.name);
    let may_be_left_out = is_looked_at && !dag.steps.iter().any(counts);
    let first = &dag.steps[0].name;
    let needed = format!(
        "asInt({})",
        result_of(first, &format!("needed.{}", node.name))
    );
    Ok(ArgoTask {
        needed: may_be_left_out.then_some(needed),
        has_model: node.resources == MODEL,
        is_first,
        name: &node.name,
        depends: node.after.join(" && "),
        count,
        class: &node.resources,
        cpus: resources.cpus,
        memory_mib: resources.memory_mib,
        program: if is_several { "sluice" } else { &node.program },
        words: words.iter().map(|word| quote(word)).collect(),
        files: files.into_iter().collect(),
    })
}

/// Returns the expression for a value in a node's result.
fn result_of(step: &str, path: &str) -> String {
    format!("jsonpath(tasks['{step}'].outputs.parameters.result, '$.{path}')")
}

/// Returns the expression for the number of pods: one for each unit, at most `max-tasks`. A node
/// without units has one pod, which reports that.
fn count(dag: &Dag, node: &DagNode, counted_by: &UnitCount) -> Result<String> {
    let units = match counted_by {
        UnitCount::Step(step) => result_of(step, &format!("fan_out.{}", node.fan_out)),
        UnitCount::Value(text) => {
            let pieces = pieces(dag, text);
            let terms = pieces.iter().map(|piece| term(node, piece));
            let terms = terms.collect::<Result<Vec<_>>>()?;
            if terms.is_empty() {
                "'1'".to_owned()
            } else {
                format!("sprig.default('1', {})", terms.join(" + "))
            }
        }
    };
    Ok(format!(
        "max(1, min(asInt(workflow.parameters['max-tasks']), asInt({units})))"
    ))
}

fn term(node: &DagNode, piece: &Piece<'_>) -> Result<String> {
    match piece {
        Piece::Value(name) => Ok(format!("workflow.parameters['{name}']")),
        Piece::Text(text) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(format!("'{text}'")),
        Piece::Text(text) => {
            let text = format!(
                "{}: expected a number of {}, got {text:?}",
                node.name, node.fan_out
            );
            Err(Error::usage(text))
        }
    }
}

const BRACE: &str = "$(BRACE)";

fn write(piece: Piece<'_>) -> String {
    match piece {
        Piece::Text(text) => escape(text),
        Piece::Value(name) => format!("{{{{workflow.parameters.{name}}}}}"),
    }
}

fn escape(text: &str) -> String {
    text.replace('$', "$$").replace('{', BRACE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dag::engine::readers::{self, TEXTS, TextValues, expected, pipeline, string};

    #[test]
    fn every_text_reaches_the_program_unchanged() {
        for text in TEXTS {
            let yaml = argo(&pipeline(text)).unwrap();
            let default = string(&yaml, "- {name: \"mine\", value: ", "");
            let word = string(&yaml, "- ", "--text=");
            let word = readers::argo(&word, &TextValues::from([("mine".to_owned(), default)]));
            let mut variables = TextValues::from([("run".to_owned(), "x".to_owned())]);
            if yaml.contains("- {name: BRACE, value: \"{\"}") {
                variables.insert("BRACE".to_owned(), "{".to_owned());
            }
            assert_eq!(readers::kubernetes(&word, &variables), expected(text));
        }
    }

    #[test]
    fn a_document_ends_with_one_line_end_and_has_no_tags_but_argos() {
        let yaml = argo(&pipeline("x")).unwrap();
        assert!(yaml.ends_with("}\n"));
        assert!(!yaml.contains("<%") && !yaml.contains("<{"));
        // No text needs the variable, so it is absent.
        assert!(!yaml.contains("BRACE"));
    }

    fn refused(change: impl Fn(&mut Dag)) -> String {
        let mut dag = pipeline("x");
        change(&mut dag);
        argo(&dag).unwrap_err().to_string()
    }

    #[test]
    fn what_argo_cannot_hold_is_refused() {
        for (message, expected) in [
            (
                refused(|dag| dag.name = "My pipeline".into()),
                "pipeline \"My pipeline\" cannot be",
            ),
            (
                refused(|dag| dag.steps[1].name = "dag".into()),
                "step \"dag\": the template",
            ),
            (
                refused(|dag| dag.steps[1].resources = "huge".into()),
                "read: no class of resources huge",
            ),
            (
                refused(|dag| dag.parameters[1].name = "Output".into()),
                "parameter \"Output\" cannot be",
            ),
            (
                refused(|dag| dag.parameters[1].name = "max-tasks".into()),
                "parameter \"max-tasks\":",
            ),
            (
                refused(|dag| dag.steps[1].arguments.push("@x".into())),
                "read: \"@x\" is not an option",
            ),
            (
                refused(|dag| dag.steps[1].arguments.push("--a=x,${input}".into())),
                "read: \"--a=x,${input}\": input has several values",
            ),
            (
                refused(|dag| {
                    dag.steps[1].counted_by = Some(UnitCount::Value("${ranges}x".into()))
                }),
                "read: expected a number of partitions, got \"x\"",
            ),
            (
                refused(|dag| {
                    let input = &mut dag.parameters[0];
                    (input.required, input.default) = (false, Some("{{x}}".into()));
                }),
                "parameter input: the default has \"{{\"",
            ),
        ] {
            assert!(message.starts_with(expected), "{message}");
        }
    }

    #[test]
    fn units_are_counted_by_a_result_or_a_number() {
        let dag = pipeline("x");
        let count = |by: UnitCount| count(&dag, &dag.steps[1], &by).unwrap();
        let most = "max(1, min(asInt(workflow.parameters['max-tasks']), asInt(";
        assert_eq!(
            count(UnitCount::Step("partition".into())),
            format!(
                "{most}jsonpath(tasks['partition'].outputs.parameters.result, '$.fan_out.partitions'))))"
            )
        );
        assert_eq!(
            count(UnitCount::Value("1${ranges}0".into())),
            format!("{most}sprig.default('1', '1' + workflow.parameters['ranges'] + '0'))))")
        );
        assert_eq!(
            count(UnitCount::Value(String::new())),
            format!("{most}'1')))")
        );
    }

    #[test]
    fn a_pipeline_without_an_export_has_no_result() {
        let mut dag = pipeline("x");
        assert_eq!(summary(&dag), Some("export-index"));
        dag.steps.retain(|node| node.stage != "export");
        assert!(!argo(&dag).unwrap().contains("What came in"));
    }
}
