//! Where a model's file is published: `[source]` of `model.toml` and of the catalogue.

use serde::{Deserialize, Serialize};

use crate::convert::Conversion;

/// Where a model's file is published, and its revision and hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PublishedFile {
    /// The file: `hf://ORG/NAME@COMMIT/PATH`, `https://…`, `pip:NAME==VERSION`, or a path or URI.
    pub from: String,
    /// The SHA-256 of that file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// How the ONNX file is made from it; none where it is the ONNX file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub convert: Option<Conversion>,
    /// The copyright notice of the weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
}

impl PublishedFile {
    /// Returns the revision in it, where there is one.
    pub fn revision(&self) -> Option<&str> {
        let (_, rest) = self.from.split_once('@')?;
        Some(rest.split('/').next().unwrap_or(rest))
    }
}
