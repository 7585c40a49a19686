//! The rows of `dedup`: removed samples, and pairs of images that are decided together.

use arrow::datatypes::{DataType, Field};
use serde::{Deserialize, Serialize};

use super::{Row, length, number, optional, text};
use crate::{ImageId, Partition, Reason, ReasonKind};

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
