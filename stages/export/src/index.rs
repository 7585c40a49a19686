//! `index.json` and the dataset card, once all output shards are there.
//!
//! The index has the form that `wids` (Python's webdataset up to 0.2) reads: `ShardListDataset` gets
//! from it how many samples each shard holds. Its addresses are relative, so the output can be
//! moved.

use std::io::Write;

use anyhow::Result;
use serde::Serialize;
use serde_json::json;
use sluice_harness::{Context, Plan, StepArgs, Work, data_or_none};
use sluice_manifest::{Counts, Error, Input, Output, Receipt, StepName, Unit, UnitKind, layout};
use sluice_store::Store;

use crate::NoSettings;
use crate::card::{self, Card};
use crate::lineage::Lineage;
use crate::place::leftover_shards;
use crate::plan::{OutputPlan, chain_of};
use crate::scores::CuratedScore;

/// Write the curated dataset's index and its card, and remove shards that the plan does not have
///
/// Example: sluice-export index --run runs/a
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub step: StepArgs,
}

/// What `wids` reads.
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
/// Data, when an output shard is missing, or was written before the plan; when decisions are stale.
pub fn run(context: &Context) -> Result<()> {
    let plan = OutputPlan::open(context)?;
    let written = context.each_unit(vec![Unit::once(UnitKind::Index)], 1, |unit| {
        index(context, &plan, unit)
    });
    plan.output.tidy();
    written
}

fn index(context: &Context, plan: &OutputPlan, unit: Unit) -> Result<()> {
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
        settings: NoSettings {},
        inputs: vec![
            plan.receipt.as_input(),
            Input::units(step, UnitKind::Shard, fingerprints),
        ],
    };
    let Some(mut task) = context.begin(work)? else {
        return Ok(());
    };
    // Also those of a dataset that was there before: the card's patterns would match them.
    for name in leftover_shards(&plan.output, plan.shards)? {
        plan.output.delete(&name)?;
    }
    let source = context.plan()?;
    let decided = context.required_receipts(step, &source.units())?;
    for receipt in &decided {
        plan.refuse_other_decisions(context, receipt)?;
    }
    let counts = conserved(&decided, &written)?;
    let shards = written.iter().map(as_shard).collect::<Result<Vec<_>>>()?;
    let card = describe(step, plan, &source, &lineage, counts.clone(), &shards);
    let index = WidsIndex {
        kind: "wids-shard-index-v1",
        wids_version: 1,
        shardlist: shards,
    };
    let mut json = serde_json::to_vec_pretty(&index)?;
    json.push(b'\n');
    let out = &plan.output;
    task.publish_outside(out, || put(out, layout::OUTPUT_INDEX, &json))?;
    let card = card::render(&card);
    task.publish_outside(out, || put(out, layout::OUTPUT_CARD, card.as_bytes()))?;
    Ok(task.commit(counts)?)
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
            "{} was written before the export was planned anew",
            other.unit
        ))
        .hint("run sluice-export write again")
        .into()),
    }
}

/// Removes the shards of an earlier plan that had more of them. Those in another output stay there:
/// that dataset is the user's, and complete. Only their receipts go.
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

/// Returns the counts of the decisions. What was decided to stay must have been written, once.
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

fn as_shard(receipt: &Receipt) -> Result<WidsShard> {
    let url = format!("{}.tar", receipt.unit);
    let tar = receipt
        .outputs
        .iter()
        .find(|o| o.path.as_str().ends_with(&url));
    let filesize = tar.map(|output| output.bytes);
    let no_tar = || Error::data(format!("receipt of {} names no tar", receipt.unit));
    Ok(WidsShard {
        filesize: filesize.ok_or_else(no_tar)?,
        nsamples: receipt.counts.kept,
        url,
    })
}

/// Returns what the card says. All of it is known from receipts, whatever the pipeline was.
fn describe(
    step: &StepName,
    plan: &OutputPlan,
    source: &Plan,
    lineage: &Lineage<'_>,
    counts: Counts,
    shards: &[WidsShard],
) -> Card {
    let receipts = lineage.receipts;
    let decided: Vec<&Receipt> = receipts.of_kind(step, UnitKind::Part).iter().collect();
    let deciders = chain_of(receipts, &decided).into_iter().cloned();
    let nodes = lineage.nodes(step).into_iter();
    let scores = plan.settings.scores.iter();
    Card {
        source: source.info.input.clone(),
        source_shards: source.info.shards,
        source_bytes: source.info.bytes,
        shards: shards.len() as u64,
        bytes: shards.iter().map(|shard| shard.filesize).sum(),
        deciders: deciders.collect(),
        counts,
        steps: nodes
            .flat_map(|(name, receipt)| {
                let settings = (name.clone(), receipt.settings.clone());
                [settings, (name, json!(receipt.about))]
            })
            .collect(),
        scores: scores
            .map(|score| {
                let first = receipts.of(&score.step).first();
                (score.column.clone(), meaning_of(score, first))
            })
            .collect(),
        embeddings: plan.settings.embeddings.is_some(),
    }
}

/// Returns what a column of scores holds. Scorers that run a model have its name in their settings.
fn meaning_of(score: &CuratedScore, receipt: Option<&Receipt>) -> String {
    let step: &StepName = &score.step;
    let mut meaning = match receipt.is_some_and(|receipt| receipt.scores.len() > 1) {
        true => format!("output `{}` of the step `{step}`", score.output),
        false => format!("score of the step `{step}`"),
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
