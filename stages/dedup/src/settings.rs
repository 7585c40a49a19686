//! The settings that receipts record: everything on the command line that can change an output.

use serde::{Deserialize, Serialize};
use sluice_manifest::ScoreName;

use crate::arguments::Eps;
use crate::methods::Methods;
use crate::ranking::Keep;

/// Settings of `exact`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExactSettings {
    /// The step's methods.
    pub methods: Methods,
    /// The score that ranks.
    pub rank_by: Option<ScoreName>,
    /// Units of work.
    pub ranges: u32,
    /// The reference sets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub against: Vec<String>,
}

/// Settings of `perceptual`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PerceptualSettings {
    /// The step's methods.
    pub methods: Methods,
    /// The score that ranks.
    pub rank_by: Option<ScoreName>,
    /// Bits by which the hashes of duplicates may differ.
    pub max_distance: u32,
    /// The reference sets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub against: Vec<String>,
}

/// Settings of `fit`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FitSettings {
    /// Clusters asked for.
    pub clusters: u64,
    /// Embeddings read at most.
    pub sample: u64,
    /// Seed of the first centroids.
    pub seed: u64,
}

/// Settings of `assign`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AssignSettings {
    /// The step's methods.
    pub methods: Methods,
    /// The score that `match` ranks by.
    pub rank_by: Option<ScoreName>,
    /// Clusters in which an image is compared.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub probes: u32,
}

fn one() -> u32 {
    1
}

fn is_one(probes: &u32) -> bool {
    *probes == 1
}

/// Settings of `match`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MatchSettings {
    /// The step's methods.
    pub methods: Methods,
    /// Distance of the cosine similarity from 1.
    pub eps: Eps,
    /// Which image of a group stays.
    pub keep: Keep,
    /// Seed of the order, where it is random.
    pub seed: Option<u64>,
    /// Units of work.
    pub groups: u32,
    /// The reference sets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub against: Vec<String>,
}

/// The setting that all deciding subcommands of a step and `assign` must have in common.
#[derive(Debug, Deserialize)]
pub(crate) struct SameStep {
    pub methods: Methods,
}
