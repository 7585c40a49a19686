//! Protects a run, its input and its outputs from tools that write files.

use anyhow::Result;
use sluice_export::plan::planned_output;
use sluice_run::{InputPlaces, Plan, Receipts, Run, refuse_overlap, steps};
use sluice_store::Location;

/// Refuses a destination that overlaps a run, its input or its outputs.
///
/// # Errors
/// Usage, for such a destination; data, when a manifest is missing or broken.
pub fn refuse_taken(
    flag: &str,
    place: &Location,
    recorded: &Run,
    plan: &Plan,
    receipts: &Receipts,
) -> Result<()> {
    InputPlaces::of_plan(plan, recorded)?.refuse(flag, place)?;
    refuse_overlap((flag, place), ("--run", recorded.location()))?;
    for export in steps::exports(receipts) {
        if let Some(output) = planned_output(recorded, export)? {
            refuse_overlap((flag, place), ("the output", &output))?;
        }
    }
    Ok(())
}
