//! Checks that everything in the receipts exists unchanged, and that manifests have their columns.

use rayon::prelude::*;
use sluice_manifest::layout::{
    self, ASSIGNMENTS, CAPTIONS, CENTROIDS, DECISIONS, DUPLICATES, EMBEDDINGS, FILTERED, GROUPS,
    IMAGES, KNOWN, Manifest, OUTPUT_PLAN, PAIRS, SCORES, SHARDS, SKIPPED,
};
use sluice_manifest::rows::{self, CuratedRow, MODEL_SHA256_KEY, PlanRow, Row};
use sluice_manifest::{Receipt, Result};
use sluice_run::Run;
use sluice_store::Store;

use super::CheckedRun;
use super::checks::{Check, CheckResults};

/// Checks all outputs of all units.
///
/// # Errors
/// Storage errors only.
pub(super) fn check(run: &CheckedRun<'_>) -> Result<CheckResults> {
    let receipts: Vec<&Receipt> = run.all_receipts().collect();
    let found: Vec<CheckResults> = receipts
        .par_iter()
        .map(|receipt| outputs_of(run.recorded, receipt))
        .collect::<Result<_>>()?;
    let mut findings = CheckResults::default();
    for found in found {
        findings.merge(found);
    }
    Ok(findings)
}

fn outputs_of(recorded: &Run, receipt: &Receipt) -> Result<CheckResults> {
    let mut findings = CheckResults::default();
    for output in &receipt.outputs {
        recorded.check_stop()?;
        let outside = recorded.outside(&output.path)?;
        let is_outside = outside.is_some();
        let inside = || (Store::clone(recorded), output.path.to_string());
        let (store, path) = outside.unwrap_or_else(inside);
        let size = store.stat(&path)?.map(|info| info.bytes);
        let there = findings.expect(Check::Outputs, size == Some(output.bytes), || match size {
            None => format!("{}: no such object", output.path),
            Some(size) => format!("{}: {size} bytes, expected {}", output.path, output.bytes),
        });
        if !there {
            continue;
        }
        let hash = store.blake3(&path)?;
        findings.expect(Check::Outputs, hash == output.blake3, || {
            format!(
                "{}: its content has changed since it was written",
                output.path
            )
        });
        if path.ends_with(".parquet") {
            let opened = if is_outside {
                store.rows::<CuratedRow>(&path).map(drop)
            } else {
                open(&store, &path, receipt)
            };
            findings.take(Check::Schemas, opened)?;
        }
    }
    Ok(findings)
}

type OpenManifest = fn(&Store, &str) -> Result<()>;

/// Returns a kind of manifest, and a function that opens one.
fn kind<R: Row>(manifest: &Manifest<R>) -> (&'static str, OpenManifest) {
    (manifest.kind(), |store, path| {
        store.rows::<R>(path).map(drop)
    })
}

/// Opens a manifest as the kind that its folder implies, which checks its columns.
fn open(store: &Store, path: &str, receipt: &Receipt) -> Result<()> {
    if path == layout::PLAN {
        return store.rows::<PlanRow>(path).map(drop);
    }
    let decisions = if receipt.decides.is_empty() {
        kind(&DECISIONS)
    } else {
        kind(&FILTERED)
    };
    let typed = [
        kind(&IMAGES),
        kind(&SHARDS),
        kind(&SKIPPED),
        kind(&DUPLICATES),
        kind(&PAIRS),
        kind(&KNOWN),
        kind(&GROUPS),
        kind(&OUTPUT_PLAN),
        kind(&CAPTIONS),
        decisions,
    ];
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let folder = folder.rsplit_once('/').map_or("", |(_, kind)| kind);
    if let Some((_, open)) = typed.iter().find(|(kind, _)| *kind == folder) {
        return open(store, path);
    }
    if folder == EMBEDDINGS.kind() {
        let table = store.table(path, rows::EMBEDDINGS, &["image_id", "embedding"])?;
        return table.required(MODEL_SHA256_KEY).map(drop);
    }
    if folder == SCORES.kind() {
        let columns = receipt
            .scores
            .iter()
            .map(|score| score.column.name.as_str());
        let columns: Vec<&str> = std::iter::once("image_id").chain(columns).collect();
        return store.table(path, rows::SCORES, &columns).map(drop);
    }
    if folder == CENTROIDS.kind() {
        return store
            .table(path, rows::CENTROIDS, &["cluster", "centroid"])
            .map(drop);
    }
    if folder == ASSIGNMENTS.kind() {
        let columns = ["cluster", "partition", "image_id", "distance", "embedding"];
        return store.table(path, rows::ASSIGNMENTS, &columns).map(drop);
    }
    // A kind that only one stage knows.
    store.any_table(path).map(drop)
}
