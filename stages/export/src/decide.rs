//! Combines the decisions of the deciding steps: one row for every sample of `read`, in its order.

use anyhow::Result;
use sluice_harness::{Context, StepArgs, Work};
use sluice_manifest::layout::DECISIONS;
use sluice_manifest::rows::{DecisionRow, SampleBrief};
use sluice_manifest::{Counts, Dropped, Error, Partition, Receipt, StepName, Unit};
use sluice_run::{Survivors, Verdict};

use crate::NoSettings;
use crate::lineage::Lineage;
use crate::split::group_of;

/// The number of samples between two progress reports, each of which checks for signals.
const BATCH: usize = 1024;

/// Join the decisions of the deciding steps: which samples stay, and why the others do not
///
/// Example: sluice-export decide --run runs/a --survivors-of dedup
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The arguments of every step after `read`.
    #[command(flatten)]
    pub step: StepArgs,
}

/// Combines the decisions, one partition at a time.
///
/// # Errors
///
/// Returns a data error if a deciding step of the chain has not run, or something that its
/// decisions depend on has changed since.
pub fn run(context: &Context) -> Result<()> {
    let plan = context.plan()?;
    let survivors = context.survivors(context.node().survivors_of.as_ref())?;
    if !survivors.chain().is_empty() && context.has_first(&plan.units())? {
        refuse_stale(context, &survivors)?;
    }
    context.each_unit(plan.units(), context.jobs, |unit| {
        let partition = plan.partition(unit)?.partition;
        decide(context, &survivors, partition, plan.partitions.len())
    })
}

/// Checks all units that the chain's decisions depend on. This needs all their receipts, so only
/// one of the tasks does it.
fn refuse_stale(context: &Context, survivors: &Survivors<'_>) -> Result<()> {
    let receipts = context.receipts()?;
    let deciding = survivors.chain().iter().flat_map(|decider| {
        let kinds = decider.decides.iter();
        kinds.flat_map(|kind| receipts.of_kind(&decider.step, *kind))
    });
    Ok(Lineage::of(&receipts, deciding).refuse_stale()?)
}

fn decide(
    context: &Context,
    survivors: &Survivors<'_>,
    partition: Partition,
    units: usize,
) -> Result<()> {
    let unit = Unit::from(partition);
    let work = Work {
        unit,
        units,
        settings: NoSettings {},
        inputs: survivors.inputs(partition)?,
    };
    let Some(mut open_unit) = context.begin(work)? else {
        return Ok(());
    };
    let mut writer = context.run.write_rows(&open_unit.path(&DECISIONS), &[])?;
    let mut counts = Counts::default();
    let (mut kept, mut largest, mut last) = (0, 0, 0);
    let verdicts = survivors.verdicts::<SampleBrief>(partition)?;
    for (number, verdict) in verdicts.enumerate() {
        let verdict = verdict?;
        match &verdict.dropped {
            Some(Dropped { step, reason }) => counts.add(step, Some(reason)),
            None => counts.add(context.step(), None),
        }
        let row = as_row(verdict);
        if row.keep {
            kept += row.bytes;
            largest = row.bytes.max(largest);
            last = row.bytes;
        }
        writer.push(row)?;
        if (number + 1) % BATCH == 0 {
            open_unit.advance(BATCH)?;
        }
    }
    open_unit.advance(counts.input as usize % BATCH)?;
    check_complete(context, unit, &counts)?;
    open_unit.publish(|| writer.finish())?;
    open_unit.sums.kept_bytes = kept;
    open_unit.sums.largest_kept = largest;
    open_unit.sums.last_kept = last;
    Ok(open_unit.commit(counts)?)
}

fn as_row(verdict: Verdict<SampleBrief>) -> DecisionRow {
    let (step, reason) = match verdict.dropped {
        Some(Dropped { step, reason }) => (Some(step), Some(reason)),
        None => (None, None),
    };
    DecisionRow {
        bytes: verdict.sample.bytes(),
        group: group_of(verdict.sample.phash, verdict.sample.image_id.as_str()),
        image_id: verdict.sample.image_id,
        keep: reason.is_none(),
        step,
        reason,
        detail: verdict.detail,
    }
}

/// Checks that every sample counted by `read` has a decision.
fn check_complete(context: &Context, unit: Unit, counts: &Counts) -> Result<()> {
    let read = context.required_receipt(&StepName::read(), unit)?;
    if read.counts.input == counts.input {
        return Ok(());
    }
    let message = format!(
        "{unit}: read counted {} samples, but its manifest has {}",
        read.counts.input, counts.input
    );
    Err(Error::data(message)
        .hint("run sluice-read for this partition again with --force")
        .into())
}

/// Checks that `--survivors-of`, if given, names the same step as it did for `decide`.
///
/// # Errors
///
/// Returns a usage error if it names another one.
pub fn refuse_other_chain(context: &Context, decided: &Receipt) -> sluice_manifest::Result<()> {
    match &context.node().survivors_of {
        Some(given) if decided.survivors_of.as_ref() != Some(given) => {
            let unit = decided.unit;
            Err(Error::usage(format!(
                "--survivors-of {given}: {unit} was decided on {}",
                chain_name(decided)
            ))
            .hint("give the same --survivors-of as to sluice-export decide, or leave it out"))
        }
        _ => Ok(()),
    }
}

/// Describes the samples that a receipt's work was based on.
pub fn chain_name(receipt: &Receipt) -> String {
    match &receipt.survivors_of {
        Some(step) => format!("the survivors of {step}"),
        None => "all samples that read accepted".to_owned(),
    }
}
