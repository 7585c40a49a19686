//! Selects the steps of a run that belong to its pipeline.
//!
//! A step that is removed from a pipeline, or renamed, leaves its outputs in the run. Its units
//! then become older than their inputs, which is not a defect of the run. These steps are selected:
//!
//! - If `RUN/pipeline.toml` exists: its steps, other exports that are up to date, and all steps
//!   that these read from.
//! - In a run without it: exports, all steps that they read from, and other steps that are up to
//!   date. Without an export: all steps.
//!
//! A report reads every selected step, so its own inputs are not taken into account.

use std::collections::BTreeSet;

use sluice_manifest::{Result, StepName, UnitKind};

use crate::planned::{self, PlannedStep};
use crate::{CurrentInputs, Receipts, Run, steps};

/// Returns the receipts of the selected steps. The other steps are listed as left over.
///
/// # Errors
///
/// Returns a data error if the run's pipeline file cannot be parsed, and otherwise a storage error.
pub fn receipts(run: &Run) -> Result<Receipts> {
    let planned = planned::steps(run)?;
    let mut receipts = run.receipts()?;
    retain(&mut receipts, planned.as_deref());
    Ok(receipts)
}

/// Removes the receipts of steps that are not selected.
pub fn retain(receipts: &mut Receipts, planned: Option<&[PlannedStep]>) {
    let counted = counted(receipts, planned).into_iter().cloned();
    let counted: BTreeSet<StepName> = counted.collect();
    receipts.keep_only(|step| counted.contains(step));
}

fn counted<'r>(receipts: &'r Receipts, planned: Option<&[PlannedStep]>) -> BTreeSet<&'r StepName> {
    let exports = steps::exports(receipts);
    let current = current(receipts);
    let is_root = |step: &StepName| match planned {
        Some(planned) => {
            let is_planned = planned.iter().any(|planned| planned.name == *step);
            is_planned || (exports.contains(&step) && current.contains(step))
        }
        None => {
            let is_sink = exports.contains(&step) || is_report(receipts, step);
            exports.is_empty() || is_sink || current.contains(step)
        }
    };
    let mut open = receipts.steps();
    open.retain(|step| is_root(step));
    let mut counted = BTreeSet::new();
    while let Some(step) = open.pop() {
        if counted.insert(step) && !is_report(receipts, step) {
            open.extend(receipts.read_by(step));
        }
    }
    counted
}

fn is_report(receipts: &Receipts, step: &StepName) -> bool {
    let mut units = receipts.of(step).iter();
    units.any(|receipt| receipt.unit.kind == UnitKind::Report)
}

/// Returns the steps that are up to date with the current state of the run, including all steps
/// before them.
fn current(receipts: &Receipts) -> BTreeSet<&StepName> {
    let mut inputs = CurrentInputs::new(receipts);
    let mut current = BTreeSet::new();
    for step in receipts.steps() {
        let mut units = receipts.of(step).iter();
        let before = receipts.read_by(step);
        if before.is_subset(&current) && units.all(|receipt| inputs.changed(receipt).is_none()) {
            current.insert(step);
        }
    }
    current
}
