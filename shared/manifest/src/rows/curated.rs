//! The rows of the curated dataset's tables.

use arrow::datatypes::{DataType, Field};
use serde::{Deserialize, Serialize};

use super::{Row, length, number, optional, text};
use crate::{ImageId, ShardPath};

/// A row of `OUT/shard-00000.parquet`: one for each sample of the output shard, in its order. The
/// scores and, if requested, the embedding are appended as further columns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CuratedRow {
    /// The sample's name in the run.
    pub image_id: ImageId,
    /// The sample's key in the output shard.
    pub key: String,
    /// The shard that the sample came from.
    pub source_shard: ShardPath,
    /// The sample's key in that shard.
    pub source_key: String,
    /// The text of its caption member.
    pub caption: Option<String>,
    /// The text of its `.json` member.
    pub metadata: Option<String>,
    /// The image format detected from the content.
    pub format: Option<String>,
    /// Width of the upright image, in pixels.
    pub width: Option<u32>,
    /// Height of the upright image, in pixels.
    pub height: Option<u32>,
    /// The size of the image member in bytes.
    pub bytes: u64,
    /// The SHA-256 of the image member.
    pub sha256: Option<String>,
    /// The 64-bit perceptual hash.
    pub phash: Option<u64>,
    /// The number of its group of duplicates, as in `export/groups`.
    pub group_id: u64,
    /// The number of images in the group, including removed ones. 1 means no duplicates.
    pub group_size: u32,
}

impl Row for CuratedRow {
    const SCHEMA: &'static str = "curated";
    const VERSION: u32 = 2;
    fn fields() -> Vec<Field> {
        vec![
            text("image_id"),
            text("key"),
            text("source_shard"),
            text("source_key"),
            optional("caption", DataType::Utf8),
            optional("metadata", DataType::Utf8),
            optional("format", DataType::Utf8),
            optional("width", DataType::UInt32),
            optional("height", DataType::UInt32),
            number("bytes", DataType::UInt64),
            optional("sha256", DataType::Utf8),
            optional("phash", DataType::UInt64),
            number("group_id", DataType::UInt64),
            number("group_size", DataType::UInt32),
        ]
    }

    fn text_bytes(&self) -> usize {
        let names = [
            self.image_id.as_str(),
            &self.key,
            self.source_shard.as_str(),
            &self.source_key,
        ];
        names.map(str::len).iter().sum::<usize>()
            + length(self.caption.as_ref())
            + length(self.metadata.as_ref())
    }
}
