//! `sluice steps`: several steps in one process, for pods of workflow engines.
//!
//! A pod costs an engine some ten seconds, however little it does. So light steps in a row share one, and
//! the first pod of a workflow looks which of the later steps have work at all.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::{Value, json};
use sluice_harness::{Desk, shell};
use sluice_manifest::Error;

use crate::places::Nearest;
use crate::programs::StageProgram;

/// How long the first pod looks for work. Many units are looked at faster by the pods of their steps.
const LOOK: Duration = Duration::from_secs(60);

/// Do several steps one after the other, and look whether later ones have work: for workflow engines
///
/// Example: sluice steps -- sluice-export index --run=runs/a + sluice-report --run=runs/a
#[derive(Debug, Args)]
pub struct StepsArgs {
    /// The names of the parameters that were given, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',', requires = "known")]
    pub given: Vec<String>,

    /// The names of the parameters that there are
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub known: Vec<String>,

    /// Write the JSON result to this file too
    #[arg(long, value_name = "FILE")]
    pub result: Option<PathBuf>,

    /// Command lines. `+` is before one that is done, `? NODE` before one that is looked at: the result has
    /// under `needed` 0 for a node without work
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub commands: Vec<String>,
}

/// Does the steps.
///
/// # Errors
/// Usage, for a parameter that there is not; of the first step that fails.
pub fn steps(args: &StepsArgs, desk: &mut Desk<'_>) -> Result<()> {
    desk.result = Some(json!({}));
    check_parameters(&args.given, &args.known)?;
    let is_mark = |word: &String| word == "+" || word == "?";
    let mut commands = args.commands.chunk_by(|_, word| !is_mark(word));
    let mut looked_at = Vec::new();
    let first = commands.next().unwrap_or_default();
    let (mut result, mut up_to_date) = task(first, desk)?;
    for command in commands {
        match command.split_first() {
            Some((mark, command)) if mark == "+" => {
                let (more, is_up_to_date) = task(command, desk)?;
                up_to_date &= is_up_to_date;
                add(&mut result, command, more);
            }
            Some((_, command)) => looked_at.push(command),
            None => {}
        }
    }
    if !looked_at.is_empty() {
        result["needed"] = look(&looked_at, desk)?;
    }
    desk.result = Some(result);
    desk.up_to_date = up_to_date;
    Ok(())
}

/// Refuses parameters that there are not: engines accept any name.
fn check_parameters(given: &[String], known: &[String]) -> Result<(), Error> {
    // Argo counts all of them together as one.
    let is_known = |name: &&String| known.contains(*name) || *name == "json" || name.is_empty();
    let Some(unknown) = given.iter().find(|name| !is_known(name)) else {
        return Ok(());
    };
    let mut nearest = Nearest::new(unknown, 1);
    known.iter().for_each(|name| nearest.offer(name));
    let hint = match nearest.slip() {
        Some(name) => format!("is it {name}?"),
        None => format!("the parameters are {}", known.join(", ")),
    };
    Err(Error::usage(format!("no parameter is called {unknown:?}")).hint(hint))
}

fn program(command: &[String]) -> Result<&'static StageProgram> {
    let name = command.first().map(String::as_str).unwrap_or_default();
    let found = StageProgram::named(name);
    let wrong = || Error::usage(format!("{name:?} is no program of a step"));
    Ok(found.ok_or_else(wrong)?)
}

fn task(command: &[String], desk: &Desk<'_>) -> Result<(Value, bool)> {
    tracing::info!(command = shell(command), "starts");
    let done = (program(command)?.task)(command, &desk.shared);
    done.with_context(|| format!("by hand: `{}`", shell(command)))
}

/// Adds the result of a further step.
fn add(result: &mut Value, command: &[String], more: Value) {
    let own = json!({ "program": command[0], "result": more });
    match result["then"].as_array_mut() {
        Some(all) => all.push(own),
        None => result["then"] = json!([own]),
    }
}

/// Returns for each node 0 where it has no work, and 1 for those from the first one with work on. A
/// command follows its node's name.
fn look(commands: &[&[String]], desk: &Desk<'_>) -> Result<Value> {
    let deadline = Instant::now() + LOOK;
    let mut needed = serde_json::Map::new();
    let mut is_needed = false;
    for command in commands {
        let Some((node, command)) = command.split_first() else {
            continue;
        };
        // What comes after work has work, too: it need not be looked at.
        let until = if is_needed { Instant::now() } else { deadline };
        is_needed |= (program(command)?.has_work)(command, &desk.shared, until)?;
        needed.insert(node.clone(), json!(u8::from(is_needed)));
    }
    Ok(Value::Object(needed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_misspelt_parameter_is_named() {
        let known = words("run input min-aesthetic max-tasks");
        check_parameters(&words("run json input"), &known).unwrap();
        for (given, expected) in [
            (
                "run min-aesthetics",
                "\"min-aesthetics\"\n  hint: is it min-aesthetic?",
            ),
            (
                "colour",
                "\"colour\"\n  hint: the parameters are run, input",
            ),
        ] {
            let refused = check_parameters(&words(given), &known).unwrap_err();
            assert!(refused.to_string().contains(expected), "{refused}");
        }
    }
}
