//! Receipts: what a unit of work did. The last object written for a unit, so that its presence
//! says that everything else is there.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Counts, Fingerprint, Input, Unit};

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

/// `RUN/<stage>/receipts/<unit>.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// Stage, as in the run's layout.
    pub stage: String,
    /// Step of the DAG (`dedup-match`); the stage's name where the stage has one step.
    pub step: String,
    /// Unit of work.
    pub unit: Unit,
    /// How many units the step had when this one was done.
    pub units: u32,
    /// What shaped the outputs.
    pub fingerprint: Fingerprint,
    /// The part of the fingerprint that the costly work depends on: the same without the
    /// threshold, for stages that can decide anew from stored scores.
    pub basis: Option<Fingerprint>,
    /// The settings that went into the fingerprint.
    pub settings: serde_json::Value,
    /// What was read.
    pub inputs: Vec<Input>,
    /// What was written.
    pub outputs: Vec<Output>,
    /// Samples in, kept and dropped.
    pub counts: Counts,
    /// Further sums that later steps need (bytes kept, members skipped, …).
    pub sums: BTreeMap<String, u64>,
    /// Wall time of the unit in seconds.
    pub seconds: f64,
    /// Program that did the work.
    pub program: String,
    /// Its version.
    pub version: String,
}
