//! `RUN/run.json`: what a run is. Written by `partition`, read by everything after it.

use serde::{Deserialize, Serialize};

/// What a run curates and how it is cut into partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunInfo {
    /// Version of the run's layout.
    pub layout: u32,
    /// Root of the input, as a URI without credentials. Shard paths are relative to it.
    pub input: String,
    /// What was asked for under `--input`, in order.
    pub patterns: Vec<String>,
    /// Number of partitions.
    pub partitions: u32,
    /// Number of shards.
    pub shards: u64,
    /// Their size in bytes.
    pub bytes: u64,
}

impl RunInfo {
    /// The layout that this version writes and reads.
    pub const LAYOUT: u32 = 1;
}
