//! Rows with only some columns of `read/images`, for steps that need no more.

use arrow::datatypes::Field;
use serde::{Deserialize, Serialize};

use super::{MemberRow, Row, SampleRow, Status};
use crate::{ImageId, Reason, ShardPath};

/// The columns of `read/images` that decisions and duplicate search need.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleBrief {
    /// The sample's name in the run.
    pub image_id: ImageId,
    /// The sample's members.
    pub members: Vec<MemberRow>,
    /// Width of the upright image, in pixels.
    pub width: Option<u32>,
    /// Height of the upright image, in pixels.
    pub height: Option<u32>,
    /// The SHA-256 of the image member, in hexadecimal.
    pub sha256: Option<String>,
    /// The 64-bit perceptual hash.
    pub phash: Option<u64>,
    /// The perceptual hashes of the transformed image, as [`SampleRow::phash_transformed`].
    pub phash_transformed: Option<Vec<u64>>,
    /// The MD5 of the image member, in hexadecimal.
    pub md5: Option<String>,
    /// The PDQ hash, in hexadecimal.
    pub pdq: Option<String>,
    /// Whether the sample is usable.
    pub status: Status,
    /// The reason why it was rejected.
    pub reason: Option<Reason>,
}

impl SampleBrief {
    /// Returns the number of pixels.
    pub fn pixels(&self) -> u64 {
        u64::from(self.width.unwrap_or(0)) * u64::from(self.height.unwrap_or(0))
    }

    /// Returns the total size of the members in bytes.
    pub fn bytes(&self) -> u64 {
        self.members.iter().map(|member| member.size).sum()
    }

    /// Returns which texts the sample has: 2 for a caption, 1 for metadata, 3 for both. Empty
    /// members do not count.
    pub fn texts(&self) -> u8 {
        let has = |extensions: &[&str]| {
            let mut members = self.members.iter().filter(|member| member.size > 0);
            members.any(|member| {
                let last = member.extension.rsplit('.').next().unwrap_or_default();
                extensions
                    .iter()
                    .any(|known| last.eq_ignore_ascii_case(known))
            })
        };
        2 * u8::from(has(&["txt", "caption"])) + u8::from(has(&["json"]))
    }
}

impl Row for SampleBrief {
    const SCHEMA: &'static str = SampleRow::SCHEMA;
    fn fields() -> Vec<Field> {
        some_of_read(&[
            "image_id",
            "members",
            "width",
            "height",
            "sha256",
            "phash",
            "phash_transformed",
            "md5",
            "pdq",
            "status",
            "reason",
        ])
    }
}

/// The columns of `read/images` that locate an image's bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PictureRow {
    /// The sample's name in the run.
    pub image_id: ImageId,
    /// The shard that contains the sample.
    pub shard: ShardPath,
    /// The sample's members.
    pub members: Vec<MemberRow>,
    /// The extension of the member that is the sample's image.
    pub image_extension: Option<String>,
    /// Whether the sample is usable.
    pub status: Status,
    /// The reason why it was rejected.
    pub reason: Option<Reason>,
}

impl PictureRow {
    /// Returns the member that is the sample's image.
    pub fn image(&self) -> Option<&MemberRow> {
        let extension = self.image_extension.as_ref()?;
        self.members
            .iter()
            .find(|member| member.extension == *extension)
    }
}

impl Row for PictureRow {
    const SCHEMA: &'static str = SampleRow::SCHEMA;
    fn fields() -> Vec<Field> {
        some_of_read(&[
            "image_id",
            "shard",
            "members",
            "image_extension",
            "status",
            "reason",
        ])
    }
}

/// The columns of `read/images` with the samples' names and whether they are usable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NameRow {
    /// The sample's name in the run.
    pub image_id: ImageId,
    /// Whether the sample is usable.
    pub status: Status,
    /// The reason why it was rejected.
    pub reason: Option<Reason>,
}

impl Row for NameRow {
    const SCHEMA: &'static str = SampleRow::SCHEMA;
    fn fields() -> Vec<Field> {
        some_of_read(&["image_id", "status", "reason"])
    }
}

/// The columns of `read/images` with the captions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaptionedRow {
    /// The sample's name in the run.
    pub image_id: ImageId,
    /// The text of its caption member.
    pub caption: Option<String>,
}

impl Row for CaptionedRow {
    const SCHEMA: &'static str = SampleRow::SCHEMA;
    fn fields() -> Vec<Field> {
        some_of_read(&["image_id", "caption"])
    }
}

/// The columns of `read/images` with the quality measures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasuredRow {
    /// The sample's name in the run.
    pub image_id: ImageId,
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
    /// Whether the sample is usable.
    pub status: Status,
    /// The reason why it was rejected.
    pub reason: Option<Reason>,
}

impl Row for MeasuredRow {
    const SCHEMA: &'static str = SampleRow::SCHEMA;
    fn fields() -> Vec<Field> {
        some_of_read(&[
            "image_id",
            "dark",
            "light",
            "blurry",
            "low_information",
            "odd_aspect",
            "odd_size",
            "status",
            "reason",
        ])
    }
}

/// Returns the columns of `read/images` with these names, in its order.
pub fn some_of_read(names: &[&str]) -> Vec<Field> {
    let mut fields = SampleRow::fields();
    fields.retain(|field| names.contains(&field.name().as_str()));
    fields
}
