//! The splits and shards of a written output, for its index, card and description.

use sluice_manifest::layout;

/// The split that libraries assign to a dataset without splits.
const ONLY: &str = "train";

/// A split of a written output, or the whole output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputSplit {
    /// The name of the split. `None`: the output has no splits.
    pub name: Option<String>,
    /// The shards in order.
    pub shards: Vec<OutputShardInfo>,
}

/// A shard of a written output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputShardInfo {
    /// The number of the shard.
    pub number: u32,
    /// The path in the output, without an extension.
    pub path: String,
    /// The number of samples.
    pub samples: u64,
    /// The size in bytes of the object with the samples.
    pub bytes: u64,
}

impl OutputSplit {
    /// Returns a split without shards.
    pub fn new(name: Option<String>) -> Self {
        let shards = Vec::new();
        Self { name, shards }
    }

    /// Returns the name of the split in libraries.
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(ONLY)
    }

    /// Returns the folder in the output with a trailing slash, or an empty text.
    pub fn folder(&self) -> String {
        let name = self.name.as_ref();
        name.map_or_else(String::new, |name| format!("{name}/"))
    }

    /// Returns the pattern of the objects with this extension.
    pub fn pattern(&self, extension: &str) -> String {
        format!("{}shard-*.{extension}", self.folder())
    }

    /// Returns the path of the index in the output.
    pub fn index(&self) -> String {
        layout::output_index(self.name.as_deref())
    }

    /// Returns the number of samples.
    pub fn samples(&self) -> u64 {
        self.shards.iter().map(|shard| shard.samples).sum()
    }

    /// Returns the size in bytes of the objects with the samples.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.bytes).sum()
    }
}
