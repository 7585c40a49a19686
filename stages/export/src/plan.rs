//! Packs the kept samples into output shards, from the receipts of `decide` alone.

use std::collections::HashSet;

use anyhow::Result;
use clap::Args as ClapArgs;
use serde_json::json;
use sluice_harness::{Common, Context, Plan, Work};
use sluice_manifest::rows::{EMBEDDINGS_KEY, OUTPUT_KEY, OutputPlanRow, PlanRow, WEIGHT_KEY};
use sluice_manifest::{Counts, Error, Input, Receipt, Unit, dag};
use sluice_store::{Location, Store};

use crate::decide::{KEPT_BYTES, LARGEST_KEPT, LAST_KEPT};
use crate::pack::{Stretch, Weight, pack};

/// Path of the plan's manifest in the run.
pub const PATH: &str = "export/plan/plan.parquet";

/// Sum in the receipt: how many output shards there are.
const SHARDS: &str = "shards";

/// Pack the kept samples into output shards
///
/// Example: sluice-export plan --run runs/a --output out/ --images-per-shard 1000
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,

    /// Where the curated dataset goes
    #[arg(long, env = "SLUICE_OUTPUT", value_name = "URI")]
    pub output: String,

    #[command(flatten)]
    pub size: Size,

    /// Write the embeddings too, as a column of the output's Parquet files
    #[arg(long, env = "SLUICE_EMBEDDINGS", value_name = "true", num_args = 0..=1,
        require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub embeddings: bool,
}

/// How large an output shard is.
#[derive(Debug, Clone, Copy, ClapArgs)]
#[group(multiple = false)]
pub struct Size {
    /// Samples in an output shard; the last one holds the rest
    #[arg(long, env = "SLUICE_IMAGES_PER_SHARD", value_name = "N", default_value_t = 1000,
        value_parser = clap::value_parser!(u64).range(1..))]
    pub images_per_shard: u64,

    /// Bytes in an output shard, in place of a number of samples
    ///
    /// The bytes of the members count, not what tar adds to them (about 1 KB a member). A shard is
    /// full with the sample that reaches this size.
    #[arg(long, env = "SLUICE_BYTES_PER_SHARD", value_name = "BYTES",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub bytes_per_shard: Option<u64>,
}

impl Size {
    fn weight(self) -> (Weight, u64) {
        match self.bytes_per_shard {
            Some(bytes) => (Weight::Bytes, bytes),
            None => (Weight::Images, self.images_per_shard),
        }
    }
}

/// The one unit of this step.
fn unit() -> Unit {
    Unit::once("plan")
}

/// Plans the output.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    context.each_unit(&dag::EXPORT_PLAN, vec![unit()], 1, |unit| {
        plan(args, context, unit)
    })?;
    let receipt = context.required_receipt(&dag::EXPORT_PLAN, &unit())?;
    context.tells(dag::FanOut::OutputShards, sum(&receipt, SHARDS));
    Ok(())
}

fn plan(args: &Args, context: &Context, unit: &Unit) -> Result<()> {
    let output = Location::parse(&args.output)?;
    let source = context.plan()?;
    refuse_output(&output, context.run.location(), &source)?;
    let receipts = context.required_receipts(&dag::EXPORT_DECIDE, &source.units())?;
    refuse_mixed_filters(&receipts)?;
    let (weight, per_shard) = args.size.weight();
    if weight == Weight::Bytes {
        refuse_larger_samples(&receipts, per_shard)?;
    }
    let work = Work {
        step: &dag::EXPORT_PLAN,
        version: 1,
        unit,
        units: 1,
        settings: json!({
            "output": output.to_string(),
            "weight": weight.as_str(),
            "per_shard": per_shard,
            "embeddings": args.embeddings,
        }),
        basis: None,
        inputs: receipts.iter().map(as_input).collect(),
    };
    let Some(mut task) = context.begin(work)? else {
        return Ok(());
    };
    let numbered = source.partitions.iter().zip(&receipts);
    let stretches: Vec<Stretch> = numbered
        .map(|(planned, receipt)| Stretch {
            partition: planned.partition,
            length: match weight {
                Weight::Images => receipt.counts.kept,
                Weight::Bytes => sum(receipt, KEPT_BYTES),
            },
            last: match weight {
                Weight::Images => receipt.counts.kept.min(1),
                Weight::Bytes => sum(receipt, LAST_KEPT),
            },
        })
        .collect();
    let rows = pack(&stretches, per_shard)?;
    let shards = rows.last().map_or(0, |row| row.shard + 1);
    if shards == 0 {
        tracing::warn!(
            "no sample stays: the output will hold an index and a card and no shard; \
             see the counts of sluice-export decide"
        );
    }
    let metadata = [
        (OUTPUT_KEY, output.to_string()),
        (WEIGHT_KEY, weight.as_str().to_owned()),
        (EMBEDDINGS_KEY, args.embeddings.to_string()),
    ];
    let mut writer = context.run.write_rows::<OutputPlanRow>(PATH, &metadata)?;
    for row in rows {
        writer.push(row)?;
    }
    task.wrote(writer.finish()?);
    task.sum(SHARDS, shards.into());
    let mut counts = Counts::default();
    for receipt in &receipts {
        counts.input += receipt.counts.kept;
        counts.kept += receipt.counts.kept;
    }
    Ok(task.commit(counts)?)
}

/// A receipt as an input.
pub(crate) fn as_input(receipt: &Receipt) -> Input {
    Input {
        name: format!("{}/{}", receipt.step, receipt.unit),
        fingerprint: receipt.fingerprint.clone(),
    }
}

fn sum(receipt: &Receipt, name: &str) -> u64 {
    receipt.sums.get(name).copied().unwrap_or(0)
}

/// An output in the run's folder, among the source shards, or below a folder that `partition` lists
/// would overwrite something, or be taken for input the next time.
fn refuse_output(output: &Location, run: &Location, source: &Plan) -> sluice_manifest::Result<()> {
    let refuse = |what: String| {
        Err(Error::usage(format!("--output {output}: {what}")).hint("choose a folder of its own"))
    };
    if output == run {
        return refuse("is the folder of the run".to_owned());
    }
    let root = &source.info.input;
    let shards = source.partitions.iter().flat_map(|p| &p.shards);
    let mut seen = "";
    for (number, planned) in shards.enumerate() {
        let shard = planned.shard.as_str();
        let folder = shard.rsplit_once('/').map_or("", |(folder, _)| folder);
        if number > 0 && folder == seen {
            continue;
        }
        seen = folder;
        if *output == Location::parse(&format!("{root}/{folder}"))? {
            return refuse(format!("holds source shards, {shard} for one"));
        }
    }
    for folder in listed_folders(source)? {
        if lies_in(output, &folder) {
            return refuse(format!("lies inside the input {folder}"));
        }
    }
    Ok(())
}

/// The folders that `partition` lists with everything below them.
fn listed_folders(source: &Plan) -> sluice_manifest::Result<Vec<Location>> {
    let info = &source.info;
    let mut folders = Vec::new();
    for pattern in &info.patterns {
        let mut shards = source.partitions.iter().flat_map(|p| &p.shards);
        let wildcard = pattern.find(['*', '?', '[', '{']);
        let folder = match wildcard {
            None if shards.any(|planned| names(pattern, planned)) => continue,
            None => pattern.as_str(),
            Some(at) if pattern[at..].contains("**") => {
                let slash = pattern[..at].rfind('/');
                slash.map_or(".", |slash| &pattern[..=slash])
            }
            Some(_) => continue,
        };
        folders.push(match info.patterns.len() {
            // The root is this folder, whatever the working directory was.
            1 => Location::parse(&info.input)?,
            _ => Location::parse(folder)?,
        });
    }
    Ok(folders)
}

/// Whether a pattern without wildcards is the name of this shard.
fn names(pattern: &str, planned: &PlanRow) -> bool {
    pattern.rsplit('/').next() == planned.shard.as_str().rsplit('/').next()
}

fn lies_in(inner: &Location, outer: &Location) -> bool {
    match (inner, outer) {
        (Location::Local(inner), Location::Local(outer)) => inner.starts_with(outer),
        (
            Location::Memory { name, path },
            Location::Memory {
                name: other,
                path: folder,
            },
        ) => name == other && std::path::Path::new(path).starts_with(folder),
        _ => false,
    }
}

/// Counts that were made under different filters do not add up to one dataset.
fn refuse_mixed_filters(receipts: &[Receipt]) -> sluice_manifest::Result<()> {
    let Some(first) = receipts.first() else {
        return Ok(());
    };
    match receipts.iter().find(|r| r.settings != first.settings) {
        None => Ok(()),
        Some(other) => Err(Error::data(format!(
            "{} was decided with {}, {} with {}",
            first.unit, first.settings, other.unit, other.settings
        ))
        .hint("run sluice-export decide for all partitions with the same --filters")),
    }
}

fn refuse_larger_samples(receipts: &[Receipt], limit: u64) -> sluice_manifest::Result<()> {
    let largest = receipts.iter().map(|r| sum(r, LARGEST_KEPT)).max();
    match largest {
        Some(largest) if largest > limit => Err(Error::usage(format!(
            "--bytes-per-shard {limit}: the largest sample has {largest} bytes"
        ))
        .hint(format!(
            "choose {largest} or more, or --images-per-shard in its place"
        ))),
        _ => Ok(()),
    }
}

/// What the plan says to the steps after it.
pub struct OutputPlan {
    /// The plan's receipt.
    pub receipt: Receipt,
    /// The curated dataset's folder.
    pub output: Store,
    /// What the stretches count.
    pub weight: Weight,
    /// Whether the embeddings go out too.
    pub embeddings: bool,
    /// How many output shards there are.
    pub shards: u32,
}

impl OutputPlan {
    /// Reads the plan.
    pub fn open(context: &Context) -> Result<Self> {
        let receipt = context.required_receipt(&dag::EXPORT_PLAN, &unit())?;
        let rows = context.run.rows::<OutputPlanRow>(PATH)?;
        let table = rows.table();
        Ok(Self {
            output: Store::create(&Location::parse(table.required(OUTPUT_KEY)?)?)?,
            weight: table.required(WEIGHT_KEY)?.parse()?,
            embeddings: table.required(EMBEDDINGS_KEY)? == "true",
            shards: u32::try_from(sum(&receipt, SHARDS)).map_err(anyhow::Error::from)?,
            receipt,
        })
    }

    /// The units of `write`, in order.
    pub fn units(&self) -> Vec<Unit> {
        let numbers = 0..self.shards;
        numbers.map(sluice_manifest::layout::output_shard).collect()
    }

    /// The stretches that go into an output shard.
    pub fn rows(&self, context: &Context, shard: u32) -> Result<Vec<OutputPlanRow>> {
        let rows = context.run.rows::<OutputPlanRow>(PATH)?;
        let rows = rows.within("shard", shard..shard + 1)?;
        let mine = rows.filter(|row| row.as_ref().map_or(true, |row| row.shard == shard));
        Ok(mine.collect::<sluice_manifest::Result<_>>()?)
    }

    /// Refuses decisions that the plan did not count: their samples lie elsewhere on the line.
    pub fn refuse_other_decisions(&self, decided: &[Receipt]) -> Result<()> {
        let counted: HashSet<_> = self.receipt.inputs.iter().map(|i| &i.fingerprint).collect();
        match decided.iter().find(|r| !counted.contains(&r.fingerprint)) {
            None => Ok(()),
            Some(other) => Err(Error::data(format!(
                "{} was decided again after the export was planned",
                other.unit
            ))
            .hint("run sluice-export plan again")
            .into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use sluice_harness::PartitionPlan;
    use sluice_manifest::{Partition, RunInfo, ShardPath};

    use super::*;

    fn info(input: &str, patterns: &[&str]) -> RunInfo {
        RunInfo {
            layout: RunInfo::LAYOUT,
            input: input.into(),
            patterns: patterns.iter().map(|&p| p.to_owned()).collect(),
            partitions: 0,
            shards: 0,
            bytes: 0,
        }
    }

    fn refused(output: &str, input: &str, patterns: &[&str]) -> bool {
        let source = Plan {
            info: info(input, patterns),
            partitions: vec![PartitionPlan {
                partition: Partition(0),
                shards: vec![PlanRow {
                    partition: Partition(0),
                    shard: ShardPath::new("train/0.tar"),
                    bytes: 0,
                    etag: None,
                    modified: None,
                }],
            }],
        };
        let parse = |uri| Location::parse(uri).unwrap();
        refuse_output(&parse(output), &parse("/runs/a"), &source).is_err()
    }

    #[test]
    fn outputs_that_would_be_taken_for_input_are_refused() {
        assert!(refused("/runs/a", "/data", &["/data"]));
        assert!(refused("/data/out", "/data", &["/data"]));
        assert!(refused("/data", "/data", &["data"]));
        assert!(refused("/data/out", "/data", &["/data/**/*.tar"]));
        assert!(refused("/d/b/out", "/d", &["/d/a/*.tar", "/d/b"]));
        assert!(refused(
            "memory://m/in/x",
            "memory://m/in",
            &["memory://m/in"]
        ));
        assert!(refused("/data/train", "/data", &["/data/train/0.tar"]));
        assert!(!refused("/data/out", "/data", &["/data/train/0.tar"]));
        assert!(!refused("/data2", "/data", &["/data"]));
        assert!(!refused("/data/out", "/data", &["/data/*.tar"]));
        assert!(!refused("/data/out", "/data", &["/data/{0..9}.tar"]));
        assert!(!refused("/d/out", "/d", &["/d/a", "/d/b"]));
        assert!(!refused(
            "memory://m/input",
            "memory://m/in",
            &["memory://m/in"]
        ));
        assert!(!refused(
            "memory://n/in",
            "memory://m/in",
            &["memory://m/in"]
        ));
    }
}
