//! Writes `index.json`, the dataset card and its Croissant description, once all output shards
//! exist.
//!
//! The index has the format that `wids` (Python's webdataset up to 0.2) reads: it gives
//! `ShardListDataset` the number of samples in each shard. Its addresses are relative, so the
//! output can be moved.

use std::collections::BTreeSet;
use std::io::Write;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sluice_harness::{Context, StepArgs, Work};
use sluice_manifest::rows::OutputPlanRow;
use sluice_manifest::{Counts, Error, Input, Output, Receipt, StepName, Unit, UnitKind, layout};
use sluice_run::{Plan, data_or_none};
use sluice_store::Store;

use crate::card::{self, CardStep, DatasetCard};
use crate::croissant;
use crate::format::OutputFormat;
use crate::hub::Extensions;
use crate::lineage::Lineage;
use crate::output_plan::OutputPlan;
use crate::place::leftover_shards;
use crate::plan::chain_of;
use crate::scores::CuratedScore;
use crate::splits::{OutputShardInfo, OutputSplit};
use crate::write::EXTENSIONS;

/// Write the curated dataset's index and card, and remove shards that are not in the plan
///
/// Example: sluice-export index --run runs/a
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The arguments of every step after `read`.
    #[command(flatten)]
    pub step: StepArgs,

    /// Licence of the images for the dataset card, such as cc-by-4.0
    ///
    /// An identifier of SPDX or of the Hub. Default: the card says that it is not stated.
    #[arg(long, env = "SLUICE_LICENSE", value_name = "LICENSE")]
    pub license: Option<String>,
}

/// The settings of `index`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexSettings {
    /// The licence of the images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
}

/// The format that `wids` reads.
#[derive(Debug, Serialize)]
struct WidsIndex {
    #[serde(rename = "__kind__")]
    kind: &'static str,
    wids_version: u32,
    shardlist: Vec<WidsShard>,
}

/// An output shard in the index.
#[derive(Debug, Serialize)]
struct WidsShard {
    url: String,
    nsamples: u64,
    filesize: u64,
}

/// Writes the index and the card.
///
/// # Errors
///
/// Returns a data error if an output shard is missing or older than the plan, or if decisions are
/// stale; and otherwise a storage error.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let plan = OutputPlan::open(context)?;
    let written = context.each_unit(vec![Unit::once(UnitKind::Index)], 1, |unit| {
        index(args, context, &plan, unit)
    });
    plan.output.tidy();
    written
}

fn index(args: &Args, context: &Context, plan: &OutputPlan, unit: Unit) -> Result<()> {
    let step = context.step();
    let written = context.required_receipts(step, &plan.units())?;
    refuse_other_plans(plan, &written)?;
    let receipts = context.receipts()?;
    let lineage = Lineage::of(&receipts, receipts.unit(step, plan.receipt.unit));
    lineage.refuse_stale()?;
    remove_stale(context, plan)?;
    let fingerprints = written.iter().map(|receipt| &receipt.fingerprint);
    let work = Work {
        unit,
        units: 1,
        settings: IndexSettings {
            license: args.license.clone(),
        },
        inputs: vec![
            plan.receipt.as_input(),
            Input::units(step, UnitKind::Shard, fingerprints),
        ],
    };
    let Some(mut open_unit) = context.begin(work)? else {
        return Ok(());
    };
    let splits = splits(&plan.places(context)?, &written)?;
    // Also removes shards of an earlier dataset, which the card's patterns would match.
    for name in leftover_shards(&plan.output, &planned(&splits, plan.settings.format))? {
        tracing::warn!(
            object = plan.output.uri(&name),
            "deleted: not in this export's plan"
        );
        plan.output.delete(&name)?;
    }
    let source = context.plan()?;
    let decided = context.required_receipts(step, &source.units())?;
    for receipt in &decided {
        plan.refuse_other_decisions(context, receipt)?;
    }
    let counts = conserved(&decided, &written)?;
    let card = DatasetCard {
        licence: args.license.clone(),
        splits,
        ..describe(step, plan, &source, &lineage, counts.clone(), &written)?
    };
    let out = &plan.output;
    for split in card
        .splits
        .iter()
        .filter(|_| plan.settings.format == OutputFormat::Webdataset)
    {
        let json = wids_index(split)?;
        open_unit.publish_outside(out, || put(out, &split.index(), &json))?;
    }
    let json = croissant::render(&card)?;
    open_unit.publish_outside(out, || put(out, layout::OUTPUT_CROISSANT, &json))?;
    let card = card::render(&card);
    open_unit.publish_outside(out, || put(out, layout::OUTPUT_CARD, card.as_bytes()))?;
    Ok(open_unit.commit(counts)?)
}

fn wids_index(split: &OutputSplit) -> Result<Vec<u8>> {
    let index = WidsIndex {
        kind: "wids-shard-index-v1",
        wids_version: 1,
        shardlist: split.shards.iter().map(as_wids).collect(),
    };
    let mut json = serde_json::to_vec_pretty(&index)?;
    json.push(b'\n');
    Ok(json)
}

fn as_wids(shard: &OutputShardInfo) -> WidsShard {
    WidsShard {
        url: format!("{}.{}", shard.path, OutputFormat::Webdataset.extension()),
        nsamples: shard.samples,
        filesize: shard.bytes,
    }
}

fn put(store: &Store, path: &str, content: &[u8]) -> sluice_manifest::Result<Output> {
    let mut object = store.writer(path)?;
    let written = object.write_all(content);
    written.map_err(|e| Error::of_io(e, &store.uri(path)))?;
    object.finish()
}

fn refuse_other_plans(plan: &OutputPlan, written: &[Receipt]) -> Result<()> {
    let present = plan.receipt.as_input();
    match written.iter().find(|r| !r.inputs.contains(&present)) {
        None => Ok(()),
        Some(other) => Err(Error::data(format!(
            "{} was written before the export was planned again",
            other.unit
        ))
        .hint("run sluice-export write again")
        .into()),
    }
}

/// Removes the shards of an earlier plan that had more of them. Shards in another output are kept,
/// because that dataset belongs to the user and is complete; only their receipts are removed.
fn remove_stale(context: &Context, plan: &OutputPlan) -> Result<()> {
    let step = context.step();
    let here = plan.output.uri("");
    for object in context.run.list(&layout::receipts(step))? {
        let Some((_, unit)) = layout::receipt_at(&object.path) else {
            continue;
        };
        if unit.kind != UnitKind::Shard || unit.index < plan.shards {
            continue;
        }
        let receipt = data_or_none(context.receipt(step, unit))?;
        for output in receipt.iter().flat_map(|receipt| &receipt.outputs) {
            if let Some(name) = output.path.as_str().strip_prefix(&here) {
                plan.output.delete_inside(name)?;
            }
        }
    }
    Ok(context.remove_stale(step, UnitKind::Shard, plan.shards)?)
}

/// Returns the counts of the decisions, after checking that every kept sample was written exactly
/// once.
fn conserved(decided: &[Receipt], written: &[Receipt]) -> Result<Counts> {
    let mut total = Counts::default();
    for receipt in decided {
        total.merge(&receipt.counts);
    }
    let copied: u64 = written.iter().map(|receipt| receipt.counts.kept).sum();
    if copied != total.kept {
        let kept = total.kept;
        let message = format!("conservation broken: {kept} samples stay, {copied} were written");
        return Err(Error::bug(message).into());
    }
    Ok(total)
}

/// Returns the splits with shards, in the plan's order. If the output has no splits, returns a
/// single one without a name, even if it has no shards.
fn splits(places: &[OutputPlanRow], written: &[Receipt]) -> Result<Vec<OutputSplit>> {
    let mut splits: Vec<OutputSplit> = Vec::new();
    for (row, receipt) in places.iter().zip(written) {
        if splits.last().is_none_or(|split| split.name != row.split) {
            splits.push(OutputSplit::new(row.split.clone()));
        }
        let shard = OutputShardInfo {
            number: row.shard,
            path: row.path(),
            samples: receipt.counts.kept,
            bytes: bytes_of(receipt)?,
        };
        if let Some(split) = splits.last_mut() {
            split.shards.push(shard);
        }
    }
    if splits.is_empty() {
        splits.push(OutputSplit::new(None));
    }
    Ok(splits)
}

/// Returns the names of all planned objects among those that are cleaned up.
fn planned(splits: &[OutputSplit], format: OutputFormat) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for split in splits {
        if format == OutputFormat::Webdataset {
            names.insert(split.index());
        }
        for shard in &split.shards {
            let extensions = [format.extension(), OutputFormat::Parquet.extension()];
            names.extend(extensions.map(|extension| format!("{}.{extension}", shard.path)));
        }
    }
    names
}

/// Returns the size of the object with a shard's samples.
fn bytes_of(receipt: &Receipt) -> Result<u64> {
    let missing = || Error::data(format!("receipt of {} names no shard", receipt.unit));
    Ok(receipt.shard_object().ok_or_else(missing)?.bytes)
}

/// Returns a hash of everything that was written for the shards.
fn content_of(written: &[Receipt]) -> String {
    let mut hasher = Sha256::new();
    for output in written.iter().flat_map(|receipt| &receipt.outputs) {
        hasher.update(&output.blake3);
    }
    hex::encode(&hasher.finalize()[..8])
}

/// Returns the extensions of all members, or `None` if a shard was written by a version that did
/// not record them.
fn extensions_of(written: &[Receipt]) -> Option<Extensions> {
    let mut all = Extensions::default();
    for receipt in written {
        let json = receipt.about.get(EXTENSIONS)?;
        all.merge(&serde_json::from_str(json).ok()?);
    }
    Some(all)
}

/// Returns the content of the card. It depends only on receipts, for any pipeline.
fn describe(
    step: &StepName,
    plan: &OutputPlan,
    source: &Plan,
    lineage: &Lineage<'_>,
    counts: Counts,
    written: &[Receipt],
) -> Result<DatasetCard> {
    let receipts = lineage.receipts;
    let decided: Vec<&Receipt> = receipts.of_kind(step, UnitKind::Partition).iter().collect();
    let deciders = chain_of(receipts, &decided).into_iter().cloned();
    let scores = plan.settings.scores.iter();
    Ok(DatasetCard {
        source: source.info.input.clone(),
        source_shards: source.info.shards,
        source_bytes: source.info.bytes,
        licence: None,
        format: plan.settings.format,
        recode: plan.settings.recode,
        splits: Vec::new(),
        content: content_of(written),
        extensions: extensions_of(written),
        deciders: deciders.collect(),
        counts,
        steps: lineage.nodes(step).into_iter().map(as_step).collect(),
        scores: scores
            .map(|score| {
                let first = receipts.of(&score.step).first();
                (score.column.clone(), meaning_of(score, first))
            })
            .collect(),
        embeddings: plan.settings.embeddings.is_some(),
    })
}

fn as_step((name, receipt): (String, &Receipt)) -> CardStep {
    let about = |field: &str| receipt.about.get(field).cloned();
    CardStep {
        name,
        stage: receipt.stage.clone(),
        settings: receipt.settings.clone(),
        licence: about("licence"),
        origin: about("origin"),
    }
}

/// Describes a score column. Scorers that run a model have its name in their settings.
fn meaning_of(score: &CuratedScore, receipt: Option<&Receipt>) -> String {
    let step: &StepName = &score.step;
    let mut meaning = if receipt.is_some_and(|receipt| receipt.scores.len() > 1) {
        format!("output `{}` of the step `{step}`", score.output)
    } else {
        format!("score of the step `{step}`")
    };
    let model = receipt.and_then(|receipt| receipt.settings.pointer("/model/name")?.as_str());
    if let Some(model) = model {
        meaning += &format!(", model {model}");
    }
    meaning + "; null where the sample has none"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_is_what_wids_asks_for() {
        let index = WidsIndex {
            kind: "wids-shard-index-v1",
            wids_version: 1,
            shardlist: vec![WidsShard {
                url: "shard-00000.tar".into(),
                nsamples: 3,
                filesize: 4096,
            }],
        };
        assert_eq!(
            serde_json::to_string(&index).unwrap(),
            r#"{"__kind__":"wids-shard-index-v1","wids_version":1,"shardlist":[{"url":"shard-00000.tar","nsamples":3,"filesize":4096}]}"#
        );
    }
}
