//! `sluice pipeline`: shows the default pipeline and checks pipeline files. Also, parameters as
//! flags.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use anyhow::Result;
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, Subcommand};
use sluice_harness::{MACHINE_FLAGS, ToolContext, is_set, settings_of, shell};
use sluice_manifest::Error;

use super::{Parameter, Pipeline, default_parameters, open};
use crate::programs::PROGRAMS;

/// Show the default pipeline, or check a pipeline file
#[derive(Debug, Args)]
pub struct PipelineArgs {
    /// The subcommand.
    #[command(subcommand)]
    pub command: PipelineCommand,
}

/// The subcommands of `sluice pipeline`.
#[derive(Debug, Subcommand)]
pub enum PipelineCommand {
    /// Print a pipeline file: the default one, or with --steps the command lines of its nodes
    ///
    /// Example: sluice pipeline show > mine.toml
    Show {
        /// The pipeline file (default: the default pipeline)
        #[arg(value_name = "FILE")]
        file: Option<String>,
        /// Print the nodes: the command line of each, and the nodes that it waits for
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
        /// The parameters of the default pipeline.
        #[command(flatten)]
        parameters: Parameters,
    },
}

/// `NAME=VALUE`: a parameter and its value.
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

/// A parameter's name and its values.
pub type Given = (String, Vec<String>);

/// Groups settings by name. A name that is given several times has several values.
pub fn gathered(settings: &[Setting]) -> Vec<Given> {
    let mut given: Vec<Given> = Vec::new();
    for Setting { name, value } in settings {
        match given.iter_mut().find(|(other, _)| other == name) {
            Some((_, values)) => values.push(value.clone()),
            None => given.push((name.clone(), vec![value.clone()])),
        }
    }
    given
}

/// Shows or checks a pipeline.
///
/// # Errors
/// Returns a usage error when the pipeline cannot run.
pub fn pipeline(args: &PipelineArgs, tool: &mut ToolContext<'_>) -> Result<()> {
    match &args.command {
        PipelineCommand::Show { file, steps } => show(file.as_deref(), *steps, tool),
        PipelineCommand::Check {
            file,
            set,
            parameters,
        } => check(file, set, parameters, tool),
    }
}

fn show(file: Option<&str>, steps: bool, tool: &mut ToolContext<'_>) -> Result<()> {
    let pipeline = open(&tool.shared.storage, file)?;
    if !steps {
        let text = match file {
            None => super::DEFAULT.to_owned(),
            Some(_) => toml::to_string(&pipeline.file)?,
        };
        return Ok(write!(tool.out, "{text}")?);
    }
    for node in &pipeline.nodes {
        let mut line = vec![node.program.name];
        line.extend(node.operation.subcommand);
        line.extend(node.arguments.iter().map(String::as_str));
        let after = match node.after.as_slice() {
            [] => String::new(),
            after => format!("  # after {}", after.join(", ")),
        };
        writeln!(tool.out, "{}{after}", shell(&line))?;
    }
    Ok(())
}

fn check(
    file: &str,
    set: &[Setting],
    parameters: &Parameters,
    tool: &mut ToolContext<'_>,
) -> Result<()> {
    let pipeline = open(&tool.shared.storage, Some(file))?;
    let mut given = parameters.of(&pipeline, Some(file))?;
    given.extend(gathered(set));
    let mut values = pipeline.values(&given)?;
    let missing: Vec<String> = pipeline.missing(&values).map(|p| p.name.clone()).collect();
    if missing.iter().any(|name| name == OUTPUT) {
        // With a placeholder for the output, the rest of the export can be checked.
        values.insert(OUTPUT.to_owned(), vec!["memory://check-output".to_owned()]);
    }
    pipeline.check(&tool.shared.storage, "memory://check", &values)?;
    writeln!(tool.out, "{file}: {} steps can run", pipeline.nodes.len())?;
    for name in missing {
        let what = match name.as_str() {
            OUTPUT => "its location was not checked".to_owned(),
            _ => {
                let nodes = pipeline.nodes_with(&name).map(|node| node.name.as_str());
                let nodes: Vec<&str> = nodes.collect();
                format!("{} was not checked", nodes.join(", "))
            }
        };
        writeln!(tool.out, "{name} is not given: {what}")?;
    }
    Ok(())
}

/// The parameter for the location of the curated dataset.
const OUTPUT: &str = "output";

/// The parameters of the default pipeline as flags, with the given values.
#[derive(Debug, Clone)]
pub struct Parameters {
    /// The values from the command line or the environment.
    pub given: Vec<Given>,
    /// The names of the parameters on the command line.
    pub from_line: Vec<String>,
}

impl Parameters {
    /// Returns the values that apply to a pipeline: those of the command line, locations from the
    /// environment, and, for the default pipeline (which has no `file`), settings from the
    /// environment.
    ///
    /// # Errors
    /// Usage, when the pipeline does not have a parameter of the command line, or when a variable
    /// is set that would change steps but does not apply.
    pub fn of(&self, pipeline: &Pipeline, file: Option<&str>) -> Result<Vec<Given>, Error> {
        refuse_settings(file, |name| is_set(name))?;
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

    /// Adds the name of the responsible flag or variable to an error of `attempt`. That is the one
    /// without which the attempt succeeds, or whose value is in the error and without which the
    /// attempt fails differently. An error that already names the flag is returned unchanged.
    pub fn name_culprit(
        &self,
        error: anyhow::Error,
        given: &[Given],
        attempt: impl Fn(&[Given]) -> Result<()>,
    ) -> anyhow::Error {
        let text = format!("{error:#}");
        let is_culprit = |name: &str| {
            let others = given.iter().filter(|(other, _)| other != name);
            let others: Vec<Given> = others.cloned().collect();
            let value_is_named = || {
                let mut values = given.iter().filter(|(other, _)| other == name);
                values.any(|(_, values)| values.iter().any(|value| text.contains(value)))
            };
            match attempt(&others) {
                Ok(()) => true,
                Err(other) => format!("{other:#}") != text && value_is_named(),
            }
        };
        let known = DEFAULTS.iter().filter(|(parameter, _)| {
            let name = &parameter.name;
            // An error about a location already contains the location.
            !MACHINE_FLAGS.contains(&name.as_str())
                && self.given.iter().any(|(given, _)| given == name)
        });
        for (Parameter { name, .. }, variable) in known {
            let is_typed = self.from_line.contains(name);
            if is_typed && text.contains(&format!("--{name}")) || !is_culprit(name) {
                continue;
            }
            return if is_typed {
                error.context(format!("--{name}"))
            } else {
                error.context(format!("{variable} of the environment"))
            };
        }
        error
    }

    /// Like [`of`](Self::of), but without locations from the environment: for commands that run on
    /// another machine.
    ///
    /// # Errors
    /// The errors of [`of`](Self::of).
    pub fn elsewhere(&self, pipeline: &Pipeline, file: Option<&str>) -> Result<Vec<Given>, Error> {
        let mut given = self.of(pipeline, file)?;
        given.retain(|(name, _)| {
            self.from_line.contains(name) || !MACHINE_FLAGS.contains(&name.as_str())
        });
        Ok(given)
    }
}

/// Refuses variables that are settings of steps: all such variables for a pipeline file, and for the
/// default pipeline those that are not its parameters. [`sluice_harness::MACHINE_FLAGS`] defines
/// the rule.
fn refuse_settings(file: Option<&str>, has_variable: impl Fn(&str) -> bool) -> Result<(), Error> {
    let settings = PROGRAMS.iter();
    let settings = settings.flat_map(|program| settings_of(&(program.command)()));
    let mut settings: BTreeSet<String> = settings.collect();
    let own = DEFAULTS
        .iter()
        .filter(|(parameter, _)| !MACHINE_FLAGS.contains(&parameter.name.as_str()))
        .map(|(_, variable)| variable);
    match file {
        Some(_) => settings.extend(own.cloned()),
        None => settings.retain(|name| own.clone().all(|variable| variable != name)),
    }
    let Some(name) = settings.iter().find(|name| has_variable(name)) else {
        return Ok(());
    };
    let error = Error::usage(format!(
        "{name} is set, which would change steps of the pipeline"
    ));
    Err(match file {
        Some(file) => error.hint(format!("unset {name}, and write the setting into {file}")),
        None => error.hint(format!(
            "unset {name}, and write a pipeline file with the setting"
        )),
    })
}

/// The parameters of the default pipeline with their variables. clap requires `'static` texts.
static DEFAULTS: LazyLock<Vec<(Parameter, String)>> = LazyLock::new(|| {
    // Unwrap safety: the default pipeline is part of the program, and the tests load it.
    let parameters = default_parameters().expect("the default pipeline loads");
    let parameters = parameters.into_iter();
    parameters.map(|p| (p.clone(), p.variable())).collect()
});

/// Returns a parameter's flag.
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
        .help(help)
        .help_heading(parameter.section.as_deref());
    if parameter.is_switch() {
        return arg
            .value_name("true")
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true");
    }
    let arg = arg
        .value_name(parameter.value.as_str())
        // Scores may be negative. The stage's own program checks the range of a value.
        .allow_negative_numbers(true);
    if parameter.many {
        arg.num_args(1..).action(ArgAction::Append)
    } else {
        arg
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the variables of all flags, with their flags.
    fn all_variables() -> Vec<(String, String)> {
        fn of(command: &clap::Command) -> Vec<(String, String)> {
            let own = command.get_arguments().filter_map(|arg| {
                let variable = arg.get_env()?.to_str()?.to_owned();
                Some((arg.get_long()?.to_owned(), variable))
            });
            let inner = command.get_subcommands().flat_map(of);
            own.chain(inner).collect()
        }
        let mut variables: Vec<(String, String)> = PROGRAMS
            .iter()
            .flat_map(|program| of(&(program.command)()))
            .collect();
        variables.sort();
        variables.dedup();
        variables
    }

    #[test]
    fn variables_of_settings_count_for_short_parameters_alone() {
        let refused = |file, variable: &str| refuse_settings(file, |name| name == variable);
        let variables = all_variables();
        assert!(variables.len() > 40, "{}", variables.len());
        for (flag, variable) in &variables {
            let of_machine = MACHINE_FLAGS.contains(&flag.as_str());
            let is_short = DEFAULTS.iter().any(|(_, name)| name == variable);
            let counts = [refused(None, variable), refused(Some("F"), variable)];
            let expected = [of_machine || is_short, of_machine];
            assert_eq!(counts.each_ref().map(Result::is_ok), expected, "{variable}");
            for error in counts.into_iter().filter_map(Result::err) {
                assert!(error.to_string().contains(variable), "{error}");
            }
        }
        for (parameter, variable) in DEFAULTS.iter() {
            let of_machine = MACHINE_FLAGS.contains(&parameter.name.as_str());
            assert!(refused(None, variable).is_ok(), "{variable}");
            assert_eq!(
                refused(Some("F"), variable).is_ok(),
                of_machine,
                "{variable}"
            );
        }
        for (variable, is_refused) in [
            ("SLUICE_METHODS", [true, true]),
            ("SLUICE_RULE", [true, true]),
            ("SLUICE_TASK_INDEX", [true, true]),
            ("SLUICE_EPS", [false, true]),
            ("SLUICE_IMAGES_PER_SHARD", [false, true]),
            ("SLUICE_MIN_SIDE", [false, true]),
            ("SLUICE_MODELS", [false, false]),
            ("SLUICE_BATCH_SIZE", [false, false]),
            ("SLUICE_OUTPUT", [false, false]),
        ] {
            let found = [None, Some("F")].map(|file| refused(file, variable).is_err());
            assert_eq!(found, is_refused, "{variable}");
        }
    }
}
