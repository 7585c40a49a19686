//! Joins the filters' decisions: one row for every sample of `read`, in its order.

use anyhow::Result;
use serde_json::json;
use sluice_harness::{Common, Context, Verdict, Verdicts, Work, filter_inputs};
use sluice_manifest::rows::DecisionRow;
use sluice_manifest::{Counts, Error, Filter, Partition, Receipt, Unit, dag};

/// Samples between two looks at the progress and the signals.
const STEP: usize = 1024;

/// Sum in the receipt: bytes of all members of the kept samples.
pub const KEPT_BYTES: &str = "kept_bytes";
/// Sum in the receipt: bytes of the largest kept sample.
pub const LARGEST_KEPT: &str = "largest_kept";
/// Sum in the receipt: bytes of the last kept sample.
pub const LAST_KEPT: &str = "last_kept";

/// Join the filters' decisions: which samples stay, and why the others do not
///
/// Example: sluice-export decide --run runs/a --filters aesthetic,nsfw,dedup
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,

    /// Whose decisions count: aesthetic, nsfw, exact, perceptual, semantic
    ///
    /// `dedup` stands for the last three. Empty: only what read set aside is left behind.
    #[arg(
        long,
        env = "SLUICE_FILTERS",
        value_name = "LIST",
        default_value = "aesthetic,nsfw,dedup"
    )]
    pub filters: String,
}

/// Decides, a partition at a time.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let filters = Filter::parse_list(&args.filters)?;
    let plan = context.plan()?;
    context.each_unit(&dag::EXPORT_DECIDE, plan.units(), context.jobs, |unit| {
        let partition = plan.partition(unit)?.partition;
        decide(context, partition, &filters, plan.partitions.len())
    })
}

fn decide(context: &Context, partition: Partition, filters: &[Filter], units: usize) -> Result<()> {
    let unit = Unit::from(partition);
    let work = Work {
        step: &dag::EXPORT_DECIDE,
        version: 1,
        unit: &unit,
        units,
        settings: json!({ "filters": filters }),
        basis: None,
        inputs: filter_inputs(context, partition, filters)?,
    };
    let Some(mut task) = context.begin(work)? else {
        return Ok(());
    };
    let mut writer = context.run.write_rows(&task.path("decisions"), &[])?;
    let mut counts = Counts::default();
    let (mut kept, mut largest, mut last) = (0, 0, 0);
    for (number, verdict) in Verdicts::open(context, partition, filters)?.enumerate() {
        let verdict = verdict?;
        counts.add(verdict.dropped);
        let row = as_row(verdict);
        if row.keep {
            kept += row.bytes;
            largest = row.bytes.max(largest);
            last = row.bytes;
        }
        writer.push(row)?;
        if (number + 1) % STEP == 0 {
            task.advance(STEP)?;
        }
    }
    task.advance(counts.input as usize % STEP)?;
    check_complete(context, &unit, &counts)?;
    task.wrote(writer.finish()?);
    task.sum(KEPT_BYTES, kept);
    task.sum(LARGEST_KEPT, largest);
    task.sum(LAST_KEPT, last);
    Ok(task.commit(counts)?)
}

fn as_row(verdict: Verdict) -> DecisionRow {
    DecisionRow {
        bytes: verdict.sample.bytes(),
        image_id: verdict.sample.image_id,
        keep: verdict.dropped.is_none(),
        stage: verdict.dropped.map(|reason| reason.stage().to_owned()),
        reason: verdict.dropped,
        score: verdict.score,
    }
}

/// Every sample that `read` counted must have come by.
fn check_complete(context: &Context, unit: &Unit, counts: &Counts) -> Result<()> {
    let read = context.required_receipt(&dag::READ, unit)?.counts.input;
    if read == counts.input {
        return Ok(());
    }
    let message = format!(
        "{unit}: read counted {read} samples, its manifest holds {}",
        counts.input
    );
    Err(Error::data(message)
        .hint("run sluice-read for this partition again with --force")
        .into())
}

/// The filters that a receipt of this step was made with.
pub fn filters_of(receipt: &Receipt) -> sluice_manifest::Result<Vec<Filter>> {
    serde_json::from_value(receipt.settings["filters"].clone()).map_err(|e| {
        Error::data(format!(
            "receipt of {} {}: its filters do not read: {e}",
            receipt.step, receipt.unit
        ))
    })
}
