//! `sluice pipeline`: shows the default pipeline, checks a file. And parameters as flags.

use std::sync::LazyLock;

use anyhow::Result;
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, Subcommand};
use sluice_harness::{Desk, shell};
use sluice_manifest::Error;

use super::{Parameter, Pipeline, open};

/// Show the default pipeline, or check a pipeline file
#[derive(Debug, Args)]
pub struct PipelineArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: PipelineCommand,
}

/// What is done with pipelines.
#[derive(Debug, Subcommand)]
pub enum PipelineCommand {
    /// Print a pipeline file: the default one, or with --steps the command lines of its nodes
    ///
    /// Example: sluice pipeline show > mine.toml
    Show {
        /// The pipeline file (default: the default pipeline)
        #[arg(value_name = "FILE")]
        file: Option<String>,
        /// Print what runs: one command line for each node, and what it waits for
        #[arg(long)]
        steps: bool,
    },
    /// Check a pipeline file before anything runs: stages, flags, values, scores, rules, models
    ///
    /// Example: sluice pipeline check mine.toml
    Check {
        /// The pipeline file
        #[arg(value_name = "FILE")]
        file: String,
        /// The value of a parameter
        #[arg(long, value_name = "NAME=VALUE")]
        set: Vec<Setting>,
    },
}

/// `NAME=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The parameter.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl std::str::FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
        Ok(Self {
            name: name.trim().to_owned(),
            value: value.to_owned(),
        })
    }
}

/// Gathers settings by name; one that is given several times has several values.
pub fn gathered(settings: &[Setting]) -> Vec<(String, Vec<String>)> {
    let mut given: Vec<(String, Vec<String>)> = Vec::new();
    for Setting { name, value } in settings {
        match given.iter_mut().find(|(other, _)| other == name) {
            Some((_, values)) => values.push(value.clone()),
            None => given.push((name.clone(), vec![value.clone()])),
        }
    }
    given
}

/// Shows or checks.
///
/// # Errors
/// Usage, when the pipeline cannot work.
pub fn pipeline(args: &PipelineArgs, desk: &mut Desk<'_>) -> Result<()> {
    match &args.command {
        PipelineCommand::Show { file, steps } => show(file.as_deref(), *steps, desk),
        PipelineCommand::Check { file, set } => check(file, set, desk),
    }
}

fn show(file: Option<&str>, steps: bool, desk: &mut Desk<'_>) -> Result<()> {
    let pipeline = open(file)?;
    if !steps {
        let text = match file {
            None => super::DEFAULT.to_owned(),
            Some(_) => toml::to_string(&pipeline.file)?,
        };
        return Ok(write!(desk.out, "{text}")?);
    }
    for node in &pipeline.nodes {
        let mut line = vec![node.program.name];
        line.extend(node.operation.subcommand);
        line.extend(node.arguments.iter().map(String::as_str));
        let after = match node.after.as_slice() {
            [] => String::new(),
            after => format!("  # after {}", after.join(", ")),
        };
        writeln!(desk.out, "{}{after}", shell(&line))?;
    }
    Ok(())
}

fn check(file: &str, set: &[Setting], desk: &mut Desk<'_>) -> Result<()> {
    let pipeline = open(Some(file))?;
    let values = pipeline.values(&gathered(set))?;
    pipeline.check("memory://check", &values)?;
    writeln!(desk.out, "{file}: {} steps can run", pipeline.nodes.len())?;
    Ok(())
}

/// The parameters of the default pipeline as flags, with the values that were given.
#[derive(Debug, Clone)]
pub struct Parameters {
    /// Given on the command line or in the environment.
    pub given: Vec<(String, Vec<String>)>,
    /// The names that the command line gave.
    pub from_line: Vec<String>,
}

impl Parameters {
    /// Returns what applies to a pipeline. A variable of the environment for a parameter that the
    /// pipeline does not have is ignored.
    ///
    /// # Errors
    /// Usage, when the command line gave a parameter that the pipeline does not have.
    pub fn of(&self, pipeline: &Pipeline) -> Result<Vec<(String, Vec<String>)>, Error> {
        let has = |name: &str| pipeline.parameters.iter().any(|p| p.name == name);
        if let Some(name) = self.from_line.iter().find(|name| !has(name)) {
            return Err(Error::usage(format!(
                "--{name}: the pipeline {} has no such parameter",
                pipeline.name
            ))
            .hint("change the pipeline file, or give it a parameter of this name"));
        }
        let given = self.given.iter().filter(|(name, _)| has(name));
        Ok(given.cloned().collect())
    }
}

/// The parameters of the default pipeline, with their variables: clap wants texts that stay.
static DEFAULTS: LazyLock<Vec<(Parameter, String)>> = LazyLock::new(|| {
    // Unwrap safety: the default pipeline is part of the program, and the tests load it.
    let pipeline = open(None).expect("the default pipeline loads");
    let parameters = pipeline.parameters.into_iter();
    parameters.map(|p| (p.clone(), p.variable())).collect()
});

/// A parameter's flag.
fn flag((parameter, variable): &'static (Parameter, String)) -> Arg {
    let default = parameter.default.as_deref().filter(|text| !text.is_empty());
    let help = match default {
        Some(default) if !parameter.is_switch() => {
            format!("{} [default: {default}]", parameter.help)
        }
        _ => parameter.help.clone(),
    };
    let arg = Arg::new(parameter.name.as_str())
        .long(parameter.name.as_str())
        .env(variable.as_str())
        .help(help);
    if parameter.is_switch() {
        return arg
            .value_name("true")
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true");
    }
    let arg = arg
        .value_name(parameter.value.as_str())
        // Scores may be below zero. What a value must be the stage's own program says.
        .allow_negative_numbers(true);
    match parameter.many {
        true => arg.num_args(1..).action(ArgAction::Append),
        false => arg,
    }
}

impl clap::Args for Parameters {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.args(DEFAULTS.iter().map(flag))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Parameters {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut parameters = Self {
            given: Vec::new(),
            from_line: Vec::new(),
        };
        for name in DEFAULTS.iter().map(|(parameter, _)| parameter.name.clone()) {
            let Some(values) = matches.get_many::<String>(&name) else {
                continue;
            };
            let source = matches.value_source(&name);
            if source == Some(clap::parser::ValueSource::CommandLine) {
                parameters.from_line.push(name.clone());
            }
            let values: Vec<String> = values.filter(|value| !value.is_empty()).cloned().collect();
            if !values.is_empty() {
                parameters.given.push((name, values));
            }
        }
        Ok(parameters)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
