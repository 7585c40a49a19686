//! The rows of the manifests: one struct and one list of Arrow fields for each kind.
//!
//! A manifest records its schema's name and version as Parquet key-value metadata ([`SCHEMA_KEY`],
//! [`VERSION_KEY`]). Readers request the columns of their row type; a missing column, or one of
//! another type, is an error that names it. Columns may be added without a new version; changing or
//! removing one requires a new version.
//!
//! Vectors (embeddings, centroids) are fixed-size lists of float32 and too wide for rows. Their
//! schemas are functions of the dimension: [`embeddings`], [`centroids`] and [`assignments`]. The
//! columns of [`scores`] depend on the model.

mod curated;
mod dedup;
mod export;
mod filter;
mod partition;
mod samples;
mod shards;
mod vectors;
mod views;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use curated::CuratedRow;
pub use dedup::{DuplicateRow, Method, PairRow};
pub use export::{CaptionsRow, DecisionRow, GroupRow, OutputPlanRow};
pub use filter::FilterRow;
pub use partition::{FileRow, PlanRow, ShardKind};
pub use samples::{MemberRow, SampleRow, Status, TEXT_BYTES, TRANSFORMATIONS};
pub use shards::{ShardRow, ShardStatus, SkippedRow};
pub use vectors::{
    ASSIGNMENTS, CENTROIDS, EMBEDDINGS, SCORES, assignments, centroids, embeddings, scores, vector,
    version_of,
};
pub use views::{CaptionedRow, MeasuredRow, NameRow, PictureRow, SampleBrief, some_of_read};

/// Parquet metadata key of the schema's name.
pub const SCHEMA_KEY: &str = "sluice.schema";
/// Parquet metadata key of the schema's version.
pub const VERSION_KEY: &str = "sluice.version";
/// Parquet metadata key of the embedder's name.
pub const MODEL_KEY: &str = "sluice.model";
/// Parquet metadata key of the embedder's content hash.
pub const MODEL_SHA256_KEY: &str = "sluice.model.sha256";
/// Parquet metadata key of the embedding's dimension.
pub const DIMENSION_KEY: &str = "sluice.dimension";
/// Parquet metadata key of the output's URI in the export's plan.
pub const OUTPUT_KEY: &str = "sluice.output";
/// Parquet metadata key of the measure by which the export's plan divides shards: `images` or
/// `bytes`.
pub const WEIGHT_KEY: &str = "sluice.weight";

/// A row of a manifest.
pub trait Row: Serialize + DeserializeOwned + Send + 'static {
    /// The schema's name, `<stage>/<kind>`.
    const SCHEMA: &'static str;
    /// The schema's version.
    const VERSION: u32 = 1;
    /// Returns the columns.
    fn fields() -> Vec<Field>;
    /// Returns the approximate number of bytes of text in the row. Writers limit their buffers by
    /// it. Row types that are only read need not implement it.
    fn text_bytes(&self) -> usize {
        0
    }
}

/// Returns the length of an optional text.
fn length(text: Option<&String>) -> usize {
    text.map_or(0, String::len)
}

fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, false)
}

fn number(name: &str, kind: DataType) -> Field {
    Field::new(name, kind, false)
}

fn list_of(kind: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", kind, false)))
}

fn optional(name: &str, kind: DataType) -> Field {
    Field::new(name, kind, true)
}
