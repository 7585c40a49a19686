//! The arguments that every program takes.

use std::collections::BTreeSet;
use std::ffi::OsString;

use clap::{Args, Command, Parser};
use sluice_manifest::{Error, Result, StepName, Unit};

/// Arguments of every program.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Where the run's manifests lie: a URI prefix
    #[arg(long, env = "SLUICE_RUN", value_name = "URI")]
    pub run: String,

    /// Do these units of work only, for example 3,8-15 (default: all)
    #[arg(
        long,
        env = "SLUICE_PARTITIONS",
        value_name = "LIST",
        conflicts_with = "task_index"
    )]
    pub partitions: Option<String>,

    /// This process's number among --task-count processes that share the units of work
    ///
    /// Kubernetes' JOB_COMPLETION_INDEX is read as well.
    #[arg(
        long,
        env = "SLUICE_TASK_INDEX",
        value_name = "I",
        requires = "task_count"
    )]
    pub task_index: Option<u32>,

    /// How many processes share the units of work
    #[arg(long, env = "SLUICE_TASK_COUNT", value_name = "N")]
    pub task_count: Option<u32>,

    /// Threads that work at once (default: the CPUs that the cgroup grants)
    #[arg(long, env = "SLUICE_JOBS", value_name = "N")]
    pub jobs: Option<usize>,

    /// Do the work again even where it is up to date
    #[arg(long, env = "SLUICE_FORCE")]
    pub force: bool,

    /// Write the JSON result to this file too
    #[arg(long, env = "SLUICE_RESULT", value_name = "FILE")]
    pub result: Option<std::path::PathBuf>,
}

/// Arguments of the steps after `read`.
#[derive(Debug, Clone, Args)]
pub struct StepArgs {
    /// Arguments of every program.
    #[command(flatten)]
    pub common: Common,

    /// Name of the step: its directory in the run (default: the stage's name)
    #[arg(long, env = "SLUICE_STEP", value_name = "NAME")]
    pub step: Option<StepName>,

    /// Work on the samples that this deciding step keeps (default: all that read accepted)
    #[arg(long, env = "SLUICE_SURVIVORS_OF", value_name = "STEP")]
    pub survivors_of: Option<StepName>,
}

impl Common {
    /// The units that are this process's share, in order.
    pub(crate) fn share(&self, units: Vec<Unit>) -> Result<Vec<Unit>> {
        if let Some(list) = &self.partitions {
            let wanted = numbers(list)?;
            let total = units.len();
            if let Some(&last) = wanted.last()
                && last as usize >= total
            {
                return Err(
                    Error::usage(format!("--partitions {list}: there is no unit {last}"))
                        .hint(format!("the step has {total} units, counted from 0")),
                );
            }
            let pairs = units.into_iter().enumerate();
            let chosen = pairs.filter(|(number, _)| wanted.contains(&(*number as u32)));
            return Ok(chosen.map(|(_, unit)| unit).collect());
        }
        let Some(count) = self.task_count else {
            return Ok(units);
        };
        let index = match (self.task_index, std::env::var("JOB_COMPLETION_INDEX")) {
            (Some(index), _) => index,
            (None, Ok(index)) => index.parse().map_err(|_| {
                Error::usage(format!(
                    "JOB_COMPLETION_INDEX: expected a number, got {index:?}"
                ))
            })?,
            (None, Err(_)) => {
                return Err(Error::usage("--task-count needs --task-index")
                    .hint("or SLUICE_TASK_INDEX, or Kubernetes' JOB_COMPLETION_INDEX"));
            }
        };
        if index >= count {
            return Err(Error::usage(format!(
                "--task-index {index} is not below --task-count {count}"
            ))
            .hint("tasks are counted from 0"));
        }
        let step = count as usize;
        Ok(units
            .into_iter()
            .skip(index as usize)
            .step_by(step)
            .collect())
    }
}

/// Parses `3,8-15`.
fn numbers(list: &str) -> Result<BTreeSet<u32>> {
    let wrong = || {
        Error::usage(format!("--partitions {list:?} is no list of numbers"))
            .hint("write numbers and ranges, for example 3,8-15")
    };
    let mut numbers = BTreeSet::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: u32 = first.trim().parse().map_err(|_| wrong())?;
        let last: u32 = last.trim().parse().map_err(|_| wrong())?;
        if first > last || last - first > 10_000_000 {
            return Err(wrong());
        }
        numbers.extend(first..=last);
    }
    Ok(numbers)
}

/// What a command line says, for [`parse`].
///
/// An argument `@FILE` stands for the lines of the file: the way around the kernel's limit of
/// 128 KiB for one argument. An option with nothing behind its `=` (`--eps=`) is left out, for a
/// workflow's template cannot leave an argument out.
pub fn arguments(line: impl Iterator<Item = OsString>) -> Result<Vec<OsString>> {
    let mut arguments = Vec::new();
    for (position, argument) in line.enumerate() {
        match argument.to_str().and_then(|text| text.strip_prefix('@')) {
            Some(path) if position > 0 => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "argument files lie on local disk"
                )]
                let text = std::fs::read_to_string(path)
                    .map_err(|e| Error::usage(format!("@{path}: cannot be read: {e}")))?;
                let lines = text.lines().filter(|line| !line.is_empty());
                arguments.extend(lines.map(OsString::from));
            }
            _ => arguments.push(argument),
        }
    }
    let is_empty = |argument: &OsString| {
        let flag = argument.to_str().and_then(|text| text.strip_suffix('='));
        flag.is_some_and(|flag| flag.starts_with("--") && !flag.contains('='))
    };
    arguments.retain(|argument| !is_empty(argument));
    Ok(arguments)
}

/// Parses a command line, the program's name first. `--help` shows the names of variables but no
/// values, for somebody may have put a secret into one.
pub fn parse<P: Parser>(arguments: &[OsString]) -> Result<P, clap::Error> {
    let matches = discreet(P::command()).try_get_matches_from(arguments)?;
    P::from_arg_matches(&matches)
}

fn discreet(command: Command) -> Command {
    let command = command.mut_args(|arg| arg.hide_env_values(true));
    let names: Vec<String> = command
        .get_subcommands()
        .map(|sub| sub.get_name().to_owned())
        .collect();
    let each = names.into_iter();
    each.fold(command, |command, name| {
        command.mut_subcommand(name, discreet)
    })
}

/// A command line for a shell. A user name and a password in a URI are left out.
pub fn shell<S: AsRef<str>>(command: &[S]) -> String {
    let words: Vec<String> = command.iter().map(|word| quoted(word.as_ref())).collect();
    words.join(" ")
}

fn quoted(word: &str) -> String {
    let word = masked(word);
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word,
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

fn masked(word: &str) -> String {
    let Some((scheme, rest)) = word.split_once("://") else {
        return word.to_owned();
    };
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((who, _)) => format!("{scheme}://…{}", &rest[who.len()..]),
        None => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use sluice_manifest::UnitKind;

    use super::*;

    fn common() -> Common {
        Common {
            run: "memory://x".into(),
            partitions: None,
            task_index: None,
            task_count: None,
            jobs: None,
            force: false,
            result: None,
        }
    }

    fn units() -> Vec<Unit> {
        Unit::all(UnitKind::Part, 7)
    }

    #[test]
    fn tasks_share_all_units_without_overlap() {
        let mut shares = Vec::new();
        for index in 0..3 {
            let task = Common {
                task_index: Some(index),
                task_count: Some(3),
                ..common()
            };
            shares.extend(task.share(units()).unwrap());
        }
        shares.sort();
        assert_eq!(shares, units());
        let late = Common {
            task_index: Some(9),
            task_count: Some(10),
            ..common()
        };
        assert!(late.share(units()).unwrap().is_empty());
    }

    #[test]
    fn an_option_without_a_value_is_left_out() {
        let line = [
            "sluice-x",
            "--min-score=",
            "--eps=1",
            "--min=a=",
            "--scores",
            "",
        ];
        let kept = arguments(line.iter().map(OsString::from)).unwrap();
        assert_eq!(kept, ["sluice-x", "--eps=1", "--min=a=", "--scores", ""]);
    }

    #[test]
    fn lists_choose_and_wrong_ones_are_refused() {
        let some = |list: &str| Common {
            partitions: Some(list.into()),
            ..common()
        };
        let chosen = some("1,4-5").share(units()).unwrap();
        assert_eq!(chosen, [1, 4, 5].map(|i| Unit::new(UnitKind::Part, i)));
        for wrong in ["", "x", "3-1", "7", "0-4294967295"] {
            assert!(some(wrong).share(units()).is_err(), "{wrong}");
        }
        let beyond = Common {
            task_index: Some(3),
            task_count: Some(3),
            ..common()
        };
        assert!(beyond.share(units()).is_err());
    }

    #[test]
    fn a_shell_gets_back_what_was_meant() {
        let words = ["a b", "it's", "", "x-1"];
        assert_eq!(shell(&words), r"'a b' 'it'\''s' '' x-1");
        assert_eq!(shell(&["--run=s3://me:hush@b/x"]), "'--run=s3://…@b/x'");
    }
}
