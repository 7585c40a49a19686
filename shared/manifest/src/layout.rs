//! Where things lie in a run. The one place that formats paths.
//!
//! ```text
//! RUN/run.json
//! RUN/<stage>/<kind>/<unit>.parquet     manifests
//! RUN/<stage>/receipts/<unit>.json      receipts
//! RUN/report/index.html
//! OUT/shard-00000.tar, OUT/shard-00000.parquet, …, OUT/index.json, OUT/README.md
//! ```

use crate::Unit;

/// `run.json`.
pub const RUN_INFO: &str = "run.json";
/// The report's page.
pub const REPORT: &str = "report/index.html";
/// The curated dataset's index, in the form of webdataset's `wids`.
pub const OUTPUT_INDEX: &str = "index.json";
/// The curated dataset's card.
pub const OUTPUT_CARD: &str = "README.md";

/// Path of a manifest.
pub fn manifest(stage: &str, kind: &str, unit: &Unit) -> String {
    format!("{stage}/{kind}/{unit}.parquet")
}

/// Path of a receipt.
pub fn receipt(stage: &str, unit: &Unit) -> String {
    format!("{stage}/receipts/{unit}.json")
}

/// Unit and name of the `index`-th output shard.
pub fn output_shard(index: u32) -> Unit {
    Unit::numbered("shard", index)
}
