//! What a model is and how it is fed: `model.toml`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sluice_manifest::{Error, Keep, Result, ScoreColumn};
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
    /// The score's name, for models with several; `score` where none is given.
    #[serde(default = "only", skip_serializing_if = "is_only")]
    pub name: String,
    /// Column of the output that is the score.
    #[serde(default)]
    pub column: usize,
    /// Lowest and highest score to expect. Scores may be outside.
    pub range: [f32; 2],
    /// The threshold where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f32>,
    /// Which side of the threshold stays.
    #[serde(default)]
    pub keep: Keep,
}

fn only() -> String {
    ScoreColumn::ONLY.to_owned()
}

fn is_only(name: &String) -> bool {
    name == ScoreColumn::ONLY
}

impl Score {
    /// Returns it as a column of `scores`.
    pub fn as_column(&self) -> ScoreColumn {
        ScoreColumn {
            name: self.name.clone(),
            range: Some(self.range),
            threshold: self.threshold,
            keep: self.keep,
        }
    }
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
    /// The same for models with several scores, in place of `score`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scores: Vec<Score>,
}

/// Largest length of an embedding, and largest column of an output. Models have thousands.
const WIDEST: usize = 1 << 20;

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

    /// Returns how the scores are read, in the order of the columns of `scores`.
    pub fn score_outputs(&self) -> impl Iterator<Item = &Score> {
        self.score.iter().chain(&self.scores)
    }

    fn check_scores(&self, place: &str) -> Result<()> {
        let mut names = BTreeSet::new();
        for score in self.score_outputs() {
            let name = &score.name;
            let wrong = |what: &str| Err(Error::usage(format!("{place}: score {name:?}: {what}")));
            let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(is_word) {
                return wrong("a name has lower-case letters, digits and '_', a letter first");
            }
            if !names.insert(name) {
                return wrong("the name occurs twice");
            }
            let [low, high] = score.range;
            if !(low.is_finite() && high.is_finite() && low < high) {
                return wrong("range must be two finite numbers, the lower one first");
            }
            if score.column >= WIDEST {
                return wrong("column is larger than any output");
            }
            if score.threshold.is_some_and(|t| !(low..=high).contains(&t)) {
                return wrong("threshold is outside of range");
            }
        }
        Ok(())
    }

    /// Fails when a part that the kind needs is missing or unusable.
    pub fn check(&self, place: &str) -> Result<()> {
        let needs = |what: &str| {
            Err(Error::usage(format!(
                "{place}: a model of kind {:?} needs {what}",
                self.kind.as_str()
            )))
        };
        if let Some(dimension) = self.dimension
            && !(1..=WIDEST).contains(&dimension)
        {
            return Err(Error::usage(format!(
                "{place}: dimension is {dimension}, outside 1 to {WIDEST}"
            )));
        }
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
        if self.kind != Kind::Embedder {
            match (&self.score, self.scores.as_slice()) {
                (None, []) => return needs("[score] or [[scores]]"),
                (Some(_), [_, ..]) => return needs("one of [score] and [[scores]], not both"),
                _ => self.check_scores(place)?,
            }
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

    #[test]
    fn numbers_out_of_range_are_refused() {
        let head = |dimension: &str, score: &str| {
            let text = format!(
                "name = 'x'\nkind = 'head'\nembedder = 'e'\ndimension = {dimension}\n[score]\n{score}"
            );
            Spec::parse(&text, "p")
                .map(|_| ())
                .map_err(|e| e.to_string())
        };
        let sound = "range = [0, 1]\ncolumn = 3\nthreshold = 0.5";
        assert_eq!(head("768", sound), Ok(()));
        for dimension in ["0", "-1", "4294967296", "9223372036854775807", "1.5", "inf"] {
            assert!(head(dimension, sound).is_err(), "{dimension}");
        }
        for score in [
            "range = [0, 1]\ncolumn = -1",
            "range = [0, 1]\ncolumn = 4294967296",
            "range = [0, 1]\nthreshold = nan",
            "range = [0, 1]\nthreshold = 2",
            "range = [0, inf]",
            "range = [0, 1e300]",
            "range = [1, 0]",
        ] {
            assert!(head("768", score).is_err(), "{score}");
        }
        let pixels = |edge: &str| {
            let text = format!(
                "name = 'x'\nkind = 'embedder'\n[preprocess]\nfilter = 'bicubic'\n\
                resize = {{ shortest-edge = {edge} }}"
            );
            Spec::parse(&text, "p")
                .map(|_| ())
                .map_err(|e| e.to_string())
        };
        assert_eq!(pixels("224"), Ok(()));
        for edge in ["0", "-1", "4294967328", "16385", "1e9"] {
            assert!(pixels(edge).is_err(), "{edge}");
        }
    }
}
