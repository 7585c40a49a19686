//! Every step of a pipeline on a store that fails at each operation in turn: in memory, in this
//! process.
//!
//! A cell of the matrix is a step, an operation, one of its calls and a fault. Failures: an exit
//! code of another class than the fault's, a receipt for outputs that do not exist, and a run that
//! does not have the same bytes after the fault is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use serde_json::Value;
use sluice::programs::StageProgram;
use sluice_harness::{ProcessResources, describe};
use sluice_manifest::{Class, Receipt, layout};
use sluice_store::{Location, Store};
use sluice_testkit::Shard;
use sluice_testkit::failing::{Calls, Failing, Fault, Operation, Rule};
use sluice_testkit::onnx::{TinyModel, distance_from, embedder, likeness_to};
use sluice_testkit::pictures::{noisy, png, waves};
use sluice_tests::runtime;

/// The steps, without their common flags. Those with a model need ONNX Runtime.
const STEPS: [&str; 18] = [
    "partition --input memory://m/in --shards-per-partition 1",
    "read",
    "score --step table --import memory://m/in/scores.csv --by key --columns beauty",
    "embed --models memory://m/models --model tiny-embedder",
    "aesthetic --models memory://m/models --model tiny-beauty",
    "nsfw --models memory://m/models --model tiny-shame",
    "filter --min aesthetic=-6 --rule large=width>=24",
    "dedup exact --survivors-of filter --ranges 2",
    "dedup perceptual --survivors-of filter",
    "dedup fit --survivors-of filter --clusters 2",
    "dedup assign --survivors-of filter --rank-by aesthetic",
    "dedup match --survivors-of filter --eps 0.1 --groups 2",
    "export decide --survivors-of dedup",
    "export plan --output memory://m/out --images-per-shard 4 --scores aesthetic",
    "export write",
    "export index",
    "report",
    "filter --step late --survivors-of dedup --rule large=width>=40",
];

/// The operations that may fail.
const OPERATIONS: [Operation; 5] = [
    Operation::Stat,
    Operation::Read,
    Operation::List,
    Operation::Write,
    Operation::Delete,
];

/// Returns the faults of an operation, each with the possible classes of the error.
fn faults(operation: Operation) -> Vec<(Fault, &'static [Class])> {
    let mut faults: Vec<(Fault, &'static [Class])> = vec![
        (Fault::Transient, &[Class::Transient]),
        (Fault::Permanent, &[Class::Usage]),
        (Fault::Stopped, &[Class::Stopped]),
        (Fault::Slow(Duration::from_millis(1)), &[]),
    ];
    match operation {
        Operation::Read => {
            faults.push((Fault::Cut, &[Class::Data, Class::Usage, Class::Transient]));
            // The object is read again. If the second read is sound, the error is transient.
            faults.push((Fault::Wrong, &[Class::Data, Class::Usage, Class::Transient]));
        }
        Operation::Write => {
            faults.push((Fault::Full, &[Class::Transient]));
            faults.push((Fault::Lost, &[Class::Transient]));
        }
        Operation::Delete => faults.push((Fault::Lost, &[Class::Transient])),
        _ => {}
    }
    faults
}

/// The objects of the run and the output, by path.
type StoreObjects = BTreeMap<String, Vec<u8>>;

/// A dataset in memory, and a store that fails.
struct FaultyDataset {
    /// The dataset, without faults.
    store: Store,
    failing: Failing,
    /// The context of the programs, with faults.
    shared: ProcessResources,
}

impl FaultyDataset {
    fn new() -> Self {
        let sound = ProcessResources::default();
        let failing = Failing::default();
        let location = Location::parse("memory://m").unwrap();
        let place = Self {
            store: sound.storage.create(&location).unwrap(),
            shared: ProcessResources {
                storage: sound.storage.with_layer(failing.clone()),
                ..sound
            },
            failing,
        };
        place.fill();
        place
    }

    fn fill(&self) {
        let mut table = "key,beauty\n".to_owned();
        for number in 0..2 {
            let pictures = [
                waves(3 * number, 32, 24),
                waves(3 * number + 1, 48, 32),
                waves(7, 40, 40),
            ];
            let near = noisy(waves(3 * number, 32, 24), 7, 2);
            let mut shard = Shard::new();
            for (index, picture) in pictures.iter().chain([&near]).enumerate() {
                let key = format!("{number}{index}");
                shard = shard.with(&format!("{key}.png"), png(picture));
                shard = shard.with(&format!("{key}.json"), format!(r#"{{"n": {number}}}"#));
                writeln!(table, "{key},0.{number}{index}").unwrap();
            }
            self.put(&format!("in/{number}.tar"), shard.finish());
        }
        self.put("in/scores.csv", table.into_bytes());
        self.model("tiny-embedder", &embedder("tiny-embedder"));
        self.model("tiny-beauty", &distance_from("tiny-beauty", [255; 3], 3.0));
        self.model("tiny-shame", &likeness_to("tiny-shame", [255, 0, 0], -3.0));
    }

    fn put(&self, path: &str, bytes: Vec<u8>) {
        self.store.put(path, bytes).unwrap();
    }

    fn model(&self, name: &str, model: &TinyModel) {
        self.put(&format!("models/{name}/model.onnx"), model.onnx.clone());
        self.put(
            &format!("models/{name}/model.toml"),
            model.spec.clone().into(),
        );
    }

    /// Runs a step. Returns the class and the message of its failure.
    fn run(&self, step: &str) -> Option<(Class, String)> {
        let words = step.split(' ').map(str::to_owned);
        let mut words: Vec<String> = words.collect();
        words[0].insert_str(0, "sluice-");
        words.extend(["--run=memory://m/run", "--jobs=1"].map(str::to_owned));
        let program = StageProgram::named(&words[0]).unwrap();
        (program.run)(&words, &self.shared)
            .err()
            .map(|e| describe(&e))
    }

    fn objects(&self) -> StoreObjects {
        let folders = ["run", "out"].map(|folder| self.store.list(folder).unwrap());
        let objects = folders.into_iter().flatten().map(|object| {
            let bytes = self.store.get(&object.path).unwrap();
            (object.path, bytes.to_vec())
        });
        objects.collect()
    }

    /// Restores the run and the output to an earlier state.
    fn restore(&self, objects: &StoreObjects) {
        let now = self.objects();
        for path in now.keys().filter(|path| !objects.contains_key(*path)) {
            self.store.delete(path).unwrap();
        }
        for (path, bytes) in objects {
            if now.get(path) != Some(bytes) {
                self.put(path, bytes.clone());
            }
        }
    }
}

/// Returns an error for a receipt whose outputs are missing or different.
fn broken_receipt(objects: &StoreObjects) -> Option<String> {
    let receipts = objects.iter().filter_map(|(path, bytes)| {
        layout::receipt_at(path.strip_prefix("run/")?).map(|_| (path, bytes))
    });
    for (path, bytes) in receipts {
        let receipt = match Receipt::parse(bytes, path) {
            Ok(receipt) => receipt,
            Err(e) => return Some(e.to_string()),
        };
        for output in &receipt.outputs {
            let outside = output
                .path
                .as_str()
                .strip_prefix("memory://m/")
                .map(str::to_owned);
            let found = outside.unwrap_or_else(|| format!("run/{}", output.path));
            let hash = objects
                .get(&found)
                .map(|bytes| blake3::hash(bytes).to_hex());
            if hash.is_none_or(|hash| *hash.as_str() != *output.blake3) {
                return Some(format!(
                    "{path} vouches for {found}, which is not as it says"
                ));
            }
        }
    }
    None
}

/// Returns the objects without durations, which differ between runs. `report` shows them.
fn timeless(objects: &StoreObjects) -> BTreeMap<&str, Value> {
    let shown = objects
        .iter()
        .filter(|(path, _)| !path.ends_with(layout::REPORT));
    let values = shown.map(|(path, bytes)| {
        let value = match serde_json::from_slice(bytes) {
            Ok(Value::Object(mut receipt)) if path.contains("/receipts/") => {
                receipt.remove("seconds");
                receipt.remove("times");
                receipt.remove("seal");
                if path.contains("report/") {
                    receipt.remove("outputs");
                }
                receipt.into()
            }
            _ => blake3::hash(bytes).to_hex().as_str().into(),
        };
        (path.as_str(), value)
    });
    values.collect()
}

/// Returns the paths that differ.
fn differing(left: &StoreObjects, right: &StoreObjects) -> Vec<String> {
    let (left, right) = (timeless(left), timeless(right));
    let paths: BTreeSet<&str> = left.keys().chain(right.keys()).copied().collect();
    // Where nothing may be deleted, the object that checks for writing stays.
    let differing = paths
        .into_iter()
        .filter(|path| left.get(path) != right.get(path) && !path.ends_with("/.sluice-check"));
    differing.map(str::to_owned).collect()
}

/// Returns the rules for failures of an operation. Each fault affects the first, the middle and the
/// last call. A store that goes away also affects all calls from the first or the middle one.
fn rules(operation: Operation, paths: &[&str]) -> Vec<(Rule, &'static [Class])> {
    let mut rules = Vec::new();
    for (fault, classes) in faults(operation) {
        // Wrong bytes of the input would be another input.
        let path = if fault == Fault::Wrong { "run/" } else { "" };
        let count = paths.iter().filter(|found| found.contains(path)).count();
        let (middle, last) = (count / 2, count.saturating_sub(1));
        let mut calls = vec![Calls::Nth(0), Calls::Nth(middle), Calls::Nth(last)];
        match fault {
            Fault::Transient => calls.extend([Calls::From(0), Calls::From(middle)]),
            Fault::Permanent | Fault::Slow(_) => calls.truncate(1),
            _ => {}
        }
        calls.dedup();
        let rule = |calls| Rule {
            operation,
            path,
            calls,
            fault,
        };
        let calls = calls.into_iter().filter(|_| count > 0);
        rules.extend(calls.map(|calls| (rule(calls), classes)));
    }
    rules
}

/// Fails one call, and returns an error if the result is wrong.
fn cell(
    place: &FaultyDataset,
    step: &str,
    rule: &Rule,
    classes: &[Class],
    (before, after): (&StoreObjects, &StoreObjects),
) -> Option<String> {
    place.restore(before);
    place.failing.set(Some(rule.clone()));
    let failed = place.run(step);
    let struck = place.failing.struck();
    place.failing.set(None);
    let left = place.objects();
    if struck == 0 {
        return Some("nothing failed".to_owned());
    }
    if let Some(broken) = broken_receipt(&left) {
        return Some(broken);
    }
    match failed {
        // A report covers the readable part of a run. The next report covers the whole run.
        None if step != "report" => {
            let differing = differing(&left, after);
            (!differing.is_empty()).then(|| format!("ended well with other bytes: {differing:?}"))
        }
        Some((class, message)) if !classes.contains(&class) => {
            Some(format!("{class:?}, expected {classes:?}: {message}"))
        }
        _ => {
            if let Some((class, message)) = place.run(step) {
                return Some(format!("afterwards {class:?}: {message}"));
            }
            let differing = differing(&place.objects(), after);
            (!differing.is_empty()).then(|| format!("resumed to other bytes: {differing:?}"))
        }
    }
}

#[test]
fn every_step_survives_every_fault_of_every_operation() {
    if runtime().is_none() {
        return;
    }
    let place = FaultyDataset::new();
    let (mut cells, mut wrong) = (0, Vec::new());
    for step in STEPS {
        let before = place.objects();
        place.failing.set(None);
        assert_eq!(place.run(step), None, "{step}");
        let (calls, after) = (place.failing.calls(), place.objects());
        for operation in OPERATIONS {
            let of = calls.iter().filter(|call| call.operation == operation);
            let paths: Vec<&str> = of.map(|call| call.path.as_str()).collect();
            for (rule, classes) in rules(operation, &paths) {
                cells += 1;
                let found = cell(&place, step, &rule, classes, (&before, &after));
                wrong.extend(found.map(|found| format!("{step}: {rule:?}: {found}")));
            }
        }
        place.restore(&after);
    }
    eprintln!("\n{cells} cells, {} wrong", wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
