//! What a model is and how it is fed: `model.toml`.

use serde::{Deserialize, Serialize};
use sluice_manifest::{Error, Result};
use sluice_pixels::Preprocess;

use crate::precision::Precision;

/// What goes into a model and what comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Pixels in, an embedding out.
    Embedder,
    /// An embedding in, a score out.
    Head,
    /// Pixels in, a score out.
    Classifier,
    /// The measures of `read` in, a score out; no ONNX file.
    Measure,
}

impl Kind {
    /// The kind's name in `model.toml`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Embedder => "embedder",
            Kind::Head => "head",
            Kind::Classifier => "classifier",
            Kind::Measure => "measure",
        }
    }
}

/// How a score is read from a model's output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Score {
    /// Column of the output that is the score.
    #[serde(default)]
    pub column: usize,
    /// Lowest and highest score to expect. Scores may lie outside.
    pub range: [f32; 2],
    /// The threshold where none is given.
    pub threshold: f32,
}

/// `model.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Spec {
    /// The model's name. Heads name their embedder by it.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// The weights' licence.
    #[serde(default)]
    pub licence: String,
    /// Where the weights come from.
    #[serde(default)]
    pub origin: String,
    /// SHA-256 of the ONNX file, checked before use where it is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The same of `model.int8.onnx`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256_int8: Option<String>,
    /// Name of the ONNX input; the first one where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// Name of the ONNX output; `image_embeds`, `pooler_output` or the first one where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Embedders: length of the embedding. Heads: length of the embedding they take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dimension: Option<usize>,
    /// Heads: name of the embedder that they belong to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedder: Option<String>,
    /// Embedders and classifiers: how pixels become their input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preprocess: Option<Preprocess>,
    /// Heads, classifiers and measures: how the score is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<Score>,
}

impl Spec {
    /// Parses a `model.toml`; `place` names it in errors.
    pub fn parse(text: &str, place: &str) -> Result<Self> {
        let spec: Self = toml::from_str(text).map_err(|e| Error::usage(format!("{place}: {e}")))?;
        spec.check(place)?;
        Ok(spec)
    }

    /// The stated SHA-256 of the file that a precision loads.
    pub fn sha256_at(&self, precision: Precision) -> Option<&str> {
        match precision {
            Precision::Float32 | Precision::Bfloat16 => self.sha256.as_deref(),
            Precision::Int8 => self.sha256_int8.as_deref(),
        }
    }

    /// Fails when a part that the kind needs is missing or unusable.
    pub fn check(&self, place: &str) -> Result<()> {
        let needs = |what: &str| {
            Err(Error::usage(format!(
                "{place}: a model of kind {:?} needs {what}",
                self.kind.as_str()
            )))
        };
        let pixels = matches!(self.kind, Kind::Embedder | Kind::Classifier);
        match &self.preprocess {
            None if pixels => return needs("[preprocess]"),
            Some(preprocess) if pixels => {
                preprocess
                    .validate()
                    .map_err(|e| Error::usage(format!("{place}: {e}")))?;
            }
            _ => {}
        }
        if self.kind != Kind::Embedder && self.score.is_none() {
            return needs("[score]");
        }
        if self.kind == Kind::Head && self.embedder.is_none() {
            return needs("embedder");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_says_what_is_missing() {
        let error = Spec::parse("name = 'x'\nkind = 'head'", "x/model.toml")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("x/model.toml") && error.contains("[score]"),
            "{error}"
        );
        let error = Spec::parse("name = 'x'\nkind = 'embedder'", "p")
            .unwrap_err()
            .to_string();
        assert!(error.contains("[preprocess]"), "{error}");
        let error = Spec::parse("name = 'x'\nkind = 'embedder'\nsise = 3", "p")
            .unwrap_err()
            .to_string();
        assert!(error.contains("sise"), "{error}");
    }
}
