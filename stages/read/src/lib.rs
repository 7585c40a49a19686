//! `sluice-read`: indexes each sample of the shards, validates and measures its image.
//!
//! One streaming pass over each shard. Samples go in batches to the decoding threads while the next
//! batch is read, and come back in shard order. A bad image is a row with a reason, a torn shard
//! gives the samples before the tear, and every member of a shard ends up in a sample's row or in
//! `read/skipped`.

pub mod batches;
pub mod examine;

use anyhow::Result;
use clap::Parser;
use rayon::prelude::*;
use serde_json::json;
use sluice_harness::{Common, Context, Plan, Program, Task, Work, open_shard, shard_input};
use sluice_manifest::rows::{PlanRow, SampleRow, ShardRow, ShardStatus, SkippedRow};
use sluice_manifest::{Counts, Error, Unit, dag};
use sluice_shard::{Event, ShardReader};
use sluice_store::{RowWriter, Store};

use crate::batches::{Batch, Batches};
use crate::examine::{Bounds, examine};

/// Index the samples of the shards, validate and measure their images
///
/// Example: sluice-read --run runs/a --min-side 200 --max-aspect 3
#[derive(Debug, Parser)]
#[command(name = "sluice-read", version)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,

    /// Drop images whose short side is below this many pixels
    #[arg(long, env = "SLUICE_MIN_SIDE", value_name = "PIXELS")]
    pub min_side: Option<u32>,

    /// Drop images whose long side is more than this many times the short side
    #[arg(long, env = "SLUICE_MAX_ASPECT", value_name = "RATIO")]
    pub max_aspect: Option<f32>,

    /// Fail (exit 3) when more than this share of all samples cannot be used
    ///
    /// Counts what is broken or no image, not what --min-side and --max-aspect drop.
    #[arg(
        long,
        env = "SLUICE_MAX_BAD_FRACTION",
        value_name = "0..1",
        default_value_t = 1.0
    )]
    pub max_bad_fraction: f64,
}

impl Program for Args {
    const NAME: &'static str = "sluice-read";

    fn common(&self) -> &Common {
        &self.common
    }

    fn run(&self, context: &Context) -> Result<()> {
        let plan = context.plan()?;
        let input = plan.input()?;
        context.each_unit(&dag::READ, plan.units(), 1, |unit| {
            read_partition(self, context, &plan, &input, unit)
        })?;
        check_bad_fraction(&context.counts(), self.max_bad_fraction)
    }
}

/// Reads the shards of one partition.
fn read_partition(
    args: &Args,
    context: &Context,
    plan: &Plan,
    input: &Store,
    unit: &Unit,
) -> Result<()> {
    let shards = &plan.partition(unit)?.shards;
    let bounds = Bounds {
        min_side: args.min_side,
        max_aspect: args.max_aspect,
    };
    let work = Work {
        step: &dag::READ,
        version: 1,
        unit,
        units: plan.partitions.len(),
        settings: json!({ "min_side": args.min_side, "max_aspect": args.max_aspect }),
        basis: None,
        inputs: shards.iter().map(shard_input).collect(),
    };
    let Some(mut task) = context.begin(work)? else {
        return Ok(());
    };
    let mut outputs = Outputs {
        images: context.run.write_rows(&task.path("images"), &[])?,
        shards: context.run.write_rows(&task.path("shards"), &[])?,
        skipped: context.run.write_rows(&task.path("skipped"), &[])?,
        counts: Counts::default(),
        members: 0,
    };
    let mut damaged = 0;
    for shard in shards {
        let row = read_shard(input, shard, bounds, &task, &mut outputs)?;
        damaged += u64::from(row.status == ShardStatus::Damaged);
        outputs.members += row.members;
        outputs.shards.push(row)?;
    }
    task.wrote(outputs.images.finish()?);
    task.wrote(outputs.shards.finish()?);
    task.wrote(outputs.skipped.finish()?);
    task.sum("members", outputs.members);
    task.sum("damaged_shards", damaged);
    Ok(task.commit(outputs.counts)?)
}

/// What a partition's reading writes.
struct Outputs {
    images: RowWriter<SampleRow>,
    shards: RowWriter<ShardRow>,
    skipped: RowWriter<SkippedRow>,
    counts: Counts,
    members: u64,
}

/// Reads one shard to its end or its damage, and says how it went.
fn read_shard(
    input: &Store,
    shard: &PlanRow,
    bounds: Bounds,
    task: &Task<'_>,
    outputs: &mut Outputs,
) -> Result<ShardRow> {
    let uri = input.uri(shard.shard.as_str());
    let unreadable = |e: std::io::Error| Error::of_io(e, &uri);
    let reader = open_shard(input, shard)?;
    let reader = ShardReader::new(reader, sluice_shard::Limits::default()).map_err(unreadable)?;
    let compression = reader.compression();
    let mut details: Vec<String> = Vec::new();
    let mut status = ShardStatus::Ok;
    let mut in_samples = 0;
    let counts = std::thread::scope(|scope| {
        let (batches, counts) = Batches::spawn(scope, reader);
        for batch in batches {
            let Batch { samples, others } = batch.map_err(unreadable)?;
            let rows: Vec<SampleRow> = samples
                .into_par_iter()
                .map(|sample| examine(sample, &shard.shard, bounds))
                .collect();
            task.advance(rows.len())?;
            for row in rows {
                in_samples += row.members.len() as u64;
                outputs.counts.add(row.reason);
                outputs.images.push(row)?;
            }
            for event in others {
                match event {
                    Event::Sample(_) => {}
                    Event::Skipped(skipped) => outputs.skipped.push(SkippedRow {
                        shard: shard.shard.clone(),
                        member: skipped.name,
                        bytes: skipped.bytes,
                        reason: skipped.why.as_str().to_owned(),
                    })?,
                    Event::Note(note) => {
                        details.push(format!("{} at byte {}", note.kind.as_str(), note.offset))
                    }
                    Event::Damage(damage) => {
                        tracing::warn!(shard = uri, "{damage}; samples behind it cannot be read");
                        status = ShardStatus::Damaged;
                        details.push(damage.to_string());
                    }
                }
            }
        }
        // Unwrap safety: the reading thread ended its batches, so only a panic there can fail this.
        anyhow::Ok(counts.join().expect("the reading thread did not panic"))
    })?;
    let accounted = in_samples + counts.skipped + counts.torn;
    if accounted != counts.members {
        return Err(Error::bug(format!(
            "{uri}: {} members found, but {accounted} accounted for",
            counts.members
        ))
        .into());
    }
    Ok(ShardRow {
        shard: shard.shard.clone(),
        compression: compression.as_str().to_owned(),
        samples: counts.samples,
        members: counts.members,
        skipped: counts.skipped,
        torn: counts.torn,
        status,
        detail: (!details.is_empty()).then(|| details.join("; ")),
    })
}

fn check_bad_fraction(counts: &Counts, limit: f64) -> Result<()> {
    let policy = [
        sluice_manifest::Reason::TooSmall,
        sluice_manifest::Reason::ExtremeAspect,
    ];
    let bad: u64 = counts
        .dropped
        .iter()
        .filter(|(reason, _)| !policy.contains(reason))
        .map(|(_, n)| n)
        .sum();
    let fraction = bad as f64 / counts.input.max(1) as f64;
    if fraction > limit {
        let message = format!(
            "{bad} of {} samples cannot be used, more than --max-bad-fraction {limit}",
            counts.input
        );
        return Err(Error::data(message)
            .hint("`sluice inspect RUN/read/images/part-00000.parquet` shows the reasons")
            .into());
    }
    Ok(())
}
