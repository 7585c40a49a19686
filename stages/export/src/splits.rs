//! The splits and shards of a written output, as its index, card and description show them.

use sluice_manifest::layout;

/// The split that libraries give to a dataset without splits.
const ONLY: &str = "train";

/// A split of a written output, or all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputSplit {
    /// Its name. None: the output has no splits.
    pub name: Option<String>,
    /// Its shards, in order.
    pub shards: Vec<OutputShardInfo>,
}

/// A shard of a written output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputShardInfo {
    /// Its number.
    pub number: u32,
    /// Its path in the output, without an extension.
    pub path: String,
    /// Its samples.
    pub samples: u64,
    /// Bytes of the object that holds them.
    pub bytes: u64,
}

impl OutputSplit {
    /// Returns a split without shards.
    pub fn new(name: Option<String>) -> Self {
        let shards = Vec::new();
        Self { name, shards }
    }

    /// Returns its name in libraries.
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(ONLY)
    }

    /// Returns its folder in the output, with a slash at its end, or nothing.
    pub fn folder(&self) -> String {
        let name = self.name.as_ref();
        name.map_or_else(String::new, |name| format!("{name}/"))
    }

    /// Returns the pattern of its objects with an extension.
    pub fn pattern(&self, extension: &str) -> String {
        format!("{}shard-*.{extension}", self.folder())
    }

    /// Returns the path of its index in the output.
    pub fn index(&self) -> String {
        layout::output_index(self.name.as_deref())
    }

    /// Returns the number of its samples.
    pub fn samples(&self) -> u64 {
        self.shards.iter().map(|shard| shard.samples).sum()
    }

    /// Returns the bytes of the objects that hold them.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.bytes).sum()
    }
}
