//! The DAG of a pipeline, as `sluice dag` prints it: as JSON, or as the files of an engine.

mod argo;
mod engine;
mod kubernetes;

use std::collections::BTreeMap;

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use sluice_harness::Desk;
use sluice_manifest as manifest;
use sluice_manifest::retry;

use crate::pipeline::commands::{Given, Parameters};
use crate::pipeline::{self, Pipeline};

/// A pipeline as the nodes that an engine runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dag {
    /// The pipeline's name.
    pub name: String,
    /// What a user sets for a run, whichever engine it is.
    pub parameters: Vec<Parameter>,
    /// The nodes, each after those that it waits for.
    pub steps: Vec<Node>,
    /// CPUs and memory of each class of nodes.
    pub resources: BTreeMap<String, Resources>,
    /// How a failed task is retried.
    pub retry: Retry,
}

/// A parameter of a pipeline. `run` is not among them: every node has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter {
    /// Its name: `${name}` stands for its value in [`Node::arguments`].
    pub name: String,
    /// The environment variable that sets it in `sluice run`.
    pub variable: String,
    /// What its value is, in capitals; empty for a switch.
    pub value: String,
    /// Whether its value is `true` or `false`.
    pub switch: bool,
    /// Its value when none is given.
    pub default: Option<String>,
    /// Whether a value must be given.
    pub required: bool,
    /// Whether it takes any number of values.
    pub many: bool,
    /// One line about it.
    pub help: String,
    /// The heading that forms list it under; none: the first one.
    pub section: Option<String>,
}

/// What an engine runs: a step, or one subcommand of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name in the DAG.
    pub name: String,
    /// The step, which is the directory in the run.
    pub step: String,
    /// The step's stage.
    pub stage: String,
    /// What it does, one line for people.
    #[serde(default)]
    pub about: String,
    /// The program, `sluice-<stage>`.
    pub program: String,
    /// The program's subcommand.
    pub subcommand: Option<String>,
    /// Options of the command line, whole words. The engine adds `--run`, `--task-index`,
    /// `--task-count` and `--result`.
    pub arguments: Vec<String>,
    /// What one task is for: `one` for a node that runs once.
    pub fan_out: String,
    /// Where the number of units is found; none for a node that runs once.
    pub counted_by: Option<CountedBy>,
    /// The class of resources, a key of [`Dag::resources`].
    pub resources: String,
    /// The nodes that it waits for.
    pub after: Vec<String>,
}

/// Where the number of units is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CountedBy {
    /// In the result of this node, as `fan_out.<fan_out>`.
    Step(String),
    /// This text, a number once its parameters have values; 1 where it is empty.
    Value(String),
}

/// Resources of one pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
}

/// How a failed task is retried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Retries after the first attempt.
    pub limit: u32,
    /// Seconds before the first retry; each further one waits twice as long.
    pub first_seconds: u32,
    /// The longest wait in seconds.
    pub longest_seconds: u32,
    /// Exit codes that are retried.
    pub exit_codes: Vec<u8>,
}

/// Print a pipeline's DAG: as JSON, or as the files of a workflow engine
///
/// Example: sluice dag --pipeline mine.toml --format argo
#[derive(Debug, Args)]
pub struct DagArgs {
    /// The pipeline file (default: the default pipeline)
    #[arg(long, env = "SLUICE_PIPELINE", value_name = "URI")]
    pub pipeline: Option<String>,

    /// What is printed
    #[arg(long, env = "SLUICE_FORMAT", value_enum, default_value_t)]
    pub format: Format,

    /// Values that become the defaults of the DAG's parameters
    #[command(flatten)]
    pub parameters: Parameters,
}

/// A form of the DAG.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// JSON, for Airflow and other tools
    #[default]
    Json,
    /// A WorkflowTemplate of Argo Workflows
    Argo,
    /// A ConfigMap and one Job for each node, for Kubernetes alone
    Kubernetes,
}

/// Prints the DAG.
///
/// # Errors
/// Usage, when the pipeline cannot be loaded.
pub fn dag(args: &DagArgs, desk: &mut Desk<'_>) -> Result<()> {
    let file = args.pipeline.as_deref();
    let mut pipeline = pipeline::open(&desk.shared.storage, file)?;
    let given = args.parameters.elsewhere(&pipeline, file)?;
    let storage = &desk.shared.storage;
    let attempt = |given: &[Given]| pipeline::open(storage, file)?.preset(given);
    let preset = pipeline.preset(&given);
    preset.map_err(|e| args.parameters.name_culprit(e, &given, attempt))?;
    if args.format != Format::Json {
        for warning in engine::needs_of_image(&pipeline) {
            writeln!(desk.err, "sluice: warning: {warning}")?;
        }
    }
    let dag = Dag::of(&pipeline);
    write!(desk.out, "{}", args.format.print(&dag)?)?;
    Ok(())
}

impl Format {
    /// Returns a DAG in this form.
    ///
    /// # Errors
    /// When it cannot be serialised: a bug.
    pub fn print(self, dag: &Dag) -> Result<String> {
        match self {
            Self::Json => Ok(serde_json::to_string_pretty(dag)? + "\n"),
            Self::Argo => Ok(argo::argo(dag)?),
            Self::Kubernetes => Ok(kubernetes::kubernetes(dag)?),
        }
    }
}

impl Dag {
    /// Returns the DAG of a pipeline.
    pub fn of(pipeline: &Pipeline) -> Self {
        let classes = manifest::Resources::ALL.into_iter().map(|class| {
            let (cpus, memory_mib) = class.requests();
            (class.as_str().to_owned(), Resources { cpus, memory_mib })
        });
        Self {
            name: pipeline.name.clone(),
            parameters: pipeline.parameters.iter().map(Parameter::of).collect(),
            steps: pipeline
                .nodes
                .iter()
                .map(|node| Node::of(node, pipeline))
                .collect(),
            resources: classes.collect(),
            retry: Retry {
                limit: retry::LIMIT,
                first_seconds: retry::FIRST_SECONDS,
                longest_seconds: retry::LONGEST_SECONDS,
                exit_codes: retry::EXIT_CODES.to_vec(),
            },
        }
    }
}

impl Parameter {
    fn of(parameter: &pipeline::Parameter) -> Self {
        Self {
            name: parameter.name.clone(),
            variable: parameter.variable(),
            value: parameter.value.clone(),
            switch: parameter.is_switch(),
            required: parameter.default.is_none(),
            default: parameter.default.clone(),
            many: parameter.many,
            help: parameter.help.clone(),
            section: parameter.section.clone(),
        }
    }
}

fn about(node: &pipeline::Node) -> String {
    let command = node.program.command_of(node.operation);
    let about = command.get_about().map(ToString::to_string);
    about.unwrap_or_default()
}

impl Node {
    fn of(node: &pipeline::Node, pipeline: &Pipeline) -> Self {
        let operation = node.operation;
        let own = |subcommand: &str| {
            let nodes = pipeline
                .nodes
                .iter()
                .filter(|other| other.step == node.step);
            let mut nodes = nodes.filter(|o| o.operation.subcommand == Some(subcommand));
            nodes
                .next()
                .map_or_else(String::new, |node| node.name.clone())
        };
        Self {
            name: node.name.clone(),
            step: node.step.to_string(),
            stage: node.program.stage().to_owned(),
            about: about(node),
            program: node.program.name.to_owned(),
            subcommand: operation.subcommand.map(str::to_owned),
            arguments: node.arguments.clone(),
            fan_out: operation.unit.fan_out().as_str().to_owned(),
            counted_by: match node.counted_by() {
                manifest::CountedBy::One => None,
                manifest::CountedBy::Partition => Some(CountedBy::Step("partition".to_owned())),
                manifest::CountedBy::Flag(flag) => {
                    Some(CountedBy::Value(node.argument(flag).to_owned()))
                }
                manifest::CountedBy::Subcommand(name) => Some(CountedBy::Step(own(name))),
            },
            resources: operation.resources.as_str().to_owned(),
            after: node.after.clone(),
        }
    }
}
