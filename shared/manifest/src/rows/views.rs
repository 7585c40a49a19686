//! Rows of some columns of `read/images`, for steps that need no more.

use arrow::datatypes::Field;
use serde::{Deserialize, Serialize};

use super::{MemberRow, Row, SampleRow, Status};
use crate::{ImageId, Reason, ShardPath};

/// The columns of `read/images` that decisions and duplicate search need.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleBrief {
    /// The sample's name in the run.
    pub image_id: ImageId,
    /// All its members.
    pub members: Vec<MemberRow>,
    /// Width of the upright image, in pixels.
    pub width: Option<u32>,
    /// Height of the upright image, in pixels.
    pub height: Option<u32>,
    /// SHA-256 of the image member, hexadecimal.
    pub sha256: Option<String>,
    /// 64-bit perceptual hash.
    pub phash: Option<u64>,
    /// `ok` or `rejected`.
    pub status: Status,
    /// Why it was rejected.
    pub reason: Option<Reason>,
}

impl SampleBrief {
    /// Number of pixels.
    pub fn pixels(&self) -> u64 {
        u64::from(self.width.unwrap_or(0)) * u64::from(self.height.unwrap_or(0))
    }

    /// Size of all members together.
    pub fn bytes(&self) -> u64 {
        self.members.iter().map(|member| member.size).sum()
    }

    /// Returns how much text the sample has: 2 for a caption, 1 for metadata, 3 for both. Empty members
    /// do not count.
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
            "image_id", "members", "width", "height", "sha256", "phash", "status", "reason",
        ])
    }
}

/// The columns of `read/images` that say where an image's bytes are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PictureRow {
    /// The sample's name in the run.
    pub image_id: ImageId,
    /// The shard it lies in.
    pub shard: ShardPath,
    /// All its members.
    pub members: Vec<MemberRow>,
    /// Extension of the member that is the sample's image.
    pub image_extension: Option<String>,
    /// `ok` or `rejected`.
    pub status: Status,
    /// Why it was rejected.
    pub reason: Option<Reason>,
}

impl PictureRow {
    /// The member that is the sample's image.
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

/// The columns of `read/images` that name the samples and say which are sound.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NameRow {
    /// The sample's name in the run.
    pub image_id: ImageId,
    /// `ok` or `rejected`.
    pub status: Status,
    /// Why it was rejected.
    pub reason: Option<Reason>,
}

impl Row for NameRow {
    const SCHEMA: &'static str = SampleRow::SCHEMA;
    fn fields() -> Vec<Field> {
        some_of_read(&["image_id", "status", "reason"])
    }
}

/// The columns of `read/images` that hold the captions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaptionedRow {
    /// The sample's name in the run.
    pub image_id: ImageId,
    /// Text of its caption member.
    pub caption: Option<String>,
}

impl Row for CaptionedRow {
    const SCHEMA: &'static str = SampleRow::SCHEMA;
    fn fields() -> Vec<Field> {
        some_of_read(&["image_id", "caption"])
    }
}

/// The columns of `read/images` that hold the quality measures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasuredRow {
    /// The sample's name in the run.
    pub image_id: ImageId,
    /// 1 well lit … 0 dark.
    pub dark: Option<f32>,
    /// 1 normal … 0 overexposed.
    pub light: Option<f32>,
    /// 1 sharp … 0 blurred.
    pub blurry: Option<f32>,
    /// 1 rich … 0 flat.
    pub low_information: Option<f32>,
    /// Short side by long side.
    pub odd_aspect: Option<f32>,
    /// 1 large enough … 0 tiny.
    pub odd_size: Option<f32>,
    /// `ok` or `rejected`.
    pub status: Status,
    /// Why it was rejected.
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
