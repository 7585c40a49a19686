//! The subcommands and their arguments.

use std::str::FromStr;

use clap::{Args as ClapArgs, Parser, Subcommand};
use serde::{Deserialize, Serialize};
use sluice_harness::{Common, StepArgs};
use sluice_manifest::rows::Method;
use sluice_manifest::{Error, ScoreName, StepName};

use crate::methods::Methods;
use crate::ranking::KeepRule;
use crate::settings::{HashKind, NearSettings, Transformation};

/// Clusters at most.
const MOST_CLUSTERS: i64 = 1 << 24;
/// Ranges of content hashes at most: each range reads the hashes of all images.
const MOST_RANGES: i64 = 4096;
/// Clusters at most in which an image is compared.
const MOST_PROBES: i64 = 64;
/// Groups of clusters at most.
const MOST_GROUPS: i64 = 65_536;

/// Find exact, perceptual and semantic duplicates
#[derive(Debug, Parser)]
#[command(name = "sluice-dedup", version)]
pub struct Args {
    /// The subcommand.
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
    /// Find pairs of near perceptual hashes, for `perceptual` of a large run
    ///
    /// Example: sluice-dedup pairs --run runs/a --ranges 16 --task-index 0 --task-count 4
    Pairs(Pairs),
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
    /// Write an index of a set of images, for the --against of other runs
    ///
    /// Example: sluice-dedup index --run runs/bench --output bench.index
    Index(Index),
}

impl Command {
    /// Returns the arguments of the subcommands that are part of a step; none for `index`.
    pub fn stage_args(&self) -> Option<&StageArgs> {
        match self {
            Self::Exact(args) => Some(&args.stage),
            Self::Pairs(args) => Some(&args.stage),
            Self::Perceptual(args) => Some(&args.stage),
            Self::Fit(args) => Some(&args.stage),
            Self::Assign(args) => Some(&args.stage),
            Self::Match(args) => Some(&args.stage),
            Self::Index(_) => None,
        }
    }

    /// Returns the arguments of every program.
    pub fn common(&self) -> &Common {
        match (self, self.stage_args()) {
            (Self::Index(args), _) => &args.common,
            // Unwrap safety: `index` alone is no part of a step.
            (_, stage) => &stage.expect("a subcommand of a step").step.common,
        }
    }

    /// Returns the arguments about reference sets, where the subcommand compares with some.
    pub fn references(&self) -> Option<&ReferenceArgs> {
        match self {
            Self::Exact(args) => Some(&args.references),
            Self::Pairs(args) => Some(&args.references),
            Self::Perceptual(args) => Some(&args.references),
            Self::Match(args) => Some(&args.references),
            Self::Fit(_) | Self::Assign(_) | Self::Index(_) => None,
        }
    }

    /// Returns how the subcommand compares perceptual hashes, where it does.
    pub fn near(&self) -> Option<&NearArgs> {
        match self {
            Self::Pairs(args) => Some(&args.near),
            Self::Perceptual(args) => Some(&args.near),
            _ => None,
        }
    }

    /// Returns the subcommand's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Exact(_) => "exact",
            Self::Pairs(_) => "pairs",
            Self::Perceptual(_) => "perceptual",
            Self::Fit(_) => "fit",
            Self::Assign(_) => "assign",
            Self::Match(_) => "match",
            Self::Index(_) => "index",
        }
    }

    /// Returns the method that the subcommand is a part of; none for `index`.
    pub fn method(&self) -> Option<Method> {
        match self {
            Self::Exact(_) => Some(Method::Exact),
            Self::Pairs(_) | Self::Perceptual(_) => Some(Method::Perceptual),
            Self::Fit(_) | Self::Assign(_) | Self::Match(_) => Some(Method::Semantic),
            Self::Index(_) => None,
        }
    }

    /// Returns the score that ranks, where the subcommand reads one.
    pub fn rank_by(&self) -> Option<&ScoreName> {
        match self {
            Self::Exact(args) => args.rank.rank_by.as_ref(),
            Self::Perceptual(args) => args.rank.rank_by.as_ref(),
            Self::Assign(args) => args.rank.rank_by.as_ref(),
            Self::Pairs(_) | Self::Fit(_) | Self::Match(_) | Self::Index(_) => None,
        }
    }

    /// Returns the step whose embeddings the subcommand reads, where it reads some.
    pub fn embeddings(&self) -> Option<&StepName> {
        match self {
            Self::Fit(args) => Some(&args.source.embeddings),
            Self::Assign(args) => Some(&args.source.embeddings),
            Self::Exact(_)
            | Self::Pairs(_)
            | Self::Perceptual(_)
            | Self::Match(_)
            | Self::Index(_) => None,
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
    /// STEP, or STEP.OUTPUT if the step's model has several outputs. Equal scores are decided by
    /// most pixels, then by a caption, metadata, and the smallest image_id.
    #[arg(long, env = "SLUICE_RANK_BY", value_name = "SCORE")]
    pub rank_by: Option<ScoreName>,
}

/// The argument of the subcommands that compare with reference sets.
#[derive(Debug, ClapArgs)]
pub struct ReferenceArgs {
    /// Remove images that are in these reference sets: indexes of `sluice-dedup index`, and lists of
    /// hashes (.txt, .csv)
    ///
    /// An image that is within the method's threshold of one in a set is removed before the images of the
    /// run are compared with each other. A set that no method of the step can compare with is refused.
    #[arg(
        long,
        env = "SLUICE_AGAINST",
        value_name = "INDEX",
        value_delimiter = ','
    )]
    pub against: Vec<String>,

    /// Skip the sets of --against that no method of the step can compare with
    #[arg(long, env = "SLUICE_SKIP_UNUSABLE")]
    pub skip_unusable: bool,
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

    #[command(flatten)]
    pub references: ReferenceArgs,

    /// Units of work: each takes a range of content hashes
    #[arg(long, env = "SLUICE_RANGES", value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=MOST_RANGES))]
    pub ranges: u32,
}

/// The arguments of the subcommands that compare perceptual hashes.
#[derive(Debug, ClapArgs)]
pub struct NearArgs {
    /// The perceptual hash to compare
    #[arg(
        long,
        env = "SLUICE_HASH",
        value_name = "HASH",
        value_enum,
        default_value_t
    )]
    pub hash: HashKind,

    /// Bits by which the hashes of duplicates may differ (default: 4 of 64, or 31 of PDQ's 256)
    #[arg(long, env = "SLUICE_MAX_DISTANCE", value_name = "BITS",
        value_parser = clap::value_parser!(u32).range(0..=64))]
    pub max_distance: Option<u32>,

    /// Also compare mirrored and rotated forms, of `sluice-read --hashes transformed`
    #[arg(
        long,
        env = "SLUICE_TRANSFORMATIONS",
        value_name = "LIST",
        value_enum,
        value_delimiter = ','
    )]
    pub transformations: Vec<Transformation>,

    /// Units of `pairs`: each takes a range of the hashes; with 1 `perceptual` compares them itself
    #[arg(long, env = "SLUICE_RANGES", value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=MOST_RANGES))]
    pub ranges: u32,
}

impl NearArgs {
    /// Returns how the hashes are compared.
    ///
    /// # Errors
    /// Usage, when arguments exclude each other.
    pub fn settings(&self) -> Result<NearSettings, Error> {
        let (default, most) = match self.hash {
            HashKind::Phash => (4, 16),
            HashKind::Pdq => (31, 64),
        };
        let max_distance = self.max_distance.unwrap_or(default);
        if max_distance > most {
            let error = Error::usage(format!(
                "--max-distance {max_distance}: a 64-bit hash takes 0 to {most}"
            ));
            return Err(error.hint("PDQ, of 256 bits, takes more: --hash pdq"));
        }
        let has_forms = !self.transformations.is_empty();
        if has_forms && self.hash == HashKind::Pdq {
            return Err(Error::usage("--transformations: not with --hash pdq")
                .hint("leave out --hash pdq: transformed forms have 64-bit hashes"));
        }
        if has_forms && self.ranges > 1 {
            return Err(Error::usage("--transformations: not with --ranges above 1")
                .hint("leave out --ranges: one process compares all images"));
        }
        Ok(NearSettings {
            hash: self.hash,
            max_distance,
            transformations: self.transformations.clone(),
        })
    }
}

#[derive(Debug, ClapArgs)]
pub struct Pairs {
    #[command(flatten)]
    pub stage: StageArgs,

    #[command(flatten)]
    pub references: ReferenceArgs,

    #[command(flatten)]
    pub near: NearArgs,
}

#[derive(Debug, ClapArgs)]
pub struct Perceptual {
    #[command(flatten)]
    pub stage: StageArgs,

    #[command(flatten)]
    pub rank: RankArgs,

    #[command(flatten)]
    pub references: ReferenceArgs,

    #[command(flatten)]
    pub near: NearArgs,
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

    /// Clusters in which an image is compared: its own, and the next ones after that
    ///
    /// 1 is NeMo Curator's definition. More find duplicates across the borders of clusters; `match` takes
    /// as many times the memory and nearly as many times the time.
    #[arg(long, env = "SLUICE_PROBES", value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=MOST_PROBES))]
    pub probes: u32,
}

#[derive(Debug, ClapArgs)]
pub struct Match {
    #[command(flatten)]
    pub stage: StageArgs,

    #[command(flatten)]
    pub references: ReferenceArgs,

    /// Images are duplicates when their cosine similarity is at least 1 - eps; 0 to 2 (default: the
    /// embedder's)
    #[arg(
        long,
        env = "SLUICE_EPS",
        value_name = "EPS",
        allow_negative_numbers = true
    )]
    pub eps: Option<Eps>,

    /// Which image of a group stays
    ///
    /// best: the highest score that `assign --rank-by` names, then the most pixels; an image is
    /// removed only because of one that stays. hard, easy, random: NeMo Curator's rules (farthest
    /// from the centroid first, nearest first, shuffled), by which an image may be removed because of
    /// one that is removed itself.
    #[arg(long, env = "SLUICE_KEEP", value_enum, default_value_t = KeepRule::Best)]
    pub keep: KeepRule,

    /// Seed of --keep random
    #[arg(long, env = "SLUICE_SEED", value_name = "N", default_value_t = 42)]
    pub seed: u64,

    /// Units of work: each takes a range of clusters (default: one for every 50000 images)
    #[arg(long, env = "SLUICE_GROUPS", value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=MOST_GROUPS))]
    pub groups: Option<u32>,
}

/// The run's URI if `index` reads a dataset instead of a run.
const NO_RUN: &str = "memory://index";

#[derive(Debug, ClapArgs)]
#[command(mut_arg("run", |run| run
    .required(false)
    .required_unless_present("input")
    .conflicts_with("input")
    .default_value_if("input", clap::builder::ArgPredicate::IsPresent, NO_RUN)))]
pub struct Index {
    #[command(flatten)]
    pub common: Common,

    /// Take the images of this curated dataset instead of those of a run
    ///
    /// The Parquet files that `sluice-export` wrote next to the shards have the hashes and, where it was
    /// run with --embeddings, the embeddings.
    #[arg(long, env = "SLUICE_INDEX_INPUT", value_name = "URI")]
    pub input: Option<String>,

    /// Where the index is written: a folder of its own
    ///
    /// The index of another run or dataset is replaced only with --force.
    #[arg(long, env = "SLUICE_INDEX_OUTPUT", value_name = "URI")]
    pub output: String,

    /// Take the images that this deciding step keeps (default: all that read accepted)
    #[arg(
        long,
        env = "SLUICE_SURVIVORS_OF",
        value_name = "STEP",
        conflicts_with = "input"
    )]
    pub survivors_of: Option<StepName>,

    /// The step that gives the embeddings (default: embed, where it was run)
    #[arg(
        long,
        env = "SLUICE_EMBEDDINGS_OF",
        value_name = "STEP",
        conflicts_with = "input"
    )]
    pub embeddings: Option<StepName>,

    /// Take each image's label from this field of its metadata
    #[arg(long, env = "SLUICE_LABELS", value_name = "FIELD")]
    pub labels: Option<String>,
}

/// The distance from 1 of the least cosine similarity that duplicates have. A cosine similarity is
/// between -1 and 1, so the distance is between 0 and 2.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Eps(f32);

impl Eps {
    /// Equal vectors have a cosine of 1 within this rounding.
    const ROUNDING: f32 = 1e-6;

    /// CLIP's, and NeMo Curator's default.
    pub(crate) const USUAL: Self = Self(0.01);

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
