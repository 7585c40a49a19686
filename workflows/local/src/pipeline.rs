//! Pipelines: which steps run, in which order and with which settings, as a TOML file.
//!
//! [`file`] reads the file, [`load`] makes nodes of it (a command line for each step, or for each
//! active subcommand of a step, and what it waits for), [`words`] turns values into words of a command
//! line. The keys of a step are its program's flags, taken from the program's own definition.

pub mod commands;
pub mod file;
pub mod load;
pub mod words;

use sluice_harness::Upstream;
use sluice_manifest::{CountedBy, Error, Operation, Result, StepName};
use sluice_store::{Location, Store};

use crate::programs::StageProgram;

pub use self::file::{DEFAULT, PipelineFile};
pub use self::words::Values;

/// The default pipeline's name.
const DEFAULT_NAME: &str = "curate";

/// Loads a pipeline file; without one, the default pipeline.
///
/// # Errors
/// Usage, when there is no such file or it cannot be loaded.
pub fn open(uri: Option<&str>) -> Result<Pipeline> {
    let Some(uri) = uri else {
        return Pipeline::load(DEFAULT, DEFAULT_NAME, "the default pipeline");
    };
    let location = Location::parse(uri)?;
    let missing = || {
        Error::usage(format!("--pipeline {uri}: no such file"))
            .hint("`sluice pipeline show` prints the default pipeline, to start from")
    };
    let (folder, file) = location.split().ok_or_else(missing)?;
    let store = Store::open(&folder).map_err(|_| missing())?;
    let text = store.get_if_there(&file)?.ok_or_else(missing)?;
    let text = std::str::from_utf8(&text).map_err(|e| Error::usage(format!("{uri}: {e}")))?;
    let stem = file.strip_suffix(".toml").unwrap_or(&file);
    Pipeline::load(text, &valid_name(stem), uri)
}

/// Returns a file's name as a name that engines accept.
fn valid_name(stem: &str) -> String {
    let lower = stem.to_lowercase();
    let name: String = lower
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let name: String = name.trim_matches('-').chars().take(40).collect();
    match name.starts_with(|c: char| c.is_ascii_lowercase()) {
        true => name.trim_end_matches('-').to_owned(),
        false => format!("pipeline-{name}").trim_end_matches('-').to_owned(),
    }
}

/// A pipeline that was loaded.
pub struct Pipeline {
    /// Its name: the file's, without the extension.
    pub name: String,
    /// What a user can set for a run.
    pub parameters: Vec<Parameter>,
    /// The nodes, each after those that it waits for.
    pub nodes: Vec<Node>,
    /// The file.
    pub file: PipelineFile,
}

impl Pipeline {
    /// Checks all that can be known before the work: models, thresholds, rules, places. Nodes of which
    /// a required parameter has no value are left out.
    ///
    /// # Errors
    /// Of the first node that could not work.
    pub fn check(&self, run: &str, values: &Values) -> anyhow::Result<()> {
        let nodes = self
            .nodes
            .iter()
            .filter(|node| self.unset(node, values).is_none());
        let commands: Vec<(&Node, Vec<String>)> = nodes
            .map(|node| (node, node.command(run, values)))
            .collect();
        let within = |node: &Node, e: anyhow::Error| e.context(format!("step {}", node.step));
        // All flags first: that takes no time, and a look at a model may take some.
        for (node, command) in &commands {
            (node.program.wiring)(command).map_err(|e| within(node, e))?;
        }
        let mut upstream = Upstream::default();
        for (node, command) in &commands {
            let gives = (node.program.check)(command, &upstream).map_err(|e| within(node, e))?;
            if gives != sluice_harness::Gives::default() {
                upstream.insert(node.step.clone(), gives);
            }
        }
        Ok(())
    }

    /// Returns a parameter of a node that must be given and was not.
    fn unset(&self, node: &Node, values: &Values) -> Option<&Parameter> {
        let names = node
            .arguments
            .iter()
            .flat_map(|word| words::references(word));
        let mut parameters = names.filter_map(|name| {
            self.parameters
                .iter()
                .find(|parameter| parameter.name == name)
        });
        parameters.find(|p| p.default.is_none() && !values.contains_key(&p.name))
    }

    /// Returns the values of the parameters: defaults, and what was given for them.
    ///
    /// # Errors
    /// Usage, when a parameter was given that the pipeline does not have.
    pub fn values(&self, given: &[(String, Vec<String>)]) -> Result<Values> {
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
            values.insert(name.clone(), given.clone());
        }
        Ok(values)
    }
}

/// A parameter: `${name}` stands for its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// What its value is, in capitals; empty for a switch.
    pub value: String,
    /// Its value when none is given; none: it must be given.
    pub default: Option<String>,
    /// Whether it can have several values.
    pub many: bool,
    /// What it is, in a line.
    pub help: String,
}

impl Parameter {
    /// Whether its value is `true` or `false`.
    pub fn is_switch(&self) -> bool {
        self.value.is_empty()
    }

    /// Returns the environment variable that sets it.
    pub fn variable(&self) -> String {
        format!("SLUICE_{}", self.name.replace('-', "_").to_uppercase())
    }
}

/// A step, or one subcommand of a step.
pub struct Node {
    /// Its name in the DAG.
    pub name: String,
    /// The step.
    pub step: StepName,
    /// The stage's program.
    pub program: &'static StageProgram,
    /// The operation of the stage that it runs.
    pub operation: &'static Operation,
    /// The words of the command line behind the program and the subcommand, with parameters.
    pub arguments: Vec<String>,
    /// The nodes that it waits for.
    pub after: Vec<String>,
}

impl Node {
    /// Returns the command line with the values of the parameters put in.
    pub fn command(&self, run: &str, values: &Values) -> Vec<String> {
        let mut line = vec![self.program.name.to_owned()];
        line.extend(self.operation.subcommand.map(str::to_owned));
        line.push(format!("--run={run}"));
        line.extend(words::substitute(&self.arguments, values));
        line
    }

    /// Returns what gives the number of its units.
    pub fn counted_by(&self) -> CountedBy {
        self.operation.unit.fan_out().counted_by()
    }

    /// Returns the text that is given for a flag; empty where none is.
    pub fn argument(&self, flag: &str) -> &str {
        let words = self.arguments.iter();
        let mut values = words.filter_map(|word| {
            let (name, value) = word.strip_prefix("--")?.split_once('=')?;
            (name == flag).then_some(value)
        });
        values.next().unwrap_or_default()
    }
}
