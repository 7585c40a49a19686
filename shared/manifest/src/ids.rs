//! Names: of shards, images, partitions and units of work.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A shard's path relative to the input's root, for example `2024/00017.tar`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardPath(String);

impl ShardPath {
    /// Names a shard by its path below the input's root.
    pub fn new(path: impl Into<String>) -> Self {
        Self(path.into())
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path without `.tar`. Names of compressed shards stay whole, so that `a.tar` and
    /// `a.tar.gz` in one folder give different image ids.
    pub fn stem(&self) -> &str {
        self.0.strip_suffix(".tar").unwrap_or(&self.0)
    }
}

impl fmt::Display for ShardPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A sample's name in the run: shard stem, `/`, WebDataset key; `#n` is added to the n-th
/// repetition of a key in its shard. Unique in a run and stable between runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageId(String);

impl ImageId {
    /// Names the sample with `key` in `shard`; `occurrence` counts earlier samples with that key.
    pub fn new(shard: &ShardPath, key: &str, occurrence: u32) -> Self {
        let stem = shard.stem();
        Self(match occurrence {
            0 => format!("{stem}/{key}"),
            n => format!("{stem}/{key}#{n}"),
        })
    }

    /// An id as it stands in a manifest or on a command line.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A partition's number. It prints as its unit's name, `part-00007`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Partition(pub u32);

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "part-{:05}", self.0)
    }
}

/// The name of a unit of work, which is also the file name of its manifests and its receipt.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Unit(String);

impl Unit {
    /// A step that runs once is one unit with the step's name.
    pub fn once(step: &str) -> Self {
        Self(step.to_owned())
    }

    /// The `index`-th unit of a kind: `group-00003`, `exact-00000`, `shard-00012`.
    pub fn numbered(kind: &str, index: u32) -> Self {
        Self(format!("{kind}-{index:05}"))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Partition> for Unit {
    fn from(partition: Partition) -> Self {
        Self(partition.to_string())
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_the_design() {
        let shard = ShardPath::new("2024/00017.tar");
        assert_eq!(
            ImageId::new(&shard, "cats/1", 0).as_str(),
            "2024/00017/cats/1"
        );
        assert_eq!(ImageId::new(&shard, "1", 2).as_str(), "2024/00017/1#2");
        assert_eq!(Unit::from(Partition(7)).as_str(), "part-00007");
    }

    #[test]
    fn compressed_twins_keep_apart() {
        let id = |name| ImageId::new(&ShardPath::new(name), "1", 0);
        let names = ["a.tar", "a.tar.gz", "a.tgz", "a.tar.zst"];
        let ids: std::collections::BTreeSet<_> = names.map(id).into();
        assert_eq!(ids.len(), 4);
    }
}
