//! Damage in a run: every reader reports it, the step that wrote the object repairs it, and a
//! changed receipt is not trusted.

use anyhow::Result;
use serde_json::{Value, json};
use sluice_harness::{Program, StepDone, describe, run_step};
use sluice_manifest::{Class, OutputPath, Receipt, layout};
use sluice_store::Store;

use crate::support::{curate, dataset, embed, failure, shared, sluice, store, words};

/// Runs one step by its command line. The artificial encoder is `embed`.
fn step(run: &str, line: &str) -> Result<StepDone> {
    fn done<P: Program>(line: &[String]) -> Result<StepDone> {
        run_step::<P>(line, shared())
    }
    let words = words(&format!("{line} --run {run} --jobs 2"));
    match words[0].as_str() {
        "embed" => embed(run).map(|()| StepDone::default()),
        "sluice-partition" => done::<sluice_partition::Args>(&words),
        "sluice-read" => done::<sluice_read::Args>(&words),
        "sluice-filter" => done::<sluice_filter::Args>(&words),
        "sluice-aesthetic" => done::<sluice_aesthetic::Args>(&words),
        "sluice-dedup" => done::<sluice_dedup::Args>(&words),
        "sluice-export" => done::<sluice_export::Args>(&words),
        "sluice-report" => done::<sluice_report::Args>(&words),
        other => panic!("no program {other}"),
    }
}

/// Returns the class and the message of a step's failure.
fn refused(run: &str, line: &str) -> (Class, String) {
    describe(&step(run, line).expect_err(line))
}

fn flip(place: &Store, path: &str, at: usize) -> Vec<u8> {
    let before = place.get(path).unwrap().to_vec();
    let mut flipped = before.clone();
    let at = at % flipped.len();
    flipped[at] ^= 1;
    place.put(path, flipped).unwrap();
    before
}

const PARTITION: &str = "sluice-partition --input memory://damage-readers/in";
const READ: &str = "sluice-read";
const USABLE: &str = "sluice-filter --step usable --rule detailed=low_information>0.2";
const AESTHETIC: &str = "sluice-aesthetic --survivors-of usable --model technical-quality";
const FILTER: &str = "sluice-filter --survivors-of usable --min aesthetic=0.2 --max nsfw=1";
const EXACT: &str = "sluice-dedup exact --survivors-of filter";
const PERCEPTUAL: &str = "sluice-dedup perceptual --survivors-of filter";
const FIT: &str = "sluice-dedup fit --survivors-of filter";
const ASSIGN: &str = "sluice-dedup assign --survivors-of filter";
const MATCH: &str = "sluice-dedup match --survivors-of filter";
const DECIDE: &str = "sluice-export decide --survivors-of dedup";
const PLAN: &str = "sluice-export plan --output memory://damage-readers/out --images-per-shard 2";
const WRITE: &str = "sluice-export write";
const REPORT: &str = "sluice-report";

/// Objects, the step that writes each, and steps that read it.
const READERS: &[(&str, &str, &[&str])] = &[
    ("run.json", PARTITION, &[READ, DECIDE, REPORT]),
    ("partition/plan.parquet", PARTITION, &[READ, WRITE]),
    (
        "read/images/part-00000.parquet",
        READ,
        &[USABLE, AESTHETIC, FILTER, EXACT, ASSIGN, DECIDE, WRITE],
    ),
    ("read/shards/part-00000.parquet", READ, &[WRITE]),
    (
        "usable/decisions/part-00000.parquet",
        USABLE,
        &[AESTHETIC, FILTER, EXACT, DECIDE],
    ),
    (
        "aesthetic/scores/part-00000.parquet",
        AESTHETIC,
        &[FILTER, WRITE],
    ),
    (
        "embed/embeddings/part-00000.parquet",
        "embed",
        &[FIT, ASSIGN],
    ),
    (
        "filter/decisions/part-00000.parquet",
        FILTER,
        &[EXACT, ASSIGN, DECIDE],
    ),
    (
        "dedup/duplicates/exact-00000.parquet",
        EXACT,
        &[PERCEPTUAL, ASSIGN, DECIDE, REPORT],
    ),
    ("dedup/centroids/fit.parquet", FIT, &[ASSIGN]),
    ("dedup/assignments/part-00000.parquet", ASSIGN, &[MATCH]),
    ("export/decisions/part-00000.parquet", DECIDE, &[WRITE]),
    ("export/plan/plan.parquet", PLAN, &[WRITE]),
];

#[test]
fn every_reader_refuses_damage_and_a_rerun_mends_it() {
    let run = curate("damage-readers");
    let place = store(&run);
    let mut number = 0;
    for (path, writer, readers) in READERS {
        for reader in *readers {
            number += 1;
            let before = flip(&place, path, number * 101);
            let forced = format!("{reader} --force");
            let (class, message) = refused(&run, &forced);
            assert_eq!(class, Class::Data, "{reader}: {message}");
            assert!(message.contains(path), "{reader}: {message}");
            assert!(message.contains("hint: run the step"), "{message}");
            step(&run, writer).unwrap();
            assert_eq!(place.get(path).unwrap(), before, "{writer}");
            step(&run, &forced).unwrap_or_else(|e| panic!("{reader} after {writer}: {e}"));
        }
    }
    let said = sluice(&["verify", "--run", &run]);
    assert!(said.outcome.is_ok(), "{}", said.out);
}

#[test]
fn who_only_looks_removes_nothing() {
    let run = curate("damage-look");
    let place = store(&run);
    let before = place.list("").unwrap().len();
    flip(&place, "read/images/part-00000.parquet", 77);
    for command in [&["verify"][..], &["explain", "a/keep-1"]] {
        let said = sluice(&[command, &["--run", &run]].concat());
        let (class, message) = failure(&said);
        assert_eq!(class, Class::Data, "{message}");
    }
    assert_eq!(place.list("").unwrap().len(), before);
}

/// Returns each change of one value in a JSON document: the path of the value, and the changed
/// document.
fn each_change(whole: &Value) -> Vec<(String, Value)> {
    fn walk(at: &str, whole: &Value, found: &mut Vec<(String, Value)>) {
        let here = whole.pointer(at).unwrap();
        let escaped = |key: &String| key.replace('~', "~0").replace('/', "~1");
        match here {
            Value::Object(map) => map
                .keys()
                .for_each(|key| walk(&format!("{at}/{}", escaped(key)), whole, found)),
            Value::Array(items) => {
                (0..items.len()).for_each(|index| walk(&format!("{at}/{index}"), whole, found));
            }
            _ => {}
        }
        let changes = match here {
            Value::String(text) if text.is_empty() => vec![json!("x"), Value::Null],
            Value::String(text) => vec![json!(format!("{text}0")), json!(""), Value::Null],
            Value::Number(number) if number.is_u64() => {
                let number = number.as_u64().unwrap();
                vec![
                    json!(number ^ 1),
                    json!(u32::MAX),
                    json!(u64::MAX),
                    json!(-1),
                ]
            }
            Value::Number(number) => vec![json!(number.as_f64().unwrap() * 2.0 + 1.0)],
            Value::Bool(value) => vec![json!(!value)],
            Value::Null => vec![json!("x")],
            Value::Array(_) | Value::Object(_) if at.is_empty() => vec![Value::Null],
            Value::Array(_) => vec![Value::Null, json!([1])],
            Value::Object(_) => vec![Value::Null, json!({ "x": 1 })],
        };
        for change in changes {
            let mut document = whole.clone();
            *document.pointer_mut(at).unwrap() = change;
            found.push((at.to_owned(), document));
        }
    }
    let mut found = Vec::new();
    walk("", whole, &mut found);
    found
}

/// `verify` reports every receipt that [`Receipt::parse`] rejects. Each change is therefore only
/// parsed, which is fast, and `verify` sees one change per receipt. Every field is protected: the
/// seal also covers the fields that are text for people.
#[test]
fn every_changed_value_of_every_receipt_is_reported() {
    let run = curate("damage-receipts");
    let place = store(&run);
    let objects = place.list("").unwrap().into_iter();
    let paths: Vec<String> = objects
        .map(|object| object.path)
        .filter(|path| layout::receipt_at(path).is_some())
        .collect();
    assert!(paths.len() > 20, "{paths:?}");
    let mut before = Vec::new();
    for (number, path) in paths.iter().enumerate() {
        let json = place.get(path).unwrap();
        Receipt::parse(&json, path).unwrap();
        let mut changes = each_change(&serde_json::from_slice(&json).unwrap());
        for (at, changed) in &changes {
            let parsed = Receipt::parse(changed.to_string().as_bytes(), path);
            assert!(parsed.is_err(), "{path}: {at}: {changed}");
        }
        let (_, chosen) = changes.swap_remove(number * 7 % changes.len());
        before.push((path, json, chosen.to_string()));
    }
    // Few enough that `verify` lists every one. Without a plan it checks nothing else.
    for some in before.chunks(15) {
        for (path, _, changed) in some {
            place.put(path, changed.clone()).unwrap();
        }
        let said = sluice(&["verify", "--run", &run]);
        assert_eq!(failure(&said).0, Class::Data);
        let no_plan = some
            .iter()
            .find(|(path, ..)| path.starts_with("partition/"));
        for (path, ..) in some {
            let told = no_plan.map_or(path, |(plan, ..)| plan);
            assert!(
                said.out.contains(&format!("/{told}: ")),
                "{path}:\n{}",
                said.out
            );
        }
        for (path, json, _) in some {
            place.put(path, json.clone()).unwrap();
        }
    }
    let said = sluice(&["verify", "--run", &run]);
    assert!(said.outcome.is_ok(), "{}", said.out);
}

/// Returns a run on local disk, up to `read`, and its input.
fn on_disk(name: &str) -> (tempfile::TempDir, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run").to_str().unwrap().to_owned();
    let input = format!("memory://{name}/in");
    dataset(&store(&input));
    let partition = format!("sluice-partition --input {input}");
    step(&run, &partition).unwrap();
    step(&run, READ).unwrap();
    (folder, run, partition)
}

#[test]
fn cut_objects_of_a_run_are_made_anew() {
    let (_folder, run, partition) = on_disk("damage-cut");
    let place = store(&run);
    for (path, writer) in [
        ("run.json", partition.as_str()),
        ("partition/receipts/plan.json", &partition),
        ("read/receipts/part-00000.json", READ),
    ] {
        let whole = place.get(path).unwrap().to_vec();
        let half = whole.len() / 2;
        let unsealed = String::from_utf8(whole.clone())
            .unwrap()
            .replace("seal", "leas");
        for broken in [
            Vec::new(),
            b"{".to_vec(),
            b"null".to_vec(),
            whole[..half].to_vec(),
            vec![0; whole.len()],
            unsealed.into_bytes(),
        ] {
            if broken == whole {
                continue;
            }
            place.put(path, broken).unwrap();
            let (class, message) = refused(&run, USABLE);
            assert!(
                class == Class::Data && message.contains("hint"),
                "{message}"
            );
            step(&run, writer).unwrap_or_else(|e| panic!("{path}: {writer}: {e}"));
            step(&run, USABLE).unwrap();
            place.delete("usable/receipts/part-00000.json").unwrap();
        }
    }
    // The state after a kill between `run.json` and its receipt, with a truncated `run.json`.
    place.delete("partition/receipts/plan.json").unwrap();
    place.put("run.json", "{\"layout\"").unwrap();
    step(&run, &partition).unwrap();
    step(&run, READ).unwrap();
}

#[test]
fn nothing_outside_of_the_run_is_removed() {
    let (folder, run, partition) = on_disk("damage-victim");
    let place = store(&run);
    let beside = store(folder.path().to_str().unwrap());
    beside.put("victim.txt", "x").unwrap();
    beside.put("elsewhere/x.parquet", "x").unwrap();
    let link = folder.path().join("run/read/linked");
    std::os::unix::fs::symlink(folder.path().join("elsewhere"), link).unwrap();
    let json = place.get("read/receipts/part-00000.json").unwrap();
    let victim = folder.path().join("victim.txt");
    let paths = [
        "../victim.txt",
        victim.to_str().unwrap(),
        "read/linked/x.parquet",
    ];
    for (number, path) in paths.into_iter().enumerate() {
        // Once as a user who edits the file, and once as a Sluice program.
        let mut edited: Value = serde_json::from_slice(&json).unwrap();
        edited["unit"] = json!(format!("part-0009{number}"));
        edited["outputs"][0]["path"] = json!(path);
        let stale = format!("read/receipts/part-0009{number}.json");
        let mut contents = vec![edited.to_string().into_bytes()];
        if let Ok(path) = OutputPath::new(path) {
            let mut receipt = Receipt::parse(&json, "r").unwrap();
            receipt.unit = format!("part-0009{number}").parse().unwrap();
            receipt.outputs[0].path = path;
            contents.push(receipt.to_json().unwrap());
        }
        for content in contents {
            place.put(&stale, content).unwrap();
            step(&run, &format!("{partition} --force")).unwrap();
            assert_eq!(place.stat(&stale).unwrap(), None, "{path}");
        }
    }
    assert!(beside.stat("victim.txt").unwrap().is_some());
    assert!(beside.stat("elsewhere/x.parquet").unwrap().is_some());
}

#[test]
fn numbers_of_units_are_bounded_by_what_is_there() {
    let run = curate("damage-units");
    let place = store(&run);
    let path = "aesthetic/receipts/part-00000.json";
    let before = place.get(path).unwrap();
    let mut receipt = Receipt::parse(&before, path).unwrap();
    receipt.units = u32::MAX;
    place.put(path, receipt.to_json().unwrap()).unwrap();
    let (class, message) = refused(&run, "sluice-filter --step top --top aesthetic=50%");
    assert!(
        class == Class::Data && message.contains("aesthetic"),
        "{message}"
    );
    let path = "export/receipts/plan.json";
    let mut receipt = Receipt::parse(&place.get(path).unwrap(), path).unwrap();
    receipt.sums.shards = u64::from(u32::MAX);
    place.put(path, receipt.to_json().unwrap()).unwrap();
    let (class, message) = refused(&run, WRITE);
    assert!(
        class == Class::Data && message.contains("plan"),
        "{message}"
    );
    let said = sluice(&["verify", "--run", &run]);
    assert_eq!(failure(&said).0, Class::Data);
}
