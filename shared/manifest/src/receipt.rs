//! Receipts: what a unit of work did. The last object written for a unit, so that its presence
//! says that everything else is there.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Counts, Error, Fingerprint, Input, Result, ScoreSummary, StepName, Unit, UnitKind};

/// An object that a unit of work wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Path in the run, or a whole URI for objects outside of it (the curated shards).
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// BLAKE3 of the content, 64 hexadecimal digits.
    pub blake3: String,
}

/// `RUN/<step>/receipts/<unit>.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// The step.
    pub step: StepName,
    /// The stage that did it.
    pub stage: String,
    /// The stage's subcommand, where it has some.
    pub subcommand: Option<String>,
    /// Unit of work.
    pub unit: Unit,
    /// How many units of this kind the step had when this one was done.
    pub units: u32,
    /// The deciding step whose survivors it worked on; none: all samples that `read` accepted.
    pub survivors_of: Option<StepName>,
    /// Deciding steps: the kinds of units that hold the decisions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decides: Vec<UnitKind>,
    /// Version of the operation, part of the fingerprint.
    pub revision: u32,
    /// What shaped the outputs.
    pub fingerprint: Fingerprint,
    /// The settings that are part of the fingerprint.
    pub settings: serde_json::Value,
    /// What was read.
    pub inputs: Vec<Input>,
    /// What was written.
    pub outputs: Vec<Output>,
    /// Samples in, kept and dropped.
    pub counts: Counts,
    /// Further sums that later steps need.
    pub sums: Sums,
    /// Scorers: what is known of each score.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scores: Vec<ScoreSummary>,
    /// What describes the work and cannot change its outputs, such as a model's licence.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub about: BTreeMap<String, String>,
    /// Wall time of the unit in seconds.
    pub seconds: f64,
    /// Program that did the work.
    pub program: String,
    /// Its version.
    pub version: String,
}

impl Receipt {
    /// Returns the settings as the type that the stage wrote.
    ///
    /// # Errors
    /// Data, when they are not of this type.
    pub fn settings<S: DeserializeOwned>(&self) -> Result<S> {
        S::deserialize(&self.settings).map_err(|e| {
            Error::data(format!(
                "receipt of {} {}: cannot parse its settings: {e}",
                self.step, self.unit
            ))
        })
    }

    /// Returns the receipt's unit as an input of later work.
    pub fn as_input(&self) -> Input {
        Input::unit(&self.step, self.unit, &self.fingerprint)
    }
}

macro_rules! sums {
    ($($name:ident, $about:literal;)*) => {
        /// Sums over a unit. Those that a stage does not use are 0 and not written.
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
