//! The subcommands and their arguments.

use clap::{Parser, Subcommand};
use sluice_harness::Common;

use crate::ranking::Keep;

/// Find exact, perceptual and semantic duplicates
#[derive(Debug, Parser)]
#[command(name = "sluice-dedup", version)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

/// What is done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Find images with equal bytes
    ///
    /// Example: sluice-dedup exact --run runs/a
    Exact(Exact),
    /// Find images with near perceptual hashes
    ///
    /// Example: sluice-dedup perceptual --run runs/a --max-distance 4
    Perceptual(Perceptual),
    /// Semantic, first part: fit k-means on a sample of the embeddings
    ///
    /// Example: sluice-dedup fit --run runs/a --clusters 1000
    Fit(Fit),
    /// Semantic, second part: put each survivor into its cluster
    ///
    /// Example: sluice-dedup assign --run runs/a
    Assign(Assign),
    /// Semantic, third part: compare embeddings inside the clusters
    ///
    /// Example: sluice-dedup match --run runs/a --eps 0.01 --keep best
    Match(Match),
}

impl Command {
    /// The arguments that every program takes.
    pub fn common(&self) -> &Common {
        match self {
            Command::Exact(args) => &args.common,
            Command::Perceptual(args) => &args.common,
            Command::Fit(args) => &args.common,
            Command::Assign(args) => &args.common,
            Command::Match(args) => &args.common,
        }
    }
}

#[derive(Debug, Parser)]
pub struct Exact {
    #[command(flatten)]
    pub common: Common,

    /// Only images that these filters keep take part
    #[arg(long, value_name = "LIST", default_value = "aesthetic,nsfw")]
    pub filters: String,

    /// Units of work: each takes a range of content hashes
    #[arg(long, env = "SLUICE_RANGES", value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub ranges: u32,
}

#[derive(Debug, Parser)]
pub struct Perceptual {
    #[command(flatten)]
    pub common: Common,

    /// Only images that these filters keep take part
    #[arg(long, value_name = "LIST", default_value = "aesthetic,nsfw,exact")]
    pub filters: String,

    /// Bits out of 64 by which the hashes of duplicates may differ
    #[arg(long, env = "SLUICE_MAX_DISTANCE", value_name = "BITS", default_value_t = 4,
        value_parser = clap::value_parser!(u32).range(0..=16))]
    pub max_distance: u32,
}

#[derive(Debug, Parser)]
pub struct Fit {
    #[command(flatten)]
    pub common: Common,

    /// Clusters (default: one for every 1000 images)
    #[arg(long, env = "SLUICE_CLUSTERS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub clusters: Option<u32>,

    /// Embeddings that the fit reads at most (default: 256 for each cluster, at least 10000)
    #[arg(long, env = "SLUICE_FIT_SAMPLE", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub sample: Option<u64>,

    /// Units of work that `match` is going to have; the result tells them to workflow engines
    #[arg(long, env = "SLUICE_GROUPS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub groups: Option<u32>,

    /// Seed of the first centroids
    #[arg(long, env = "SLUICE_SEED", value_name = "N", default_value_t = 42)]
    pub seed: u64,
}

#[derive(Debug, Parser)]
pub struct Assign {
    #[command(flatten)]
    pub common: Common,

    /// Only images that these filters keep take part
    #[arg(
        long,
        value_name = "LIST",
        default_value = "aesthetic,nsfw,exact,perceptual"
    )]
    pub filters: String,
}

#[derive(Debug, Parser)]
pub struct Match {
    #[command(flatten)]
    pub common: Common,

    /// Images are duplicates when their cosine similarity is at least 1 - eps
    #[arg(long, env = "SLUICE_EPS", value_name = "EPS", default_value_t = 0.01)]
    pub eps: f32,

    /// Which image of a group stays
    ///
    /// best: the highest aesthetic score, then the most pixels; an image goes only because of one
    /// that stays. hard, easy, random: NeMo Curator's rules (farthest from the centroid first,
    /// nearest first, shuffled), by which an image may go because of one that goes itself.
    #[arg(long, env = "SLUICE_KEEP", value_enum, default_value_t = Keep::Best)]
    pub keep: Keep,

    /// Seed of --keep random
    #[arg(long, env = "SLUICE_SEED", value_name = "N", default_value_t = 42)]
    pub seed: u64,

    /// Units of work: each takes a range of clusters (default: one for every 50000 images)
    #[arg(long, env = "SLUICE_GROUPS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub groups: Option<u32>,
}
