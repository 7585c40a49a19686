//! The subcommands and their arguments.

use std::str::FromStr;

use clap::{Args as ClapArgs, Parser, Subcommand};
use serde::{Deserialize, Serialize};
use sluice_harness::StepArgs;
use sluice_manifest::rows::Method;
use sluice_manifest::{ScoreName, StepName};

use crate::methods::Methods;
use crate::ranking::Keep;

/// Clusters at most.
const MOST_CLUSTERS: i64 = 1 << 24;
/// Ranges of content hashes at most: each of them passes over all images.
const MOST_RANGES: i64 = 4096;
/// Groups of clusters at most.
const MOST_GROUPS: i64 = 65_536;

/// Find exact, perceptual and semantic duplicates
#[derive(Debug, Parser)]
#[command(name = "sluice-dedup", version)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Find images with equal bytes
    ///
    /// Example: sluice-dedup exact --run runs/a --survivors-of filter
    Exact(Exact),
    /// Find images with near perceptual hashes
    ///
    /// Example: sluice-dedup perceptual --run runs/a --max-distance 4
    Perceptual(Perceptual),
    /// Semantic, first part: fit k-means on a sample of the embeddings
    ///
    /// Example: sluice-dedup fit --run runs/a --clusters 1000
    Fit(Fit),
    /// Semantic, second part: assign each survivor to its cluster
    ///
    /// Example: sluice-dedup assign --run runs/a --rank-by aesthetic
    Assign(Assign),
    /// Semantic, third part: compare embeddings inside the clusters
    ///
    /// Example: sluice-dedup match --run runs/a --eps 0.01 --keep best
    Match(Match),
}

impl Command {
    /// Returns the arguments that every subcommand takes.
    pub fn stage_args(&self) -> &StageArgs {
        match self {
            Self::Exact(args) => &args.stage,
            Self::Perceptual(args) => &args.stage,
            Self::Fit(args) => &args.stage,
            Self::Assign(args) => &args.stage,
            Self::Match(args) => &args.stage,
        }
    }

    /// Returns the subcommand's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Exact(_) => "exact",
            Self::Perceptual(_) => "perceptual",
            Self::Fit(_) => "fit",
            Self::Assign(_) => "assign",
            Self::Match(_) => "match",
        }
    }

    /// Returns the method that the subcommand is a part of.
    pub fn method(&self) -> Method {
        match self {
            Self::Exact(_) => Method::Exact,
            Self::Perceptual(_) => Method::Perceptual,
            Self::Fit(_) | Self::Assign(_) | Self::Match(_) => Method::Semantic,
        }
    }

    /// Returns the score that ranks, where the subcommand reads one.
    pub fn rank_by(&self) -> Option<&ScoreName> {
        match self {
            Self::Exact(args) => args.rank.rank_by.as_ref(),
            Self::Perceptual(args) => args.rank.rank_by.as_ref(),
            Self::Assign(args) => args.rank.rank_by.as_ref(),
            Self::Fit(_) | Self::Match(_) => None,
        }
    }

    /// Returns the step whose embeddings the subcommand reads, where it reads some.
    pub fn embeddings(&self) -> Option<&StepName> {
        match self {
            Self::Fit(args) => Some(&args.source.embeddings),
            Self::Assign(args) => Some(&args.source.embeddings),
            Self::Exact(_) | Self::Perceptual(_) | Self::Match(_) => None,
        }
    }
}

/// Arguments of every subcommand.
#[derive(Debug, ClapArgs)]
pub struct StageArgs {
    #[command(flatten)]
    pub step: StepArgs,

    /// Methods of the step: exact, perceptual, semantic; the same list for all its subcommands
    #[arg(
        long,
        env = "SLUICE_METHODS",
        value_name = "LIST",
        value_delimiter = ',',
        value_parser = method,
        default_value = "exact,perceptual,semantic"
    )]
    pub methods: Vec<Method>,
}

impl StageArgs {
    /// Returns the step's methods.
    pub fn methods(&self) -> Methods {
        Methods::new(self.methods.iter().copied())
    }
}

/// Parses the name of a method.
fn method(text: &str) -> Result<Method, String> {
    match text.trim() {
        "exact" => Ok(Method::Exact),
        "perceptual" => Ok(Method::Perceptual),
        "semantic" => Ok(Method::Semantic),
        _ => Err("expected exact, perceptual or semantic".to_owned()),
    }
}

/// The argument of the subcommands that read the scores that rank.
#[derive(Debug, ClapArgs)]
pub struct RankArgs {
    /// Of a group of duplicates keep the image with the highest of these scores (default: most
    /// pixels)
    ///
    /// STEP, or STEP.OUTPUT where the step's model has several outputs. Equal scores are decided by
    /// most pixels, then by a caption, metadata, and the smallest image_id.
    #[arg(long, env = "SLUICE_RANK_BY", value_name = "SCORE")]
    pub rank_by: Option<ScoreName>,
}

/// The argument of the subcommands that read embeddings.
#[derive(Debug, ClapArgs)]
pub struct EmbeddingArgs {
    /// The step that gives the embeddings
    #[arg(
        long,
        env = "SLUICE_EMBEDDINGS_OF",
        value_name = "STEP",
        default_value = "embed"
    )]
    pub embeddings: StepName,
}

#[derive(Debug, ClapArgs)]
pub struct Exact {
    #[command(flatten)]
    pub stage: StageArgs,

    #[command(flatten)]
    pub rank: RankArgs,

    /// Units of work: each takes a range of content hashes
    #[arg(long, env = "SLUICE_RANGES", value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=MOST_RANGES))]
    pub ranges: u32,
}

#[derive(Debug, ClapArgs)]
pub struct Perceptual {
    #[command(flatten)]
    pub stage: StageArgs,

    #[command(flatten)]
    pub rank: RankArgs,

    /// Bits out of 64 by which the hashes of duplicates may differ
    #[arg(long, env = "SLUICE_MAX_DISTANCE", value_name = "BITS", default_value_t = 4,
        value_parser = clap::value_parser!(u32).range(0..=16))]
    pub max_distance: u32,
}

#[derive(Debug, ClapArgs)]
pub struct Fit {
    #[command(flatten)]
    pub stage: StageArgs,

    #[command(flatten)]
    pub source: EmbeddingArgs,

    /// Clusters (default: one for every 1000 images)
    #[arg(long, env = "SLUICE_CLUSTERS", value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=MOST_CLUSTERS))]
    pub clusters: Option<u32>,

    /// Embeddings that the fit reads at most (default: 256 for each cluster, at least 10000)
    #[arg(long, env = "SLUICE_FIT_SAMPLE", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub sample: Option<u64>,

    /// Units of work of `match`; the result reports them to workflow engines
    #[arg(long, env = "SLUICE_GROUPS", value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=MOST_GROUPS))]
    pub groups: Option<u32>,

    /// Seed of the first centroids
    #[arg(long, env = "SLUICE_SEED", value_name = "N", default_value_t = 42)]
    pub seed: u64,
}

#[derive(Debug, ClapArgs)]
pub struct Assign {
    #[command(flatten)]
    pub stage: StageArgs,

    #[command(flatten)]
    pub rank: RankArgs,

    #[command(flatten)]
    pub source: EmbeddingArgs,
}

#[derive(Debug, ClapArgs)]
pub struct Match {
    #[command(flatten)]
    pub stage: StageArgs,

    /// Images are duplicates when their cosine similarity is at least 1 - eps; 0 to 2
    #[arg(
        long,
        env = "SLUICE_EPS",
        value_name = "EPS",
        default_value = "0.01",
        allow_negative_numbers = true
    )]
    pub eps: Eps,

    /// Which image of a group stays
    ///
    /// best: the highest score that `assign --rank-by` names, then the most pixels; an image is
    /// removed only because of one that stays. hard, easy, random: NeMo Curator's rules (farthest
    /// from the centroid first, nearest first, shuffled), by which an image may be removed because of
    /// one that is removed itself.
    #[arg(long, env = "SLUICE_KEEP", value_enum, default_value_t = Keep::Best)]
    pub keep: Keep,

    /// Seed of --keep random
    #[arg(long, env = "SLUICE_SEED", value_name = "N", default_value_t = 42)]
    pub seed: u64,

    /// Units of work: each takes a range of clusters (default: one for every 50000 images)
    #[arg(long, env = "SLUICE_GROUPS", value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=MOST_GROUPS))]
    pub groups: Option<u32>,
}

/// The distance from 1 of the least cosine similarity that duplicates have. A cosine similarity is
/// between -1 and 1, so the distance is between 0 and 2.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Eps(f32);

impl Eps {
    /// Equal vectors have a cosine of 1 within this rounding.
    const ROUNDING: f32 = 1e-6;

    /// Returns the least cosine similarity of duplicates.
    pub fn threshold(self) -> f32 {
        1.0 - self.0.max(Self::ROUNDING)
    }
}

impl std::fmt::Display for Eps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Eps {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let eps: Option<f32> = text.parse().ok();
        let inside = eps.filter(|eps| (0.0..=2.0).contains(eps));
        let inside = inside.ok_or_else(|| "expected a number from 0 to 2".to_owned())?;
        // -0 is 0: one setting, one fingerprint.
        Ok(Self(inside.abs()))
    }
}
