//! Checks scores and embeddings: each belongs to a survivor, and the receipts have the right
//! counts.

use sluice_manifest::layout::{EMBEDDINGS, SCORES};
use sluice_manifest::rows::{self, NameRow};
use sluice_manifest::{Counts, Histogram, Partition, Receipt, Result};
use sluice_run::ScoreReader;

use super::CheckedRun;
use super::checks::{Check, CheckResults};

/// Checks a scorer's rows of a partition.
///
/// # Errors
/// Data, when a manifest is missing or broken.
pub(super) fn check(
    run: &CheckedRun<'_>,
    receipt: &Receipt,
    partition: Partition,
    findings: &mut CheckResults,
) -> Result<()> {
    let columns: Vec<&str> = receipt
        .scores
        .iter()
        .map(|s| s.column.name.as_str())
        .collect();
    let (step, unit) = (&receipt.step, receipt.unit);
    let mut reader = ScoreReader::open(run.recorded, step, unit, &columns)?;
    let mut histograms = vec![Histogram::default(); columns.len()];
    let path = SCORES.path(step, unit);
    let rows = run.recorded.table(&path, rows::SCORES, &["image_id"])?;
    rows_of_survivors(run, receipt, partition, rows.len(), findings, |id| {
        let scores = reader.next_if(id)?;
        for (histogram, score) in histograms.iter_mut().zip(scores.iter().flatten()) {
            histogram.add(*score);
        }
        Ok(scores.is_some())
    })?;
    for (summary, histogram) in receipt.scores.iter().zip(&histograms) {
        findings.expect(Check::Scores, summary.histogram == *histogram, || {
            let column = &summary.column.name;
            format!(
                "{step} {unit}: the histogram of {column:?} in the receipt differs from the rows"
            )
        });
    }
    Ok(())
}

/// Checks an encoder's rows of a partition.
///
/// # Errors
/// Data, when a manifest is missing or broken.
pub(super) fn check_embeddings(
    run: &CheckedRun<'_>,
    receipt: &Receipt,
    partition: Partition,
    findings: &mut CheckResults,
) -> Result<()> {
    let path = EMBEDDINGS.path(&receipt.step, receipt.unit);
    let table = run.recorded.table(&path, rows::EMBEDDINGS, &["image_id"])?;
    let rows = table.len();
    let mut ids = ScoreReader::open_path(run.recorded, &path, rows::EMBEDDINGS, &[])?;
    rows_of_survivors(run, receipt, partition, rows, findings, |id| {
        Ok(ids.next_if(id)?.is_some())
    })
}

/// Checks that every row belongs to a survivor, in the order of `read` and once, and that the
/// receipt has these counts. `take` returns whether the next row is this image's.
fn rows_of_survivors(
    run: &CheckedRun<'_>,
    receipt: &Receipt,
    partition: Partition,
    rows: u64,
    findings: &mut CheckResults,
    mut take: impl FnMut(&str) -> Result<bool>,
) -> Result<()> {
    let Some(survivors) = run.survivors.before(receipt) else {
        return Ok(());
    };
    let (step, unit) = (&receipt.step, receipt.unit);
    let (mut survived, mut found) = (0, 0);
    for sample in survivors.samples::<NameRow>(partition)? {
        found += u64::from(take(sample?.image_id.as_str())?);
        survived += 1;
        if survived % 1024 == 0 {
            run.recorded.check_stop()?;
        }
    }
    findings.expect(Check::Scores, found == rows, || {
        let wrong = rows.saturating_sub(found);
        format!(
            "{step} {unit}: {wrong} rows do not belong to a survivor, are out of order or duplicate"
        )
    });
    let counted =
        receipt.counts == Counts::all_kept(survived) && receipt.sums.unscored == survived - found;
    findings.expect(Check::Scores, counted, || {
        let (input, unscored) = (receipt.counts.input, receipt.sums.unscored);
        format!(
            "{step} {unit}: {found} of {survived} survivors have a row, \
             the receipt counts {input} samples, {unscored} of them without"
        )
    });
    Ok(())
}
