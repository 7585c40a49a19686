//! The environment variables of flags. This module is the only place with these rules:
//!
//! - Every flag has a variable, `SLUICE_…`. An empty variable counts as unset.
//! - A stage's program that is started separately, by hand or by a workflow engine, reads the
//!   variables of all its flags. So does `sluice` for the flags of its own commands.
//! - Loading a pipeline reads no variables. A step that `sluice run` runs in its own process reads
//!   only those of [`MACHINE_FLAGS`]: locations and properties of the machine. They cannot change
//!   what a step decides.
//! - All other variables are settings of steps. For the default pipeline, `sluice run` reads those
//!   of its own short parameters, as if they were flags. It refuses all others by name, because
//!   they would override the pipeline file.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, Parser};

/// Flags for locations and properties of the machine. Their variables are always read.
pub const MACHINE_FLAGS: [&str; 13] = [
    "run",
    "input",
    "output",
    "models",
    "jobs",
    "memory",
    "force",
    "overwrite",
    "result",
    "batch-size",
    "device",
    "pipeline",
    "log-format",
];

/// The flags whose variables are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    /// All flags.
    All,
    /// The flags in [`MACHINE_FLAGS`].
    Machine,
    /// No flags.
    Nothing,
}

impl Reads {
    fn flag(self, arg: &Arg) -> bool {
        match self {
            Self::All => true,
            Self::Machine => is_of_machine(arg),
            Self::Nothing => false,
        }
    }
}

fn is_of_machine(arg: &Arg) -> bool {
    let flag = arg.get_long();
    flag.is_some_and(|flag| MACHINE_FLAGS.contains(&flag))
}

/// Returns whether an environment variable is set and not empty.
pub fn is_set(variable: impl AsRef<OsStr>) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty())
}

/// Returns the variables that are settings of a program's steps: those of all its flags except
/// [`MACHINE_FLAGS`].
pub fn settings_of(command: &Command) -> BTreeSet<String> {
    let args = all_args(command).into_iter();
    let settings = args.filter(|arg| !is_of_machine(arg));
    settings.filter_map(variable).collect()
}

fn variable(arg: &Arg) -> Option<String> {
    Some(arg.get_env()?.to_string_lossy().into_owned())
}

fn all_args(command: &Command) -> Vec<&Arg> {
    let inner = command.get_subcommands().flat_map(all_args);
    command.get_arguments().chain(inner).collect()
}

/// Parses a command line that begins with the program's name. `--help` shows the names of variables
/// without their values, which may be secret.
///
/// # Errors
///
/// Fails like clap. An error about a value from the environment names the variable.
pub(crate) fn parse<P: Parser, S: Into<OsString> + Clone>(
    line: &[S],
    reads: Reads,
) -> Result<P, clap::Error> {
    let line: Vec<OsString> = line.iter().cloned().map(Into::into).collect();
    let command = reading(P::command(), reads);
    let matches = command.clone().try_get_matches_from(&line);
    P::from_arg_matches(&matches.map_err(|e| with_variables(e, &command, &line))?)
}

fn reading(command: Command, reads: Reads) -> Command {
    let command = command.mut_args(|arg| {
        let is_empty = arg
            .get_env()
            .and_then(std::env::var_os)
            .is_some_and(|value| value.is_empty());
        if reads.flag(&arg) && !is_empty {
            arg.hide_env_values(true)
        } else {
            arg.env(Resettable::<clap::builder::OsStr>::Reset)
        }
    });
    let names = command
        .get_subcommands()
        .map(|sub| sub.get_name().to_owned());
    let names: Vec<String> = names.collect();
    names.into_iter().fold(command, |command, name| {
        command.mut_subcommand(name, |sub| reading(sub, reads))
    })
}

/// Adds the names of the variables that an error's values came from.
fn with_variables(e: clap::Error, command: &Command, line: &[OsString]) -> clap::Error {
    let about = arguments_of(&e);
    let args = all_args(command).into_iter();
    let variables: BTreeSet<String> = args
        .filter(|arg| {
            let value = arg.get_env().and_then(std::env::var_os);
            let is_text = value.as_ref().is_none_or(|value| value.to_str().is_some());
            let is_about = about.iter().any(|text| is_flag(arg, text));
            let is_given = line
                .iter()
                .any(|word| is_flag(arg, &word.to_string_lossy()));
            let is_wrong = is_about || (e.kind() == ErrorKind::InvalidUtf8 && !is_text);
            value.is_some() && is_wrong && !is_given
        })
        .filter_map(variable)
        .collect();
    if variables.is_empty() {
        return e;
    }
    let names: Vec<String> = variables.into_iter().collect();
    let text = e.to_string();
    let text = text.trim_start_matches("error: ");
    clap::Error::raw(e.kind(), format!("{}: {text}", names.join(", ")))
}

/// Returns the arguments that an error is about, in clap's notation: `--jobs <N>`.
fn arguments_of(e: &clap::Error) -> Vec<String> {
    let kinds = [ContextKind::InvalidArg, ContextKind::PriorArg];
    let values = kinds.iter().filter_map(|kind| e.get(*kind));
    let texts = values.flat_map(|value| match value {
        ContextValue::String(text) => vec![text.clone()],
        ContextValue::Strings(texts) => texts.clone(),
        _ => Vec::new(),
    });
    texts.collect()
}

/// Returns whether a text is the flag of this argument, with or without a value.
fn is_flag(arg: &Arg, text: &str) -> bool {
    let flag = arg.get_long().map(|flag| format!("--{flag}"));
    let rest = flag.and_then(|flag| text.strip_prefix(&flag));
    rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-'))
}
