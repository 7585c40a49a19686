//! The rows of `read/images`: one for every sample.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use serde::{Deserialize, Serialize};

use super::{Row, length, list_of, number, optional, text};
use crate::{ImageId, Reason, ShardPath};

/// One member of a sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberRow {
    /// The part after the key and its dot, as written: `jpg`, `JPG`, `mask.png`.
    pub extension: String,
    /// The position of the member in its shard: the offset of its bytes in the decompressed tar,
    /// its row in `partition/files`, or its row in the Parquet file. [`IN_ROW`](Self::IN_ROW) marks
    /// a caption or metadata stored in the sample's row.
    pub offset: u64,
    /// The size in bytes.
    pub size: u64,
}

impl MemberRow {
    /// The offset of a member without bytes of its own in the shard.
    pub const IN_ROW: u64 = u64::MAX;

    /// Returns whether the member is the caption or metadata stored in the sample's row.
    pub fn is_in_row(&self) -> bool {
        self.offset == Self::IN_ROW
    }
}

/// The maximum size of captions and metadata in a manifest. Longer ones are left in their shard.
pub const TEXT_BYTES: usize = 1 << 20;

/// A row of `read/images`: one for every sample found, good or bad, in shard order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleRow {
    /// The sample's name in the run.
    pub image_id: ImageId,
    /// The shard that contains the sample.
    pub shard: ShardPath,
    /// The sample's WebDataset key.
    pub key: String,
    /// The sample's members, in shard order.
    pub members: Vec<MemberRow>,
    /// The extension of the member that is the sample's image.
    pub image_extension: Option<String>,
    /// The image format detected from the content: `jpeg`, `png`, …
    pub format: Option<String>,
    /// Width of the upright image, in pixels.
    pub width: Option<u32>,
    /// Height of the upright image, in pixels.
    pub height: Option<u32>,
    /// The Exif orientation, 1 to 8. From 5 on, the stored width and height are swapped.
    pub orientation: Option<u8>,
    /// The size of the image member in bytes.
    pub bytes: u64,
    /// The SHA-256 of the image member, in hexadecimal.
    pub sha256: Option<String>,
    /// The 64-bit perceptual hash of the upright image.
    pub phash: Option<u64>,
    /// The perceptual hashes of the mirrored and rotated image, in the order of [`TRANSFORMATIONS`],
    /// if `read` was configured to compute them.
    pub phash_transformed: Option<Vec<u64>>,
    /// The MD5 of the image member, in hexadecimal, if `read` was configured to compute it.
    pub md5: Option<String>,
    /// The PDQ hash of the upright image, in hexadecimal, if `read` was configured to compute it and
    /// the hash is reliable.
    pub pdq: Option<String>,
    /// CleanVision's `dark`, the 99th percentile of the brightness: 1 is well lit, 0 is dark.
    pub dark: Option<f32>,
    /// CleanVision's `light`, 1 minus the 5th percentile of the brightness: 1 is normal, 0 is
    /// overexposed.
    pub light: Option<f32>,
    /// CleanVision's `blurry`: 1 is sharp, 0 is blurred.
    pub blurry: Option<f32>,
    /// CleanVision's `low_information`: 1 is rich, 0 is flat.
    pub low_information: Option<f32>,
    /// CleanVision's `odd_aspect`, the shorter side divided by the longer side: 1 is square.
    pub odd_aspect: Option<f32>,
    /// The size: 1 from 512x512 pixels up, 0 is tiny.
    pub odd_size: Option<f32>,
    /// The text of the `.txt` (or `.caption`) member.
    pub caption: Option<String>,
    /// The text of the `.json` member.
    pub metadata: Option<String>,
    /// Whether the sample is usable.
    pub status: Status,
    /// The reason why the sample was rejected.
    pub reason: Option<Reason>,
    /// The decoder's or the reader's message, and notes about text members.
    pub detail: Option<String>,
}

/// The order of [`SampleRow::phash_transformed`]. Rotations are counterclockwise; `transpose` mirrors at
/// the diagonal from the top left, `transverse` at the other one.
pub const TRANSFORMATIONS: [&str; 7] = [
    "hflip",
    "vflip",
    "rot90",
    "rot180",
    "rot270",
    "transpose",
    "transverse",
];

/// Whether a sample is usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Usable.
    Ok,
    /// Not usable, for a reason.
    Rejected,
}

impl SampleRow {
    /// Returns the number of members with bytes of their own in the shard.
    pub fn own_members(&self) -> u64 {
        let own = self.members.iter().filter(|member| !member.is_in_row());
        own.count() as u64
    }

    /// Returns the text of a member that is stored in the row.
    pub fn text_of(&self, member: &MemberRow) -> Option<&str> {
        let text = match member.extension.as_str() {
            "json" => &self.metadata,
            _ => &self.caption,
        };
        text.as_deref().filter(|_| member.is_in_row())
    }
}

impl Row for SampleRow {
    const SCHEMA: &'static str = "read/images";
    fn fields() -> Vec<Field> {
        let member = DataType::Struct(
            vec![
                text("extension"),
                number("offset", DataType::UInt64),
                number("size", DataType::UInt64),
            ]
            .into(),
        );
        vec![
            text("image_id"),
            text("shard"),
            text("key"),
            Field::new(
                "members",
                DataType::List(Arc::new(Field::new("item", member, false))),
                false,
            ),
            optional("image_extension", DataType::Utf8),
            optional("format", DataType::Utf8),
            optional("width", DataType::UInt32),
            optional("height", DataType::UInt32),
            optional("orientation", DataType::UInt8),
            number("bytes", DataType::UInt64),
            optional("sha256", DataType::Utf8),
            optional("phash", DataType::UInt64),
            optional("phash_transformed", list_of(DataType::UInt64)),
            optional("md5", DataType::Utf8),
            optional("pdq", DataType::Utf8),
            optional("dark", DataType::Float32),
            optional("light", DataType::Float32),
            optional("blurry", DataType::Float32),
            optional("low_information", DataType::Float32),
            optional("odd_aspect", DataType::Float32),
            optional("odd_size", DataType::Float32),
            optional("caption", DataType::Utf8),
            optional("metadata", DataType::Utf8),
            text("status"),
            optional("reason", DataType::Utf8),
            optional("detail", DataType::Utf8),
        ]
    }

    fn text_bytes(&self) -> usize {
        let members = self.members.iter();
        let members = members.map(|member| size_of::<MemberRow>() + member.extension.len());
        let names = [self.image_id.as_str(), self.shard.as_str(), &self.key];
        let texts = [
            &self.caption,
            &self.metadata,
            &self.detail,
            &self.image_extension,
        ];
        members.sum::<usize>()
            + names.map(str::len).iter().sum::<usize>()
            + texts
                .map(|text| length(text.as_ref()))
                .iter()
                .sum::<usize>()
    }
}
