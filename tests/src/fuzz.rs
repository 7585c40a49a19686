//! Fuzz targets: functions that accept any bytes, must neither panic nor hang, and must return
//! consistent results.
//!
//! `tests/fuzz` runs each with libFuzzer (`make fuzz`). `tests/robustness` replays the inputs of
//! `tests/fuzz/corpus` in every `make test`.

mod image;
mod manifest;
mod model;
mod pipeline;
mod rule;
mod run;
mod shard;
mod word;

use serde::Deserialize;
use serde_json::Value;
use sluice_manifest::{Class, Error, Receipt};

/// A fuzz target: a named function over arbitrary bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The name of the target, of its program, and of its folder in the corpus.
    pub name: &'static str,
    /// The function under test.
    pub run: fn(&[u8]),
}

/// All targets, in alphabetical order.
pub const TARGETS: &[Target] = &[
    target("image", image::run),
    target("manifest", manifest::run),
    target("model", model::run),
    target("pipeline", pipeline::run),
    target("rule", rule::run),
    target("run", run::run),
    target("shard", shard::run),
    target("word", word::run),
];

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run }
}

/// Runs the target of that name on some bytes.
///
/// # Panics
/// When the target finds a fault, or when there is no such target.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.unwrap_or_else(|| panic!("no fuzz target {name}"));
    (target.run)(data);
}

/// Splits off the first byte, which selects one of several actions.
fn choice(data: &[u8]) -> (usize, &[u8]) {
    let (first, rest) = data.split_first().unwrap_or((&0, data));
    (usize::from(*first), rest)
}

/// Returns a JSON object as a receipt with a valid seal and fingerprint, so that its contents are
/// read.
fn sealed(mut json: Value) -> Vec<u8> {
    if let Some(fields) = json.as_object_mut() {
        fields.remove("seal");
    }
    if let Ok(mut receipt) = Receipt::deserialize(&json) {
        receipt.fingerprint = receipt.computed_fingerprint();
        return receipt.to_json().expect("a receipt can be written");
    }
    let seal = blake3::hash(json.to_string().as_bytes());
    if let Some(fields) = json.as_object_mut() {
        fields.insert("seal".to_owned(), seal.to_hex().to_string().into());
    }
    json.to_string().into_bytes()
}

/// Checks that an error about invalid input blames the user or the data.
fn refused_well(error: &Error) {
    refused_as(error.class(), &error.to_string());
}

fn refused_as(class: Class, message: &str) {
    let is_known = matches!(class, Class::Usage | Class::Data);
    assert!(is_known, "{class:?}: {message}");
}
