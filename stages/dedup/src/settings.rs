//! The settings that receipts record: everything on the command line that can change an output.

use std::fmt;

use serde::{Deserialize, Serialize};
use sluice_manifest::ScoreName;
use sluice_manifest::rows::TRANSFORMATIONS;

use crate::arguments::Eps;
use crate::methods::Methods;
use crate::ranking::KeepRule;

/// The perceptual hash by which images are compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum HashKind {
    /// 64 bits, of every image
    #[default]
    Phash,
    /// ThreatExchange's 256 bits, of `sluice-read --hashes pdq`
    Pdq,
}

impl HashKind {
    /// Whether it is the default.
    pub fn is_phash(&self) -> bool {
        *self == Self::Phash
    }
}

/// A transformation under which an image counts as a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Transformation {
    /// Mirrored left to right
    Hflip,
    /// Mirrored top to bottom
    Vflip,
    /// Turned by 90 degrees, either way
    Rot90,
    /// Turned by 180 degrees
    Rot180,
    /// Mirrored at a diagonal, either one
    Transpose,
}

impl Transformation {
    /// Returns the places of its hashes in `SampleRow::phash_transformed`.
    pub(crate) fn places(self) -> impl Iterator<Item = usize> {
        let names: &[&str] = match self {
            Self::Hflip => &["hflip"],
            Self::Vflip => &["vflip"],
            Self::Rot90 => &["rot90", "rot270"],
            Self::Rot180 => &["rot180"],
            Self::Transpose => &["transpose", "transverse"],
        };
        let places = TRANSFORMATIONS.iter().enumerate();
        places.filter_map(|(place, name)| names.contains(name).then_some(place))
    }
}

/// How perceptual hashes are compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NearSettings {
    /// The hash.
    #[serde(default, skip_serializing_if = "HashKind::is_phash")]
    pub hash: HashKind,
    /// Bits by which the hashes of duplicates may differ.
    pub max_distance: u32,
    /// Transformations under which an image counts as a copy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transformations: Vec<Transformation>,
}

/// A hash that `sluice-read` computes on request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnRequest {
    /// MD5.
    Md5,
    /// PDQ.
    Pdq,
    /// Those of the mirrored and turned image.
    Transformed,
}

impl fmt::Display for OnRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Md5 => "md5",
            Self::Pdq => "pdq",
            Self::Transformed => "transformed",
        })
    }
}

impl NearSettings {
    /// Returns the hash that the comparison needs and that `sluice-read` computes on request only.
    pub(crate) fn on_request(&self) -> Option<OnRequest> {
        match self.hash {
            HashKind::Pdq => Some(OnRequest::Pdq),
            HashKind::Phash if self.transformations.is_empty() => None,
            HashKind::Phash => Some(OnRequest::Transformed),
        }
    }
}

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

/// Settings of `pairs`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairsSettings {
    /// The step's methods.
    pub methods: Methods,
    /// How the hashes are compared.
    #[serde(flatten)]
    pub near: NearSettings,
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
    /// How the hashes are compared.
    #[serde(flatten)]
    pub near: NearSettings,
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
    pub keep: KeepRule,
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
