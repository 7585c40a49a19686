//! The duplicates that a run has removed.

use sluice_manifest::layout::DUPLICATES;
use sluice_manifest::numbers::decimal;
use sluice_manifest::rows::{DuplicateRow, Method};
use sluice_manifest::{Result, StepName};

use crate::{Receipts, Run, steps};

/// Calls `each` for every removed duplicate of the run.
///
/// # Errors
///
/// Returns a data error if a manifest is missing or damaged, and otherwise a storage error.
pub fn each_duplicate(
    run: &Run,
    receipts: &Receipts,
    mut each: impl FnMut(&StepName, DuplicateRow),
) -> Result<()> {
    for step in receipts.steps() {
        for receipt in steps::duplicates(receipts, step) {
            run.check_stop()?;
            let path = DUPLICATES.path(step, receipt.unit);
            for row in run.rows(&path)? {
                each(step, row?);
            }
        }
    }
    Ok(())
}

/// Returns a method's name in manifests.
pub fn method_name(method: Method) -> &'static str {
    match method {
        Method::Exact => "exact",
        Method::Perceptual => "perceptual",
        Method::Semantic => "semantic",
    }
}

/// Describes how a duplicate was found.
pub fn found_by(row: &DuplicateRow) -> String {
    match row.method {
        Method::Exact => "the same bytes".to_owned(),
        method => format!(
            "{}, similarity {}",
            method_name(method),
            decimal(row.similarity)
        ),
    }
}
