//! What a model is and how it is fed: `model.toml`.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use sluice_manifest::{Error, Keep, Result, ScoreColumn};
use sluice_pixels::Preprocess;

use crate::layout::{ONNX_BFLOAT16, ONNX_FLOAT16, ONNX_INT8};
use crate::precision::Precision;
use crate::source::PublishedFile;

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

/// What is done with the numbers of an output, before scores are read from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// Nothing.
    None,
    /// The numbers become probabilities that add up to 1.
    Softmax,
    /// Each number becomes a probability of its own.
    Sigmoid,
}

/// How an output of many vectors for an image becomes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// The output is one vector already.
    None,
    /// The first vector.
    Cls,
    /// The mean of all vectors.
    Mean,
}

/// A column of an output: its number, counted from 0, or its label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Label {
    /// The number.
    Number(usize),
    /// One of the model's labels.
    Name(String),
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Label::Number(number) => write!(f, "{number}"),
            Label::Name(name) => write!(f, "{name:?}"),
        }
    }
}

/// The columns of an output that make a score: one, or several that are added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Column {
    /// One column.
    One(Label),
    /// The sum of several.
    Sum(Vec<Label>),
}

impl Default for Column {
    fn default() -> Self {
        Column::One(Label::Number(0))
    }
}

impl Column {
    /// Returns the columns that are added.
    pub fn labels(&self) -> &[Label] {
        match self {
            Column::One(label) => std::slice::from_ref(label),
            Column::Sum(labels) => labels,
        }
    }
}

/// How a score is read from a model's output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ScoreSpec {
    /// The score's name, for models with several; `score` where none is given.
    #[serde(default = "only", skip_serializing_if = "is_only")]
    pub name: String,
    /// Column of the output that is the score, or several whose values are added.
    #[serde(default)]
    pub column: Column,
    /// Lowest and highest score to expect: 0 and 1 where none is given. Scores may be outside.
    #[serde(default = "unit")]
    pub range: [f32; 2],
    /// The threshold where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f32>,
    /// Which side of the threshold stays.
    #[serde(default, alias = "direction")]
    pub keep: Keep,
}

fn unit() -> [f32; 2] {
    [0.0, 1.0]
}

fn only() -> String {
    ScoreColumn::ONLY.to_owned()
}

fn is_only(name: &String) -> bool {
    name == ScoreColumn::ONLY
}

impl ScoreSpec {
    /// Returns a score between 0 and 1 without a threshold.
    pub(crate) fn of(column: Column) -> Self {
        Self {
            name: only(),
            column,
            range: unit(),
            threshold: None,
            keep: Keep::default(),
        }
    }

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
    /// The same of `model.float16.onnx`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256_float16: Option<String>,
    /// The same of `model.bfloat16.onnx`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256_bfloat16: Option<String>,
    /// Name of the ONNX input; the first one where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// Name of the ONNX output; where none is given, a usual one or the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Embedders: how an output of many vectors becomes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,
    /// Embedders: length of the embedding. Heads: length of the embedding they take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dimension: Option<usize>,
    /// Embedders: distance from a cosine of 1 within which two images are duplicates, where
    /// `sluice-dedup` is given none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eps: Option<f64>,
    /// Heads: name of the embedder that they belong to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedder: Option<String>,
    /// Heads and classifiers: what is done with the output's numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
    /// Heads and classifiers: names of the output's columns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Embedders and classifiers: how pixels become their input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preprocess: Option<Preprocess>,
    /// Heads, classifiers and measures: how the score is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<ScoreSpec>,
    /// The same for models with several scores, in place of `score`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scores: Vec<ScoreSpec>,
    /// Where the file is published. Only shown, never used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<PublishedFile>,
}

/// Largest length of an embedding, and largest column of an output. Models have thousands.
const WIDEST: usize = 1 << 20;

impl Spec {
    /// Returns a spec with a name and a kind only.
    pub(crate) fn new(name: &str, kind: Kind) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            licence: String::new(),
            origin: String::new(),
            sha256: None,
            sha256_int8: None,
            sha256_float16: None,
            sha256_bfloat16: None,
            input: None,
            output: None,
            pooling: None,
            dimension: None,
            eps: None,
            embedder: None,
            activation: None,
            labels: Vec::new(),
            preprocess: None,
            score: None,
            scores: Vec::new(),
            source: None,
        }
    }

    /// Parses a `model.toml`; `place` names it in errors.
    ///
    /// # Errors
    /// Usage, when it is not TOML, has an unknown key, or fails [`check`](Self::check).
    pub fn parse(text: &str, place: &str) -> Result<Self> {
        let spec: Self = toml::from_str(text).map_err(|e| Error::usage(format!("{place}: {e}")))?;
        spec.check(place)?;
        Ok(spec)
    }

    /// Returns it as the text of a `model.toml`.
    pub(crate) fn text(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::bug(format!("a spec does not serialise: {e}")))
    }

    /// Returns the stated SHA-256 of an ONNX file.
    pub(crate) fn sha256_of(&self, onnx: &str) -> Option<&str> {
        let stated = match onnx {
            ONNX_INT8 => &self.sha256_int8,
            ONNX_FLOAT16 => &self.sha256_float16,
            ONNX_BFLOAT16 => &self.sha256_bfloat16,
            _ => &self.sha256,
        };
        stated.as_deref()
    }

    /// Returns where the SHA-256 is stated of the file that is made for a precision.
    pub(crate) fn sha256_mut(&mut self, precision: Precision) -> &mut Option<String> {
        match precision {
            Precision::Float32 => &mut self.sha256,
            Precision::Float16 => &mut self.sha256_float16,
            Precision::Bfloat16 => &mut self.sha256_bfloat16,
            Precision::Int8 => &mut self.sha256_int8,
        }
    }

    /// Whether it states the SHA-256 of any of the model's files.
    pub(crate) fn states_sha256(&self) -> bool {
        let stated = [
            &self.sha256,
            &self.sha256_int8,
            &self.sha256_float16,
            &self.sha256_bfloat16,
        ];
        stated.iter().any(|stated| stated.is_some())
    }

    /// Returns how the scores are read, in the order of the columns of `scores`.
    pub fn score_outputs(&self) -> impl Iterator<Item = &ScoreSpec> {
        self.score.iter().chain(&self.scores)
    }

    /// Returns the number of a column.
    fn number_of(&self, label: &Label) -> Option<usize> {
        match label {
            Label::Number(number) => (*number < WIDEST).then_some(*number),
            Label::Name(name) => {
                let is_same = |known: &String| known.eq_ignore_ascii_case(name);
                self.labels.iter().position(is_same)
            }
        }
    }

    /// Returns the columns that make each score. Columns without a number are left out; a spec that
    /// was checked has none.
    pub(crate) fn columns(&self) -> Vec<Vec<usize>> {
        let numbers = |score: &ScoreSpec| {
            let labels = score.column.labels().iter();
            labels.filter_map(|label| self.number_of(label)).collect()
        };
        self.score_outputs().map(numbers).collect()
    }

    fn check_columns(&self, column: &Column) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        for label in column.labels() {
            let Some(number) = self.number_of(label) else {
                return Err(match (label, self.labels.as_slice()) {
                    (Label::Number(_), _) => "column is larger than any output".to_owned(),
                    (Label::Name(_), []) => format!("column is {label}, but there are no labels"),
                    (Label::Name(_), labels) => {
                        format!("no label {label}; there are {}", labels.join(", "))
                    }
                });
            };
            if !seen.insert(number) {
                return Err(format!("column {label} occurs twice"));
            }
        }
        if seen.is_empty() {
            Err("column is an empty list".to_owned())
        } else {
            Ok(())
        }
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
            if let Err(what) = self.check_columns(&score.column) {
                return wrong(&what);
            }
            if score.threshold.is_some_and(|t| !(low..=high).contains(&t)) {
                return wrong("threshold is outside of range");
            }
        }
        Ok(())
    }

    /// Checks that all parts that the kind needs are usable; `place` names the spec in errors.
    ///
    /// # Errors
    /// Usage, with the part that is missing or wrong.
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
        if let Some(eps) = self.eps
            && !(0.0..=2.0).contains(&eps)
        {
            return Err(Error::usage(format!(
                "{place}: eps is {eps}, outside 0 to 2"
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
    fn columns_are_numbers_labels_or_lists_of_them() {
        let columns = |column: &str| {
            let text = format!(
                "name = 'x'\nkind = 'head'\nembedder = 'e'\nlabels = ['SFW', 'porn', 'hentai']\n\
                activation = 'softmax'\n[score]\ncolumn = {column}\ndirection = 'below'"
            );
            let spec = Spec::parse(&text, "p").map_err(|e| e.to_string())?;
            assert_eq!(spec.score.as_ref().unwrap().keep, Keep::Below);
            Ok::<_, String>(spec.columns())
        };
        assert_eq!(columns("2"), Ok(vec![vec![2]]));
        assert_eq!(columns("'sfw'"), Ok(vec![vec![0]]));
        assert_eq!(columns("['porn', 2]"), Ok(vec![vec![1, 2]]));
        let error = columns("'pron'").unwrap_err();
        assert!(
            error.contains("pron") && error.contains("hentai"),
            "{error}"
        );
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
            "column = []",
            "column = [1, 1]",
            "column = 'nsfw'",
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
        let eps = |eps: &str| {
            let text = format!(
                "name = 'x'\nkind = 'embedder'\neps = {eps}\n[preprocess]\nfilter = 'bicubic'\n\
                resize = {{ shortest-edge = 8 }}"
            );
            Spec::parse(&text, "p").map(|spec| spec.eps).map_err(|_| ())
        };
        assert_eq!(eps("0.15"), Ok(Some(0.15)));
        for wrong in ["-0.1", "2.1", "nan", "inf"] {
            assert_eq!(eps(wrong), Err(()), "{wrong}");
        }
    }
}
