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
use serde::{Deserialize, Serialize};
use sluice_harness::{Common, Context, Plan, Program, Task, Work, open_shard, shard_input};
use sluice_manifest::layout::{IMAGES, SHARDS, SKIPPED};
use sluice_manifest::rows::{PlanRow, SampleRow, ShardRow, ShardStatus, SkippedRow};
use sluice_manifest::{Counts, Error, Operation, Resources, Role, Unit, UnitKind};
use sluice_shard::{Event, ShardReader};
use sluice_store::{RowWriter, Store};

use crate::batches::{Batch, Batches};
use crate::examine::examine;

/// Index the samples of the shards, validate and measure their images
///
/// Example: sluice-read --run runs/a --max-bad-fraction 0.01
#[derive(Debug, Parser)]
#[command(name = "sluice-read", version)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,

    /// Fail (exit 3) when more than this share of all samples cannot be used
    #[arg(
        long,
        env = "SLUICE_MAX_BAD_FRACTION",
        value_name = "0..1",
        value_parser = fraction,
        default_value_t = 1.0
    )]
    pub max_bad_fraction: f64,
}

impl Program for Args {
    const NAME: &'static str = "sluice-read";
    const ROLE: Role = Role::Source;
    const OPERATIONS: &'static [Operation] = &[Operation {
        subcommand: None,
        unit: UnitKind::Part,
        resources: Resources::Cpu,
        after: &[],
        version: 2,
    }];

    fn common(&self) -> &Common {
        &self.common
    }

    fn run(&self, context: &Context) -> Result<()> {
        let plan = context.plan()?;
        let input = plan.input()?;
        context.each_unit(plan.units(), 1, |unit| {
            read_partition(context, &plan, &input, unit)
        })?;
        check_bad_fraction(&context.counts(), self.max_bad_fraction)
    }
}

/// Parses a number from 0 to 1.
fn fraction(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.parse().ok();
    let inside = number.filter(|number| (0.0..=1.0).contains(number));
    inside.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

/// `read` has no settings that can change what it writes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Settings {}

/// Reads the shards of one partition.
fn read_partition(context: &Context, plan: &Plan, input: &Store, unit: Unit) -> Result<()> {
    let shards = &plan.partition(unit)?.shards;
    let work = Work {
        unit,
        units: plan.partitions.len(),
        settings: Settings {},
        inputs: shards.iter().map(shard_input).collect(),
    };
    let Some(mut task) = context.begin(work)? else {
        return Ok(());
    };
    let mut outputs = Outputs {
        images: context.run.write_rows(&task.path(&IMAGES), &[])?,
        shards: context.run.write_rows(&task.path(&SHARDS), &[])?,
        skipped: context.run.write_rows(&task.path(&SKIPPED), &[])?,
        counts: Counts::default(),
        members: 0,
    };
    let mut damaged = 0;
    for shard in shards {
        let row = read_shard(context, input, shard, &task, &mut outputs)?;
        damaged += u64::from(row.status == ShardStatus::Damaged);
        outputs.members += row.members;
        outputs.shards.push(row)?;
    }
    task.publish(|| outputs.images.finish())?;
    task.publish(|| outputs.shards.finish())?;
    task.publish(|| outputs.skipped.finish())?;
    task.sums.members = outputs.members;
    task.sums.damaged_shards = damaged;
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
    context: &Context,
    input: &Store,
    shard: &PlanRow,
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
                .map(|sample| examine(sample, &shard.shard))
                .collect();
            task.advance(rows.len())?;
            for row in rows {
                in_samples += row.members.len() as u64;
                outputs.counts.add(context.step(), row.reason.as_ref());
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
    let bad = counts.dropped_total();
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
