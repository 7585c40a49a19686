//! The operations of a stage's program: what they fan out over, and the resources they need.
//!
//! Each stage declares its operations. The DAG of a pipeline is built from them and the pipeline
//! file.

use crate::UnitKind;

/// A stage's role in a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Lists and reads the source.
    Source,
    /// Computes embeddings.
    Encoder,
    /// Computes scores.
    Scorer,
    /// Decides which samples are kept.
    Decider,
    /// Writes the output or the report.
    Sink,
}

/// Work of one kind of unit: a program without subcommands, or one subcommand.
#[derive(Debug, PartialEq, Eq)]
pub struct Operation {
    /// The subcommand, if the program has subcommands.
    pub subcommand: Option<&'static str>,
    /// The kind of its units.
    pub unit: UnitKind,
    /// The resources that it needs.
    pub resources: Resources,
    /// The subcommands of the same step that must finish before.
    pub after: &'static [&'static str],
    /// The revision of the work, raised when the same inputs and settings give different outputs.
    pub revision: u32,
}

/// What an operation fans out over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FanOut {
    /// One unit.
    One,
    /// One unit for each partition of the plan.
    Partitions,
    /// One unit for each range of hashes (`--ranges`).
    HashRanges,
    /// One unit for each group of clusters (`--groups`).
    ClusterGroups,
    /// One unit for each output shard of the export's plan.
    OutputShards,
}

/// What determines the number of units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountedBy {
    /// There is exactly one.
    One,
    /// The result of the step `partition`.
    Partition,
    /// This flag of the operation, 1 by default.
    Flag(&'static str),
    /// The result of this subcommand of the same step.
    Subcommand(&'static str),
}

impl UnitKind {
    /// Returns what operations with units of this kind fan out over.
    pub fn fan_out(self) -> FanOut {
        match self {
            Self::Partition => FanOut::Partitions,
            Self::Exact | Self::Pairs => FanOut::HashRanges,
            Self::Group => FanOut::ClusterGroups,
            Self::Shard => FanOut::OutputShards,
            Self::Plan | Self::Perceptual | Self::Fit | Self::Index | Self::Report => FanOut::One,
        }
    }
}

impl FanOut {
    /// Returns what determines the number of units.
    pub fn counted_by(self) -> CountedBy {
        match self {
            Self::One => CountedBy::One,
            Self::Partitions => CountedBy::Partition,
            Self::HashRanges => CountedBy::Flag("ranges"),
            Self::ClusterGroups => CountedBy::Subcommand("fit"),
            Self::OutputShards => CountedBy::Subcommand("plan"),
        }
    }

    /// Returns the name in results.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Partitions => "partitions",
            Self::HashRanges => "hash-ranges",
            Self::ClusterGroups => "cluster-groups",
            Self::OutputShards => "output-shards",
        }
    }
}

/// The resources that an operation needs. Workflow engines assign requests and limits to each
/// class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resources {
    /// Reads and writes manifests.
    Light,
    /// Decodes images or compares vectors on all its cores.
    Cpu,
    /// Runs a model: more cores and memory, or a GPU.
    Model,
    /// Copies image bytes.
    Copy,
}

impl Resources {
    /// All classes, in the order of their resources.
    pub const ALL: [Self; 4] = [Self::Light, Self::Cpu, Self::Model, Self::Copy];

    /// Returns the name in workflow definitions and results.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Cpu => "cpu",
            Self::Model => "model",
            Self::Copy => "copy",
        }
    }

    /// Returns the CPUs and the MiB of memory that a task requests. Measured peaks are well below,
    /// for models not much larger than CLIP ViT-L/14.
    pub fn requests(self) -> (u32, u32) {
        match self {
            Self::Light => (1, 1024),
            Self::Cpu => (2, 2048),
            Self::Model => (4, 4096),
            Self::Copy => (2, 1024),
        }
    }
}

/// How workflow engines retry a failed task.
pub mod retry {
    /// The number of retries after the first attempt.
    pub const LIMIT: u32 = 4;
    /// The delay before the first retry, in seconds. It doubles with every retry.
    pub const FIRST_SECONDS: u32 = 15;
    /// The longest delay, in seconds.
    pub const LONGEST_SECONDS: u32 = 300;
    /// Exit codes that are retried: storage and network, SIGKILL (out of memory, a lost node),
    /// SIGTERM (an eviction). Bugs, usage errors and data errors are not retried.
    pub const EXIT_CODES: [u8; 3] = [75, 137, 143];
}
