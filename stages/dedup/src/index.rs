//! Indexes: hashes and embeddings of a set of images, so that later runs can leave out what is in it.
//!
//! ```text
//! INDEX/index.json                  its source, counts and parts; written last
//! INDEX/hashes-00000.parquet        image_id, label, sha256, phash, md5, pdq
//! INDEX/embeddings-00000.parquet    image_id, label, embedding
//! ```
//!
//! A part has the images of one partition of the run that the index is made from. Images without an
//! embedding have a row in `hashes` alone. The description has the size and the hashes of each part, so
//! that damage is found when a part is read, and its own bytes are the fingerprint that the receipts of
//! later runs record.

pub(crate) mod list;
pub(crate) mod open;
pub(crate) mod write;

use arrow::datatypes::{DataType, Field, Schema};
use serde::{Deserialize, Serialize};
use sluice_manifest::rows::{Row, vector};
use sluice_manifest::{Error, Fingerprint, ImageId, Output, Result};

use crate::embeddings::Encoder;

/// The object that describes an index.
pub(crate) const DESCRIPTION: &str = "index.json";
/// Schema name of the embeddings of an index.
pub(crate) const VECTORS: &str = "index/embeddings";

/// `INDEX/index.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Description {
    /// Version of the layout.
    pub index: u32,
    /// The run or the dataset that it was made from.
    pub source: String,
    /// Fingerprint of what it was made from.
    pub made_from: Fingerprint,
    /// Images.
    pub images: u64,
    /// The number of images with an embedding.
    pub embedded: u64,
    /// The encoder of the embeddings.
    pub encoder: Option<Encoder>,
    /// The parts, in order.
    pub parts: Vec<Part>,
}

/// The images of a partition.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Part {
    /// Their hashes.
    pub hashes: Output,
    /// Their embeddings, if there are any.
    pub embeddings: Option<Output>,
}

impl Description {
    /// The version of the layout that this program writes.
    pub(crate) const VERSION: u32 = 2;

    /// Returns the objects of all parts.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = &Output> {
        let parts = self.parts.iter();
        parts.flat_map(|part| std::iter::once(&part.hashes).chain(&part.embeddings))
    }

    /// Parses a description; `uri` names it in errors.
    ///
    /// # Errors
    /// Data, when it is not one of this version.
    pub(crate) fn parse(json: &[u8], uri: &str) -> Result<Self> {
        let about: Self = serde_json::from_slice(json)
            .map_err(|e| Error::data(format!("{uri}: not the description of an index: {e}")))?;
        if about.index == Self::VERSION {
            return Ok(about);
        }
        Err(Error::data(format!(
            "{uri}: version {} of the index, this program reads version {}",
            about.index,
            Self::VERSION
        ))
        .hint("make the index again with this version of Sluice"))
    }
}

/// A row of the hashes of an index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct HashRow {
    /// The image's name in the set.
    pub image_id: ImageId,
    /// Its label.
    pub label: Option<String>,
    /// SHA-256 of the image member, hexadecimal.
    pub sha256: Option<String>,
    /// 64-bit perceptual hash.
    pub phash: Option<u64>,
    /// MD5 of the image member, hexadecimal, where the run has it.
    pub md5: Option<String>,
    /// PDQ hash, hexadecimal, where the run has it.
    pub pdq: Option<String>,
}

impl Row for HashRow {
    const SCHEMA: &'static str = "index/hashes";
    fn fields() -> Vec<Field> {
        vec![
            Field::new("image_id", DataType::Utf8, false),
            Field::new("label", DataType::Utf8, true),
            Field::new("sha256", DataType::Utf8, true),
            Field::new("phash", DataType::UInt64, true),
            Field::new("md5", DataType::Utf8, true),
            Field::new("pdq", DataType::Utf8, true),
        ]
    }

    fn text_bytes(&self) -> usize {
        let label = self.label.as_ref().map_or(0, String::len);
        self.image_id.as_str().len() + label
    }
}

/// Returns the columns of the embeddings of an index.
fn vectors_schema(dimension: usize) -> Schema {
    Schema::new(vec![
        Field::new("image_id", DataType::Utf8, false),
        Field::new("label", DataType::Utf8, true),
        vector("embedding", dimension),
    ])
}
