//! The curated dataset: its shards, its index, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;
use serde_json::Value;
use sluice_manifest::rows::{OUTPUT_KEY, OutputPlanRow, WEIGHT_KEY};
use sluice_manifest::{Error, Result, dag, layout};
use sluice_store::{Location, Store};

use super::Run;
use super::checks::{Check, Findings};
use super::shard::{Output, Weight};

/// Checks the curated dataset, where it was planned.
pub fn check(run: &Run<'_>, input: &Store, findings: &mut Findings) -> Result<()> {
    let Some(receipt) = run.receipts.of(&dag::EXPORT_PLAN).first() else {
        return Ok(());
    };
    let path = layout::manifest(dag::EXPORT_PLAN.stage, "plan", &receipt.unit);
    let Some((location, weight, rows)) = findings.take(Check::Packing, plan(run, &path))? else {
        return Ok(());
    };
    let Some(store) = findings.take(Check::Packing, Store::open(&location))? else {
        return Ok(());
    };
    let output = Output {
        run,
        input,
        store: &store,
        weight,
    };
    let rows: Vec<(u32, Vec<OutputPlanRow>)> = rows.into_iter().collect();
    let looked: Vec<(Findings, u64)> = rows
        .par_iter()
        .map(|(shard, rows)| output.check(&layout::output_shard(*shard), rows))
        .collect::<Result<_>>()?;
    let mut samples = BTreeMap::new();
    for ((shard, _), (found, count)) in rows.iter().zip(looked) {
        findings.merge(found);
        samples.insert(format!("{}.tar", layout::output_shard(*shard)), count);
    }
    let total: u64 = samples.values().sum();
    let kept = run.receipts.counts(&dag::EXPORT_DECIDE).kept;
    findings.expect(Check::Conservation, total == kept, || {
        format!("{kept} samples are kept, the output holds {total}")
    });
    index(&store, &samples, findings)?;
    extra(&store, &samples, findings)
}

type Planned = (Location, Weight, BTreeMap<u32, Vec<OutputPlanRow>>);

/// Where the output lies and what goes into each shard. A row for each shard and partition: as
/// much as the plan of the partitions, and no more.
fn plan(run: &Run<'_>, path: &str) -> Result<Planned> {
    let rows = run.context.run.rows::<OutputPlanRow>(path)?;
    let location = Location::parse(rows.table().required(OUTPUT_KEY)?)?;
    let weight = match rows.table().required(WEIGHT_KEY)? {
        "images" => Weight::Images,
        "bytes" => Weight::Bytes,
        other => return Err(Error::data(format!("{path}: unknown weight {other:?}"))),
    };
    let mut shards: BTreeMap<u32, Vec<OutputPlanRow>> = BTreeMap::new();
    for row in rows {
        let row = row?;
        shards.entry(row.shard).or_default().push(row);
    }
    Ok((location, weight, shards))
}

/// `index.json` has every shard with its samples and size.
fn index(store: &Store, samples: &BTreeMap<String, u64>, findings: &mut Findings) -> Result<()> {
    let Some(json) = findings.take(Check::Index, store.get(layout::OUTPUT_INDEX))? else {
        return Ok(());
    };
    let index: Value = match serde_json::from_slice(&json) {
        Ok(index) => index,
        Err(e) => {
            let uri = store.uri(layout::OUTPUT_INDEX);
            findings.fail(Check::Index, format!("{uri}: does not read: {e}"));
            return Ok(());
        }
    };
    let mut told = BTreeMap::new();
    for shard in index["shardlist"].as_array().into_iter().flatten() {
        let counts = (shard["nsamples"].as_u64(), shard["filesize"].as_u64());
        told.insert(shard["url"].as_str().unwrap_or_default().to_owned(), counts);
    }
    for (name, &count) in samples {
        let size = store.stat(name)?.map(|info| info.bytes);
        let same = told.remove(name) == Some((Some(count), size));
        findings.expect(Check::Index, same, || {
            format!("{name}: the index does not tell {count} samples and its size")
        });
    }
    for name in told.keys() {
        findings.fail(Check::Index, format!("{name}: in the index alone"));
    }
    Ok(())
}

/// Nothing but the shards, their Parquet files, the index and the card.
fn extra(store: &Store, samples: &BTreeMap<String, u64>, findings: &mut Findings) -> Result<()> {
    let mut known: BTreeSet<String> = samples.keys().cloned().collect();
    let tables = samples.keys().map(|tar| tar.replace(".tar", ".parquet"));
    known.extend(tables);
    known.extend([layout::OUTPUT_INDEX, layout::OUTPUT_CARD].map(str::to_owned));
    for object in store.list("")? {
        let expected = known.contains(&object.path);
        findings.expect(Check::Extra, expected, || {
            format!("{}: not part of the dataset", store.uri(&object.path))
        });
    }
    Ok(())
}
