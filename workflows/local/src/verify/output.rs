//! Checks the curated datasets: their shards, their index, and that there are no other files.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;
use serde_json::Value;
use sluice_export::captions::KeepCaptions;
use sluice_export::claim::Claim;
use sluice_export::format::{OutputFormat, plan_settings};
use sluice_export::groups::Groups;
use sluice_manifest::layout::{self, OUTPUT_PLAN};
use sluice_manifest::rows::{OUTPUT_KEY, OutputPlanRow, WEIGHT_KEY};
use sluice_manifest::{Error, Result, StepName, Unit, UnitKind};
use sluice_pixels::Recode;
use sluice_run::steps;
use sluice_store::{Location, Store};

use super::CheckedRun;
use super::checks::{Check, CheckResults};
use super::shard::{CheckedOutput, PlanWeight};

/// Checks the dataset of every export that has a plan.
///
/// # Errors
/// Storage errors only.
pub(super) fn check(
    run: &CheckedRun<'_>,
    input: &Store,
    findings: &mut CheckResults,
) -> Result<()> {
    for export in steps::exports(run.receipts) {
        if run
            .receipts
            .unit(export, Unit::once(UnitKind::Plan))
            .is_some()
        {
            dataset(run, export, input, findings)?;
        }
    }
    Ok(())
}

fn dataset(
    run: &CheckedRun<'_>,
    export: &StepName,
    input: &Store,
    findings: &mut CheckResults,
) -> Result<()> {
    let path = OUTPUT_PLAN.path(export, Unit::once(UnitKind::Plan));
    let Some((location, weight, rows)) = findings.take(Check::Packing, plan(run, &path))? else {
        return Ok(());
    };
    let Some(store) = findings.take(Check::Packing, run.recorded.storage.open(&location))? else {
        return Ok(());
    };
    let Some(groups) = findings.take(Check::Duplicates, groups(run, export))? else {
        return Ok(());
    };
    let settings = plan_settings(run.receipts, export);
    let format = settings
        .as_ref()
        .map_or_else(OutputFormat::default, |s| s.format);
    let output = CheckedOutput {
        run,
        export,
        input,
        store: &store,
        weight,
        groups,
        format,
        recode: settings.as_ref().map_or_else(Recode::default, |s| s.recode),
        keep_captions: settings
            .as_ref()
            .map_or_else(KeepCaptions::default, |s| s.keep_captions),
        splits: settings.map_or_else(Vec::new, |settings| settings.splits),
    };
    let rows: Vec<(u32, Vec<OutputPlanRow>)> = rows.into_iter().collect();
    let looked: Vec<(CheckResults, u64)> = rows
        .par_iter()
        .map(|(_, rows)| output.check(rows))
        .collect::<Result<_>>()?;
    let mut samples = BTreeMap::new();
    let mut splits: BTreeMap<Option<&str>, BTreeMap<String, u64>> = BTreeMap::new();
    for ((_, rows), (found, count)) in rows.iter().zip(looked) {
        findings.merge(found);
        let Some(row) = rows.first() else { continue };
        let name = format!("{}.{}", row.path(), format.extension());
        samples.insert(name.clone(), count);
        let split = splits.entry(row.split.as_deref()).or_default();
        split.insert(name, count);
    }
    if splits.is_empty() {
        splits.insert(None, BTreeMap::new());
    }
    let total: u64 = samples.values().sum();
    let kept = run.receipts.counts(export, UnitKind::Partition).kept;
    findings.expect(Check::Conservation, total == kept, || {
        format!("{export}: {kept} samples are kept, the output has {total}")
    });
    let mut indexes = Vec::new();
    for (split, samples) in splits.iter().filter(|_| format == OutputFormat::Webdataset) {
        let path = layout::output_index(*split);
        index(&store, &path, samples, findings)?;
        indexes.push(path);
    }
    extra(&store, &samples, indexes, findings)?;
    claimed(run, export, &store, findings)
}

/// Returns the groups of duplicates by what the dedup steps removed.
fn groups(run: &CheckedRun<'_>, export: &StepName) -> Result<Groups> {
    let decided = run.receipts.of_kind(export, UnitKind::Partition).first();
    match decided.and_then(|receipt| run.survivors.before(receipt)) {
        Some(survivors) => Groups::of(survivors),
        None => Ok(Groups::default()),
    }
}

/// Checks that the claim names this run. A claim of an older version has only a location, which may
/// have changed.
fn claimed(
    run: &CheckedRun<'_>,
    export: &StepName,
    store: &Store,
    findings: &mut CheckResults,
) -> Result<()> {
    let claim = findings.take(Check::Extra, Claim::read(store))?.flatten();
    let Some(claim) = claim.filter(Claim::has_id) else {
        return Ok(());
    };
    let id = run.recorded.run_info()?.map(|info| info.id);
    let ours = Claim::new(
        run.recorded.location(),
        &id.unwrap_or_default(),
        export,
        store.location(),
    );
    findings.take(Check::Extra, ours.refuse_other(&claim, store.location()))?;
    Ok(())
}

type Planned = (Location, PlanWeight, BTreeMap<u32, Vec<OutputPlanRow>>);

/// Returns the location of the output, and the contents of each shard. There is one row per shard
/// and partition, which is little more than the plan of the partitions.
fn plan(run: &CheckedRun<'_>, path: &str) -> Result<Planned> {
    let rows = run.recorded.rows::<OutputPlanRow>(path)?;
    let location = Location::parse(rows.table().required(OUTPUT_KEY)?)?;
    let weight = match rows.table().required(WEIGHT_KEY)? {
        "images" => PlanWeight::Images,
        "bytes" => PlanWeight::Bytes,
        other => return Err(Error::data(format!("{path}: unknown weight {other:?}"))),
    };
    let mut shards: BTreeMap<u32, Vec<OutputPlanRow>> = BTreeMap::new();
    for row in rows {
        let row = row?;
        shards.entry(row.shard).or_default().push(row);
    }
    Ok((location, weight, shards))
}

/// Checks that the index has every shard with its number of samples and its size.
fn index(
    store: &Store,
    path: &str,
    samples: &BTreeMap<String, u64>,
    findings: &mut CheckResults,
) -> Result<()> {
    let Some(json) = findings.take(Check::Index, store.get(path))? else {
        return Ok(());
    };
    let index: Value = match serde_json::from_slice(&json) {
        Ok(index) => index,
        Err(e) => {
            let uri = store.uri(path);
            findings.fail(Check::Index, format!("{uri}: cannot parse it: {e}"));
            return Ok(());
        }
    };
    let mut listed = BTreeMap::new();
    for shard in index["shardlist"].as_array().into_iter().flatten() {
        let counts = (shard["nsamples"].as_u64(), shard["filesize"].as_u64());
        listed.insert(shard["url"].as_str().unwrap_or_default().to_owned(), counts);
    }
    for (name, &count) in samples {
        let size = store.stat(name)?.map(|info| info.bytes);
        let same = listed.remove(name) == Some((Some(count), size));
        findings.expect(Check::Index, same, || {
            format!("{name}: the index does not have its {count} samples and its size")
        });
    }
    for name in listed.keys() {
        findings.fail(Check::Index, format!("{name}: only in the index"));
    }
    Ok(())
}

/// Checks that there are only the shards, their Parquet files, the index, the card, the Croissant
/// description and the claim.
fn extra(
    store: &Store,
    samples: &BTreeMap<String, u64>,
    indexes: Vec<String>,
    findings: &mut CheckResults,
) -> Result<()> {
    let mut known: BTreeSet<String> = samples.keys().cloned().collect();
    let tables = samples.keys().map(|tar| tar.replace(".tar", ".parquet"));
    known.extend(tables);
    let named = [
        layout::OUTPUT_CARD,
        layout::OUTPUT_CROISSANT,
        layout::OUTPUT_CLAIM,
    ];
    known.extend(indexes);
    known.extend(named.map(str::to_owned));
    for object in store.list("")? {
        let expected = known.contains(&object.path);
        findings.expect(Check::Extra, expected, || {
            format!("{}: not part of the dataset", store.uri(&object.path))
        });
    }
    Ok(())
}
