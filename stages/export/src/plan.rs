//! Packs the kept samples into output shards, from the receipts of `decide` alone.

use std::fmt;
use std::str::FromStr;

use anyhow::Result;
use clap::Args as ClapArgs;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sluice_harness::{Context, StepArgs, Work};
use sluice_manifest::layout::{CAPTIONS, DECISIONS, GROUPS, OUTPUT_PLAN};
use sluice_manifest::rows::{DecisionRow, OUTPUT_KEY, OutputPlanRow, WEIGHT_KEY};
use sluice_manifest::{Counts, Error, FanOut, Receipt, RunInfo, StepName, Unit, UnitKind, layout};
use sluice_pixels::{Encoding, Recode, TargetSize};
use sluice_run::{InputPlaces, Plan, Receipts, Upstream};
use sluice_store::{Location, Store};

use crate::captions::{self, KeepCaptions};
use crate::decide::{chain_name, refuse_other_chain};
use crate::format::OutputFormat;
use crate::groups;
use crate::lineage::Lineage;
use crate::pack::{KeptLength, Weight, pack, pack_splits};
use crate::place::OutputTarget;
use crate::scores::{CuratedScore, by_step, curated_scores};
use crate::split::{Split, refuse_partial, split_of};

/// The size of the smallest tar that is not empty: a header, a block, and two blocks at the end.
const SMALLEST_SHARD: u64 = 4 * 512;

/// The only unit of `plan`.
pub(crate) const UNIT: Unit = Unit::once(UnitKind::Plan);

/// Pack the kept samples into output shards
///
/// Example: sluice-export plan --run runs/a --output out/ --images-per-shard 1000
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The arguments of every step after `read`.
    #[command(flatten)]
    pub step: StepArgs,

    /// Output of the curated dataset: an empty folder, or one written by this run
    #[arg(long, env = "SLUICE_OUTPUT", value_name = "URI")]
    pub output: String,

    /// Replace an existing output, whatever wrote it
    ///
    /// Shards of other datasets are removed; other files are kept.
    #[arg(long, env = "SLUICE_OVERWRITE")]
    pub overwrite: bool,

    /// The size of an output shard, in images or bytes.
    #[command(flatten)]
    pub size: OutputShardSize,

    /// Format of the output shards
    #[arg(long, env = "SLUICE_FORMAT", value_enum, default_value_t)]
    pub format: OutputFormat,

    /// Resize images: SIDE or SIDE:fit (long side at most this many pixels), SIDE:crop (a square)
    ///
    /// Lanczos filter, as in Pillow. Images keep their format; formats other than JPEG, WebP and PNG
    /// become PNG. Default: images are copied byte for byte.
    #[arg(long, env = "SLUICE_RESIZE", value_name = "SIDE[:SHAPE]")]
    pub resize: Option<TargetSize>,

    /// Write images in another format: jpeg (quality 95), webp (lossless) or png
    ///
    /// Images that already have the format and the size are copied byte for byte.
    #[arg(long, env = "SLUICE_ENCODE", value_name = "FORMAT")]
    pub encode: Option<Encoding>,

    /// Split the output, such as train=0.98,val=0.02: a folder for each split
    ///
    /// A sample's split follows from the hash of its group of duplicates, so no copies cross it.
    #[arg(
        long,
        env = "SLUICE_SPLIT",
        value_name = "NAME=SHARE",
        value_delimiter = ','
    )]
    pub split: Vec<Split>,

    /// Captions to write for a group of duplicates
    #[arg(
        long,
        env = "SLUICE_KEEP_CAPTIONS",
        value_name = "CAPTIONS",
        value_enum,
        default_value_t
    )]
    pub keep_captions: KeepCaptions,

    /// Write the scores of these steps as columns of the output's Parquet files
    ///
    /// Default: the scores that the deciding steps read.
    #[arg(
        long,
        env = "SLUICE_SCORES",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub scores: Vec<StepName>,

    /// Write embeddings too, as the last column of the output's Parquet files
    ///
    /// The value names the step; `true`, or no value, means the step `embed`.
    #[arg(long, env = "SLUICE_EMBEDDINGS", value_name = "STEP", num_args = 0..=1,
        require_equals = true, default_value_t, default_missing_value = "true")]
    pub embeddings: EmbeddingsFrom,
}

/// The size of an output shard.
#[derive(Debug, Clone, Copy, ClapArgs)]
#[group(multiple = false)]
pub struct OutputShardSize {
    /// Samples per output shard; the last shard has the remainder
    #[arg(long, env = "SLUICE_IMAGES_PER_SHARD", value_name = "N", default_value_t = 1000,
        value_parser = clap::value_parser!(u64).range(1..))]
    pub images_per_shard: u64,

    /// Bytes per output shard, instead of a number of samples
    ///
    /// Counts the members' bytes without tar's overhead (about 1 KB per member). A shard ends with the
    /// sample that reaches this size.
    #[arg(long, env = "SLUICE_BYTES_PER_SHARD", value_name = "BYTES",
        value_parser = clap::value_parser!(u64).range(SMALLEST_SHARD..))]
    pub bytes_per_shard: Option<u64>,
}

impl OutputShardSize {
    fn weight(self) -> (Weight, u64) {
        match self.bytes_per_shard {
            Some(bytes) => (Weight::Bytes, bytes),
            None => (Weight::Images, self.images_per_shard),
        }
    }
}

/// The step whose embeddings go into the output, if any. Formats as `false`, `true` for the step
/// `embed`, or a step's name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EmbeddingsFrom(pub Option<StepName>);

impl FromStr for EmbeddingsFrom {
    type Err = Error;

    fn from_str(text: &str) -> sluice_manifest::Result<Self> {
        Ok(Self(match text {
            "false" => None,
            "true" => Some(StepName::fixed("embed")),
            name => Some(name.parse()?),
        }))
    }
}

impl fmt::Display for EmbeddingsFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(step) => step.fmt(f),
            None => f.write_str("false"),
        }
    }
}

impl Args {
    /// Returns the steps whose manifests are read, besides `read` and the deciding steps.
    pub fn needs(&self) -> Vec<StepName> {
        let steps = self.embeddings.0.iter().chain(&self.scores);
        steps.cloned().collect()
    }

    /// Checks the arguments before the work starts, for a step of this name.
    ///
    /// # Errors
    ///
    /// Returns a usage error if no step computes the scores or the embeddings, the splits are
    /// invalid, or the output cannot be used; and otherwise a storage error.
    pub fn check(&self, step: &StepName, upstream: &Upstream) -> Result<()> {
        refuse_partial(&self.split)?;
        if let Some(step) = &self.embeddings.0 {
            upstream.embedder(step)?;
        }
        if self.scores.is_empty() {
            curated_scores(upstream.scorers())?;
        } else {
            let named = self.scores.iter();
            let named = named.map(|step| Ok((step, upstream.scores(step)?)));
            curated_scores(named.collect::<sluice_manifest::Result<Vec<_>>>()?)?;
        }
        let output = Location::parse(&self.output)?;
        if let Some(input) = &upstream.input {
            input.refuse("--output", &output)?;
        }
        let run = Location::parse(&self.step.common.run)?;
        let place = OutputTarget {
            storage: &upstream.storage,
            output: &output,
            run: &run,
            id: &run_id(&run, upstream)?,
            step,
            overwrite: self.overwrite,
        };
        Ok(place.check()?)
    }
}

/// The settings of `plan`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanSettings {
    /// The folder of the curated dataset, without credentials.
    pub output: String,
    /// How the size of a shard is measured.
    pub weight: Weight,
    /// The size of a shard.
    pub per_shard: u64,
    /// The format of the shards.
    #[serde(default, skip_serializing_if = "OutputFormat::is_default")]
    pub format: OutputFormat,
    /// The conversion of the images.
    #[serde(default, skip_serializing_if = "Recode::is_verbatim")]
    pub recode: Recode,
    /// The output's splits, if it has any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub splits: Vec<Split>,
    /// Which captions are in the output.
    #[serde(default, skip_serializing_if = "KeepCaptions::is_default")]
    pub keep_captions: KeepCaptions,
    /// The scores that go into the output.
    pub scores: Vec<CuratedScore>,
    /// The step whose embeddings go into the output.
    pub embeddings: Option<StepName>,
}

/// Plans the output.
///
/// # Errors
///
/// Returns a usage error if the output cannot be used, a data error if the decisions are missing or
/// stale, and otherwise a storage error.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    context.each_unit(vec![UNIT], 1, |_| plan(args, context))?;
    let receipt = context.required_receipt(context.step(), UNIT)?;
    context.report_fan_out(FanOut::OutputShards, receipt.sums.shards);
    Ok(())
}

fn plan(args: &Args, context: &Context) -> Result<()> {
    let output = Location::parse(&args.output)?;
    refuse_partial(&args.split)?;
    let source = context.plan()?;
    InputPlaces::of_plan(&source, &context.run)?.refuse("--output", &output)?;
    let place = OutputTarget {
        storage: &context.storage,
        output: &output,
        run: context.run.location(),
        id: &source.info.id,
        step: context.step(),
        overwrite: args.overwrite,
    };
    place.check()?;
    let receipts = context.receipts()?;
    let units = source.units();
    let decided = required(&receipts, context.step(), &units, "sluice-export decide")?;
    let read = required(&receipts, &StepName::read(), &units, "sluice-read")?;
    if read.iter().all(|receipt| receipt.counts.kept == 0) {
        return Err(context.unreadable_input(&source).into());
    }
    refuse_mixed_chains(&decided)?;
    for receipt in &decided {
        refuse_other_chain(context, receipt)?;
    }
    let (weight, per_shard) = args.size.weight();
    if weight == Weight::Bytes {
        refuse_larger_samples(&decided, per_shard)?;
    }
    let settings = PlanSettings {
        output: output.to_string(),
        weight,
        per_shard,
        format: args.format,
        recode: Recode {
            resize: args.resize,
            encode: args.encode,
        },
        splits: args.split.clone(),
        keep_captions: args.keep_captions,
        scores: chosen_scores(args, context, &receipts, &decided)?,
        embeddings: args.embeddings.0.clone(),
    };
    let mut inputs = decided.clone();
    for step in settings.score_steps().chain(&settings.embeddings) {
        let step_s_units = required(&receipts, step, &units, &format!("the step {step}"))?;
        inputs.extend(step_s_units);
    }
    let lineage = Lineage::of(&receipts, inputs.iter().copied());
    lineage.refuse_stale()?;
    let chain = chain_of(&receipts, &decided);
    lineage.refuse_mixed(chain.into_iter().chain(settings.score_steps()))?;
    place.claim()?;
    write_plan(context, &source, settings, &decided, &inputs)
}

impl PlanSettings {
    /// Returns the split of a sample, if the output has splits.
    pub fn split_of(&self, decision: &DecisionRow) -> Option<&str> {
        Some(split_of(&self.splits, decision.group)?.name.as_str())
    }

    /// Returns the steps whose scores go into the output.
    pub fn score_steps(&self) -> impl Iterator<Item = &StepName> {
        by_step(&self.scores).map(|(step, _)| step)
    }
}

/// Returns the receipts of a step's units. Fails if one is missing.
fn required<'r>(
    receipts: &'r Receipts,
    step: &StepName,
    units: &[Unit],
    program: &str,
) -> sluice_manifest::Result<Vec<&'r Receipt>> {
    let found = units.iter().map(|&unit| {
        receipts.unit(step, unit).ok_or_else(|| {
            Error::data(format!("{step}: {unit} has no receipt"))
                .hint(format!("run {program} first, for all partitions"))
        })
    });
    found.collect()
}

/// Returns the deciding steps of the decisions, the earliest first.
pub fn chain_of<'r>(receipts: &'r Receipts, decided: &[&Receipt]) -> Vec<&'r StepName> {
    let last = decided
        .first()
        .and_then(|first| first.survivors_of.as_ref());
    receipts.deciders(last)
}

/// Returns the scores of the given steps, or else of those that the deciding steps read.
fn chosen_scores(
    args: &Args,
    context: &Context,
    receipts: &Receipts,
    decided: &[&Receipt],
) -> Result<Vec<CuratedScore>> {
    let chain = chain_of(receipts, decided);
    let steps = if args.scores.is_empty() {
        Lineage::of(receipts, decided.iter().copied()).scorers_of(chain)
    } else {
        args.scores.iter().collect()
    };
    let columns = steps.iter().map(|step| context.score_columns(step));
    let columns: Vec<_> = columns.collect::<sluice_manifest::Result<_>>()?;
    let columns = columns.iter().map(Vec::as_slice);
    Ok(curated_scores(steps.into_iter().zip(columns))?)
}

fn write_plan(
    context: &Context,
    source: &Plan,
    settings: PlanSettings,
    decided: &[&Receipt],
    inputs: &[&Receipt],
) -> Result<()> {
    let PlanSettings {
        weight, per_shard, ..
    } = settings;
    let metadata = [
        (OUTPUT_KEY, settings.output.clone()),
        (WEIGHT_KEY, weight.as_str().to_owned()),
    ];
    let (splits, keep) = (settings.splits.clone(), settings.keep_captions);
    let work = Work {
        unit: UNIT,
        units: 1,
        settings,
        inputs: inputs.iter().map(|receipt| receipt.as_input()).collect(),
    };
    let Some(mut open_unit) = context.begin(work)? else {
        return Ok(());
    };
    let rows = if splits.is_empty() {
        pack(&lengths(source, decided, weight), per_shard)?
    } else {
        let lines = lines(context, source, &splits, weight)?;
        warn_of_empty(&lines);
        pack_splits(&lines, per_shard)?
    };
    let shards = rows.last().map_or(0, |row| row.shard + 1);
    if shards == 0 {
        tracing::warn!(
            "no sample is kept: the output will have an index and a card, but no shards; \
             see the counts of sluice-export decide"
        );
    }
    let mut writer = context
        .run
        .write_rows::<OutputPlanRow>(&open_unit.path(&OUTPUT_PLAN), &metadata)?;
    for row in rows {
        writer.push(row)?;
    }
    open_unit.publish(|| writer.finish())?;
    let last = decided
        .first()
        .and_then(|first| first.survivors_of.as_ref());
    let survivors = context.survivors(last)?;
    let groups = groups::write(context, source, &survivors, &open_unit.path(&GROUPS))?;
    open_unit.publish(|| Ok(groups))?;
    if keep == KeepCaptions::All {
        let rows = captions::collect(context, source, &survivors)?;
        let mut writer = context.run.write_rows(&open_unit.path(&CAPTIONS), &[])?;
        for row in rows {
            writer.push(row)?;
        }
        open_unit.publish(|| writer.finish())?;
    }
    open_unit.sums.shards = shards.into();
    let kept = decided.iter().map(|receipt| receipt.counts.kept).sum();
    Ok(open_unit.commit(Counts::all_kept(kept))?)
}

/// Returns the weight of each partition's kept samples.
fn lengths(source: &Plan, decided: &[&Receipt], weight: Weight) -> Vec<KeptLength> {
    let partitions = source.partitions.iter().zip(decided);
    let lengths = partitions.map(|(planned, receipt)| {
        let (length, last) = match weight {
            Weight::Images => (receipt.counts.kept, receipt.counts.kept.min(1)),
            Weight::Bytes => (receipt.sums.kept_bytes, receipt.sums.last_kept),
        };
        KeptLength {
            partition: planned.partition,
            length,
            last,
        }
    });
    lengths.collect()
}

/// Returns the weight of each partition's kept samples in each split. Reads all decisions.
fn lines<'s>(
    context: &Context,
    source: &Plan,
    splits: &'s [Split],
    weight: Weight,
) -> Result<Vec<(&'s str, Vec<KeptLength>)>> {
    let mut lines: Vec<_> = splits
        .iter()
        .map(|s| (s.name.as_str(), Vec::new()))
        .collect();
    for planned in &source.partitions {
        let partition = planned.partition;
        for (_, line) in &mut lines {
            line.push(KeptLength {
                partition,
                length: 0,
                last: 0,
            });
        }
        let path = DECISIONS.path(context.step(), partition.into());
        for row in context.run.rows::<DecisionRow>(&path)? {
            let row = row?;
            let split = split_of(splits, row.group).filter(|_| row.keep);
            let line = lines
                .iter_mut()
                .find(|(name, _)| split.is_some_and(|s| s.name == *name));
            if let Some(kept) = line.and_then(|(_, line)| line.last_mut()) {
                kept.last = weight.of(row.bytes);
                kept.length += kept.last;
            }
        }
        context.check_stop()?;
    }
    Ok(lines)
}

fn warn_of_empty(lines: &[(&str, Vec<KeptLength>)]) {
    for (split, line) in lines {
        if line.iter().all(|kept| kept.length == 0) {
            tracing::warn!("--split: no sample is in {split}");
        }
    }
}

/// Counts based on the survivors of different steps do not add up to one dataset.
fn refuse_mixed_chains(decided: &[&Receipt]) -> sluice_manifest::Result<()> {
    let Some(first) = decided.first() else {
        return Ok(());
    };
    let mut decided = decided.iter();
    match decided.find(|receipt| receipt.survivors_of != first.survivors_of) {
        None => Ok(()),
        Some(other) => Err(Error::data(format!(
            "{} was decided on {}, {} on {}",
            first.unit,
            chain_name(first),
            other.unit,
            chain_name(other)
        ))
        .hint("run sluice-export decide for all partitions with the same --survivors-of")),
    }
}

fn refuse_larger_samples(decided: &[&Receipt], limit: u64) -> sluice_manifest::Result<()> {
    let largest = decided.iter().map(|receipt| receipt.sums.largest_kept);
    match largest.max() {
        Some(largest) if largest > limit => Err(Error::usage(format!(
            "--bytes-per-shard {limit}: the largest sample has {largest} bytes"
        ))
        .hint(format!(
            "choose {largest} or more, or --images-per-shard in its place"
        ))),
        _ => Ok(()),
    }
}

/// Returns the output that a run has planned, or `None` if there is no plan.
///
/// # Errors
///
/// Returns a storage error if the receipt cannot be read.
pub fn planned_output(run: &Store, step: &StepName) -> sluice_manifest::Result<Option<Location>> {
    let json = run.get_if_there(&layout::receipt(step, UNIT))?;
    let receipt = json.and_then(|json| serde_json::from_slice::<Value>(&json).ok());
    // Receipts of other versions have more or fewer fields, but always this one.
    let output = receipt.as_ref().and_then(|receipt| {
        let output = receipt.pointer("/settings/output")?;
        Location::parse(output.as_str()?).ok()
    });
    Ok(output)
}

/// Returns the identity of a run, or that which it is going to have; empty where it is not known.
fn run_id(run: &Location, upstream: &Upstream) -> sluice_manifest::Result<String> {
    if let Some(store) = upstream.storage.open_if_there(run)?
        && let Some(json) = store.get_if_there(layout::RUN_INFO)?
        && let Ok(info) = RunInfo::parse(&json, "")
    {
        return Ok(info.id);
    }
    let input = upstream.input.as_ref();
    Ok(input.map_or_else(String::new, |input| input.id_of_run(run)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embeddings_are_named_by_a_step() {
        let step = |text: &str| text.parse::<EmbeddingsFrom>().unwrap().to_string();
        assert_eq!(
            ["false", "true", "dino"].map(step),
            ["false", "embed", "dino"]
        );
        assert!("A b".parse::<EmbeddingsFrom>().is_err());
    }
}
