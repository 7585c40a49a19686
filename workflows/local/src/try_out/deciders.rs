//! Runs the deciding steps of a run again, in its scratch copy.

use anyhow::Result;
use clap::CommandFactory;
use serde_json::Value;
use sluice_harness::{Common, Context, ProcessResources, Program, ProgramNode, run_step};
use sluice_manifest::{Error, InputOf, Receipt, StepName};
use sluice_run::Receipts;

use super::changes::TrialChanges;

/// The subcommands of a dedup step that depend on the survivors. `fit` depends only on the
/// embeddings.
const OF_SURVIVORS: [&str; 4] = ["exact", "perceptual", "assign", "match"];

/// Runs a deciding step.
///
/// # Errors
/// The errors of the step's own program.
pub(super) fn decide(
    step: &StepName,
    receipts: &Receipts,
    changes: &TrialChanges,
    run: &str,
    shared: &ProcessResources,
) -> Result<()> {
    let first = receipts.of(step).first();
    let first = first.ok_or_else(|| Error::bug(format!("{step}: no receipt")))?;
    match changes.filters.get(step) {
        Some(conditions) => {
            let context = filter_context(first, run, shared)?;
            sluice_filter::decide(&context, first.survivors_of.as_ref(), conditions.clone())
        }
        None => deduplicate(step, receipts, changes, run, shared),
    }
}

fn filter_context(receipt: &Receipt, run: &str, shared: &ProcessResources) -> Result<Context> {
    let node = ProgramNode {
        step: receipt.step.clone(),
        stage: sluice_filter::Args::stage(),
        operation: &sluice_filter::Args::OPERATIONS[0],
        survivors_of: receipt.survivors_of.clone(),
    };
    Ok(Context::new(
        &Common::on(run),
        sluice_filter::Args::NAME,
        node,
        shared,
    )?)
}

fn deduplicate(
    step: &StepName,
    receipts: &Receipts,
    changes: &TrialChanges,
    run: &str,
    shared: &ProcessResources,
) -> Result<()> {
    let of = |subcommand: &str| {
        let mut units = receipts.of(step).iter();
        units.find(|receipt| receipt.subcommand.as_deref() == Some(subcommand))
    };
    for subcommand in OF_SURVIVORS {
        if let Some(receipt) = of(subcommand) {
            let mut command = command(subcommand, receipt, &changed(subcommand, changes), run);
            if let ("assign", Some(fit)) = (subcommand, of("fit")) {
                command.extend(embeddings(fit).map(|step| format!("--embeddings={step}")));
            }
            run_step::<sluice_dedup::Args>(&command, shared)?;
        }
    }
    Ok(())
}

/// Returns the command line of a finished unit, without the flags that were changed. Settings
/// without a flag, such as the number of groups that `match` chooses, are left to the program.
fn command(
    subcommand: &str,
    receipt: &Receipt,
    changed: &[(&str, String)],
    run: &str,
) -> Vec<String> {
    let mut command = vec![
        sluice_dedup::Args::NAME.to_owned(),
        subcommand.to_owned(),
        format!("--run={run}"),
        format!("--step={}", receipt.step),
    ];
    let survivors_of = receipt.survivors_of.iter();
    command.extend(survivors_of.map(|step| format!("--survivors-of={step}")));
    let definition = sluice_dedup::Args::command();
    let definition = definition.find_subcommand(subcommand);
    for (name, value) in receipt.settings.as_object().into_iter().flatten() {
        let flag = name.replace('_', "-");
        let is_flag = definition.is_some_and(|definition| {
            definition
                .get_arguments()
                .any(|arg| arg.get_long() == Some(&flag))
        });
        let is_changed = changed.iter().any(|(name, _)| *name == flag);
        if is_flag && flag != "groups" && !is_changed {
            command.extend(text(value).map(|value| format!("--{flag}={value}")));
        }
    }
    let changed = changed.iter();
    command.extend(changed.map(|(flag, value)| format!("--{flag}={value}")));
    command
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(items) => Some(items.iter().filter_map(text).collect::<Vec<_>>().join(",")),
        // Numbers with a decimal point are float32.
        Value::Number(number) if number.is_f64() => number.as_f64().map(|n| (n as f32).to_string()),
        other => Some(other.to_string()),
    }
}

fn changed(subcommand: &str, changes: &TrialChanges) -> Vec<(&'static str, String)> {
    let flags = match subcommand {
        "perceptual" => vec![(
            "max-distance",
            changes.max_distance.map(|bits| bits.to_string()),
        )],
        "match" => vec![("eps", changes.eps.clone()), ("keep", changes.keep.clone())],
        _ => Vec::new(),
    };
    let flags = flags.into_iter();
    flags
        .filter_map(|(flag, value)| Some((flag, value?)))
        .collect()
}

/// Returns the step whose embeddings a fit was computed from.
fn embeddings(fit: &Receipt) -> Option<&StepName> {
    fit.inputs.iter().find_map(|input| match &input.of {
        InputOf::Units { step, .. } => Some(step),
        _ => None,
    })
}
