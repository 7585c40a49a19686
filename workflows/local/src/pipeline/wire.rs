//! Finds the dependencies between the nodes of a pipeline, and refuses settings without effect.

use std::collections::{BTreeMap, BTreeSet};

use clap::Arg;
use sluice_manifest::{Error, Result, Role, StepName, UnitKind};

use super::load::{Step, UNSET};
use super::words;
use super::{ParameterValues, PipelineNode};

/// Drops inactive subcommands, names the nodes, and finds the nodes that each one waits for.
pub(super) fn wire(
    nodes: Vec<PipelineNode>,
    steps: &[Step],
    values: &ParameterValues,
) -> Result<Vec<PipelineNode>> {
    let mut active: Vec<(PipelineNode, Vec<StepName>)> = Vec::new();
    let mut inactive: Vec<PipelineNode> = Vec::new();
    for node in nodes {
        let command = node.command(UNSET, values);
        let wiring = (node.program.wiring)(&command).map_err(|e| match e.downcast::<Error>() {
            Ok(e) => e.within(&format!("step {}", node.step)),
            Err(e) => Error::usage(format!("step {}: {e:#}", node.step)),
        })?;
        if !wiring.is_active {
            inactive.push(node);
            continue;
        }
        for needed in &wiring.needs {
            let is_before = active.iter().any(|(other, _)| other.step == *needed);
            if !is_before || *needed == node.step {
                return Err(missing_step(&node, needed, steps));
            }
        }
        active.push((node, wiring.needs));
    }
    for node in &inactive {
        refuse_without_effect(node, &active, steps, values)?;
    }
    rename_single(&mut active);
    refuse_equal_names(&active)?;
    let mut wired: Vec<PipelineNode> = Vec::new();
    // For each node, the earlier nodes that it waits for, directly or indirectly.
    let mut earlier: Vec<Vec<bool>> = Vec::new();
    for index in 0..active.len() {
        let (node, needs) = &active[index];
        let reads = waits_for(node, needs, &active[..index], steps);
        let mut implied = vec![false; index];
        for &other in &reads {
            implied
                .iter_mut()
                .zip(&earlier[other])
                .for_each(|(a, b)| *a |= b);
        }
        let direct = reads.iter().filter(|&&other| !implied[other]);
        let after = direct.map(|&other| active[other].0.name.clone()).collect();
        reads.iter().for_each(|&other| implied[other] = true);
        earlier.push(implied);
        wired.push(PipelineNode {
            after,
            name: node.name.clone(),
            step: node.step.clone(),
            program: node.program,
            operation: node.operation,
            arguments: node.arguments.clone(),
        });
    }
    Ok(wired)
}

/// Refuses settings for a subcommand that the step does not run.
fn refuse_without_effect(
    inactive: &PipelineNode,
    active: &[(PipelineNode, Vec<StepName>)],
    steps: &[Step],
    values: &ParameterValues,
) -> Result<()> {
    let of_step = active.iter().filter(|(node, _)| node.step == inactive.step);
    let commands: Vec<clap::Command> = of_step
        .map(|(node, _)| node.program.command_of(node.operation))
        .collect();
    let flags = commands.iter().flat_map(clap::Command::get_arguments);
    let flags: BTreeSet<&str> = flags.filter_map(Arg::get_long).collect();
    let step = steps.iter().find(|step| step.name == inactive.step);
    for word in words::substitute(&inactive.arguments, values) {
        let flag = word.trim_start_matches("--").split('=').next();
        let flag = flag.unwrap_or_default();
        let is_set = step.is_some_and(|step| step.settings.contains_key(flag));
        if is_set && !flags.contains(flag) {
            let subcommand = inactive.operation.subcommand.unwrap_or_default();
            return Err(Error::usage(format!(
                "step {}: {flag} has no effect: {subcommand} does not run",
                inactive.step
            ))
            .hint(format!("remove {flag}, or choose settings that need it")));
        }
    }
    Ok(())
}

/// Engines identify nodes by name.
fn refuse_equal_names(active: &[(PipelineNode, Vec<StepName>)]) -> Result<()> {
    let mut steps: BTreeMap<&str, &StepName> = BTreeMap::new();
    for (node, _) in active {
        if let Some(other) = steps.insert(&node.name, &node.step) {
            let name = &node.name;
            return Err(Error::usage(format!(
                "steps {other} and {}: both have a node {name}",
                node.step
            ))
            .hint("give one of them another name"));
        }
    }
    Ok(())
}

/// Refuses deciding steps after the last export whose decisions no step reads.
pub(super) fn refuse_unread(steps: &[Step]) -> Result<()> {
    let is_export = |step: &Step| step.program.stage() == "export";
    let Some(last) = steps.iter().rposition(is_export) else {
        return Ok(());
    };
    let after = &steps[last + 1..];
    for (index, step) in after.iter().enumerate() {
        let mut later = after[index + 1..].iter();
        let is_read = later.any(|later| {
            later.program.role != Role::Sink && later.survivors_of.as_ref() == Some(&step.name)
        });
        if step.program.role == Role::Decider && !is_read {
            return Err(Error::usage(format!(
                "step {}: it has no effect: no export comes after it",
                step.name
            ))
            .hint("move it before the export, or add an export with an output of its own"));
        }
    }
    Ok(())
}

fn missing_step(node: &PipelineNode, needed: &StepName, steps: &[Step]) -> Error {
    let error = Error::usage(format!(
        "step {}: no step {needed} comes before it",
        node.step
    ));
    let before = || steps.iter().take_while(|step| step.name != node.step);
    let encoders = before().filter(|step| step.program.role == Role::Encoder);
    let is_default = *needed == StepName::fixed("embed");
    if let Some(encoder) = encoders.last().filter(|_| is_default) {
        return error.hint(format!(
            "the step before it with embeddings is {name}: write embeddings = \"{name}\"",
            name = encoder.name
        ));
    }
    let names: Vec<&str> = before().map(|step| step.name.as_str()).collect();
    let names = names.join(", ");
    error.hint(if node.program.role == Role::Decider {
        format!(
            "the steps before it are {names}; rules also read columns such as width and caption"
        )
    } else {
        format!("the steps before it are {names}")
    })
}

/// A step with one active operation has one node, which has the step's name.
fn rename_single(active: &mut [(PipelineNode, Vec<StepName>)]) {
    let steps: Vec<StepName> = active.iter().map(|(node, _)| node.step.clone()).collect();
    for (node, _) in active {
        if steps.iter().filter(|step| **step == node.step).count() == 1 {
            node.name = node.step.to_string();
        }
    }
}

/// Returns the indices of the earlier nodes that a node reads from.
fn waits_for(
    node: &PipelineNode,
    needs: &[StepName],
    before: &[(PipelineNode, Vec<StepName>)],
    steps: &[Step],
) -> Vec<usize> {
    let step = steps.iter().find(|step| step.name == node.step);
    let survivors_of = step.and_then(|step| step.survivors_of.as_ref());
    let is_report = node.operation.unit == UnitKind::Report;
    let mut found = Vec::new();
    for (index, (other, _)) in before.iter().enumerate() {
        let is_read_from = match &other.step {
            other if *other == node.step => false,
            other if Some(other) == survivors_of || needs.contains(other) => true,
            // The report covers all steps.
            _ if is_report => true,
            other => match node.step.as_str() {
                "partition" => false,
                "read" => *other == StepName::partition(),
                _ => *other == StepName::read(),
            },
        };
        let is_own = other.step == node.step
            && (other.operation.subcommand)
                .is_some_and(|subcommand| node.operation.after.contains(&subcommand));
        if is_read_from || is_own {
            found.push(index);
        }
    }
    found
}
