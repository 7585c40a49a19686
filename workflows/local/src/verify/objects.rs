//! Everything that receipts name is there as it was written, and manifests have their columns.

use rayon::prelude::*;
use sluice_harness::Context;
use sluice_manifest::layout::{
    self, ASSIGNMENTS, CAPTIONS, CENTROIDS, DECISIONS, DUPLICATES, EMBEDDINGS, FILTERED, GROUPS,
    IMAGES, KNOWN, Manifest, OUTPUT_PLAN, PAIRS, SCORES, SHARDS, SKIPPED,
};
use sluice_manifest::rows::{self, CuratedRow, MODEL_SHA256_KEY, PlanRow, Row};
use sluice_manifest::{Receipt, Result};
use sluice_store::Store;

use super::Run;
use super::checks::{Check, Findings};

/// Checks all outputs of all units.
///
/// # Errors
/// Of storage only.
pub fn check(run: &Run<'_>) -> Result<Findings> {
    let receipts: Vec<&Receipt> = run.all_receipts().collect();
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
        let outside = context.outside(&output.path)?;
        let is_outside = outside.is_some();
        let inside = || (Store::clone(&context.run), output.path.to_string());
        let (store, path) = outside.unwrap_or_else(inside);
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
        let hash = store.blake3(&path)?;
        findings.expect(Check::Outputs, hash == output.blake3, || {
            format!(
                "{}: its content has changed since it was written",
                output.path
            )
        });
        if path.ends_with(".parquet") {
            let opened = match is_outside {
                true => store.rows::<CuratedRow>(&path).map(drop),
                false => open(&store, &path, receipt),
            };
            findings.take(Check::Schemas, opened)?;
        }
    }
    Ok(findings)
}

type Open = fn(&Store, &str) -> Result<()>;

/// Returns a kind of manifest, and how to open one.
fn kind<R: Row>(manifest: &Manifest<R>) -> (&'static str, Open) {
    (manifest.kind(), |store, path| {
        store.rows::<R>(path).map(drop)
    })
}

/// Opens a manifest as what its folder says it is; that checks its columns.
fn open(store: &Store, path: &str, receipt: &Receipt) -> Result<()> {
    if path == layout::PLAN {
        return store.rows::<PlanRow>(path).map(drop);
    }
    let decisions = match receipt.decides.is_empty() {
        true => kind(&DECISIONS),
        false => kind(&FILTERED),
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
    // A kind that only its own stage knows.
    store.any_table(path).map(drop)
}
