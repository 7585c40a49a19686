//! `sluice-partition`: lists the shards under `--input`, groups them, writes the plan.
//!
//! Shards are sorted by path and cut into partitions in that order, so the same input gives the
//! same plan. The plan records each shard's size and entity tag or modification time: when one
//! changes, its partition is done again and nothing else.

pub mod listing;

use anyhow::Result;
use clap::{Args as ClapArgs, Parser};
use serde_json::json;
use sluice_harness::{Common, Context, Plan, Program, Work, shard_input};
use sluice_manifest::rows::PlanRow;
use sluice_manifest::{Counts, Error, Input, Partition, RunInfo, Unit, dag, layout};

/// List the shards of a dataset and group them into partitions
///
/// Example: sluice-partition --input data/ --run runs/a --shards-per-partition 2
#[derive(Debug, Parser)]
#[command(name = "sluice-partition", version)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,

    /// Where the shards are: folders, shards, globs (quoted), or ranges like train-{000..099}.tar
    #[arg(long, env = "SLUICE_INPUT", value_name = "URI", required = true, num_args = 1..)]
    pub input: Vec<String>,

    #[command(flatten)]
    pub size: Size,
}

/// How large a partition is.
#[derive(Debug, Clone, Copy, ClapArgs)]
#[group(multiple = false)]
pub struct Size {
    /// Shards in a partition
    #[arg(long, env = "SLUICE_SHARDS_PER_PARTITION", value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u64).range(1..))]
    pub shards_per_partition: u64,

    /// Bytes in a partition, in place of a number of shards; a larger shard is one by itself
    #[arg(long, env = "SLUICE_BYTES_PER_PARTITION", value_name = "BYTES",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub bytes_per_partition: Option<u64>,
}

impl Program for Args {
    const NAME: &'static str = "sluice-partition";

    fn common(&self) -> &Common {
        &self.common
    }

    fn run(&self, context: &Context) -> Result<()> {
        let unit = Unit::once("plan");
        context.each_unit(&dag::PARTITION, vec![unit.clone()], 1, |unit| {
            plan(self, context, unit)
        })
    }
}

fn plan(args: &Args, context: &Context, unit: &Unit) -> Result<()> {
    let listing = listing::list(&args.input)?;
    let rows = group(&listing, args.size);
    let info = RunInfo {
        layout: RunInfo::LAYOUT,
        input: listing.root.to_string(),
        patterns: args.input.clone(),
        partitions: rows.last().map_or(0, |row| row.partition.0 + 1),
        shards: rows.len() as u64,
        bytes: rows.iter().map(|row| row.bytes).sum(),
    };
    if let Some(before) = context.run_info()?
        && before.input != info.input
    {
        return Err(Error::usage(format!(
            "--input {}: this run curates {}",
            info.input, before.input
        ))
        .hint("choose another --run")
        .into());
    }
    context.tells(dag::FanOut::Partitions, info.partitions.into());
    let shards: Vec<Input> = rows.iter().map(shard_input).collect();
    let work = Work {
        step: &dag::PARTITION,
        version: 1,
        unit,
        units: 1,
        settings: json!({
            "input": info.input,
            "patterns": info.patterns,
            "shards_per_partition": args.size.shards_per_partition,
            "bytes_per_partition": args.size.bytes_per_partition,
        }),
        basis: None,
        inputs: vec![Input::combined("shards", &shards)],
    };
    let Some(mut task) = context.begin(work)? else {
        return Ok(());
    };
    let json = serde_json::to_vec_pretty(&info)?;
    let mut object = context.run.writer(layout::RUN_INFO)?;
    std::io::Write::write_all(&mut object, &json)?;
    task.wrote(object.finish()?);
    let mut writer = context.run.write_rows(Plan::PATH, &[])?;
    for row in rows {
        writer.push(row)?;
    }
    task.wrote(writer.finish()?);
    remove_stale(context, info.partitions)?;
    task.sum("partitions", info.partitions.into());
    task.sum("shards", info.shards);
    task.sum("bytes", info.bytes);
    Ok(task.commit(Counts::default())?)
}

/// Removes what the steps after this one know about partitions that the plan no longer has.
fn remove_stale(context: &Context, partitions: u32) -> Result<()> {
    let units: Vec<Unit> = (0..partitions).map(|n| Partition(n).into()).collect();
    let fan_outs = dag::STEPS.iter();
    for step in fan_outs.filter(|step| step.fan_out == dag::FanOut::Partitions) {
        context.remove_stale(step, "part", &units)?;
    }
    Ok(())
}

/// Cuts the sorted shards into partitions.
fn group(listing: &listing::Listing, size: Size) -> Vec<PlanRow> {
    let mut rows: Vec<PlanRow> = Vec::with_capacity(listing.shards.len());
    let (mut partition, mut shards, mut bytes) = (0, 0, 0);
    for (shard, object) in &listing.shards {
        let full = match size.bytes_per_partition {
            Some(limit) => bytes + object.bytes > limit,
            None => shards >= size.shards_per_partition,
        };
        if shards > 0 && full {
            (partition, shards, bytes) = (partition + 1, 0, 0);
        }
        shards += 1;
        bytes += object.bytes;
        rows.push(PlanRow {
            partition: Partition(partition),
            shard: shard.clone(),
            bytes: object.bytes,
            etag: object.etag.clone(),
            modified: object.modified.clone(),
        });
    }
    rows
}
