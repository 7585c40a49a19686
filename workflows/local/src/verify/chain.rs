//! Receipts, what they were made from, and what they vouch for.

use std::collections::{BTreeSet, HashMap};
use std::io::Read;

use rayon::prelude::*;
use sluice_harness::{Context, Receipts, shard_input};
use sluice_manifest::dag::{self, FanOut, STEPS};
use sluice_manifest::rows::{
    ASSIGNMENTS, CENTROIDS, CuratedRow, DecisionRow, DuplicateRow, EMBEDDINGS, OutputPlanRow,
    PlanRow, SampleRow, ScoreRow, ShardRow, SkippedRow,
};
use sluice_manifest::{Error, Fingerprint, Input, Output, Receipt, Result, Unit};
use sluice_store::Store;

use super::Run;
use super::checks::{Check, Findings};

/// Every step was done for all of its units.
pub fn receipts(run: &Run<'_>, findings: &mut Findings) {
    for broken in &run.receipts.broken {
        findings.fail(Check::Receipts, broken.to_string());
    }
    for step in STEPS {
        let receipts = run.receipts.of(step);
        let wanted: BTreeSet<Unit> = match (step.fan_out, receipts.first()) {
            (FanOut::Partitions, _) => run.plan.units().into_iter().collect(),
            // Where nothing stays, no output shard is planned.
            (FanOut::OutputShards, None) if nothing_planned(run.receipts) => BTreeSet::new(),
            (_, None) => {
                findings.fail(Check::Receipts, format!("{}: has not been run", step.name));
                continue;
            }
            (_, Some(first)) => match first.unit.as_str().rsplit_once('-') {
                Some((kind, _)) => (0..first.units).map(|n| Unit::numbered(kind, n)).collect(),
                None => BTreeSet::from([first.unit.clone()]),
            },
        };
        let there: BTreeSet<Unit> = receipts.iter().map(|r| r.unit.clone()).collect();
        for unit in wanted.difference(&there) {
            findings.fail(Check::Receipts, format!("{} {unit}: no receipt", step.name));
        }
        for unit in there.difference(&wanted) {
            let name = step.name;
            findings.fail(
                Check::Receipts,
                format!("{name} {unit}: is no unit of the step"),
            );
        }
        for receipt in receipts {
            let sums = receipt.counts.check().is_ok() && receipt.units as usize == wanted.len();
            findings.expect(Check::Receipts, sums, || {
                format!(
                    "{} {}: its counts do not sum, or it was one of {} units in place of {}",
                    step.name,
                    receipt.unit,
                    receipt.units,
                    wanted.len()
                )
            });
        }
    }
}

fn nothing_planned(receipts: &Receipts) -> bool {
    receipts.complete(&dag::EXPORT_PLAN) && receipts.counts(&dag::EXPORT_PLAN).kept == 0
}

/// Every unit was made from what its inputs are now.
pub fn inputs(run: &Run<'_>, findings: &mut Findings) {
    let shards = run.plan.partitions.iter().flat_map(|p| &p.shards);
    let shards: HashMap<String, Fingerprint> = shards
        .map(shard_input)
        .map(|input| (input.name, input.fingerprint))
        .collect();
    let combined: HashMap<&str, Input> = STEPS
        .iter()
        .map(|step| (step.name, run.receipts.combined_input(step)))
        .collect();
    for receipt in STEPS.iter().flat_map(|step| run.receipts.of(step)) {
        for input in &receipt.inputs {
            let now = match input.name.split_once('/') {
                _ if receipt.step == dag::READ.name => shards.get(&input.name).cloned(),
                None => match combined.get(input.name.as_str()) {
                    Some(now) => Some(now.fingerprint.clone()),
                    // A model, or the listing that the plan was made from.
                    None => continue,
                },
                Some((step, unit)) => match STEPS.iter().find(|other| other.name == step) {
                    Some(step) => {
                        let unit: Option<Unit> = serde_json::from_value(unit.into()).ok();
                        let input = unit.and_then(|unit| run.receipts.input(step, &unit));
                        input.map(|input| input.fingerprint)
                    }
                    None => continue,
                },
            };
            let same = now.as_ref() == Some(&input.fingerprint);
            findings.expect(Check::Inputs, same, || {
                let (step, unit) = (&receipt.step, &receipt.unit);
                match now {
                    Some(_) => format!("{step} {unit}: {} has changed since", input.name),
                    None => format!("{step} {unit}: {} is gone", input.name),
                }
            });
        }
    }
}

/// Everything written is there, as it was written, and manifests have their columns.
pub fn outputs(run: &Run<'_>) -> Result<Findings> {
    let receipts: Vec<&Receipt> = STEPS
        .iter()
        .flat_map(|step| run.receipts.of(step))
        .collect();
    let found: Vec<Findings> = receipts
        .par_iter()
        .map(|receipt| outputs_of(run.context, receipt))
        .collect::<Result<_>>()?;
    let mut findings = Findings::default();
    for found in found {
        findings.merge(found);
    }
    Ok(findings)
}

fn outputs_of(context: &Context, receipt: &Receipt) -> Result<Findings> {
    let mut findings = Findings::default();
    for output in &receipt.outputs {
        context.check_stop()?;
        let (store, path) = match context.outside(&output.path)? {
            Some(place) => place,
            None => (context.run.clone(), output.path.clone()),
        };
        let size = store.stat(&path)?.map(|info| info.bytes);
        let there = findings.expect(Check::Outputs, size == Some(output.bytes), || match size {
            None => format!("{}: no such object", output.path),
            Some(size) => format!(
                "{}: {size} bytes, written were {}",
                output.path, output.bytes
            ),
        });
        if !there {
            continue;
        }
        let hash = hash_of(&store, &path)?;
        findings.expect(Check::Outputs, hash == output.blake3, || {
            format!(
                "{}: its content has changed since it was written",
                output.path
            )
        });
        if path.ends_with(".parquet") {
            let opened = open(&store, &path, output);
            findings.take(Check::Schemas, opened)?;
        }
    }
    Ok(findings)
}

fn hash_of(store: &Store, path: &str) -> Result<String> {
    let mut reader = store.reader(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let length = reader
            .read(&mut buffer)
            .map_err(|e| Error::of_io(e, &store.uri(path)))?;
        if length == 0 {
            return Ok(hasher.finalize().to_hex().to_string());
        }
        hasher.update(&buffer[..length]);
    }
}

/// Opens a manifest as what its path says it is; that checks its columns.
fn open(store: &Store, path: &str, output: &Output) -> Result<()> {
    let kind = output
        .path
        .rsplit_once('/')
        .map_or("", |(folder, _)| folder);
    let columns: (&str, &[&str]) = match kind {
        "partition" => return store.rows::<PlanRow>(path).map(drop),
        "read/images" => return store.rows::<SampleRow>(path).map(drop),
        "read/shards" => return store.rows::<ShardRow>(path).map(drop),
        "read/skipped" => return store.rows::<SkippedRow>(path).map(drop),
        "aesthetic/scores" | "nsfw/scores" => return store.rows::<ScoreRow>(path).map(drop),
        "dedup/duplicates" => return store.rows::<DuplicateRow>(path).map(drop),
        "export/decisions" => return store.rows::<DecisionRow>(path).map(drop),
        "export/plan" => return store.rows::<OutputPlanRow>(path).map(drop),
        "embed/embeddings" => (EMBEDDINGS, &["image_id", "embedding"]),
        "dedup/centroids" => (CENTROIDS, &["cluster", "centroid"]),
        "dedup/assignments" => (
            ASSIGNMENTS,
            &["cluster", "partition", "image_id", "distance", "embedding"],
        ),
        _ if path != output.path => return store.rows::<CuratedRow>(path).map(drop),
        _ => {
            return Err(Error::data(format!("{path}: no manifest of any step")));
        }
    };
    let (schema, columns) = columns;
    let table = store.table(path, schema, columns)?;
    match schema {
        EMBEDDINGS => table
            .required(sluice_manifest::rows::MODEL_SHA256_KEY)
            .map(drop),
        _ => Ok(()),
    }
}
