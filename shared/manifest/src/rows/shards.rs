//! The rows of `read/shards` and `read/skipped`: what was found in each shard, and what belongs to no
//! sample.

use arrow::datatypes::{DataType, Field};
use serde::{Deserialize, Serialize};

use super::{Row, length, number, optional, text};
use crate::ShardPath;

/// A row of `read/shards`: one for each shard of the partition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardRow {
    /// The path below the input's root.
    pub shard: ShardPath,
    /// The compression: `none`, `gzip` or `zstd`.
    pub compression: String,
    /// The number of samples found.
    pub samples: u64,
    /// The number of members found: those of samples, skipped ones, and the truncated one.
    pub members: u64,
    /// The number of skipped members, which `read/skipped` lists.
    pub skipped: u64,
    /// The number of members, at most one, inside which the shard ends.
    pub torn: u64,
    /// Whether the shard is damaged. A tar is read up to the damage, except at a gap of zeros.
    pub status: ShardStatus,
    /// A description of damage or irregularities.
    pub detail: Option<String>,
}

/// Whether a shard could be read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShardStatus {
    /// The shard was read to its end.
    Ok,
    /// The shard is truncated, damaged, or not a tar archive.
    Damaged,
}

impl Row for ShardRow {
    const SCHEMA: &'static str = "read/shards";
    fn fields() -> Vec<Field> {
        vec![
            text("shard"),
            text("compression"),
            number("samples", DataType::UInt64),
            number("members", DataType::UInt64),
            number("skipped", DataType::UInt64),
            number("torn", DataType::UInt64),
            text("status"),
            optional("detail", DataType::Utf8),
        ]
    }

    fn text_bytes(&self) -> usize {
        self.shard.as_str().len() + length(self.detail.as_ref())
    }
}

/// A row of `read/skipped`: one for each member that belongs to no sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SkippedRow {
    /// The shard that contains the member.
    pub shard: ShardPath,
    /// The member's name. Bytes that are not UTF-8 are written as `\xNN`.
    pub member: String,
    /// The member's size in bytes.
    pub bytes: u64,
    /// The reason why it belongs to no sample.
    pub reason: String,
}

impl Row for SkippedRow {
    const SCHEMA: &'static str = "read/skipped";
    fn fields() -> Vec<Field> {
        vec![
            text("shard"),
            text("member"),
            number("bytes", DataType::UInt64),
            text("reason"),
        ]
    }

    fn text_bytes(&self) -> usize {
        self.shard.as_str().len() + self.member.len() + self.reason.len()
    }
}
