//! The paths of a run. The one place that formats them.
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
    CaptionsRow, DecisionRow, DuplicateRow, FileRow, FilterRow, OutputPlanRow, SampleRow, ShardRow,
    SkippedRow,
};
use crate::{StepName, Unit, UnitKind};

/// `run.json`.
pub const RUN_INFO: &str = "run.json";
/// The pipeline that made the run, where `sluice run` made it.
pub const PIPELINE: &str = "pipeline.toml";
/// The plan of the partitions.
pub const PLAN: &str = "partition/plan.parquet";
/// The report's page.
pub const REPORT: &str = "report/index.html";
/// The curated dataset's index, in the form of webdataset's `wids`.
pub const OUTPUT_INDEX: &str = "index.json";
/// The curated dataset's card.
pub const OUTPUT_CARD: &str = "README.md";
/// The curated dataset's description in Croissant's JSON-LD.
pub const OUTPUT_CROISSANT: &str = "croissant.json";
/// The claim of the run that writes the curated dataset.
pub const OUTPUT_CLAIM: &str = ".sluice.json";

/// A kind of manifest: its folder below a step, and the type of its rows.
pub struct Manifest<R> {
    kind: &'static str,
    row: PhantomData<fn() -> R>,
}

impl<R> Manifest<R> {
    /// Names a kind of manifest by its folder.
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

/// Rows that are read as Arrow batches, for their columns depend on the model.
#[derive(Debug)]
pub struct Batches;

/// One row for each member of the samples in files; the units are partitions.
pub const FILES: Manifest<FileRow> = Manifest::new("files");
/// One row for every sample that `read` found.
pub const IMAGES: Manifest<SampleRow> = Manifest::new("images");
/// One row for each shard.
pub const SHARDS: Manifest<ShardRow> = Manifest::new("shards");
/// One row for each member that belongs to no sample.
pub const SKIPPED: Manifest<SkippedRow> = Manifest::new("skipped");
/// The embeddings of an encoder.
pub const EMBEDDINGS: Manifest<Batches> = Manifest::new("embeddings");
/// The scores of a scorer.
pub const SCORES: Manifest<Batches> = Manifest::new("scores");
/// The decisions of a filter.
pub const FILTERED: Manifest<FilterRow> = Manifest::new("decisions");
/// The duplicates that `dedup` removed.
pub const DUPLICATES: Manifest<DuplicateRow> = Manifest::new("duplicates");
/// The centroids of k-means.
pub const CENTROIDS: Manifest<Batches> = Manifest::new("centroids");
/// The survivors in their clusters.
pub const ASSIGNMENTS: Manifest<Batches> = Manifest::new("assignments");
/// What all deciding steps together decided.
pub const DECISIONS: Manifest<DecisionRow> = Manifest::new("decisions");
/// The captions of removed duplicates, by the image that stays.
pub const CAPTIONS: Manifest<CaptionsRow> = Manifest::new("captions");
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

/// Returns the step and the unit of a receipt's path; none for other objects.
pub fn receipt_at(path: &str) -> Option<(StepName, Unit)> {
    let (step, name) = path.split_once("/receipts/")?;
    let unit = name.strip_suffix(".json")?.parse().ok()?;
    Some((StepName::new(step).ok()?, unit))
}

/// Returns the step and the unit whose receipt vouches for a manifest; none for other objects.
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
