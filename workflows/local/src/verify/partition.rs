//! Checks one partition: its shards, its samples, their scores and decisions.

use std::collections::HashMap;

use sluice_export::split::group_of;
use sluice_manifest::layout::{DECISIONS, EMBEDDINGS, IMAGES, SHARDS, SKIPPED};
use sluice_manifest::rows::{
    DecisionRow, PlanRow, SampleBrief, SampleRow, ShardRow, SkippedRow, Status,
};
use sluice_manifest::{
    Counts, Dropped, Partition, Receipt, Result, ShardPath, StepName, Unit, UnitKind,
};
use sluice_run::{PartitionPlan, steps};

use super::checks::{Check, CheckResults};
use super::{CheckedRun, filters, scores};

/// The numbers of members and samples of a shard, according to the manifests.
#[derive(Debug, Default)]
struct ShardCounts {
    samples: u64,
    in_samples: u64,
    skipped: u64,
}

/// Checks a partition: the rows of `read`, then every step that works on partitions.
///
/// # Errors
/// Storage errors only.
pub(super) fn check(run: &CheckedRun<'_>, planned: &PartitionPlan) -> Result<CheckResults> {
    let mut findings = CheckResults::default();
    let (partition, unit) = (planned.partition, Unit::from(planned.partition));
    for &step in &run.steps {
        let Some(receipt) = run.receipts.unit(step, unit) else {
            continue;
        };
        if *step == StepName::read() {
            let checked = samples(run, planned, receipt, &mut findings);
            note(&mut findings, Check::Samples, checked)?;
        }
        if !receipt.scores.is_empty() {
            let checked = scores::check(run, receipt, partition, &mut findings);
            note(&mut findings, Check::Scores, checked)?;
        }
        if steps::has_written(receipt, |step, unit| EMBEDDINGS.path(step, unit)) {
            let checked = scores::check_embeddings(run, receipt, partition, &mut findings);
            note(&mut findings, Check::Scores, checked)?;
        }
        if receipt.decides.contains(&UnitKind::Partition) {
            let checked = filters::check(run, receipt, partition, &mut findings);
            note(&mut findings, Check::Decisions, checked)?;
        }
        if receipt.stage == steps::EXPORT {
            let checked = decisions(run, receipt, partition, &mut findings);
            note(&mut findings, Check::Decisions, checked)?;
        }
    }
    Ok(findings)
}

fn note(findings: &mut CheckResults, check: Check, result: Result<()>) -> Result<()> {
    match result {
        Ok(()) => Ok(()),
        Err(e) => findings.note(check, e),
    }
}

/// Compares the rows of `read/images` with the receipt, and the members with `read/shards`.
fn samples(
    run: &CheckedRun<'_>,
    planned: &PartitionPlan,
    receipt: &Receipt,
    findings: &mut CheckResults,
) -> Result<()> {
    let store = run.recorded;
    let (read, unit) = (&receipt.step, receipt.unit);
    let mut counts_of_shards: HashMap<ShardPath, ShardCounts> = HashMap::new();
    let mut counts = Counts::default();
    let shards = planned.shards.iter().map(|shard| (&shard.shard, shard));
    let shards: HashMap<&ShardPath, &PlanRow> = shards.collect();
    for row in store.rows::<SampleRow>(&IMAGES.path(read, unit))? {
        let row = row?;
        let id = row.image_id.as_str();
        let named = shards.get(&row.shard).is_some_and(|shard| {
            let first = shard.image_id(&row.key, 0);
            id.starts_with(first.as_str())
        });
        let reasoned = (row.status == Status::Rejected) == row.reason.is_some();
        findings.expect(Check::Samples, named && reasoned, || {
            format!("{id}: not named by its shard and key, or rejected without a reason")
        });
        let own = row.own_members();
        let shard_counts = counts_of_shards.entry(row.shard).or_default();
        shard_counts.samples += 1;
        shard_counts.in_samples += own;
        counts.add(read, row.reason.as_ref());
        if counts.input % 1024 == 0 {
            run.recorded.check_stop()?;
        }
    }
    findings.expect(Check::Samples, receipt.counts == counts, || {
        format!("{read} {unit}: the rows do not sum up to what the receipt counts")
    });
    for row in store.rows::<SkippedRow>(&SKIPPED.path(read, unit))? {
        counts_of_shards.entry(row?.shard).or_default().skipped += 1;
    }
    let mut shards = store.rows::<ShardRow>(&SHARDS.path(read, unit))?;
    for planned in &planned.shards {
        let Some(row) = shards.next().transpose()? else {
            findings.fail(Check::Shards, format!("{}: not read", planned.shard));
            continue;
        };
        let shard_counts = counts_of_shards.remove(&row.shard).unwrap_or_default();
        let holds = row.shard == planned.shard
            && row.torn <= 1
            && (shard_counts.samples, shard_counts.skipped) == (row.samples, row.skipped)
            && row.members == shard_counts.in_samples + shard_counts.skipped + row.torn;
        findings.expect(Check::Shards, holds, || {
            format!(
                "{}: {} members, but {} in samples + {} skipped + {} torn",
                row.shard, row.members, shard_counts.in_samples, shard_counts.skipped, row.torn
            )
        });
    }
    for shard in counts_of_shards.keys() {
        let failure = format!("{shard}: has samples, but is not a shard of {unit}");
        findings.fail(Check::Shards, failure);
    }
    Ok(())
}

/// Repeats each decision of an export.
fn decisions(
    run: &CheckedRun<'_>,
    receipt: &Receipt,
    partition: Partition,
    findings: &mut CheckResults,
) -> Result<()> {
    let Some(survivors) = run.survivors.before(receipt) else {
        return Ok(());
    };
    let (export, unit) = (&receipt.step, receipt.unit);
    let mut rows = run
        .recorded
        .rows::<DecisionRow>(&DECISIONS.path(export, unit))?;
    let mut counts = Counts::default();
    for verdict in survivors.verdicts::<SampleBrief>(partition)? {
        let verdict = verdict?;
        let Some(row) = rows.next().transpose()? else {
            let failure = format!("{export}: {} is not decided", verdict.sample.image_id);
            findings.fail(Check::Decisions, failure);
            break;
        };
        let bytes = verdict.sample.bytes();
        let same = row.image_id == verdict.sample.image_id
            && row.keep == verdict.dropped.is_none()
            && row.step.as_ref() == verdict.dropped.as_ref().map(|dropped| &dropped.step)
            && row.reason.as_ref() == verdict.dropped.as_ref().map(|dropped| &dropped.reason)
            && row.detail == verdict.detail
            && row.bytes == bytes
            && row.group == group_of(verdict.sample.phash, row.image_id.as_str());
        findings.expect(Check::Decisions, same, || {
            let (id, found) = (&verdict.sample.image_id, &row.image_id);
            let (step, reason) = (row.step.clone(), row.reason.clone());
            let told = step
                .zip(reason)
                .map(|(step, reason)| Dropped { step, reason });
            format!(
                "{export}: {id}: expected {} from the deciding steps, the row (of {found}) has {}",
                words(verdict.dropped.as_ref()),
                words(told.as_ref())
            )
        });
        counts.add(row.step.as_ref().unwrap_or(export), row.reason.as_ref());
    }
    if rows.next().is_some() {
        let failure = format!("{export} {unit}: more decisions than samples");
        findings.fail(Check::Decisions, failure);
    }
    let read = run.receipts.unit(&StepName::read(), unit);
    let read = read.map(|receipt| receipt.counts.input);
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

fn words(dropped: Option<&Dropped>) -> String {
    dropped.map_or("keep".to_owned(), ToString::to_string)
}
