//! The rows of a filter's `decisions`.

use arrow::datatypes::{DataType, Field};
use serde::{Deserialize, Serialize};

use super::{Row, length, number, optional, text};
use crate::{ImageId, Reason};

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
