//! The rows of the manifests: one struct and one list of Arrow fields for each kind.
//!
//! A manifest carries its schema's name and version as Parquet key-value metadata
//! ([`SCHEMA_KEY`], [`VERSION_KEY`]). Readers ask for the columns of the row type they read; a
//! column that is missing or of another type is an error that names it. Columns may be added
//! without a new version; a changed or removed one needs a new version.
//!
//! Vectors (embeddings, centroids) are fixed-size lists of float32 and too wide for rows: their
//! schemas are functions of the dimension, [`embeddings`], [`centroids`] and [`assignments`]. The
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
/// Parquet metadata key of what the export's plan counts: `images` or `bytes`.
pub const WEIGHT_KEY: &str = "sluice.weight";

/// A row of a manifest.
pub trait Row: Serialize + DeserializeOwned + Send + 'static {
    /// The schema's name, `<stage>/<kind>`.
    const SCHEMA: &'static str;
    /// The schema's version.
    const VERSION: u32 = 1;
    /// The columns.
    fn fields() -> Vec<Field>;
    /// Bytes of the row's text, about. Writers buffer rows up to a number of bytes. Rows that are only
    /// read need none.
    fn text_bytes(&self) -> usize {
        0
    }
}

/// Length of a text that may be missing.
fn length(text: Option<&String>) -> usize {
    text.map_or(0, String::len)
}

fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, false)
}

fn number(name: &str, kind: DataType) -> Field {
    Field::new(name, kind, false)
}

fn optional(name: &str, kind: DataType) -> Field {
    Field::new(name, kind, true)
}

/// What a shard of the plan is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShardKind {
    /// A tar.
    #[default]
    Tar,
    /// Image files and their captions, which `partition/files` lists.
    Files,
    /// A Parquet file with a column of images.
    Parquet,
}

/// `partition/plan.parquet`: one row for each shard, by partition and path.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanRow {
    /// Partition that the shard belongs to.
    pub partition: Partition,
    /// Path below the input's root.
    pub shard: ShardPath,
    /// Size in bytes.
    pub bytes: u64,
    /// The store's entity tag, where it has one. Of files: the hash of what `partition/files` lists.
    pub etag: Option<String>,
    /// Modification time, RFC 3339, where the store tells it.
    pub modified: Option<String>,
    /// What it is.
    pub kind: ShardKind,
    /// The column of the images in a Parquet file.
    pub image_column: Option<String>,
    /// The column of the captions in a Parquet file.
    pub caption_column: Option<String>,
    /// The Parquet file whose columns are metadata of the samples in a tar, below the input's root.
    pub sidecar: Option<String>,
    /// The size and the entity tag or modification time of that file.
    pub sidecar_stamp: Option<String>,
}

impl PlanRow {
    /// Names a sample of the shard; `occurrence` counts earlier samples with that key. The key of
    /// files is their path, which is their name in the run.
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

/// `partition/files`: one row for each member of the samples in files, in the order of the samples.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FileRow {
    /// The shard of the plan that it belongs to.
    pub shard: ShardPath,
    /// Its sample's key.
    pub key: String,
    /// Earlier samples with that key.
    pub occurrence: u32,
    /// Extension of the member.
    pub extension: String,
    /// The file, below the input's root or as a URI. None: the member is `text`.
    pub path: Option<String>,
    /// Size in bytes. None: the file cannot be read.
    pub bytes: Option<u64>,
    /// The store's entity tag, where it has one.
    pub etag: Option<String>,
    /// Modification time, RFC 3339, where the store reports it.
    pub modified: Option<String>,
    /// The content of a member that is not a file, or why the file cannot be read.
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
    /// What follows the key and its dot, as written: `jpg`, `JPG`, `mask.png`.
    pub extension: String,
    /// Where the member is in its shard: the offset of its bytes in the (decompressed) tar, its row
    /// in `partition/files`, or the row of the Parquet file. [`IN_ROW`](Self::IN_ROW): it is the
    /// caption or the metadata in the sample's own row.
    pub offset: u64,
    /// Number of its bytes.
    pub size: u64,
}

impl MemberRow {
    /// The offset of a member that has no bytes of its own in the shard.
    pub const IN_ROW: u64 = u64::MAX;

    /// Whether the member is the caption or the metadata in the sample's row.
    pub fn is_in_row(&self) -> bool {
        self.offset == Self::IN_ROW
    }
}

/// Longer captions and metadata stay in their shard and are not taken into the manifest.
pub const TEXT_BYTES: usize = 1 << 20;

/// `read/images`: one row for every sample found, good or bad, in shard order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleRow {
    /// The sample's name in the run.
    pub image_id: ImageId,
    /// The shard it lies in.
    pub shard: ShardPath,
    /// Its WebDataset key.
    pub key: String,
    /// All its members, in shard order.
    pub members: Vec<MemberRow>,
    /// Extension of the member that is the sample's image.
    pub image_extension: Option<String>,
    /// Format told by the content: `jpeg`, `png`, …
    pub format: Option<String>,
    /// Width of the upright image, in pixels.
    pub width: Option<u32>,
    /// Height of the upright image, in pixels.
    pub height: Option<u32>,
    /// Exif orientation, 1 to 8; width and height as stored are swapped from 5 on.
    pub orientation: Option<u8>,
    /// Size of the image member.
    pub bytes: u64,
    /// SHA-256 of the image member, hexadecimal.
    pub sha256: Option<String>,
    /// 64-bit perceptual hash of the upright image.
    pub phash: Option<u64>,
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
    /// Text of the `.txt` (or `.caption`) member.
    pub caption: Option<String>,
    /// Text of the `.json` member.
    pub metadata: Option<String>,
    /// `ok` or `rejected`.
    pub status: Status,
    /// Why it was rejected.
    pub reason: Option<Reason>,
    /// The decoder's or the reader's words, and notes about text members.
    pub detail: Option<String>,
}

/// Whether a sample can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Sound.
    Ok,
    /// Set aside, for a reason.
    Rejected,
}

impl SampleRow {
    /// Returns the number of members that have bytes of their own in the shard.
    pub fn own_members(&self) -> u64 {
        let own = self.members.iter().filter(|member| !member.is_in_row());
        own.count() as u64
    }

    /// Returns the text of a member that is in the row.
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

/// `read/shards`: one row for each shard of the partition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardRow {
    /// Path below the input's root.
    pub shard: ShardPath,
    /// `none`, `gzip` or `zstd`.
    pub compression: String,
    /// Samples found.
    pub samples: u64,
    /// Members found: those of the samples, those passed over, and the torn one.
    pub members: u64,
    /// Members passed over; `read/skipped` names them.
    pub skipped: u64,
    /// The member, at most one, that the shard ends in.
    pub torn: u64,
    /// `ok` or `damaged`: what lies behind the damage could not be read.
    pub status: ShardStatus,
    /// What is wrong or odd with it.
    pub detail: Option<String>,
}

/// Whether a shard could be read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShardStatus {
    /// Read to its end.
    Ok,
    /// Cut, broken, or no tar at all.
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

/// `read/skipped`: one row for each member that belongs to no sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SkippedRow {
    /// The shard it lies in.
    pub shard: ShardPath,
    /// The member's name; bytes that are not UTF-8 as `\xNN`.
    pub member: String,
    /// Its size.
    pub bytes: u64,
    /// Why it belongs to no sample.
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

/// `decisions` of a filter: one row for each sample that it saw, in the order of `read/images`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FilterRow {
    /// The sample.
    pub image_id: ImageId,
    /// Whether it stays.
    pub keep: bool,
    /// Why it was dropped.
    pub reason: Option<Reason>,
    /// The values that decided.
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

/// `dedup/duplicates`: one row for every removed sample, sorted by partition and image_id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DuplicateRow {
    /// Partition of the removed sample.
    pub partition: Partition,
    /// The removed sample.
    pub image_id: ImageId,
    /// The sample because of which it was removed; with a `reference`, its name in that set.
    pub duplicate_of: ImageId,
    /// The reference set that holds `duplicate_of`. None: the run itself.
    pub reference: Option<String>,
    /// The label of `duplicate_of` in the reference set.
    pub label: Option<String>,
    /// Exact: 1. Perceptual: 1 - distance / 64. Semantic: cosine similarity.
    pub similarity: f32,
    /// How it was found.
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

    /// Returns the similarity, the other image and its set, for people.
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

/// `export/decisions`: one row for every sample of `read`, in the same order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionRow {
    /// The sample.
    pub image_id: ImageId,
    /// Whether it is in the curated dataset.
    pub keep: bool,
    /// The step that dropped it.
    pub step: Option<StepName>,
    /// Why.
    pub reason: Option<Reason>,
    /// The values that decided.
    pub detail: Option<String>,
    /// Size of all its members together.
    pub bytes: u64,
    /// Hash of its group of duplicates: samples of a group go into the same split of the output.
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

/// `export/plan`: which kept samples of which partition go into which output shard.
///
/// A partition's kept samples lie one after the other on a line, each as long as its weight: 1
/// (`--images-per-shard`) or its bytes (`--bytes-per-shard`). The row takes the samples that
/// start in `from..to`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutputPlanRow {
    /// Output shard.
    pub shard: u32,
    /// Partition that it takes samples from.
    pub partition: Partition,
    /// Start of the stretch.
    pub from: u64,
    /// End of the stretch, exclusive.
    pub to: u64,
    /// The split that the shard belongs to, where the output has splits. Only its samples are on the
    /// line.
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

/// `export/captions`: the captions of the duplicates that were removed because of an image, by partition
/// and image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaptionsRow {
    /// Partition of the image that stays.
    pub partition: Partition,
    /// The image that stays.
    pub image_id: ImageId,
    /// The others' captions, each once, without its own.
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

/// `OUT/shard-00000.parquet`: one row for each sample of the output shard, in its order. Behind these
/// columns follow the scores and, where it is asked for, the embedding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CuratedRow {
    /// The sample's name in the run.
    pub image_id: ImageId,
    /// Its key in the output shard.
    pub key: String,
    /// The shard it came from.
    pub source_shard: ShardPath,
    /// Its key there.
    pub source_key: String,
    /// Text of its caption member.
    pub caption: Option<String>,
    /// Text of its `.json` member.
    pub metadata: Option<String>,
    /// Format told by the content.
    pub format: Option<String>,
    /// Width of the upright image, in pixels.
    pub width: Option<u32>,
    /// Height of the upright image, in pixels.
    pub height: Option<u32>,
    /// Size of the image member.
    pub bytes: u64,
    /// SHA-256 of the image member.
    pub sha256: Option<String>,
    /// 64-bit perceptual hash.
    pub phash: Option<u64>,
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

/// A fixed-size list of `dimension` float32 values that are never null.
pub fn vector(name: &str, dimension: usize) -> Field {
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    // Unwrap safety: no model's dimension comes near 2^31.
    let length = i32::try_from(dimension).expect("a vector has fewer than 2^31 values");
    Field::new(name, DataType::FixedSizeList(item, length), false)
}

/// `embed/embeddings`: `image_id`, `embedding` (L2-normalised), in the order of `read/images`.
pub fn embeddings(dimension: usize) -> Schema {
    Schema::new(vec![text("image_id"), vector("embedding", dimension)])
}

/// `dedup/centroids`: `cluster`, `centroid` (not normalised).
pub fn centroids(dimension: usize) -> Schema {
    Schema::new(vec![
        number("cluster", DataType::UInt32),
        vector("centroid", dimension),
    ])
}

/// `dedup/assignments`: the survivors of a partition, sorted by cluster and `image_id`, with what
/// ranking needs: `distance` (1 - cosine to the centroid of `home`), `score` (aesthetic), `pixels`. An
/// image has a row in its own cluster (`home`) and, with `--probes`, in the next ones.
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

/// `scores` of a scorer: `image_id`, then one column for each score, in the order of `read/images`.
/// A score that is missing is null; a sample without any has no row.
pub fn scores<'a>(columns: impl IntoIterator<Item = &'a str>) -> Schema {
    let scores = columns
        .into_iter()
        .map(|name| optional(name, DataType::Float32));
    Schema::new([vec![text("image_id")], scores.collect()].concat())
}

/// Schema name of [`scores`].
pub const SCORES: &str = "scores";
/// Schema name of [`embeddings`].
pub const EMBEDDINGS: &str = "embed/embeddings";
/// Schema name of [`centroids`].
pub const CENTROIDS: &str = "dedup/centroids";
/// Schema name of [`assignments`].
pub const ASSIGNMENTS: &str = "dedup/assignments";

/// Returns the version of a schema that is read as Arrow batches.
pub fn version_of(schema: &str) -> u32 {
    match schema {
        SCORES | ASSIGNMENTS | CuratedRow::SCHEMA => 2,
        _ => 1,
    }
}
