//! Pipelines: which steps run, in which order and with which settings, as a TOML file.
//!
//! [`file`] reads the file, [`load`] makes nodes of it (a command line for each step, or for each
//! active subcommand of a step), [`wire`] finds what each waits for, [`words`] turns values into words
//! of a command line. The keys of a step are its program's flags, taken from the program's own definition.

pub mod commands;
pub mod file;
pub mod load;
mod wire;
pub mod words;

use sluice_harness::{Upstream, refuse_overlap};
use sluice_manifest::{CountedBy, Error, Operation, Result, StepName};
use sluice_store::{Location, Storage};

use crate::programs::StageProgram;

pub use self::file::{DEFAULT, Kind, PipelineFile};
pub use self::words::Values;

/// The default pipeline's name.
const DEFAULT_NAME: &str = "curate";

/// Bytes that a pipeline file may have.
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
/// As for any other pipeline.
pub fn default() -> Result<Pipeline> {
    Pipeline::load(DEFAULT, DEFAULT_NAME, "the default pipeline")
}

/// Returns the parameters of the default pipeline.
///
/// # Errors
/// A bug, when it has a mistake.
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
    pub fn check(&self, storage: &Storage, run: &str, values: &Values) -> anyhow::Result<()> {
        self.refuse_shared_outputs(values)?;
        let nodes = self
            .nodes
            .iter()
            .filter(|node| !self.is_unset(node, values));
        let commands: Vec<(&Node, Vec<String>)> = nodes
            .map(|node| (node, node.command(run, values)))
            .collect();
        let within = |node: &Node, e: anyhow::Error| e.context(format!("step {}", node.step));
        // All flags first: that takes no time, and a look at a model may take some.
        for (node, command) in &commands {
            node.parse(command)?;
        }
        let mut upstream = Upstream::new(storage.clone());
        for (node, command) in &commands {
            if let Some(input) =
                (node.program.input)(command, storage).map_err(|e| within(node, e))?
            {
                upstream.input = Some(input);
            }
            let gives = (node.program.check)(command, &upstream).map_err(|e| within(node, e))?;
            if gives != sluice_harness::Gives::default() {
                upstream.insert(node.step.clone(), gives);
            }
        }
        Ok(())
    }

    /// Sets a switch of the programs that have it.
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

    /// Returns the nodes that a parameter is a part of.
    pub fn nodes_with<'p>(&'p self, parameter: &'p str) -> impl Iterator<Item = &'p Node> {
        let nodes = self.nodes.iter();
        nodes.filter(move |node| node.reads(parameter))
    }

    /// Whether a parameter of a node must be given and was not.
    fn is_unset(&self, node: &Node, values: &Values) -> bool {
        self.missing(values)
            .any(|parameter| node.reads(&parameter.name))
    }

    /// Makes the values that were given the parameters' defaults.
    ///
    /// # Errors
    /// Usage, when a parameter or a program does not take one.
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

    /// Returns the parameters that must be given and were not.
    pub fn missing<'p>(&'p self, values: &'p Values) -> impl Iterator<Item = &'p Parameter> {
        let parameters = self.parameters.iter();
        parameters.filter(|p| p.default.is_none() && !values.contains_key(&p.name))
    }

    /// Refuses exports of which one would write into the output of the other.
    ///
    /// # Errors
    /// Usage, with the names of the steps.
    fn refuse_shared_outputs(&self, values: &Values) -> Result<()> {
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
            given.iter().try_for_each(|value| parameter.check(value))?;
            values.insert(name.clone(), given.clone());
        }
        Ok(values)
    }
}

/// A parameter: `${name}` stands for its value.
#[derive(Debug, Clone, PartialEq)]
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
    /// What its values have to be; none: any text.
    pub kind: Option<Kind>,
    /// The least value of a number.
    pub min: Option<f64>,
    /// The heading of the help and of forms that it is listed under; none: the first one.
    pub section: Option<String>,
}

impl Parameter {
    /// Checks a value against the type. One that is empty is none.
    ///
    /// # Errors
    /// Usage, when it does not fit.
    pub fn check(&self, value: &str) -> Result<()> {
        let Some(kind) = self.kind.filter(|_| !value.is_empty()) else {
            return Ok(());
        };
        let number = kind.number(value);
        if number.is_some_and(|number| self.min.is_none_or(|min| number >= min)) {
            return Ok(());
        }
        let what = match kind {
            Kind::Integer => "a whole number",
            Kind::Number => "a number",
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

    /// Checks that its program takes a command line.
    fn parse(&self, command: &[String]) -> anyhow::Result<()> {
        let wiring = (self.program.wiring)(command);
        wiring
            .map(drop)
            .map_err(|e| e.context(format!("step {}", self.step)))
    }

    /// Whether a parameter is a part of its command line.
    fn reads(&self, parameter: &str) -> bool {
        let mut words = self.arguments.iter();
        words.any(|word| words::references(word).contains(&parameter))
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
