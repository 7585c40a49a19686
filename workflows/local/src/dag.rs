//! The DAG of a pipeline, which `sluice dag` prints as JSON or as the files of a workflow engine.

mod argo;
mod engine;
mod kubernetes;

use std::collections::BTreeMap;

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use sluice_harness::ToolContext;
use sluice_manifest as manifest;
use sluice_manifest::retry;

use crate::pipeline::commands::{Given, Parameters};
use crate::pipeline::{self, Pipeline};

/// A pipeline as the nodes that an engine runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dag {
    /// The pipeline's name.
    pub name: String,
    /// The parameters that a user sets for a run, the same for every engine.
    pub parameters: Vec<DagParameter>,
    /// The nodes in topological order: each comes after the nodes that it waits for.
    pub steps: Vec<DagNode>,
    /// CPUs and memory of each class of nodes.
    pub resources: BTreeMap<String, PodResources>,
    /// How a failed task is retried.
    pub retry: Retry,
}

/// A parameter of a pipeline. `run` is not in the list: every node has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DagParameter {
    /// The name. `${name}` in [`DagNode::arguments`] is a placeholder for the value.
    pub name: String,
    /// The environment variable that sets it in `sluice run`.
    pub variable: String,
    /// The metavariable of the value, in capitals; empty for a switch.
    pub value: String,
    /// Whether its value is `true` or `false`.
    pub switch: bool,
    /// The default value.
    pub default: Option<String>,
    /// Whether a value must be given.
    pub required: bool,
    /// Whether it takes any number of values.
    pub many: bool,
    /// The help text, one line.
    pub help: String,
    /// The heading under which forms list it. `None` is the first heading.
    pub section: Option<String>,
}

/// A node of the DAG: a step, or one subcommand of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DagNode {
    /// The name in the DAG.
    pub name: String,
    /// The step, whose name is also its directory in the run.
    pub step: String,
    /// The step's stage.
    pub stage: String,
    /// What the node does, in one line for people.
    #[serde(default)]
    pub about: String,
    /// The program, `sluice-<stage>`.
    pub program: String,
    /// The program's subcommand.
    pub subcommand: Option<String>,
    /// Options of the command line, one word each. The engine adds `--run`, `--task-index`,
    /// `--task-count` and `--result`.
    pub arguments: Vec<String>,
    /// The kind of unit that one task processes; `one` for a node that runs once.
    pub fan_out: String,
    /// The source of the number of units; `None` for a node that runs once.
    pub counted_by: Option<UnitCount>,
    /// The class of resources, a key of [`Dag::resources`].
    pub resources: String,
    /// The nodes that it waits for.
    pub after: Vec<String>,
}

/// The source of the number of units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnitCount {
    /// The result of this node, in the field `fan_out.<fan_out>`.
    Step(String),
    /// This text, which is a number once its parameters are substituted. An empty text counts as 1.
    Value(String),
}

/// The resource requests of one pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodResources {
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
    /// Seconds before the first retry. The wait doubles with each further retry.
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

    /// The format of the output
    #[arg(long, env = "SLUICE_FORMAT", value_enum, default_value_t)]
    pub format: DagFormat,

    /// Values that become the defaults of the DAG's parameters
    #[command(flatten)]
    pub parameters: Parameters,
}

/// A form of the DAG.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum DagFormat {
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
/// Returns a usage error when the pipeline cannot be loaded.
pub fn dag(args: &DagArgs, tool: &mut ToolContext<'_>) -> Result<()> {
    let file = args.pipeline.as_deref();
    let mut pipeline = pipeline::open(&tool.shared.storage, file)?;
    let given = args.parameters.elsewhere(&pipeline, file)?;
    let storage = &tool.shared.storage;
    let attempt = |given: &[Given]| pipeline::open(storage, file)?.preset(given);
    let preset = pipeline.preset(&given);
    preset.map_err(|e| args.parameters.name_culprit(e, &given, attempt))?;
    if args.format != DagFormat::Json {
        for warning in engine::needs_of_image(&pipeline) {
            writeln!(tool.err, "sluice: warning: {warning}")?;
        }
    }
    let dag = Dag::of(&pipeline);
    write!(tool.out, "{}", args.format.print(&dag)?)?;
    Ok(())
}

impl DagFormat {
    /// Returns a DAG in this form.
    ///
    /// # Errors
    /// Fails when the DAG cannot be serialised, which is a bug.
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
            (class.as_str().to_owned(), PodResources { cpus, memory_mib })
        });
        Self {
            name: pipeline.name.clone(),
            parameters: pipeline.parameters.iter().map(DagParameter::of).collect(),
            steps: pipeline
                .nodes
                .iter()
                .map(|node| DagNode::of(node, pipeline))
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

impl DagParameter {
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

fn about(node: &pipeline::PipelineNode) -> String {
    let command = node.program.command_of(node.operation);
    let about = command.get_about().map(ToString::to_string);
    about.unwrap_or_default()
}

impl DagNode {
    fn of(node: &pipeline::PipelineNode, pipeline: &Pipeline) -> Self {
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
                manifest::CountedBy::Partition => Some(UnitCount::Step("partition".to_owned())),
                manifest::CountedBy::Flag(flag) => {
                    Some(UnitCount::Value(node.argument(flag).to_owned()))
                }
                manifest::CountedBy::Subcommand(name) => Some(UnitCount::Step(own(name))),
            },
            resources: operation.resources.as_str().to_owned(),
            after: node.after.clone(),
        }
    }
}
