//! One partition: its shards, its samples, their scores and decisions.

use std::collections::HashMap;

use sluice_harness::{PartitionPlan, Verdicts};
use sluice_manifest::dag::{self, Step};
use sluice_manifest::rows::{DecisionRow, SampleRow, ScoreRow, ShardRow, SkippedRow, Status};
use sluice_manifest::{Counts, Filter, Result, ShardPath, Unit, layout};

use super::Run;
use super::checks::{Check, Findings};

/// Members and samples of a shard, as the manifests have them.
#[derive(Debug, Default)]
struct Tally {
    samples: u64,
    in_samples: u64,
    skipped: u64,
}

/// Looks at a partition.
pub fn check(run: &Run<'_>, planned: &PartitionPlan) -> Result<Findings> {
    let mut findings = Findings::default();
    let unit = Unit::from(planned.partition);
    if run.receipts.unit(&dag::READ, &unit).is_some() {
        let checked = samples(run, planned, &unit, &mut findings);
        if let Err(e) = checked {
            findings.note(Check::Samples, e)?;
        }
    }
    for (step, setting) in [(&dag::AESTHETIC, "min_score"), (&dag::NSFW, "max_score")] {
        if let Err(e) = scores(run, step, setting, &unit, &mut findings) {
            findings.note(Check::Scores, e)?;
        }
    }
    if let Err(e) = decisions(run, planned, &unit, &mut findings) {
        findings.note(Check::Decisions, e)?;
    }
    Ok(findings)
}

/// Rows of `read/images` against the receipt, and members against `read/shards`.
fn samples(
    run: &Run<'_>,
    planned: &PartitionPlan,
    unit: &Unit,
    findings: &mut Findings,
) -> Result<()> {
    let store = &run.context.run;
    let mut tallies: HashMap<ShardPath, Tally> = HashMap::new();
    let mut counts = Counts::default();
    for row in store.rows::<SampleRow>(&layout::manifest("read", "images", unit))? {
        let row = row?;
        let id = row.image_id.as_str();
        let named = id
            .strip_prefix(row.shard.stem())
            .and_then(|rest| rest.strip_prefix('/'))
            .is_some_and(|rest| rest.starts_with(row.key.as_str()));
        let reasoned = (row.status == Status::Rejected) == row.reason.is_some();
        findings.expect(Check::Samples, named && reasoned, || {
            format!("{id}: not named by its shard and key, or rejected without a reason")
        });
        let tally = tallies.entry(row.shard).or_default();
        tally.samples += 1;
        tally.in_samples += row.members.len() as u64;
        counts.add(row.reason);
        if counts.input % 1024 == 0 {
            run.context.check_stop()?;
        }
    }
    let told = run.receipts.unit(&dag::READ, unit).map(|r| &r.counts);
    findings.expect(Check::Samples, told == Some(&counts), || {
        format!("read {unit}: the rows do not sum up to what the receipt counts")
    });
    for row in store.rows::<SkippedRow>(&layout::manifest("read", "skipped", unit))? {
        tallies.entry(row?.shard).or_default().skipped += 1;
    }
    let mut shards = store.rows::<ShardRow>(&layout::manifest("read", "shards", unit))?;
    for planned in &planned.shards {
        let Some(row) = shards.next().transpose()? else {
            findings.fail(Check::Shards, format!("{}: not read", planned.shard));
            continue;
        };
        let tally = tallies.remove(&row.shard).unwrap_or_default();
        let holds = row.shard == planned.shard
            && row.torn <= 1
            && (tally.samples, tally.skipped) == (row.samples, row.skipped)
            && row.members == tally.in_samples + tally.skipped + row.torn;
        findings.expect(Check::Shards, holds, || {
            format!(
                "{}: {} members, but {} in samples + {} skipped + {} torn",
                row.shard, row.members, tally.in_samples, tally.skipped, row.torn
            )
        });
    }
    for shard in tallies.keys() {
        let failure = format!("{shard}: has samples, but is no shard of {unit}");
        findings.fail(Check::Shards, failure);
    }
    Ok(())
}

/// Scores are of samples in their order, and their decisions follow from the threshold.
fn scores(
    run: &Run<'_>,
    step: &Step,
    setting: &str,
    unit: &Unit,
    findings: &mut Findings,
) -> Result<()> {
    let Some(receipt) = run.receipts.unit(step, unit) else {
        return Ok(());
    };
    let threshold = receipt.settings[setting].as_f64().map(|t| t as f32);
    let path = layout::manifest(step.stage, "scores", unit);
    let mut counts = (0, 0);
    let mut rows = run.context.run.rows::<ScoreRow>(&path)?;
    let samples = layout::manifest("read", "images", unit);
    for sample in run
        .context
        .run
        .rows::<sluice_manifest::rows::SampleBrief>(&samples)?
    {
        let id = sample?.image_id;
        let Some(row) = rows.next_if(|row| row.image_id == id)? else {
            continue;
        };
        let passes = threshold.map(|threshold| match setting {
            "min_score" => row.score >= threshold,
            _ => row.score < threshold,
        });
        counts.0 += 1;
        counts.1 += u64::from(row.keep);
        let agrees = row.score.is_finite() && passes.is_none_or(|passes| passes == row.keep);
        findings.expect(Check::Scores, agrees, || {
            let (keep, score) = (row.keep, row.score);
            format!("{} {id}: keep is {keep} at score {score}", step.stage)
        });
    }
    if let Some(row) = rows.next() {
        let id = row?.image_id;
        let failure = format!("{} {unit}: {id} is no sample, or out of order", step.stage);
        findings.fail(Check::Scores, failure);
    }
    findings.expect(Check::Scores, receipt.counts.kept == counts.1, || {
        format!(
            "{} {unit}: {} of {} are kept, the receipt counts {}",
            step.stage, counts.1, counts.0, receipt.counts.kept
        )
    });
    Ok(())
}

/// Makes each decision again.
fn decisions(
    run: &Run<'_>,
    planned: &PartitionPlan,
    unit: &Unit,
    findings: &mut Findings,
) -> Result<()> {
    let Some(receipt) = run.receipts.unit(&dag::EXPORT_DECIDE, unit) else {
        return Ok(());
    };
    let filters: Vec<Filter> = match serde_json::from_value(receipt.settings["filters"].clone()) {
        Ok(filters) => filters,
        Err(e) => {
            findings.fail(
                Check::Decisions,
                format!("{unit}: filters do not read: {e}"),
            );
            return Ok(());
        }
    };
    let path = layout::manifest(dag::EXPORT_DECIDE.stage, "decisions", unit);
    let mut rows = run.context.run.rows::<DecisionRow>(&path)?;
    let mut counts = Counts::default();
    for verdict in Verdicts::open(run.context, planned.partition, &filters)? {
        let verdict = verdict?;
        let Some(row) = rows.next().transpose()? else {
            let failure = format!("{}: not decided", verdict.sample.image_id);
            findings.fail(Check::Decisions, failure);
            break;
        };
        counts.add(row.reason);
        let same = row.image_id == verdict.sample.image_id
            && row.reason == verdict.dropped
            && row.keep == verdict.dropped.is_none()
            && row.stage.as_deref() == verdict.dropped.map(|reason| reason.stage())
            && row.score.map(f32::to_bits) == verdict.score.map(f32::to_bits)
            && row.bytes == verdict.sample.bytes();
        findings.expect(Check::Decisions, same, || {
            let (id, found) = (&verdict.sample.image_id, &row.image_id);
            format!(
                "{id}: the stages say {}, the row (of {found}) says {}",
                words(verdict.dropped.map(|r| r.as_str())),
                words(row.reason.map(|r| r.as_str()))
            )
        });
    }
    if rows.next().is_some() {
        let failure = format!("{unit}: more decisions than samples");
        findings.fail(Check::Decisions, failure);
    }
    let read = run.receipts.unit(&dag::READ, unit).map(|r| r.counts.input);
    let conserved =
        counts == receipt.counts && counts.check().is_ok() && read == Some(counts.input);
    findings.expect(Check::Conservation, conserved, || {
        format!(
            "{unit}: {} samples were read; {} kept + {} dropped",
            read.unwrap_or(0),
            counts.kept,
            counts.dropped_total()
        )
    });
    Ok(())
}

fn words(reason: Option<&str>) -> &str {
    reason.unwrap_or("keep")
}
