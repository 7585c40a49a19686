//! `index.json` and the dataset card, once all output shards are there.
//!
//! The index has the form that `wids` (Python's webdataset up to 0.2) reads: `ShardListDataset` gets
//! from it how many samples each shard holds. Its addresses are relative, so the output can be
//! moved.

use std::io::Write;

use anyhow::Result;
use serde::Serialize;
use serde_json::json;
use sluice_harness::{Common, Context, Plan, Work, filter_step};
use sluice_manifest::dag::{self, FanOut, Step};
use sluice_manifest::{Counts, Error, Filter, Input, Output, Receipt, Unit, layout};
use sluice_store::Store;

use crate::card::{self, Card};
use crate::decide::filters_of;
use crate::plan::{OutputPlan, as_input};

/// Write the curated dataset's index and its card, and remove shards of an earlier, longer plan
///
/// Example: sluice-export index --run runs/a
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,
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
pub fn run(context: &Context) -> Result<()> {
    let unit = Unit::once("index");
    let plan = OutputPlan::open(context)?;
    context.each_unit(&dag::EXPORT_INDEX, vec![unit], 1, |unit| {
        index(context, &plan, unit)
    })?;
    plan.output.tidy();
    Ok(())
}

fn index(context: &Context, plan: &OutputPlan, unit: &Unit) -> Result<()> {
    let units = plan.units();
    let written = context.required_receipts(&dag::EXPORT_WRITE, &units)?;
    refuse_other_plans(plan, &written)?;
    remove_stale(context, plan, &units)?;
    let inputs: Vec<Input> = written.iter().map(as_input).collect();
    let work = Work {
        step: &dag::EXPORT_INDEX,
        version: 1,
        unit,
        units: 1,
        settings: json!({}),
        basis: None,
        inputs: vec![
            as_input(&plan.receipt),
            Input::combined(dag::EXPORT_WRITE.name, &inputs),
        ],
    };
    let Some(mut task) = context.begin(work)? else {
        return Ok(());
    };
    let source = context.plan()?;
    let decided = context.required_receipts(&dag::EXPORT_DECIDE, &source.units())?;
    plan.refuse_other_decisions(&decided)?;
    let counts = conserved(&decided, &written)?;
    let shards = written.iter().map(as_shard).collect::<Result<Vec<_>>>()?;
    let card = describe(context, plan, &source, &decided, &shards)?;
    let index = WidsIndex {
        kind: "wids-shard-index-v1",
        wids_version: 1,
        shardlist: shards,
    };
    let mut json = serde_json::to_vec_pretty(&index)?;
    json.push(b'\n');
    let out = &plan.output;
    task.wrote_outside(out, put(out, layout::OUTPUT_INDEX, &json)?);
    let card = card::render(&card);
    task.wrote_outside(out, put(out, layout::OUTPUT_CARD, card.as_bytes())?);
    Ok(task.commit(counts)?)
}

fn put(store: &Store, path: &str, content: &[u8]) -> Result<Output> {
    let mut object = store.writer(path)?;
    object.write_all(content)?;
    Ok(object.finish()?)
}

fn refuse_other_plans(plan: &OutputPlan, written: &[Receipt]) -> Result<()> {
    let present = as_input(&plan.receipt);
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

/// Removes what an earlier plan with more shards left behind. What it wrote to another output
/// stays there: that dataset is the user's, and whole.
fn remove_stale(context: &Context, plan: &OutputPlan, present: &[Unit]) -> Result<()> {
    let step = &dag::EXPORT_WRITE;
    let here = plan.output.uri("");
    for object in context.run.list("export/receipts")? {
        let name = object.path.rsplit('/').next().unwrap_or_default();
        let number = name
            .strip_prefix("shard-")
            .and_then(|rest| rest.strip_suffix(".json"))
            .and_then(|number| number.parse().ok());
        let Some(number) = number.filter(|&number: &u32| number >= plan.shards) else {
            continue;
        };
        let receipt = context.receipt(step, &layout::output_shard(number))?;
        let mut outputs = receipt.iter().flat_map(|receipt| &receipt.outputs);
        if outputs.any(|output| !output.path.starts_with(&here)) {
            context.run.delete(&object.path)?;
        }
    }
    Ok(context.remove_stale(step, "shard", present)?)
}

/// What was decided to stay must have been written, once.
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
    let tar = receipt.outputs.iter().find(|o| o.path.ends_with(&url));
    let filesize = tar.map(|output| output.bytes);
    let no_tar = || Error::data(format!("receipt of {} names no tar", receipt.unit));
    Ok(WidsShard {
        filesize: filesize.ok_or_else(no_tar)?,
        nsamples: receipt.counts.kept,
        url,
    })
}

/// What the card tells.
fn describe(
    context: &Context,
    plan: &OutputPlan,
    source: &Plan,
    decided: &[Receipt],
    shards: &[WidsShard],
) -> Result<Card> {
    let mut counts = Counts::default();
    for receipt in decided {
        counts.merge(&receipt.counts);
    }
    let filters = match decided.first() {
        Some(receipt) => filters_of(receipt)?,
        None => Vec::new(),
    };
    let mut steps = Vec::new();
    for (step, unit) in deciding_steps(&filters, plan.embeddings) {
        if let Some(receipt) = context.receipt(step, &unit)? {
            steps.push((step.name, receipt.settings));
        }
    }
    Ok(Card {
        source: source.info.input.clone(),
        source_shards: source.info.shards,
        source_bytes: source.info.bytes,
        shards: shards.len() as u64,
        bytes: shards.iter().map(|shard| shard.filesize).sum(),
        filters,
        counts,
        steps,
        embeddings: plan.embeddings,
    })
}

/// The steps that had a say in the output, with a unit whose receipt tells their settings.
fn deciding_steps(filters: &[Filter], embeddings: bool) -> Vec<(&'static Step, Unit)> {
    let mut steps = vec![&dag::READ];
    let from_vectors = [Filter::Aesthetic, Filter::Nsfw, Filter::Semantic];
    if embeddings || from_vectors.iter().any(|filter| filters.contains(filter)) {
        steps.push(&dag::EMBED);
    }
    for &filter in filters {
        if filter == Filter::Semantic {
            steps.push(&dag::DEDUP_FIT);
        }
        steps.push(filter_step(filter).0);
    }
    let first_unit = |step: &'static Step| {
        let kinds = [Filter::Exact, Filter::Perceptual, Filter::Semantic].map(filter_step);
        let numbered = kinds.into_iter().find(|(other, _)| *other == step);
        let unit = match (step.fan_out, numbered) {
            (_, Some((_, kind))) => Unit::numbered(kind, 0),
            (FanOut::Partitions, None) => sluice_manifest::Partition(0).into(),
            (_, None) => Unit::once(step.subcommand.unwrap_or(step.name)),
        };
        (step, unit)
    };
    steps.into_iter().map(first_unit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_that_decided_are_named() {
        let names = |filters: &str, embeddings| -> Vec<String> {
            let filters = Filter::parse_list(filters).unwrap();
            deciding_steps(&filters, embeddings)
                .iter()
                .map(|(step, unit)| format!("{}/{unit}", step.name))
                .collect()
        };
        assert_eq!(names("", false), ["read/part-00000"]);
        assert_eq!(names("", true), ["read/part-00000", "embed/part-00000"]);
        assert_eq!(
            names("nsfw,dedup", false),
            [
                "read/part-00000",
                "embed/part-00000",
                "nsfw/part-00000",
                "dedup-exact/exact-00000",
                "dedup-perceptual/perceptual-00000",
                "dedup-fit/fit",
                "dedup-match/group-00000",
            ]
        );
    }

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
