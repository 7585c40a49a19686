//! The schemas of manifests that are read as Arrow batches: vectors, and the scores of any model.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};

use super::{CuratedRow, Row, number, optional, text};

/// Returns a field for a fixed-size list of `dimension` float32 values without nulls.
///
/// # Panics
///
/// Panics if `dimension` does not fit an `i32`.
pub fn vector(name: &str, dimension: usize) -> Field {
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    // Unwrap safety: no model's dimension comes near 2^31.
    let length = i32::try_from(dimension).expect("a vector has fewer than 2^31 values");
    Field::new(name, DataType::FixedSizeList(item, length), false)
}

/// Returns the schema of `embed/embeddings`: `image_id`, `embedding` (L2-normalised), in the order
/// of `read/images`.
///
/// # Panics
///
/// Panics like [`vector`].
pub fn embeddings(dimension: usize) -> Schema {
    Schema::new(vec![text("image_id"), vector("embedding", dimension)])
}

/// Returns the schema of `dedup/centroids`: `cluster`, `centroid` (not normalised).
///
/// # Panics
///
/// Panics like [`vector`].
pub fn centroids(dimension: usize) -> Schema {
    Schema::new(vec![
        number("cluster", DataType::UInt32),
        vector("centroid", dimension),
    ])
}

/// Returns the schema of `dedup/assignments`: the survivors of a partition, sorted by cluster and
/// `image_id`, with the columns for ranking: `distance` (1 - cosine to the centroid of `home`),
/// `score` (aesthetic), `pixels`. An image has a row in its own cluster (`home`) and, with
/// `--probes`, in the next nearest ones.
///
/// # Panics
///
/// Panics like [`vector`].
pub fn assignments(dimension: usize) -> Schema {
    Schema::new(vec![
        number("cluster", DataType::UInt32),
        number("home", DataType::UInt32),
        number("partition", DataType::UInt32),
        text("image_id"),
        number("distance", DataType::Float32),
        optional("score", DataType::Float32),
        number("pixels", DataType::UInt64),
        vector("embedding", dimension),
    ])
}

/// Returns the schema of a scorer's `scores`: `image_id`, then one column for each score, in the
/// order of `read/images`. A missing score is null; a sample without any score has no row.
pub fn scores<'a>(columns: impl IntoIterator<Item = &'a str>) -> Schema {
    let scores = columns
        .into_iter()
        .map(|name| optional(name, DataType::Float32));
    Schema::new([vec![text("image_id")], scores.collect()].concat())
}

/// The schema name of [`scores`].
pub const SCORES: &str = "scores";
/// The schema name of [`embeddings`].
pub const EMBEDDINGS: &str = "embed/embeddings";
/// The schema name of [`centroids`].
pub const CENTROIDS: &str = "dedup/centroids";
/// The schema name of [`assignments`].
pub const ASSIGNMENTS: &str = "dedup/assignments";

/// Returns the version of a schema that is read as Arrow batches.
pub fn version_of(schema: &str) -> u32 {
    match schema {
        SCORES | ASSIGNMENTS | CuratedRow::SCHEMA => 2,
        _ => 1,
    }
}
