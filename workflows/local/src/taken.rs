//! Where tools must not write: a run, its input and its outputs.

use anyhow::Result;
use sluice_export::plan::planned_output;
use sluice_harness::{Context, InputPlaces, Plan, Receipts, refuse_overlap};
use sluice_report::steps;
use sluice_store::Location;

/// Refuses a place to write to that is in a run, its input or its outputs, or that one of them is in.
///
/// # Errors
/// Usage; data, when a manifest is missing or broken.
pub fn refuse_taken(
    flag: &str,
    place: &Location,
    context: &Context,
    plan: &Plan,
    receipts: &Receipts,
) -> Result<()> {
    InputPlaces::of_plan(plan, &context.run)?.refuse(flag, place)?;
    refuse_overlap((flag, place), ("--run", context.run.location()))?;
    for export in steps::exports(receipts) {
        if let Some(output) = planned_output(&context.run, export)? {
            refuse_overlap((flag, place), ("the output", &output))?;
        }
    }
    Ok(())
}
