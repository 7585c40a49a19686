//! The rows of `partition`: the plan, and the files of samples that are plain files.

use arrow::datatypes::{DataType, Field};
use serde::{Deserialize, Serialize};

use super::{Row, length, number, optional, text};
use crate::{ImageId, Partition, ShardPath};

/// The kind of a shard in the plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShardKind {
    /// A tar archive.
    #[default]
    Tar,
    /// Image files and their captions, listed in `partition/files`.
    Files,
    /// A Parquet file with an image column.
    Parquet,
}

/// A row of `partition/plan.parquet`: one for each shard, sorted by partition and path.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanRow {
    /// The partition that the shard belongs to.
    pub partition: Partition,
    /// The path below the input's root.
    pub shard: ShardPath,
    /// Size in bytes.
    pub bytes: u64,
    /// The store's entity tag, if it has one. For plain files: the hash of their rows in
    /// `partition/files`.
    pub etag: Option<String>,
    /// The modification time in RFC 3339, if the store provides it.
    pub modified: Option<String>,
    /// The kind of shard.
    pub kind: ShardKind,
    /// The image column of a Parquet file.
    pub image_column: Option<String>,
    /// The caption column of a Parquet file.
    pub caption_column: Option<String>,
    /// The path, below the input's root, of a Parquet file whose columns are metadata of the
    /// samples in a tar.
    pub sidecar: Option<String>,
    /// The size and the entity tag or modification time of the sidecar file.
    pub sidecar_stamp: Option<String>,
}

impl PlanRow {
    /// Returns the id of a sample in the shard. `occurrence` is the number of earlier samples with
    /// that key. The key of plain files is their path, which is also their id.
    pub fn image_id(&self, key: &str, occurrence: u32) -> ImageId {
        match self.kind {
            ShardKind::Files => ImageId::of_file(key, occurrence),
            ShardKind::Tar | ShardKind::Parquet => ImageId::new(&self.shard, key, occurrence),
        }
    }
}

impl Row for PlanRow {
    const SCHEMA: &'static str = "partition/plan";
    fn fields() -> Vec<Field> {
        vec![
            number("partition", DataType::UInt32),
            text("shard"),
            number("bytes", DataType::UInt64),
            optional("etag", DataType::Utf8),
            optional("modified", DataType::Utf8),
            text("kind"),
            optional("image_column", DataType::Utf8),
            optional("caption_column", DataType::Utf8),
            optional("sidecar", DataType::Utf8),
            optional("sidecar_stamp", DataType::Utf8),
        ]
    }

    fn text_bytes(&self) -> usize {
        self.shard.as_str().len() + length(self.etag.as_ref()) + length(self.modified.as_ref())
    }
}

/// A row of `partition/files`: one for each member of samples that are plain files, in the order of
/// the samples.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FileRow {
    /// The shard of the plan that the member belongs to.
    pub shard: ShardPath,
    /// The key of its sample.
    pub key: String,
    /// The number of earlier samples with that key.
    pub occurrence: u32,
    /// The extension of the member.
    pub extension: String,
    /// The file's path below the input's root, or its URI. `None`: the member's content is `text`.
    pub path: Option<String>,
    /// The size in bytes. `None`: the file cannot be read.
    pub bytes: Option<u64>,
    /// The store's entity tag, if it has one.
    pub etag: Option<String>,
    /// The modification time in RFC 3339, if the store provides it.
    pub modified: Option<String>,
    /// The content of a member that is not a file, or the reason why the file cannot be read.
    pub text: Option<String>,
}

impl Row for FileRow {
    const SCHEMA: &'static str = "partition/files";
    fn fields() -> Vec<Field> {
        vec![
            text("shard"),
            text("key"),
            number("occurrence", DataType::UInt32),
            text("extension"),
            optional("path", DataType::Utf8),
            optional("bytes", DataType::UInt64),
            optional("etag", DataType::Utf8),
            optional("modified", DataType::Utf8),
            optional("text", DataType::Utf8),
        ]
    }

    fn text_bytes(&self) -> usize {
        self.shard.as_str().len()
            + self.key.len()
            + length(self.path.as_ref())
            + length(self.text.as_ref())
    }
}
