//! Receipts: the record of what a unit of work did. A receipt is the last object written for a
//! unit, so its presence means that all outputs exist.
//!
//! Other programs rely on receipts, so a modified receipt must be rejected. Its last field, `seal`,
//! is a BLAKE3 hash over all others. [`Receipt::parse`] rejects a receipt whose seal does not
//! match, and recomputes the fingerprint from its fields.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::layout::{EMBEDDINGS, SCORES};
use crate::{
    Counts, Error, Fingerprint, Input, Output, Result, ScoreSummary, StepName, Unit, UnitKind,
};

/// The field of the seal.
const SEAL: &str = "seal";

/// The key of [`Receipt::about`] under which embedders record the distance of duplicates.
pub const ABOUT_EPS: &str = "eps";
/// The key of [`Receipt::about`] for the device that the model ran on.
pub const ABOUT_DEVICE: &str = "device";

/// The record of one unit of work, stored as `RUN/<step>/receipts/<unit>.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// The step of the unit.
    pub step: StepName,
    /// The stage that did the work.
    pub stage: String,
    /// The stage's subcommand, if it has subcommands.
    pub subcommand: Option<String>,
    /// The unit of work.
    pub unit: Unit,
    /// The number of units of this kind when the work was done.
    pub units: u32,
    /// The deciding step whose survivors were processed. `None` means all samples that `read`
    /// accepted.
    pub survivors_of: Option<StepName>,
    /// For deciding steps: the kinds of units that contain the decisions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decides: Vec<UnitKind>,
    /// The revision of the operation, part of the fingerprint.
    pub revision: u32,
    /// The hash of everything that shaped the outputs.
    pub fingerprint: Fingerprint,
    /// The settings that are part of the fingerprint.
    pub settings: serde_json::Value,
    /// What the unit read.
    pub inputs: Vec<Input>,
    /// What the unit wrote.
    pub outputs: Vec<Output>,
    /// Samples in, kept and dropped.
    pub counts: Counts,
    /// Further sums that later steps need.
    pub sums: Sums,
    /// For scorers: a summary of each score.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scores: Vec<ScoreSummary>,
    /// Descriptions that cannot change the outputs, such as a model's licence.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub about: BTreeMap<String, String>,
    /// Wall time of the unit in seconds.
    pub seconds: f64,
    /// When the work was done and how much CPU time it took. `None` in receipts of earlier
    /// versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<Times>,
    /// The process's share of the step's units. `None` is all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
    /// The program that did the work.
    pub program: String,
    /// The program's version.
    pub version: String,
}

/// A process's share of a step's units: each `count`-th, from number `index` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The process's number, from 0.
    pub index: u32,
    /// The number of processes that share the units.
    pub count: u32,
}

/// The start and the CPU time of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// The start of the work, in seconds since 1970.
    pub started: f64,
    /// The CPU time in seconds. A process that works on several units at once divides its CPU time
    /// equally between them, so the sum over units is the CPU time of the step.
    pub cpu_seconds: f64,
}

/// A receipt with its seal, as it is serialised.
#[derive(Serialize)]
struct Sealed<'a> {
    #[serde(flatten)]
    receipt: &'a Receipt,
    seal: &'a str,
}

/// Returns the canonical text of a JSON value: equal values give equal texts.
pub(crate) fn canonical(json: &[u8]) -> serde_json::Result<String> {
    Ok(serde_json::from_slice::<Value>(json)?.to_string())
}

fn seal_of(canonical: &str) -> String {
    blake3::hash(canonical.as_bytes()).to_hex().to_string()
}

impl Receipt {
    /// Serialises the receipt as JSON, with its seal.
    ///
    /// # Errors
    ///
    /// Returns a bug error if it cannot be serialised.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let sealed = || {
            let seal = seal_of(&canonical(&serde_json::to_vec(self)?)?);
            serde_json::to_vec_pretty(&Sealed {
                receipt: self,
                seal: &seal,
            })
        };
        sealed().map_err(|e| Error::bug(format!("a receipt does not serialise: {e}")))
    }

    /// Parses a receipt. `uri` names it in errors.
    ///
    /// # Errors
    ///
    /// Returns a data error if the receipt is malformed or was modified: its seal or fingerprint
    /// does not match its content, an output is outside of the run, or its counts do not add up.
    pub fn parse(json: &[u8], uri: &str) -> Result<Self> {
        Self::parse_sealed(json).map_err(|e| {
            Error::data(format!("{uri}: not a receipt that can be trusted: {e}"))
                .hint("run its step again: the unit is then done again")
        })
    }

    fn parse_sealed(json: &[u8]) -> Result<Self, String> {
        let mut value: Value = serde_json::from_slice(json).map_err(|e| e.to_string())?;
        let seal = value.as_object_mut().and_then(|map| map.remove(SEAL));
        if seal.as_ref().and_then(Value::as_str) != Some(&*seal_of(&value.to_string())) {
            return Err("its seal is not that of its content".to_owned());
        }
        let receipt = Self::deserialize(value).map_err(|e| e.to_string())?;
        if receipt.fingerprint != receipt.computed_fingerprint() {
            return Err("its fingerprint is not that of its settings and inputs".to_owned());
        }
        receipt.counts.check().map_err(|e| e.to_string())?;
        let step = &receipt.step;
        let strange = receipt.outputs.iter().find(|o| !o.path.may_be_of(step));
        match strange {
            Some(output) => Err(format!("{}: not an object of {step}", output.path)),
            None => Ok(receipt),
        }
    }

    /// Returns the fingerprint computed from the receipt's fields.
    pub fn computed_fingerprint(&self) -> Fingerprint {
        let node = match &self.subcommand {
            Some(subcommand) => format!("{} {subcommand}", self.stage),
            None => self.stage.clone(),
        };
        Fingerprint::of_work(&node, self.revision, &self.settings, &self.inputs)
    }

    /// Sets a description that cannot change the outputs. An empty text removes it.
    pub fn set_about(&mut self, name: &str, text: &str) {
        match text {
            "" => self.about.remove(name),
            text => self.about.insert(name.to_owned(), text.to_owned()),
        };
    }

    /// Returns the output with this path in the run.
    pub fn output(&self, path: &str) -> Option<&Output> {
        self.outputs.iter().find(|output| output.path == *path)
    }

    /// Returns the object that contains an output shard's samples: its tar or, if there is none,
    /// its Parquet file.
    pub fn shard_object(&self) -> Option<&Output> {
        let ending = |end: &str| {
            let mut outputs = self.outputs.iter();
            outputs.find(|output| output.path.as_str().ends_with(end))
        };
        ending(".tar").or_else(|| ending(".parquet"))
    }

    /// Deserialises the settings as the type that the stage wrote.
    ///
    /// # Errors
    ///
    /// Returns a data error if they are of another type.
    pub fn settings<S: DeserializeOwned>(&self) -> Result<S> {
        S::deserialize(&self.settings).map_err(|e| {
            Error::data(format!(
                "receipt of {} {}: cannot parse its settings: {e}",
                self.step, self.unit
            ))
        })
    }

    /// Returns the number of rows of scores or embeddings that were computed, and the number that
    /// were reused. Returns `None` for a unit that wrote neither.
    pub fn rows(&self) -> Option<(u64, u64)> {
        let made = [
            SCORES.path(&self.step, self.unit),
            EMBEDDINGS.path(&self.step, self.unit),
        ];
        let mut outputs = self.outputs.iter();
        outputs.find(|output| made.iter().any(|path| output.path.as_str() == path))?;
        let Sums {
            unscored, reused, ..
        } = self.sums;
        let rows = self.counts.kept.saturating_sub(unscored);
        Some((rows.saturating_sub(reused), reused))
    }

    /// Returns the receipt's unit as an input of later work.
    pub fn as_input(&self) -> Input {
        Input::unit(&self.step, self.unit, &self.fingerprint)
    }
}

macro_rules! sums {
    ($($name:ident, $about:literal;)*) => {
        /// Sums over a unit. Unused ones are 0 and are not serialised.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Sums {
            $(#[doc = $about] #[serde(skip_serializing_if = "is_zero")] pub $name: u64,)*
        }
    };
}

sums! {
    partitions, "`partition`: partitions of the plan.";
    shards, "`partition`: source shards. `export plan`: output shards.";
    bytes, "`partition`: bytes of the source shards. `export write`: bytes of the members copied.";
    members, "`read`: members found.";
    damaged_shards, "`read`: shards that could not be read to their end.";
    reused, "Scorers: rows that were taken over from the unit's previous manifest.";
    unscored, "Scorers: samples that got no score or embedding.";
    clusters, "`dedup fit`: clusters.";
    sample, "`dedup fit`: embeddings that were read.";
    not_embedded, "`dedup assign`: samples without an embedding, which are not compared.";
    kept_bytes, "`export decide`: bytes of all members of the kept samples.";
    largest_kept, "`export decide`: bytes of the largest kept sample.";
    last_kept, "`export decide`: bytes of the last kept sample.";
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(sum: &u64) -> bool {
    *sum == 0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Blocks, Histogram, OutputPath, ScoreColumn};

    fn receipt() -> Receipt {
        let step = StepName::fixed("aesthetic");
        let unit = Unit::new(UnitKind::Partition, 3);
        let mut histogram = Histogram::default();
        for score in [0.25, 0.5, -3.0] {
            histogram.add(score);
        }
        let mut receipt = Receipt {
            step: step.clone(),
            stage: "aesthetic".into(),
            subcommand: None,
            unit,
            units: 7,
            survivors_of: Some(StepName::fixed("usable")),
            decides: vec![UnitKind::Partition],
            revision: 2,
            fingerprint: Fingerprint::of([]),
            // serde_json parses the second number to an adjacent one.
            settings: json!({"model": {"sha256": "ab", "mean": [0.48145466, 0.7978845608028654]}}),
            inputs: vec![Input::unit(&step, unit, &Fingerprint::of(["x"]))],
            outputs: vec![Output {
                path: OutputPath::new("aesthetic/scores/part-00003.parquet").unwrap(),
                bytes: 5,
                blake3: "cd".into(),
                blocks: Blocks::default(),
            }],
            counts: Counts::all_kept(9),
            sums: Sums::default(),
            scores: vec![ScoreSummary {
                column: ScoreColumn {
                    range: Some([0.1, 0.9]),
                    ..ScoreColumn::named("score")
                },
                histogram,
            }],
            about: BTreeMap::from([("licence".into(), "MIT".into())]),
            seconds: 1.234_567_890_123,
            times: Some(Times {
                started: 1_700_000_000.25,
                cpu_seconds: 2.5,
            }),
            share: Some(Share { index: 3, count: 8 }),
            program: "sluice-aesthetic".into(),
            version: "1".into(),
        };
        receipt.fingerprint = receipt.computed_fingerprint();
        receipt
    }

    #[test]
    fn a_receipt_comes_back() {
        let json = receipt().to_json().unwrap();
        let back = Receipt::parse(&json, "r").unwrap();
        assert_eq!(back.scores, receipt().scores);
        assert_eq!(back.to_json().unwrap(), json);
    }

    /// Changes each value of a JSON document in turn.
    fn each_change(value: &Value, mut each: impl FnMut(&str, Value)) {
        fn walk(at: &str, whole: &Value, each: &mut dyn FnMut(&str, Value)) {
            let here = whole.pointer(at).expect("a path of the document");
            let paths: Vec<String> = match here {
                Value::Object(map) => map.keys().map(|key| format!("{at}/{key}")).collect(),
                Value::Array(items) => (0..items.len()).map(|i| format!("{at}/{i}")).collect(),
                _ => Vec::new(),
            };
            let changed = match here {
                Value::String(text) => json!(format!("{text}x")),
                Value::Number(number) => json!(number.as_f64().unwrap_or_default() + 1.0),
                Value::Null => json!("x"),
                _ => Value::Null,
            };
            let mut document = whole.clone();
            *document.pointer_mut(at).expect("a path of the document") = changed;
            each(at, document);
            for path in paths {
                walk(&path, whole, each);
            }
        }
        walk("", value, &mut each);
    }

    #[test]
    fn every_changed_value_is_noticed() {
        let value: Value = serde_json::from_slice(&receipt().to_json().unwrap()).unwrap();
        let mut changes = 0;
        each_change(&value, |at, changed| {
            let json = serde_json::to_vec(&changed).unwrap();
            assert!(Receipt::parse(&json, "r").is_err(), "{at}: {changed}");
            changes += 1;
        });
        assert!(changes > 40, "{changes}");
    }

    /// A receipt with wrong content and a valid seal.
    #[test]
    fn sealed_nonsense_is_refused() {
        let refused = |change: &dyn Fn(&mut Value)| {
            let mut value: Value = serde_json::from_slice(&receipt().to_json().unwrap()).unwrap();
            value.as_object_mut().unwrap().remove(SEAL);
            change(&mut value);
            let seal = seal_of(&value.to_string());
            value[SEAL] = json!(seal);
            Receipt::parse(value.to_string().as_bytes(), "r")
                .map(|_| ())
                .map_err(|e| e.to_string())
        };
        assert_eq!(refused(&|_| {}), Ok(()));
        for (at, wrong) in [
            ("/settings/model/sha256", json!("ac")),
            ("/revision", json!(3)),
            ("/stage", json!("nsfw")),
            ("/inputs/0/fingerprint", json!("00")),
            ("/outputs/0/path", json!("../victim.txt")),
            ("/outputs/0/path", json!("aesthetic/../../victim.txt")),
            ("/outputs/0/path", json!("nsfw/scores/part-00003.parquet")),
            ("/outputs/0/path", json!("/etc/../victim.txt")),
            ("/outputs/0/path", json!("ftp://host/victim.txt")),
            ("/counts/in", json!(10)),
            ("/counts/in", json!(u64::MAX)),
            ("/counts/kept", json!(u64::MAX)),
            ("/scores/0/histogram/shift", json!(i32::MAX)),
            ("/scores/0/histogram/bins", json!("1:0")),
            ("/units", json!(u64::MAX)),
        ] {
            let change = |value: &mut Value| *value.pointer_mut(at).unwrap() = wrong.clone();
            assert!(refused(&change).is_err(), "{at} {wrong}");
        }
    }
}
