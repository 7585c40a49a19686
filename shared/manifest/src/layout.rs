//! The paths of a run, formatted in this one place.
//!
//! ```text
//! RUN/run.json, RUN/pipeline.toml
//! RUN/<step>/<kind>/<unit>.parquet     manifests
//! RUN/<step>/receipts/<unit>.json      receipts
//! RUN/report/index.html
//! OUT/shard-00000.tar, OUT/shard-00000.parquet, …, OUT/index.json, OUT/README.md
//! OUT/.sluice.json
//! ```

use std::marker::PhantomData;

use crate::rows::{
    CaptionsRow, DecisionRow, DuplicateRow, FileRow, FilterRow, GroupRow, OutputPlanRow, PairRow,
    SampleRow, ShardRow, SkippedRow,
};
use crate::{StepName, Unit, UnitKind};

/// The path of [`RunInfo`](crate::RunInfo) in the run.
pub const RUN_INFO: &str = "run.json";
/// The path of the pipeline file, for runs that `sluice run` made.
pub const PIPELINE: &str = "pipeline.toml";
/// The path of the partition plan.
pub const PLAN: &str = "partition/plan.parquet";
/// The path of the report's page.
pub const REPORT: &str = "report/index.html";
/// The index of the curated dataset, in the format of webdataset's `wids`.
pub const OUTPUT_INDEX: &str = "index.json";
/// The dataset card of the curated dataset.
pub const OUTPUT_CARD: &str = "README.md";
/// The description of the curated dataset in Croissant's JSON-LD.
pub const OUTPUT_CROISSANT: &str = "croissant.json";
/// The file that claims an output folder for one run.
pub const OUTPUT_CLAIM: &str = ".sluice.json";

/// A kind of manifest: its folder below a step, and its row type.
pub struct Manifest<R> {
    kind: &'static str,
    row: PhantomData<fn() -> R>,
}

impl<R> Manifest<R> {
    /// Creates a kind of manifest from its folder.
    pub const fn new(kind: &'static str) -> Self {
        Self {
            kind,
            row: PhantomData,
        }
    }

    /// Returns the folder below the step.
    pub const fn kind(&self) -> &'static str {
        self.kind
    }

    /// Returns the path of a unit's manifest in the run.
    pub fn path(&self, step: &StepName, unit: Unit) -> String {
        format!("{step}/{}/{unit}.parquet", self.kind)
    }
}

/// The row type of manifests that are read as Arrow batches, because their columns depend on the
/// model.
#[derive(Debug)]
pub struct ArrowRows;

/// The members of samples that are plain files: one row for each, in units of partitions.
pub const FILES: Manifest<FileRow> = Manifest::new("files");
/// The samples that `read` found: one row for each.
pub const IMAGES: Manifest<SampleRow> = Manifest::new("images");
/// The shards that `read` read: one row for each.
pub const SHARDS: Manifest<ShardRow> = Manifest::new("shards");
/// The members that belong to no sample: one row for each.
pub const SKIPPED: Manifest<SkippedRow> = Manifest::new("skipped");
/// The embeddings of an encoder.
pub const EMBEDDINGS: Manifest<ArrowRows> = Manifest::new("embeddings");
/// The scores of a scorer.
pub const SCORES: Manifest<ArrowRows> = Manifest::new("scores");
/// The decisions of a filter.
pub const FILTERED: Manifest<FilterRow> = Manifest::new("decisions");
/// The duplicates that `dedup` removed.
pub const DUPLICATES: Manifest<DuplicateRow> = Manifest::new("duplicates");
/// Pairs of images with similar perceptual hashes.
pub const PAIRS: Manifest<PairRow> = Manifest::new("pairs");
/// The images whose perceptual hash is similar to one of a reference set.
pub const KNOWN: Manifest<DuplicateRow> = Manifest::new("known");
/// The centroids that k-means found, one row for each.
pub const CENTROIDS: Manifest<ArrowRows> = Manifest::new("centroids");
/// The samples that `dedup` compares, in their clusters.
pub const ASSIGNMENTS: Manifest<ArrowRows> = Manifest::new("assignments");
/// The combined decisions of all deciding steps.
pub const DECISIONS: Manifest<DecisionRow> = Manifest::new("decisions");
/// The captions of removed duplicates, by the image that is kept.
pub const CAPTIONS: Manifest<CaptionsRow> = Manifest::new("captions");
/// The groups of duplicates, one row for each.
pub const GROUPS: Manifest<GroupRow> = Manifest::new("groups");
/// The plan of the output shards.
pub const OUTPUT_PLAN: Manifest<OutputPlanRow> = Manifest::new("plan");

/// Returns the path of the index of the curated dataset, or of one of its splits.
pub fn output_index(split: Option<&str>) -> String {
    match split {
        Some(split) => format!("index-{split}.json"),
        None => OUTPUT_INDEX.to_owned(),
    }
}

/// Returns the folder of a step's receipts.
pub fn receipts(step: &StepName) -> String {
    format!("{step}/receipts")
}

/// Returns the path of a receipt.
pub fn receipt(step: &StepName, unit: Unit) -> String {
    format!("{step}/receipts/{unit}.json")
}

/// Returns the step and unit of a receipt's path, or `None` for other objects.
pub fn receipt_at(path: &str) -> Option<(StepName, Unit)> {
    let (step, name) = path.split_once("/receipts/")?;
    let unit = name.strip_suffix(".json")?.parse().ok()?;
    Some((StepName::new(step).ok()?, unit))
}

/// Returns the step and unit whose receipt lists a manifest, or `None` for other objects.
pub fn written_by(path: &str) -> Option<(StepName, Unit)> {
    if path.starts_with("partition/") {
        return Some((StepName::partition(), Unit::once(UnitKind::Plan)));
    }
    let (step, rest) = path.split_once('/')?;
    let (_, name) = rest.split_once('/')?;
    let unit = name.strip_suffix(".parquet")?.parse().ok()?;
    Some((StepName::new(step).ok()?, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receipts_are_found_by_their_path() {
        let step = StepName::fixed("dedup");
        let unit = Unit::new(UnitKind::Exact, 3);
        let path = receipt(&step, unit);
        assert_eq!(path, "dedup/receipts/exact-00003.json");
        let manifest = DUPLICATES.path(&step, unit);
        let both = Some((step, unit));
        assert_eq!(
            (receipt_at(&path), written_by(&manifest)),
            (both.clone(), both)
        );
        assert_eq!(receipt_at("dedup/receipts/x.json"), None);
        assert_eq!(receipt_at(&manifest), None);
        let plan = (StepName::partition(), Unit::once(UnitKind::Plan));
        assert_eq!(written_by(PLAN), Some(plan));
        for other in [
            &path,
            RUN_INFO,
            REPORT,
            "dedup/x.parquet",
            "../a/part-00000.parquet",
        ] {
            assert_eq!(written_by(other), None, "{other}");
        }
    }
}
