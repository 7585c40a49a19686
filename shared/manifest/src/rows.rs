//! The rows of the manifests: one struct and one list of Arrow fields for each kind.
//!
//! A manifest records its schema's name and version as Parquet key-value metadata ([`SCHEMA_KEY`],
//! [`VERSION_KEY`]). Readers request the columns of their row type; a missing column, or one of
//! another type, is an error that names it. Columns may be added without a new version; changing or
//! removing one requires a new version.
//!
//! Vectors (embeddings, centroids) are fixed-size lists of float32 and too wide for rows. Their
//! schemas are functions of the dimension: [`embeddings`], [`centroids`] and [`assignments`]. The
//! columns of [`scores`] depend on the model.

mod views;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{ImageId, Partition, Reason, ReasonKind, ShardPath, StepName, Unit, UnitKind};

pub use views::{CaptionedRow, MeasuredRow, NameRow, PictureRow, SampleBrief, some_of_read};

/// Parquet metadata key of the schema's name.
pub const SCHEMA_KEY: &str = "sluice.schema";
/// Parquet metadata key of the schema's version.
pub const VERSION_KEY: &str = "sluice.version";
/// Parquet metadata key of the embedder's name.
pub const MODEL_KEY: &str = "sluice.model";
/// Parquet metadata key of the embedder's content hash.
pub const MODEL_SHA256_KEY: &str = "sluice.model.sha256";
/// Parquet metadata key of the embedding's dimension.
pub const DIMENSION_KEY: &str = "sluice.dimension";
/// Parquet metadata key of the output's URI in the export's plan.
pub const OUTPUT_KEY: &str = "sluice.output";
/// Parquet metadata key of the unit in which the export's plan measures shards: `images` or
/// `bytes`.
pub const WEIGHT_KEY: &str = "sluice.weight";

/// A row of a manifest.
pub trait Row: Serialize + DeserializeOwned + Send + 'static {
    /// The schema's name, `<stage>/<kind>`.
    const SCHEMA: &'static str;
    /// The schema's version.
    const VERSION: u32 = 1;
    /// Returns the columns.
    fn fields() -> Vec<Field>;
    /// Returns the approximate number of bytes of text in the row. Writers limit their buffers by
    /// it. Row types that are only read need not implement it.
    fn text_bytes(&self) -> usize {
        0
    }
}

/// Returns the length of an optional text.
fn length(text: Option<&String>) -> usize {
    text.map_or(0, String::len)
}

fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, false)
}

fn number(name: &str, kind: DataType) -> Field {
    Field::new(name, kind, false)
}

fn list_of(kind: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", kind, false)))
}

fn optional(name: &str, kind: DataType) -> Field {
    Field::new(name, kind, true)
}

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
    /// Brightness of the dark parts: 1 is well lit, 0 is dark.
    pub dark: Option<f32>,
    /// Exposure: 1 is normal, 0 is overexposed.
    pub light: Option<f32>,
    /// Sharpness: 1 is sharp, 0 is blurred.
    pub blurry: Option<f32>,
    /// Information content: 1 is rich, 0 is flat.
    pub low_information: Option<f32>,
    /// The shorter side divided by the longer side.
    pub odd_aspect: Option<f32>,
    /// Size: 1 is large enough, 0 is tiny.
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

/// A row of a filter's `decisions`: one for each sample that it processed, in the order of
/// `read/images`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FilterRow {
    /// The sample's name in the run.
    pub image_id: ImageId,
    /// Whether the sample is kept.
    pub keep: bool,
    /// The reason why it was dropped.
    pub reason: Option<Reason>,
    /// The values that led to the decision.
    pub detail: Option<String>,
}

impl Row for FilterRow {
    const SCHEMA: &'static str = "filter/decisions";
    fn fields() -> Vec<Field> {
        vec![
            text("image_id"),
            number("keep", DataType::Boolean),
            optional("reason", DataType::Utf8),
            optional("detail", DataType::Utf8),
        ]
    }

    fn text_bytes(&self) -> usize {
        self.image_id.as_str().len() + length(self.detail.as_ref())
    }
}

/// How a duplicate was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Equal SHA-256.
    Exact,
    /// Perceptual hashes within `--max-distance` bits.
    Perceptual,
    /// Cosine similarity of at least `1 - eps`.
    Semantic,
}

/// A row of `dedup/duplicates`: one for every removed sample, sorted by partition and image_id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DuplicateRow {
    /// The partition of the removed sample.
    pub partition: Partition,
    /// The removed sample.
    pub image_id: ImageId,
    /// The image that it duplicates. With a `reference`, its name in that set.
    pub duplicate_of: ImageId,
    /// The reference set that contains `duplicate_of`. `None`: the run itself.
    pub reference: Option<String>,
    /// The label of `duplicate_of` in the reference set.
    pub label: Option<String>,
    /// For exact duplicates 1, for perceptual ones 1 - distance / 64, for semantic ones the cosine
    /// similarity.
    pub similarity: f32,
    /// How the duplicate was found.
    pub method: Method,
}

impl DuplicateRow {
    /// Returns why the sample was removed.
    pub fn reason(&self) -> Reason {
        let kind = match (&self.reference, self.method) {
            (Some(_), _) => ReasonKind::InReference,
            (None, Method::Exact) => ReasonKind::ExactDuplicate,
            (None, Method::Perceptual) => ReasonKind::PerceptualDuplicate,
            (None, Method::Semantic) => ReasonKind::SemanticDuplicate,
        };
        kind.into()
    }

    /// Returns the similarity, the other image and its set, formatted for people.
    pub fn detail(&self) -> String {
        let mut detail = format!("{} of {}", self.similarity, self.duplicate_of);
        if let Some(set) = &self.reference {
            detail += &format!(" in {set}");
        }
        if let Some(label) = &self.label {
            detail += &format!(", label {label}");
        }
        detail
    }
}

impl Row for DuplicateRow {
    const SCHEMA: &'static str = "dedup/duplicates";
    const VERSION: u32 = 2;
    fn fields() -> Vec<Field> {
        vec![
            number("partition", DataType::UInt32),
            text("image_id"),
            text("duplicate_of"),
            optional("reference", DataType::Utf8),
            optional("label", DataType::Utf8),
            number("similarity", DataType::Float32),
            text("method"),
        ]
    }

    fn text_bytes(&self) -> usize {
        let names = [&self.image_id, &self.duplicate_of].map(|id| id.as_str().len());
        let of_reference = [&self.reference, &self.label].map(|text| length(text.as_ref()));
        names.iter().chain(&of_reference).sum()
    }
}

/// A row of `dedup/pairs`: two images that are decided together, by their rows of `read/images`. Two images
/// with similar perceptual hashes are connected by one row or by a chain of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PairRow {
    /// The partition of the first image.
    pub partition: Partition,
    /// The first image's row.
    pub row: u32,
    /// The partition of the second image.
    pub other_partition: Partition,
    /// The second image's row.
    pub other_row: u32,
}

impl Row for PairRow {
    const SCHEMA: &'static str = "dedup/pairs";
    const VERSION: u32 = 2;
    fn fields() -> Vec<Field> {
        let names = ["partition", "row", "other_partition", "other_row"];
        let fields = names.map(|name| number(name, DataType::UInt32));
        fields.into()
    }
}

/// A row of `export/decisions`: one for every sample of `read`, in the same order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionRow {
    /// The sample's name in the run.
    pub image_id: ImageId,
    /// Whether the sample is in the curated dataset.
    pub keep: bool,
    /// The step that dropped it.
    pub step: Option<StepName>,
    /// The reason why it was dropped.
    pub reason: Option<Reason>,
    /// The values that led to the decision.
    pub detail: Option<String>,
    /// The total size of its members.
    pub bytes: u64,
    /// The hash of its group of duplicates. Samples of one group go into the same split of the
    /// output.
    pub group: u64,
}

impl Row for DecisionRow {
    const SCHEMA: &'static str = "export/decisions";
    const VERSION: u32 = 2;
    fn fields() -> Vec<Field> {
        vec![
            text("image_id"),
            number("keep", DataType::Boolean),
            optional("step", DataType::Utf8),
            optional("reason", DataType::Utf8),
            optional("detail", DataType::Utf8),
            number("bytes", DataType::UInt64),
            number("group", DataType::UInt64),
        ]
    }

    fn text_bytes(&self) -> usize {
        self.image_id.as_str().len() + length(self.detail.as_ref())
    }
}

/// A row of `export/plan`: which kept samples of a partition go into an output shard.
///
/// The kept samples of a partition are laid out in sequence, each with its weight as length: 1
/// (`--images-per-shard`) or its bytes (`--bytes-per-shard`). The row selects the samples that
/// start in `from..to`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutputPlanRow {
    /// The number of the output shard.
    pub shard: u32,
    /// The partition that the samples come from.
    pub partition: Partition,
    /// The start of the range.
    pub from: u64,
    /// The end of the range, exclusive.
    pub to: u64,
    /// The split that the shard belongs to, if the output has splits. The sequence then consists of
    /// the samples of this split.
    pub split: Option<String>,
}

impl OutputPlanRow {
    /// Returns the path of the shard in the output, without an extension.
    pub fn path(&self) -> String {
        let unit = Unit::new(UnitKind::Shard, self.shard);
        match &self.split {
            Some(split) => format!("{split}/{unit}"),
            None => unit.to_string(),
        }
    }
}

impl Row for OutputPlanRow {
    const SCHEMA: &'static str = "export/plan";
    fn fields() -> Vec<Field> {
        vec![
            number("shard", DataType::UInt32),
            number("partition", DataType::UInt32),
            number("from", DataType::UInt64),
            number("to", DataType::UInt64),
            optional("split", DataType::Utf8),
        ]
    }
}

/// A row of `export/captions`: the captions of the duplicates that were removed in favour of an
/// image, sorted by partition and image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaptionsRow {
    /// The partition of the kept image.
    pub partition: Partition,
    /// The kept image.
    pub image_id: ImageId,
    /// The distinct captions of its duplicates, without its own.
    pub captions: Vec<String>,
}

impl Row for CaptionsRow {
    const SCHEMA: &'static str = "export/captions";
    fn fields() -> Vec<Field> {
        let item = Arc::new(text("item"));
        vec![
            number("partition", DataType::UInt32),
            text("image_id"),
            Field::new("captions", DataType::List(item), false),
        ]
    }

    fn text_bytes(&self) -> usize {
        let captions = self.captions.iter().map(String::len);
        self.image_id.as_str().len() + captions.sum::<usize>()
    }
}

/// A row of `export/groups`: the images of all groups of duplicates, by partition, in the order of
/// `read/images`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupRow {
    /// The partition of the image.
    pub partition: Partition,
    /// The sample's name in the run.
    pub image_id: ImageId,
    /// The group: the same number for all its images.
    pub group_id: u64,
    /// The number of images in the group.
    pub group_size: u32,
}

impl Row for GroupRow {
    const SCHEMA: &'static str = "export/groups";
    fn fields() -> Vec<Field> {
        vec![
            number("partition", DataType::UInt32),
            text("image_id"),
            number("group_id", DataType::UInt64),
            number("group_size", DataType::UInt32),
        ]
    }

    fn text_bytes(&self) -> usize {
        self.image_id.as_str().len()
    }
}

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

/// Returns a field for a fixed-size list of `dimension` float32 values without nulls.
///
/// # Panics
///
/// Panics if `dimension` does not fit an `i32`.
pub fn vector(name: &str, dimension: usize) -> Field {
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    // Unwrap safety: no model's dimension comes near 2^31.
    let length = i32::try_from(dimension).expect("a vector has fewer than 2^31 values");
    Field::new(name, DataType::FixedSizeList(item, length), false)
}

/// Returns the schema of `embed/embeddings`: `image_id`, `embedding` (L2-normalised), in the order
/// of `read/images`.
///
/// # Panics
///
/// Panics like [`vector`].
pub fn embeddings(dimension: usize) -> Schema {
    Schema::new(vec![text("image_id"), vector("embedding", dimension)])
}

/// Returns the schema of `dedup/centroids`: `cluster`, `centroid` (not normalised).
///
/// # Panics
///
/// Panics like [`vector`].
pub fn centroids(dimension: usize) -> Schema {
    Schema::new(vec![
        number("cluster", DataType::UInt32),
        vector("centroid", dimension),
    ])
}

/// Returns the schema of `dedup/assignments`: the survivors of a partition, sorted by cluster and
/// `image_id`, with the columns for ranking: `distance` (1 - cosine to the centroid of `home`),
/// `score` (aesthetic), `pixels`. An image has a row in its own cluster (`home`) and, with
/// `--probes`, in the next nearest ones.
///
/// # Panics
///
/// Panics like [`vector`].
pub fn assignments(dimension: usize) -> Schema {
    Schema::new(vec![
        number("cluster", DataType::UInt32),
        number("home", DataType::UInt32),
        number("partition", DataType::UInt32),
        text("image_id"),
        number("distance", DataType::Float32),
        optional("score", DataType::Float32),
        number("pixels", DataType::UInt64),
        vector("embedding", dimension),
    ])
}

/// Returns the schema of a scorer's `scores`: `image_id`, then one column for each score, in the
/// order of `read/images`. A missing score is null; a sample without any score has no row.
pub fn scores<'a>(columns: impl IntoIterator<Item = &'a str>) -> Schema {
    let scores = columns
        .into_iter()
        .map(|name| optional(name, DataType::Float32));
    Schema::new([vec![text("image_id")], scores.collect()].concat())
}

/// The schema name of [`scores`].
pub const SCORES: &str = "scores";
/// The schema name of [`embeddings`].
pub const EMBEDDINGS: &str = "embed/embeddings";
/// The schema name of [`centroids`].
pub const CENTROIDS: &str = "dedup/centroids";
/// The schema name of [`assignments`].
pub const ASSIGNMENTS: &str = "dedup/assignments";

/// Returns the version of a schema that is read as Arrow batches.
pub fn version_of(schema: &str) -> u32 {
    match schema {
        SCORES | ASSIGNMENTS | CuratedRow::SCHEMA => 2,
        _ => 1,
    }
}
