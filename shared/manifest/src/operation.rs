//! What a stage's program does: its operations, what they fan out over, what they need.
//!
//! Each stage states its own operations. The DAG of a pipeline is made from them and from the
//! pipeline file.

use crate::UnitKind;

/// A stage's role in a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Lists and reads the source.
    Source,
    /// Gives embeddings.
    Encoder,
    /// Gives scores.
    Scorer,
    /// Decides which samples stay.
    Decider,
    /// Writes the output or the report.
    Sink,
}

/// Work of one kind of unit: what a program without subcommands does, or one subcommand.
#[derive(Debug, PartialEq, Eq)]
pub struct Operation {
    /// The subcommand, where the program has some.
    pub subcommand: Option<&'static str>,
    /// What its units are.
    pub unit: UnitKind,
    /// What it needs of a machine.
    pub resources: Resources,
    /// Subcommands of the same step that it waits for.
    pub after: &'static [&'static str],
    /// Version of the work: raised when the same inputs and settings give other outputs.
    pub version: u32,
}

/// What an operation fans out over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FanOut {
    /// Runs once.
    One,
    /// One unit for each partition of the plan.
    Partitions,
    /// One unit for each range of content hashes (`--ranges`).
    HashRanges,
    /// One unit for each group of clusters (`--groups`).
    ClusterGroups,
    /// One unit for each output shard of the export's plan.
    OutputShards,
}

/// What gives the number of units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountedBy {
    /// There is one.
    One,
    /// The result of the step `partition`.
    Partition,
    /// This flag of the operation, 1 where it is not given.
    Flag(&'static str),
    /// The result of this subcommand of the same step.
    Subcommand(&'static str),
}

impl UnitKind {
    /// Returns what operations with units of this kind fan out over.
    pub fn fan_out(self) -> FanOut {
        match self {
            Self::Part => FanOut::Partitions,
            Self::Exact => FanOut::HashRanges,
            Self::Group => FanOut::ClusterGroups,
            Self::Shard => FanOut::OutputShards,
            Self::Plan | Self::Perceptual | Self::Fit | Self::Index | Self::Report => FanOut::One,
        }
    }
}

impl FanOut {
    /// Returns what gives the number of units.
    pub fn counted_by(self) -> CountedBy {
        match self {
            Self::One => CountedBy::One,
            Self::Partitions => CountedBy::Partition,
            Self::HashRanges => CountedBy::Flag("ranges"),
            Self::ClusterGroups => CountedBy::Subcommand("fit"),
            Self::OutputShards => CountedBy::Subcommand("plan"),
        }
    }

    /// Returns its name in results.
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

/// What an operation needs of a machine. Engines give requests and limits to each class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resources {
    /// Reads and writes manifests.
    Light,
    /// Keeps its cores busy with pictures or vectors.
    Cpu,
    /// Runs a model: more cores and memory, or a GPU.
    Model,
    /// Copies image bytes.
    Copy,
}

impl Resources {
    /// All classes.
    pub const ALL: [Self; 4] = [Self::Light, Self::Cpu, Self::Model, Self::Copy];

    /// Returns its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Cpu => "cpu",
            Self::Model => "model",
            Self::Copy => "copy",
        }
    }

    /// Returns the CPUs and MiB of memory that a task requests. The peaks measured are well below,
    /// for models that are not much larger than CLIP ViT-L/14.
    pub fn requests(self) -> (u32, u32) {
        match self {
            Self::Light => (1, 1024),
            Self::Cpu => (2, 2048),
            Self::Model => (4, 4096),
            Self::Copy => (2, 1024),
        }
    }
}

/// How a failed task is retried.
pub mod retry {
    /// Tries after the first.
    pub const LIMIT: u32 = 4;
    /// Seconds before the second try; each further one waits twice as long.
    pub const FIRST_SECONDS: u32 = 15;
    /// Seconds that no wait exceeds.
    pub const LONGEST_SECONDS: u32 = 300;
    /// Exit codes that are retried: storage and network, SIGKILL (memory, a lost node), SIGTERM
    /// (an eviction). Never a bug, usage or data.
    pub const EXIT_CODES: [u8; 3] = [75, 137, 143];
}
