//! `sluice steps`: runs several steps in one process, for pods of workflow engines.
//!
//! A pod costs an engine about ten seconds, even for little work. Consecutive light steps therefore
//! share one pod, and the first pod of a workflow checks which later steps have work.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::{Value, json};
use sluice_harness::{Starter, ToolContext, shell};
use sluice_manifest::Error;

use crate::pass::{OpenStep, run_pass};
use crate::places::NearestNames;
use crate::programs::StageProgram;

/// The time limit of the first pod's search for work. With many units, the pods of the steps search
/// faster.
const LOOK: Duration = Duration::from_secs(60);

/// Run several steps one after the other, and check whether later ones have work: for workflow
/// engines
///
/// Example: sluice steps -- sluice-export index --run=runs/a + sluice-report --run=runs/a
#[derive(Debug, Args)]
pub struct StepsArgs {
    /// The names of the given parameters, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',', requires = "known")]
    pub given: Vec<String>,

    /// The names of all known parameters, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub known: Vec<String>,

    /// Write the JSON result to this file too
    #[arg(long, value_name = "FILE")]
    pub result: Option<PathBuf>,

    /// Command lines: `+` precedes one to run, `? NODE` one to check for work; the result has 0
    /// under `needed` for a node without work
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub commands: Vec<String>,
}

/// Runs the steps.
///
/// # Errors
/// Usage, for an unknown parameter; otherwise the error of the first step that fails.
pub fn steps(args: &StepsArgs, tool: &mut ToolContext<'_>) -> Result<()> {
    tool.result = Some(json!({}));
    check_parameters(&args.given, &args.known)?;
    let is_mark = |word: &String| word == "+" || word == "?";
    let (mut commands, mut looked_at) = (Vec::new(), Vec::new());
    for words in args.commands.chunk_by(|_, word| !is_mark(word)) {
        match words.split_first() {
            Some((mark, command)) if mark == "?" => looked_at.push(command),
            Some((mark, command)) if mark == "+" => commands.push(command),
            _ => commands.push(words),
        }
    }
    let mut result = json!({});
    let mut up_to_date = true;
    for (number, (command, (own, is_up_to_date))) in tasks(&commands, tool)?.enumerate() {
        up_to_date &= is_up_to_date;
        match number {
            0 => result = own,
            _ => add(&mut result, command, own),
        }
    }
    if !looked_at.is_empty() {
        result["needed"] = look(&looked_at, tool)?;
    }
    tool.result = Some(result);
    tool.up_to_date = up_to_date;
    Ok(())
}

/// Refuses unknown parameters, because engines accept any name.
fn check_parameters(given: &[String], known: &[String]) -> Result<(), Error> {
    // In Argo, `json` is also a key: all parameters as one text.
    let is_known = |name: &&String| known.contains(*name) || *name == "json" || name.is_empty();
    let Some(unknown) = given.iter().find(|name| !is_known(name)) else {
        return Ok(());
    };
    let mut nearest = NearestNames::new(unknown, 1);
    known.iter().for_each(|name| nearest.offer(name));
    let hint = match nearest.correction() {
        Some(name) => format!("is it {name}?"),
        None => format!("the parameters are {}", known.join(", ")),
    };
    Err(Error::usage(format!("unknown parameter {unknown:?}")).hint(hint))
}

fn program(command: &[String]) -> Result<&'static StageProgram> {
    let name = command.first().map(String::as_str).unwrap_or_default();
    let found = StageProgram::named(name);
    let wrong = || Error::usage(format!("{name:?} is not the program of a stage"));
    Ok(found.ok_or_else(wrong)?)
}

/// The fields of a task's result, and whether it was up to date.
type Done = (Value, bool);

/// Runs command lines in order, and returns the result of each.
fn tasks<'c>(
    commands: &[&'c [String]],
    tool: &ToolContext<'_>,
) -> Result<impl Iterator<Item = (&'c [String], Done)>> {
    let mut done = Vec::new();
    while let [command, ..] = &commands[done.len()..] {
        let pass = image_steps(&commands[done.len()..], tool);
        if pass.len() < 2 {
            done.push(task(command, tool)?);
            continue;
        }
        run_pass(&pass)?;
        for step in &pass {
            done.push(step.task_done()?);
        }
    }
    Ok(commands.iter().copied().zip(done))
}

/// Opens the first command lines that share a pass over the images. An invalid command line fails
/// later, when it runs.
fn image_steps(commands: &[&[String]], tool: &ToolContext<'_>) -> Vec<OpenStep> {
    let mut steps: Vec<OpenStep> = Vec::new();
    for command in commands.iter().filter(|_| commands.len() > 1) {
        let open = program(command).ok().and_then(|program| program.images);
        let step = open.and_then(|open| open(command, &tool.shared, Starter::Engine).ok()?);
        let is_same = |step: &OpenStep| steps.iter().all(|first| first.has_same_samples(step));
        match step.filter(is_same) {
            Some(step) => steps.push(step),
            None => break,
        }
    }
    steps
}

fn task(command: &[String], tool: &ToolContext<'_>) -> Result<Done> {
    tracing::info!(command = shell(command), "starts");
    let done = (program(command)?.task)(command, &tool.shared);
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

/// Returns 0 for each node without work, and 1 for the first node with work and all nodes after it.
/// Each command follows its node's name.
fn look(commands: &[&[String]], tool: &ToolContext<'_>) -> Result<Value> {
    let deadline = Instant::now() + LOOK;
    let mut needed = serde_json::Map::new();
    let mut is_needed = false;
    for command in commands {
        let Some((node, command)) = command.split_first() else {
            continue;
        };
        // Nodes after one with work have work too, so they are not inspected.
        let until = if is_needed { Instant::now() } else { deadline };
        is_needed |= (program(command)?.has_work)(command, &tool.shared, until)?;
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
