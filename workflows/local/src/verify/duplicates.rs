//! Checks that duplicates and the images that they duplicate were inputs of their step. Images of a
//! reference set are not looked up, because the set may no longer exist.
//!
//! The other image may be in any partition, and all names together do not fit into memory. The rows
//! are therefore processed in batches: the names of a batch determine its partitions, and only
//! these are read. A batch contains rows of one step, because the survivors differ between steps.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use sluice_manifest::layout::DUPLICATES;
use sluice_manifest::rows::{DuplicateRow, NameRow};
use sluice_manifest::{ImageId, Partition, Receipt, Result, StepName};
use sluice_run::{Survivors, steps};

use super::CheckedRun;
use super::checks::{Check, CheckResults};
use crate::places::Places;

/// The number of rows of a batch.
const BATCH: usize = 100_000;

/// Checks all duplicates of all steps.
///
/// # Errors
/// Storage errors only.
pub(super) fn check(run: &CheckedRun<'_>, findings: &mut CheckResults) -> Result<()> {
    let places = Places::new(run.plan);
    for &step in &run.steps {
        let first = steps::duplicates(run.receipts, step).next();
        if let Some(survivors) = first.and_then(|receipt| run.survivors.before(receipt)) {
            let checked = StepCheck {
                run,
                step,
                places: &places,
                survivors,
            };
            checked.check(findings)?;
        }
    }
    Ok(())
}

/// The check of one step's duplicates.
struct StepCheck<'a> {
    run: &'a CheckedRun<'a>,
    step: &'a StepName,
    places: &'a Places<'a>,
    survivors: &'a Survivors<'a>,
}

impl StepCheck<'_> {
    fn check(&self, findings: &mut CheckResults) -> Result<()> {
        let mut batch = Vec::new();
        for receipt in steps::duplicates(self.run.receipts, self.step) {
            if let Err(e) = self.unit(receipt, &mut batch, findings) {
                findings.note(Check::Duplicates, e)?;
            }
        }
        self.batch(&mut batch, findings)
    }

    fn unit(
        &self,
        receipt: &Receipt,
        batch: &mut Vec<DuplicateRow>,
        findings: &mut CheckResults,
    ) -> Result<()> {
        let path = DUPLICATES.path(self.step, receipt.unit);
        let mut rows = 0;
        for row in self.run.recorded.rows(&path)? {
            batch.push(row?);
            rows += 1;
            if batch.len() == BATCH {
                self.batch(batch, findings)?;
            }
        }
        let counted = receipt.counts.dropped_total();
        findings.expect(Check::Duplicates, rows == counted, || {
            format!("{path}: {rows} rows, the receipt counts {counted}")
        });
        Ok(())
    }

    /// Checks the rows of a batch, and clears it.
    fn batch(&self, batch: &mut Vec<DuplicateRow>, findings: &mut CheckResults) -> Result<()> {
        let mut wanted: BTreeMap<Partition, BTreeSet<&str>> = BTreeMap::new();
        for row in batch.iter() {
            let other = Some(&row.duplicate_of).filter(|_| row.reference.is_none());
            for id in [&row.image_id].into_iter().chain(other) {
                for shard in self.places.of(id.as_str()) {
                    wanted
                        .entry(shard.partition)
                        .or_default()
                        .insert(id.as_str());
                }
            }
        }
        let mut there: HashSet<(Partition, ImageId)> = HashSet::new();
        for (partition, ids) in wanted {
            self.run.recorded.check_stop()?;
            if let Err(e) = self.survivors_among(partition, &ids, &mut there) {
                findings.note(Check::Duplicates, e)?;
            }
        }
        for row in batch.drain(..) {
            let holds = there.contains(&(row.partition, row.image_id.clone()))
                && (row.reference.is_some() || self.is_another(&row, &there));
            findings.expect(Check::Duplicates, holds, || {
                format!(
                    "{}: {} ({}), duplicate of {}: these are not two images that the step saw",
                    self.step, row.image_id, row.partition, row.duplicate_of
                )
            });
        }
        Ok(())
    }

    /// Whether a row names another image that the step saw.
    fn is_another(&self, row: &DuplicateRow, there: &HashSet<(Partition, ImageId)>) -> bool {
        let others = self.places.of(row.duplicate_of.as_str());
        let mut others = others
            .iter()
            .map(|s| (s.partition, row.duplicate_of.clone()));
        row.image_id != row.duplicate_of && others.any(|other| there.contains(&other))
    }

    fn survivors_among(
        &self,
        partition: Partition,
        ids: &BTreeSet<&str>,
        there: &mut HashSet<(Partition, ImageId)>,
    ) -> Result<()> {
        for sample in self.survivors.samples::<NameRow>(partition)? {
            let id = sample?.image_id;
            if ids.contains(id.as_str()) {
                there.insert((partition, id));
            }
        }
        Ok(())
    }
}
