//! Checks the decisions of filters: one for each survivor, in agreement with the thresholds.
//!
//! The thresholds come from the filter's settings, and the scores are compared with them again.
//! Rules are not evaluated again.

use sluice_manifest::layout::FILTERED;
use sluice_manifest::rows::{FilterRow, NameRow};
use sluice_manifest::{Counts, Partition, ReasonKind, Receipt, Result};
use sluice_run::ScoreReader;
use sluice_run::thresholds::{self, Threshold};

use super::CheckedRun;
use super::checks::{Check, CheckResults};

/// A threshold, with the scores that it applies to.
struct CheckedThreshold {
    threshold: Threshold,
    scores: ScoreReader,
    /// The current sample's score; NaN if it has none.
    score: f32,
}

/// Checks a filter's rows of a partition.
///
/// # Errors
/// Data, when a manifest is missing or broken.
pub(super) fn check(
    run: &CheckedRun<'_>,
    receipt: &Receipt,
    partition: Partition,
    findings: &mut CheckResults,
) -> Result<()> {
    let Some(survivors) = run.survivors.before(receipt) else {
        return Ok(());
    };
    let (step, unit) = (&receipt.step, receipt.unit);
    let mut conditions = conditions(run, receipt)?;
    let mut rows = run.recorded.rows::<FilterRow>(&FILTERED.path(step, unit))?;
    let mut counts = Counts::default();
    for verdict in survivors.verdicts::<NameRow>(partition)? {
        let verdict = verdict?;
        let id = &verdict.sample.image_id;
        // A scorer may have processed images that did not reach the filter.
        for condition in &mut conditions {
            let scores = condition.scores.next_if(id.as_str())?;
            condition.score = scores.map_or(f32::NAN, |scores| scores[0]);
        }
        if verdict.dropped.is_some() {
            continue;
        }
        let Some(row) = rows.next_if(|row| row.image_id == *id)? else {
            findings.fail(Check::Decisions, format!("{step}: {id} is not decided"));
            continue;
        };
        counts.add(step, row.reason.as_ref());
        let holds = row.keep == row.reason.is_none() && follows(&row, &conditions);
        findings.expect(Check::Decisions, holds, || {
            let reason = row.reason.as_ref().map(ToString::to_string);
            let scores: Vec<String> = conditions
                .iter()
                .map(|c| format!("{} {}", c.threshold.score, c.score))
                .collect();
            format!(
                "{step}: {id}: keep is {} ({}), but the scores are {}",
                row.keep,
                reason.as_deref().unwrap_or("no reason"),
                scores.join(", ")
            )
        });
        if counts.input % 1024 == 0 {
            run.recorded.check_stop()?;
        }
    }
    if let Some(row) = rows.next() {
        let id = row?.image_id;
        let failure =
            format!("{step} {unit}: {id} is not a survivor, out of order or a duplicate row");
        findings.fail(Check::Decisions, failure);
    }
    findings.expect(Check::Decisions, counts == receipt.counts, || {
        format!("{step} {unit}: the rows do not sum up to what the receipt counts")
    });
    Ok(())
}

fn conditions(run: &CheckedRun<'_>, receipt: &Receipt) -> Result<Vec<CheckedThreshold>> {
    let thresholds = thresholds::of_receipt(receipt).into_iter();
    let conditions = thresholds.map(|threshold| {
        Ok(CheckedThreshold {
            scores: ScoreReader::open_one(run.recorded, &threshold.score, receipt.unit)?,
            threshold,
            score: f32::NAN,
        })
    });
    conditions.collect()
}

/// Whether a decision agrees with the scores.
fn follows(row: &FilterRow, conditions: &[CheckedThreshold]) -> bool {
    let passes = |c: &CheckedThreshold| c.threshold.keep().passes(c.score, c.threshold.value);
    let Some(reason) = &row.reason else {
        return conditions.iter().all(passes);
    };
    let is_about = |c: &&CheckedThreshold| {
        let name = c.threshold.score.to_string();
        reason.subject.as_deref() == Some(name.as_str())
    };
    let mut about = conditions.iter().filter(is_about);
    match reason.kind {
        // A filter that is not Sluice's may have its thresholds elsewhere.
        _ if conditions.is_empty() => true,
        ReasonKind::BelowMin | ReasonKind::AboveMax | ReasonKind::BelowTop => {
            about.any(|c| c.threshold.reason == reason.kind && !c.score.is_nan() && !passes(c))
        }
        ReasonKind::NotScored => about.all(|c| c.score.is_nan()),
        // Rules.
        _ => true,
    }
}
