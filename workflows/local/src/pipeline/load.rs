//! From a pipeline file to the nodes of its DAG.

use std::collections::{BTreeMap, BTreeSet};

use clap::Arg;
use sluice_manifest::{Error, Operation, Result, Role, StepName, UnitKind};
use toml::{Table, Value};

use super::file::{ParameterTable, PipelineFile};
use super::wire::{refuse_unread, wire};
use super::words::{self, references, words};
use super::{Parameter, ParameterValues, Pipeline, PipelineNode};
use crate::places::NearestNames;
use crate::programs::{PROGRAMS, StageProgram};

/// Flags that are set by the engine or derived from the order of the steps.
const RESERVED: [&str; 11] = [
    "run",
    "partitions",
    "task-index",
    "task-count",
    "jobs",
    "memory",
    "force",
    "result",
    "log-format",
    "step",
    "survivors-of",
];

/// Parameter names that engines reserve.
const ENGINES: [&str; 4] = ["run", "max-tasks", "tasks", "pipeline"];

/// The maximum number of steps in a pipeline.
const MOST_STEPS: usize = 500;

/// The substitute for a required parameter without a value. It is valid both as a number and as a
/// path.
pub(super) const UNSET: &str = "1";

/// A parsed step of the file.
pub(super) struct Step {
    pub(super) name: StepName,
    pub(super) program: &'static StageProgram,
    pub(super) settings: Table,
    pub(super) survivors_of: Option<StepName>,
}

impl Pipeline {
    /// Loads a pipeline file. The programs parse all resulting command lines.
    ///
    /// # Errors
    /// Usage, for unknown stages, flags, values and parameters, and for scores that no step
    /// computes.
    pub fn load(text: &str, name: &str, place: &str) -> Result<Self> {
        let wrong = |e: Error| e.within(place);
        let Unwired {
            file,
            steps,
            nodes,
            parameters,
        } = Unwired::of(text, place)?;
        let values = stand_ins(&parameters);
        let nodes = wire(nodes, &steps, &values).map_err(wrong)?;
        refuse_unread(&steps).map_err(wrong)?;
        let pipeline = Self {
            name: name.to_owned(),
            parameters,
            nodes,
            file,
        };
        let outputs = pipeline.refuse_shared_outputs(&pipeline.texts());
        outputs.map_err(wrong)?;
        Ok(pipeline)
    }

    /// Returns the default values, with a placeholder for each required parameter.
    fn texts(&self) -> ParameterValues {
        let mut values = self.defaults();
        for Parameter { name, default, .. } in &self.parameters {
            if default.is_none() {
                values.insert(name.clone(), vec![format!("${{{name}}}")]);
            }
        }
        values
    }

    /// Returns the default values of the parameters.
    pub fn defaults(&self) -> ParameterValues {
        let pairs = self.parameters.iter().filter_map(|parameter| {
            let default = parameter.default.as_ref().filter(|text| !text.is_empty())?;
            Some((parameter.name.clone(), vec![default.clone()]))
        });
        pairs.collect()
    }
}

/// A pipeline whose command lines have not been parsed yet.
struct Unwired {
    file: PipelineFile,
    steps: Vec<Step>,
    nodes: Vec<PipelineNode>,
    parameters: Vec<Parameter>,
}

impl Unwired {
    fn of(text: &str, place: &str) -> Result<Self> {
        let mut file = PipelineFile::parse(text, place)?;
        file.complete();
        let wrong = |e: Error| e.within(place);
        let steps = steps(&file).map_err(wrong)?;
        let mut nodes = Vec::new();
        for (index, step) in steps.iter().enumerate() {
            nodes.extend(nodes_of(step, &steps[..index]).map_err(wrong)?);
        }
        let parameters = parameters(&file, &nodes).map_err(wrong)?;
        Ok(Self {
            file,
            steps,
            nodes,
            parameters,
        })
    }
}

/// Returns the parameters of a pipeline file. It does not parse the rules in command lines, which
/// would need a thread with a large stack.
///
/// # Errors
/// Usage, for unknown stages, flags and parameters.
pub(super) fn parameters_of(text: &str, place: &str) -> Result<Vec<Parameter>> {
    Ok(Unwired::of(text, place)?.parameters)
}

/// Returns the default values, with substitutes for required parameters: enough to parse command
/// lines.
pub(super) fn stand_ins(parameters: &[Parameter]) -> ParameterValues {
    let value = |parameter: &Parameter| match &parameter.default {
        Some(default) => default.clone(),
        None => UNSET.to_owned(),
    };
    let pairs = parameters.iter().map(|p| (p.name.clone(), vec![value(p)]));
    pairs.collect()
}

fn steps(file: &PipelineFile) -> Result<Vec<Step>> {
    if file.steps.len() > MOST_STEPS {
        return Err(Error::usage(format!(
            "{} steps: a pipeline has at most {MOST_STEPS}",
            file.steps.len()
        )));
    }
    let mut steps: Vec<Step> = Vec::new();
    let mut last_decider = None;
    for (index, table) in file.steps.iter().enumerate() {
        let number = index + 1 - usize::from(file.has_added_first);
        let mut settings = table.clone();
        let mut text = |key: &str| match settings.remove(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(Error::usage(format!(
                "step {number}: {key} is {}, expected text",
                other.type_str()
            ))),
        };
        let stage = text("stage")?.ok_or_else(|| {
            Error::usage(format!("step {number} has no stage"))
                .hint("write stage = \"read\", for example")
        })?;
        let program = StageProgram::of_stage(&stage).ok_or_else(|| unknown_stage(&stage))?;
        let name = StepName::new(&text("name")?.unwrap_or(stage))?;
        let is_source = program.role == Role::Source;
        if is_source && name.as_str() != program.stage() {
            return Err(Error::usage(format!(
                "step {name}: this stage cannot be renamed"
            )));
        }
        if program.role == Role::Scorer {
            sluice_filter::refuse_reserved(&name)?;
        }
        if steps.iter().any(|step| step.name == name) {
            return Err(Error::usage(format!("two steps are named {name}"))
                .hint("give each its own name = \"…\""));
        }
        if !is_source && steps.iter().all(|step| step.name != StepName::read()) {
            return Err(if file.has_stage("read") {
                Error::usage(format!("step {name} comes before read"))
                    .hint("the steps begin with stage = \"read\"")
            } else {
                no_read()
            });
        }
        steps.push(Step {
            name: name.clone(),
            program,
            settings,
            survivors_of: last_decider.clone(),
        });
        if program.role == Role::Decider {
            last_decider = Some(name);
        }
    }
    if steps.iter().all(|step| step.name != StepName::read()) {
        return Err(no_read());
    }
    Ok(steps)
}

fn no_read() -> Error {
    Error::usage("the pipeline has no step of the stage read")
        .hint("every pipeline starts with it: [[steps]] stage = \"read\"")
}

fn unknown_stage(stage: &str) -> Error {
    let names: Vec<&str> = PROGRAMS.iter().map(StageProgram::stage).collect();
    let error = Error::usage(format!("unknown stage {stage:?}"));
    match nearest(stage, &names) {
        Some(near) => error.hint(format!(
            "did you mean {near}? The stages are {}",
            names.join(", ")
        )),
        None => error.hint(format!("the stages are {}", names.join(", "))),
    }
}

fn nearest(wanted: &str, names: &[&str]) -> Option<String> {
    let mut nearest = NearestNames::new(wanted, 1);
    names.iter().for_each(|name| nearest.offer(name));
    nearest.correction()
}

/// Returns the nodes of a step, one for each operation of its stage.
fn nodes_of(step: &Step, before: &[Step]) -> Result<Vec<PipelineNode>> {
    let mut used = BTreeSet::new();
    let mut nodes = Vec::new();
    for operation in step.program.operations {
        let command = step.program.command_of(operation);
        let args: Vec<&Arg> = command.get_arguments().collect();
        let arg_of = |flag: &str| args.iter().find(|arg| arg.get_long() == Some(flag));
        let mut arguments = automatic(step, operation, before, |flag| arg_of(flag).is_some());
        // In the order of the definition, not that of the file.
        for arg in &args {
            let Some(flag) = arg.get_long() else { continue };
            let Some(value) = step.settings.get(flag) else {
                continue;
            };
            if RESERVED.contains(&flag) {
                return Err(
                    Error::usage(format!("step {}: {flag} cannot be set", step.name))
                        .hint("the engine or the order of the steps sets it"),
                );
            }
            used.insert(flag.to_owned());
            arguments.extend(
                words(arg, value)
                    .map_err(|wrong| wrong.within(&format!("step {}: {flag}", step.name)))?,
            );
        }
        nodes.push(PipelineNode {
            name: match operation.subcommand {
                Some(subcommand) => format!("{}-{subcommand}", step.name),
                None => step.name.to_string(),
            },
            step: step.name.clone(),
            program: step.program,
            operation,
            arguments,
            after: Vec::new(),
        });
    }
    match step.settings.keys().find(|key| !used.contains(*key)) {
        Some(key) => Err(unknown_key(step, key)),
        None => Ok(nodes),
    }
}

fn unknown_key(step: &Step, key: &str) -> Error {
    let operations = step.program.operations.iter();
    let commands: Vec<clap::Command> = operations
        .map(|operation| step.program.command_of(operation))
        .collect();
    let flags = commands.iter().flat_map(clap::Command::get_arguments);
    let flags: BTreeSet<&str> = flags.filter_map(Arg::get_long).collect();
    let flags: Vec<&str> = flags
        .into_iter()
        .filter(|flag| !RESERVED.contains(flag))
        .collect();
    let name = step.program.name;
    let error = Error::usage(format!("step {}: {name} has no flag --{key}", step.name));
    let keys = flags.join(", ");
    error.hint(match nearest(key, &flags) {
        Some(near) => format!("did you mean {near}? The keys are {keys}"),
        None if flags.is_empty() => "it takes none".to_owned(),
        None => format!("the keys are {keys}"),
    })
}

/// Returns the words that are derived from the order of the steps.
fn automatic(
    step: &Step,
    operation: &Operation,
    before: &[Step],
    has: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut arguments = Vec::new();
    let is_free = |flag: &str| has(flag) && !step.settings.contains_key(flag);
    if has("step") && step.name.as_str() != step.program.stage() {
        arguments.push(format!("--step={}", step.name));
    }
    if let Some(decider) = &step.survivors_of
        && has("survivors-of")
        && operation.unit != UnitKind::Report
    {
        arguments.push(format!("--survivors-of={decider}"));
    }
    let of_role = |role: Role| before.iter().filter(move |step| step.program.role == role);
    if let Some(encoder) = of_role(Role::Encoder).next_back()
        && is_free("embeddings")
        && step.program.role != Role::Sink
    {
        arguments.push(format!("--embeddings={}", encoder.name));
    }
    let scorers: Vec<&str> = of_role(Role::Scorer)
        .map(|step| step.name.as_str())
        .collect();
    if !scorers.is_empty() && is_free("scores") && step.program.role == Role::Sink {
        arguments.push(format!("--scores={}", scorers.join(",")));
    }
    if is_free("models") {
        arguments.push("--models=${models}".to_owned());
    }
    arguments
}

fn parameters(file: &PipelineFile, nodes: &[PipelineNode]) -> Result<Vec<Parameter>> {
    let mut declared: BTreeMap<String, ParameterTable> = BTreeMap::new();
    for (name, value) in &file.parameters {
        let table = match value {
            Value::String(_) | Value::Integer(_) | Value::Float(_) => ParameterTable {
                default: words::scalar(value).ok(),
                ..ParameterTable::default()
            },
            Value::Table(table) => table.clone().try_into().map_err(|e| {
                Error::usage(format!("parameter {name}: {e}"))
                    .hint("a parameter has default, value, help, type, min and section")
            })?,
            other => {
                return Err(Error::usage(format!(
                    "parameter {name} is {}, expected text or a table",
                    other.type_str()
                )));
            }
        };
        check_type(name, &table)?;
        StepName::new(name).map_err(|_| {
            Error::usage(format!("parameter {name:?} is not a valid name"))
                .hint("use lower-case letters, digits and '-', a letter first")
        })?;
        if ENGINES.contains(&name.as_str()) {
            return Err(Error::usage(format!(
                "parameter {name}: the workflow engines reserve this name"
            )));
        }
        declared.insert(name.clone(), table);
    }
    // These belong to every pipeline that uses them, without a declaration.
    for (name, default, section) in [
        ("input", None, None),
        ("output", None, None),
        ("models", Some(""), Some("Models")),
    ] {
        declared.entry(name.to_owned()).or_insert(ParameterTable {
            default: default.map(str::to_owned),
            section: section.map(str::to_owned),
            ..ParameterTable::default()
        });
    }
    let all_words = || nodes.iter().flat_map(|node| &node.arguments);
    for name in all_words().flat_map(|word| references(word)) {
        if !declared.contains_key(name) {
            return Err(
                Error::usage(format!("${{{name}}}: there is no such parameter"))
                    .hint("declare it under [parameters], with its default"),
            );
        }
    }
    let is_used = |name: &str| all_words().any(|word| references(word).contains(&name));
    if let Some(unused) = file.parameters.keys().find(|name| !is_used(name)) {
        return Err(Error::usage(format!(
            "parameter {unused} is not used by any step"
        )));
    }
    let used = declared.into_iter().filter(|(name, _)| is_used(name));
    let commands: Vec<(&PipelineNode, clap::Command)> = nodes
        .iter()
        .map(|node| (node, node.program.command_of(node.operation)))
        .collect();
    let mut parameters: Vec<Parameter> = used
        .map(|(name, table)| parameter(name, table, &commands))
        .collect();
    for parameter in &parameters {
        parameter.check(parameter.default.as_deref().unwrap_or_default())?;
    }
    let order = file_order(file, nodes);
    parameters.sort_by_key(|parameter| order.iter().position(|name| *name == parameter.name));
    Ok(parameters)
}

fn check_type(name: &str, table: &ParameterTable) -> Result<()> {
    match (table.min, table.kind) {
        (Some(_), None) => Err(
            Error::usage(format!("parameter {name}: min without a type"))
                .hint("write type = \"integer\" or type = \"number\""),
        ),
        _ => Ok(()),
    }
}

/// Returns the names of the parameters: required ones first, then in the order in which the steps
/// use them.
fn file_order(file: &PipelineFile, nodes: &[PipelineNode]) -> Vec<String> {
    let built_in = ["input", "output"].map(str::to_owned);
    let words = nodes.iter().flat_map(|node| &node.arguments);
    let used = words.flat_map(|word| references(word)).map(str::to_owned);
    let required = file.parameters.iter().filter(|(_, value)| {
        value
            .as_table()
            .is_some_and(|table| !table.contains_key("default"))
    });
    let required = required.map(|(name, _)| name.clone());
    built_in.into_iter().chain(required).chain(used).collect()
}

/// Completes a parameter from the definition of the flag that it fills alone.
fn parameter(
    name: String,
    table: ParameterTable,
    commands: &[(&PipelineNode, clap::Command)],
) -> Parameter {
    let filled = commands.iter().find_map(|(node, command)| {
        let arg = command.get_arguments().find(|arg| {
            let flag = arg.get_long().unwrap_or_default();
            let word = format!("--{flag}=${{{name}}}");
            node.arguments.contains(&word)
        });
        arg.cloned()
    });
    let help = filled
        .as_ref()
        .and_then(|arg| Some(arg.get_help()?.to_string()));
    let value = filled.as_ref().and_then(|arg| {
        let names = arg.get_value_names()?;
        let name = names.first()?.to_string();
        Some(if name == "true" { String::new() } else { name })
    });
    let many = filled.as_ref().is_some_and(|arg| {
        let range = arg.get_num_args();
        range.is_some_and(|range| range.max_values() > 1) && arg.get_value_delimiter().is_none()
    });
    Parameter {
        value: table
            .value
            .unwrap_or_else(|| value.unwrap_or_else(|| "TEXT".to_owned())),
        help: (table.help.or(help)).unwrap_or_else(|| format!("Parameter {name} of the pipeline")),
        default: table.default,
        kind: table.kind,
        min: table.min,
        section: table.section,
        many,
        name,
    }
}
