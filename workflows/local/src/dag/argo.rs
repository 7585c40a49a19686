//! `sluice dag --format argo`: a pipeline as one WorkflowTemplate of Argo.
//!
//! Two readers come between a pipeline's text and a program. Argo replaces `{{tags}}`, several times,
//! also in what it has put in. Kubernetes replaces `$(VARIABLE)`, and `$$` by `$`, in arguments of
//! containers. So each `$` of a text is doubled, and each `{` is written as the variable `$(BRACE)`,
//! which Kubernetes replaces after Argo is done.

use askama::Template;

use super::engine::{
    Arguments, DEADLINE_SECONDS, IMAGE, Piece, RUN_HELP, TASKS, arguments, check_names, default,
    help, parameters, pieces, quote, resources,
};
use super::{CountedBy, Dag, Node, Parameter, Retry};
use sluice_manifest::{Error, Result};

/// The template that runs the nodes, the entrypoint.
const ENTRYPOINT: &str = "dag";

/// The file that a program writes its result to.
const RESULT: &str = "/tmp/result.json";

/// More pods than two nodes at a time have with `max-tasks` 256: a fuse.
const PARALLELISM: u32 = 600;

const DAY: u32 = 24 * 3600;

#[derive(Debug, Template)]
#[template(path = "argo.yaml", syntax = "yaml", escape = "none")]
struct WorkflowTemplate<'a> {
    name: &'a str,
    /// The required parameters, by name.
    required: Vec<&'a str>,
    inputs: Vec<Input<'a>>,
    tasks: Vec<Task<'a>>,
    /// The last node of the export that runs once: its result is that of the workflow.
    summary: Option<&'a str>,
    retry: &'a Retry,
    /// Exit codes that are retried, as a list of strings.
    exit_codes: String,
    /// Whether a text has a `{`.
    brace: bool,
}

/// A parameter of the workflow.
#[derive(Debug)]
struct Input<'a> {
    name: &'a str,
    value: Option<String>,
    description: String,
}

/// A node: a task of the DAG, and the template of its pods.
#[derive(Debug)]
struct Task<'a> {
    name: &'a str,
    depends: String,
    /// The number of pods, an expression; none for a node that runs once.
    count: Option<String>,
    class: &'a str,
    cpus: u32,
    memory_mib: u32,
    program: &'a str,
    words: Vec<String>,
    files: Vec<&'a str>,
}

/// Returns a pipeline as a WorkflowTemplate, a document of YAML.
///
/// # Errors
/// If a name does not fit Kubernetes or is taken, or a number of units cannot be found.
pub fn argo(dag: &Dag) -> Result<String> {
    check_names(dag)?;
    let tasks = dag.steps.iter().map(|node| task(dag, node));
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
    let once = |node: &&Node| node.stage == "export" && node.counted_by.is_none();
    let last = dag.steps.iter().rev().find(once);
    last.map(|node| node.name.as_str())
}

fn input(parameter: &Parameter) -> Result<Input<'_>> {
    let value = match (default(parameter), parameter.many) {
        // A file, not an argument: Kubernetes replaces nothing in it.
        (Some(text), true) if text.contains("{{") => {
            let text = format!("parameter {}: the default has \"{{{{\"", parameter.name);
            return Err(Error::usage(text).hint("Argo would replace it: leave the default empty"));
        }
        (Some(text), true) => Some(quote(text)),
        (Some(text), false) => Some(quote(&escape(text))),
        (None, _) => None,
    };
    Ok(Input {
        name: &parameter.name,
        value,
        // Twice, for three in a row.
        description: quote(&help(parameter).replace("{{", "{ {").replace("{{", "{ {")),
    })
}

fn task<'a>(dag: &'a Dag, node: &'a Node) -> Result<Task<'a>> {
    if node.name == ENTRYPOINT {
        let text = format!("step {ENTRYPOINT:?}: the template that runs the steps has that name");
        return Err(Error::usage(text).hint("give the step another name"));
    }
    let resources = resources(dag, node)?;
    let counted_by = node.counted_by.as_ref();
    let count = counted_by.map(|by| count(dag, node, by)).transpose()?;
    let mut own = vec![format!("--run={}", write(Piece::Value("run")))];
    if count.is_some() {
        let share = ["task-index", "task-count"];
        own.extend(share.map(|name| format!("--{name}={{{{inputs.parameters.{name}}}}}")));
    }
    let Arguments { mut words, files } = arguments(dag, node, own, write)?;
    words.extend(["--result", RESULT].map(str::to_owned));
    Ok(Task {
        name: &node.name,
        depends: node.after.join(" && "),
        count,
        class: &node.resources,
        cpus: resources.cpus,
        memory_mib: resources.memory_mib,
        program: &node.program,
        words: words.iter().map(|word| quote(word)).collect(),
        files,
    })
}

/// Returns the expression for the number of pods: one for each unit, at most `max-tasks`. A node
/// without units has one pod, which reports that.
fn count(dag: &Dag, node: &Node, counted_by: &CountedBy) -> Result<String> {
    let units = match counted_by {
        CountedBy::Step(step) => {
            format!(
                "jsonpath(tasks['{step}'].outputs.parameters.result, '$.fan_out.{}')",
                node.fan_out
            )
        }
        CountedBy::Value(text) => {
            let pieces = pieces(dag, text);
            let terms = pieces.iter().map(|piece| term(node, piece));
            let terms = terms.collect::<Result<Vec<_>>>()?;
            match terms.is_empty() {
                true => "'1'".to_owned(),
                false => format!("sprig.default('1', {})", terms.join(" + ")),
            }
        }
    };
    Ok(format!(
        "max(1, min(asInt(workflow.parameters['max-tasks']), asInt({units})))"
    ))
}

fn term(node: &Node, piece: &Piece<'_>) -> Result<String> {
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
    use crate::dag::engine::readers::{self, TEXTS, Values, expected, pipeline, string};

    #[test]
    fn every_text_reaches_the_program_unchanged() {
        for text in TEXTS {
            let yaml = argo(&pipeline(text)).unwrap();
            let default = string(&yaml, "- {name: \"mine\", value: ", "");
            let word = string(&yaml, "- ", "--text=");
            let word = readers::argo(&word, &Values::from([("mine".to_owned(), default)]));
            let mut variables = Values::from([("run".to_owned(), "x".to_owned())]);
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
        // Nothing needs it, so it is not there.
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
                    dag.steps[1].counted_by = Some(CountedBy::Value("${ranges}x".into()))
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
        let count = |by: CountedBy| count(&dag, &dag.steps[1], &by).unwrap();
        let most = "max(1, min(asInt(workflow.parameters['max-tasks']), asInt(";
        assert_eq!(
            count(CountedBy::Step("partition".into())),
            format!(
                "{most}jsonpath(tasks['partition'].outputs.parameters.result, '$.fan_out.partitions'))))"
            )
        );
        assert_eq!(
            count(CountedBy::Value("1${ranges}0".into())),
            format!("{most}sprig.default('1', '1' + workflow.parameters['ranges'] + '0'))))")
        );
        assert_eq!(
            count(CountedBy::Value(String::new())),
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
