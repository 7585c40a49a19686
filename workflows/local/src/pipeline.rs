//! Pipelines: the steps of a run with their order and settings, as a TOML file.
//!
//! [`file`] reads the file. [`load`] turns it into nodes: a command line for each step, or for each
//! active subcommand of a step. [`wire`] finds the dependencies between nodes. [`words`] turns
//! values into words of a command line. The keys of a step are its program's flags, taken from the
//! definition of the program's command line.

pub mod commands;
pub mod file;
pub mod load;
mod wire;
pub mod words;

use sluice_manifest::{CountedBy, Error, Operation, Result, StepName};
use sluice_run::{ReferenceUse, Upstream, refuse_overlap};
use sluice_store::{Location, Storage};

use crate::programs::StageProgram;

pub use self::file::{DEFAULT, ParameterKind, PipelineFile};
pub use self::words::ParameterValues;

/// The default pipeline's name.
const DEFAULT_NAME: &str = "curate";

/// The maximum size of a pipeline file in bytes.
const MOST_BYTES: u64 = 1 << 20;

/// Loads a pipeline file; without one, the default pipeline.
///
/// # Errors
/// Usage, when there is no such file or it cannot be loaded.
pub fn open(storage: &Storage, uri: Option<&str>) -> Result<Pipeline> {
    let Some(uri) = uri else {
        return default();
    };
    let location = Location::parse(uri)?;
    let missing = || {
        Error::usage(format!("--pipeline {uri}: no such file"))
            .hint("`sluice pipeline show` prints the default pipeline, to start from")
    };
    let refused = |what: &str| {
        Error::usage(format!("--pipeline {uri}: {what}"))
            .hint(format!("a pipeline file has at most {MOST_BYTES} bytes"))
    };
    let (folder, file) = location.split().ok_or_else(missing)?;
    if location
        .as_local()
        .is_some_and(|path| path.exists() && !path.is_file())
    {
        return Err(refused("not a regular file"));
    }
    let store = storage.open_if_there(&folder)?.ok_or_else(missing)?;
    let info = store.stat(&file)?.ok_or_else(missing)?;
    if info.bytes > MOST_BYTES {
        return Err(refused("too large for a pipeline file"));
    }
    let text = store.get_if_there(&file)?.ok_or_else(missing)?;
    let text = std::str::from_utf8(&text).map_err(|e| Error::usage(format!("{uri}: {e}")))?;
    let stem = file.strip_suffix(".toml").unwrap_or(&file);
    Pipeline::load(text, &valid_name(stem), uri)
}

/// Loads the default pipeline.
///
/// # Errors
/// The errors of any other pipeline.
pub fn default() -> Result<Pipeline> {
    Pipeline::load(DEFAULT, DEFAULT_NAME, "the default pipeline")
}

/// Returns the parameters of the default pipeline.
///
/// # Errors
/// Returns a bug error when the default pipeline has a mistake.
fn default_parameters() -> Result<Vec<Parameter>> {
    load::parameters_of(DEFAULT, "the default pipeline")
}

/// Returns a file's name as a name that engines accept.
fn valid_name(stem: &str) -> String {
    let lower = stem.to_lowercase();
    let name: String = lower
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let name: String = name.trim_matches('-').chars().take(40).collect();
    if name.starts_with(|c: char| c.is_ascii_lowercase()) {
        name.trim_end_matches('-').to_owned()
    } else {
        format!("pipeline-{name}").trim_end_matches('-').to_owned()
    }
}

/// A pipeline file with its nodes, whose command lines have been parsed.
pub struct Pipeline {
    /// Its name: the file's, without the extension.
    pub name: String,
    /// The parameters that a user can set for a run.
    pub parameters: Vec<Parameter>,
    /// The nodes in topological order: each comes after the nodes that it waits for.
    pub nodes: Vec<PipelineNode>,
    /// The parsed file.
    pub file: PipelineFile,
}

impl Pipeline {
    /// Checks everything that can be known before the work: models, thresholds, rules, locations.
    /// Skips nodes with a required parameter that has no value.
    ///
    /// # Errors
    /// Returns the error of the first node that could not run.
    pub fn check(
        &self,
        storage: &Storage,
        run: &str,
        values: &ParameterValues,
    ) -> anyhow::Result<()> {
        self.refuse_shared_outputs(values)?;
        let nodes = self
            .nodes
            .iter()
            .filter(|node| !self.is_unset(node, values));
        let commands: Vec<(&PipelineNode, Vec<String>)> = nodes
            .map(|node| (node, node.command(run, values)))
            .collect();
        let within =
            |node: &PipelineNode, e: anyhow::Error| e.context(format!("step {}", node.step));
        // All flags first, which is fast. Reading a model's spec may be slow.
        for (node, command) in &commands {
            node.parse(command)?;
        }
        let mut upstream = Upstream::new(storage.clone());
        let mut references: Vec<ReferenceUse> = Vec::new();
        for (node, command) in &commands {
            if let Some(input) =
                (node.program.input)(command, storage).map_err(|e| within(node, e))?
            {
                upstream.input = Some(input);
            }
            let gives = (node.program.check)(command, &upstream).map_err(|e| within(node, e))?;
            references.extend(gives.references.iter().cloned());
            if gives != sluice_run::StepOutputs::default() {
                upstream.insert(node.step.clone(), gives);
            }
        }
        Ok(refuse_unused(&references)?)
    }

    /// Sets a switch of every program that has it.
    pub fn switch_on(&mut self, flag: &str) {
        let word = format!("--{flag}");
        for node in &mut self.nodes {
            let command = node.program.command_of(node.operation);
            let has_flag = command
                .get_arguments()
                .any(|arg| arg.get_long() == Some(flag));
            if has_flag && !node.arguments.contains(&word) {
                node.arguments.push(word.clone());
            }
        }
    }

    /// Returns the nodes whose command lines contain a parameter.
    pub fn nodes_with<'p>(&'p self, parameter: &'p str) -> impl Iterator<Item = &'p PipelineNode> {
        let nodes = self.nodes.iter();
        nodes.filter(move |node| node.reads(parameter))
    }

    /// Whether a node has a required parameter without a value.
    fn is_unset(&self, node: &PipelineNode, values: &ParameterValues) -> bool {
        self.missing(values)
            .any(|parameter| node.reads(&parameter.name))
    }

    /// Makes the given values the parameters' defaults.
    ///
    /// # Errors
    /// Usage, when a parameter or a program does not accept one.
    pub fn preset(&mut self, given: &[(String, Vec<String>)]) -> anyhow::Result<()> {
        self.values(given)?;
        for (name, values) in given {
            let mut parameters = self.parameters.iter_mut();
            if let Some(parameter) = parameters.find(|parameter| parameter.name == *name) {
                parameter.default = Some(values.join("\n"));
            }
        }
        let values = load::stand_ins(&self.parameters);
        let mut nodes = self.nodes.iter();
        nodes.try_for_each(|node| node.parse(&node.command("memory://check", &values)))
    }

    /// Returns the required parameters without a value.
    pub fn missing<'p>(
        &'p self,
        values: &'p ParameterValues,
    ) -> impl Iterator<Item = &'p Parameter> {
        let parameters = self.parameters.iter();
        parameters.filter(|p| p.default.is_none() && !values.contains_key(&p.name))
    }

    /// Refuses exports that would write into each other's output.
    ///
    /// # Errors
    /// Usage, with the names of the steps.
    fn refuse_shared_outputs(&self, values: &ParameterValues) -> Result<()> {
        let mut outputs: Vec<(String, Location)> = Vec::new();
        for node in &self.nodes {
            let words = words::substitute(&node.arguments, values);
            let output = words.iter().find_map(|word| word.strip_prefix("--output="));
            let Some(output) = output else { continue };
            let (place, name) = (Location::parse(output)?, format!("step {}:", node.step));
            for (other, theirs) in &outputs {
                refuse_overlap((&name, &place), (other, theirs))?;
            }
            outputs.push((name, place));
        }
        Ok(())
    }

    /// Returns the values of the parameters: the defaults, replaced by the given values.
    ///
    /// # Errors
    /// Usage, when the pipeline does not have a given parameter.
    pub fn values(&self, given: &[(String, Vec<String>)]) -> Result<ParameterValues> {
        let mut values = self.defaults();
        for (name, given) in given {
            let parameter = self.parameters.iter().find(|p| p.name == *name);
            let parameter = parameter.ok_or_else(|| {
                let names: Vec<&str> = self.parameters.iter().map(|p| p.name.as_str()).collect();
                Error::usage(format!(
                    "the pipeline {} has no parameter {name}",
                    self.name
                ))
                .hint(format!("its parameters are {}", names.join(", ")))
            })?;
            if given.len() > 1 && !parameter.many {
                return Err(Error::usage(format!("parameter {name} takes one value")));
            }
            given.iter().try_for_each(|value| parameter.check(value))?;
            values.insert(name.clone(), given.clone());
        }
        Ok(values)
    }
}

/// A parameter. `${name}` is a placeholder for its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// The metavariable of the value, in capitals; empty for a switch.
    pub value: String,
    /// The default value; `None` if the parameter is required.
    pub default: Option<String>,
    /// Whether it can have several values.
    pub many: bool,
    /// The help text, one line.
    pub help: String,
    /// The type of its values; `None` for any text.
    pub kind: Option<ParameterKind>,
    /// The lower bound of a number.
    pub min: Option<f64>,
    /// The heading under which the help and forms list it. `None` is the first heading.
    pub section: Option<String>,
}

impl Parameter {
    /// Checks a value against the type. An empty value counts as absent.
    ///
    /// # Errors
    /// Returns a usage error when it does not fit.
    pub fn check(&self, value: &str) -> Result<()> {
        let Some(kind) = self.kind.filter(|_| !value.is_empty()) else {
            return Ok(());
        };
        let number = kind.number(value);
        if number.is_some_and(|number| self.min.is_none_or(|min| number >= min)) {
            return Ok(());
        }
        let what = match kind {
            ParameterKind::Integer => "a whole number",
            ParameterKind::Number => "a number",
        };
        let least = self
            .min
            .map_or_else(String::new, |min| format!(" of at least {min}"));
        Err(Error::usage(format!(
            "parameter {}: expected {what}{least}, got {value:?}",
            self.name
        )))
    }

    /// Whether its value is `true` or `false`.
    pub fn is_switch(&self) -> bool {
        self.value.is_empty()
    }

    /// Returns the environment variable that sets it.
    pub fn variable(&self) -> String {
        format!("SLUICE_{}", self.name.replace('-', "_").to_uppercase())
    }
}

/// Refuses reference sets that no step compares with.
fn refuse_unused(references: &[ReferenceUse]) -> Result<()> {
    for ReferenceUse { set, .. } in references {
        let of_set = || references.iter().filter(|one| one.set == *set);
        if of_set().any(|one| one.unused.is_none()) {
            continue;
        }
        // The reason of a step that could compare with such a set comes first.
        let reason = of_set().max_by_key(|one| one.is_lacking);
        let why = reason.and_then(|one| one.unused.as_deref());
        let hint = reason.and_then(|one| one.hint.as_deref());
        return Err(Error::usage(format!(
            "{set}: no step compares with it: {}",
            why.unwrap_or_default()
        ))
        .hint(hint.unwrap_or_default()));
    }
    Ok(())
}

/// A step, or one subcommand of a step.
pub struct PipelineNode {
    /// Its name in the DAG.
    pub name: String,
    /// The step.
    pub step: StepName,
    /// The stage's program.
    pub program: &'static StageProgram,
    /// The operation of the stage that it runs.
    pub operation: &'static Operation,
    /// The options of the command line, with placeholders for parameters.
    pub arguments: Vec<String>,
    /// The nodes that it waits for.
    pub after: Vec<String>,
}

impl PipelineNode {
    /// Returns the command line with the values of the parameters.
    pub fn command(&self, run: &str, values: &ParameterValues) -> Vec<String> {
        let mut line = vec![self.program.name.to_owned()];
        line.extend(self.operation.subcommand.map(str::to_owned));
        line.push(format!("--run={run}"));
        line.extend(words::substitute(&self.arguments, values));
        line
    }

    /// Checks that the program accepts a command line.
    fn parse(&self, command: &[String]) -> anyhow::Result<()> {
        let wiring = (self.program.wiring)(command);
        wiring
            .map(drop)
            .map_err(|e| e.context(format!("step {}", self.step)))
    }

    /// Whether its command line contains a parameter.
    fn reads(&self, parameter: &str) -> bool {
        let mut words = self.arguments.iter();
        words.any(|word| words::references(word).contains(&parameter))
    }

    /// Returns the source of the number of its units.
    pub fn counted_by(&self) -> CountedBy {
        self.operation.unit.fan_out().counted_by()
    }

    /// Returns the text of a flag's value; empty if the flag is not given.
    pub fn argument(&self, flag: &str) -> &str {
        let words = self.arguments.iter();
        let mut values = words.filter_map(|word| {
            let (name, value) = word.strip_prefix("--")?.split_once('=')?;
            (name == flag).then_some(value)
        });
        values.next().unwrap_or_default()
    }
}
