//! Datasets through the whole DAG, and the curated shards read back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sluice_manifest::rows::{CuratedRow, DecisionRow, FilterRow, SampleRow, Status};
use sluice_manifest::{FanOut, StepName, UnitKind};
use sluice_tests::{Run, SluiceOutput, fixtures, models, python, runtime, sluice};

use crate::gallery::{TestGallery, verify};
use crate::page;
use crate::support::{column, csv, run_script, word};

/// The curated 600 photographs of `imagenet-1k-sample`.
struct Photos {
    place: tempfile::TempDir,
    input: PathBuf,
    run: Run,
    said: SluiceOutput,
}

fn photos() -> Option<Photos> {
    let input = fixtures()?.join("imagenet-1k-sample");
    let models = models(&["efficientnet-lite0", "opennsfw"])?;
    let place = tempfile::tempdir().unwrap();
    let [run, output] = ["run", "output"].map(|name| place.path().join(name));
    let said = sluice(&[
        "run",
        "--input",
        word(&input),
        "--run",
        word(&run),
        "--output",
        word(&output),
        "--models",
        word(&models),
        "--embedder",
        "efficientnet-lite0",
        "--aesthetic",
        "technical-quality",
        "--nsfw",
        "opennsfw",
        "--eps",
        "0.15",
        "--shards-per-partition",
        "2",
        "--images-per-shard",
        "128",
        "--embeddings",
    ])
    .unwrap();
    assert_eq!(said.failed, None, "{said:?}");
    Some(Photos {
        run: Run::at(word(&run)).unwrap(),
        input,
        place,
        said,
    })
}

/// The numbers of a run of the default pipeline are consistent, from the first step to the last.
fn check_sums(run: &Run, said: &SluiceOutput, samples: u64) {
    for node in sluice::pipeline::open(&sluice_tests::shared().storage, None)
        .unwrap()
        .nodes
    {
        let (step, unit) = (node.step.as_str(), node.operation.unit);
        let receipts = run.receipts_of(step, unit).unwrap();
        for receipt in &receipts {
            receipt.counts.check().unwrap();
            assert_eq!(receipt.units as usize, receipts.len(), "{}", node.name);
        }
        // With one range, `perceptual` compares the hashes itself.
        let may_be_empty = unit.fan_out() == FanOut::OutputShards || unit == UnitKind::Pairs;
        assert!(!receipts.is_empty() || may_be_empty, "{}", node.name);
    }
    let counts = |step: &str, kind| run.counts(step, kind).unwrap();
    let part = |step: &str| counts(step, UnitKind::Partition);
    let (read, decided) = (part("read"), part("export"));
    assert_eq!((read.input, decided.input), (samples, samples));
    let usable = part("usable");
    assert_eq!(usable.input, read.kept);
    let exact = counts("exact", UnitKind::Exact);
    let filter = part("filter");
    for scorer in ["embed", "aesthetic", "nsfw"] {
        assert_eq!(
            part(scorer).input,
            usable.kept - exact.dropped_total(),
            "{scorer}"
        );
    }
    assert_eq!(filter.input, part("embed").kept);
    // Every sample was dropped once, by the step that counts it.
    for counted in [&read, &usable, &exact, &filter] {
        for (dropped, count) in &counted.dropped {
            assert_eq!(decided.dropped.get(dropped), Some(count), "{dropped}");
        }
    }
    assert_eq!(counts("export", UnitKind::Shard).kept, decided.kept);

    let funnel = &said.result["funnel"];
    let levels = funnel["steps"].as_array().unwrap().iter();
    let dropped: u64 = levels.map(|level| level["dropped"].as_u64().unwrap()).sum();
    assert_eq!(funnel["in"], samples);
    assert_eq!(funnel["kept"].as_u64().unwrap() + dropped, samples);
    assert_eq!(funnel["kept"], decided.kept);

    let samples: Vec<SampleRow> = run.rows("read/images").unwrap();
    let decisions: Vec<DecisionRow> = run.rows("export/decisions").unwrap();
    assert_eq!(samples.len(), decisions.len());
    for (sample, decision) in samples.iter().zip(&decisions) {
        assert_eq!(sample.image_id, decision.image_id);
        assert_eq!(decision.keep, decision.reason.is_none(), "{decision:?}");
        assert_eq!(decision.keep, decision.step.is_none(), "{decision:?}");
        if sample.status == Status::Rejected {
            assert_eq!(sample.reason, decision.reason, "{decision:?}");
            assert_eq!(decision.step, Some(StepName::read()), "{decision:?}");
        }
    }
    let kept = decisions.iter().filter(|decision| decision.keep).count();
    assert_eq!(kept as u64, decided.kept);
}

#[test]
fn photographs_are_curated_and_come_back_byte_for_byte() {
    let Some(photos) = photos() else { return };
    eprintln!("{}", photos.said.err);
    check_sums(&photos.run, &photos.said, 600);
    assert_eq!(
        photos.run.counts("read", UnitKind::Partition).unwrap().kept,
        600
    );
    verify(&photos.run.uri);
    opennsfw_agrees(&photos);
    if let Some(python) = python("pyarrow, webdataset") {
        read_back(&photos, &python);
    }
    page::check(&photos.run, &["exact", "dedup"]);
}

/// The Python package `webdataset` reads the output, and every member equals its source.
fn read_back(photos: &Photos, python: &Path) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/end_to_end/read_back.py");
    let output = photos.place.path().join("output");
    let printed = run_script(python, script, &[&photos.input, &output]);
    let back: Value = serde_json::from_slice(&printed).unwrap();
    eprintln!("read back with webdataset: {back}");
    let kept = photos
        .run
        .counts("export", UnitKind::Partition)
        .unwrap()
        .kept;
    assert_eq!(back["samples"], kept);
    assert_eq!(back["members"], kept * 3, "a picture, a caption, metadata");
    assert_eq!(back["shards"], kept.div_ceil(128));
    assert_eq!(back["full"], kept / 128, "every shard but the last is full");
}

/// The scores of all photographs equal those of the reference.
fn opennsfw_agrees(photos: &Photos) {
    let scores = photos.input.with_file_name("reference-scores");
    let table = csv(&scores.join("opennsfw.csv"));
    let at = ["shard", "key", "nsfw_with_jpeg_round_trip"].map(|name| column(&table, name));
    let mut expected = BTreeMap::new();
    for row in &table[1..] {
        let [shard, key, score] = at.map(|i| row[i].as_str());
        let id = format!("{}/{key}", shard.trim_end_matches(".tar"));
        expected.insert(id, score.parse::<f64>().unwrap());
    }
    let found = photos.run.scores("nsfw").unwrap();
    let decisions: Vec<FilterRow> = photos.run.rows("filter/decisions").unwrap();
    // No two photographs have the same bytes, and no rule drops one.
    assert_eq!(found.len(), expected.len());
    assert_eq!(decisions.len(), expected.len());
    let mut worst = (0.0, String::new());
    for ((id, score), decision) in found.into_iter().zip(decisions) {
        assert_eq!(id, decision.image_id.as_str());
        let off = (f64::from(score) - expected[&id]).abs();
        // Near the threshold, both decisions are valid. The other score may drop an image first.
        let near = (expected[&id] - 0.5).abs() < 1e-3;
        let reason = decision.reason.map(|reason| reason.to_string());
        let is_above = reason.as_deref() == Some("above-max:nsfw");
        let fits = if expected[&id] < 0.5 {
            !is_above
        } else {
            !decision.keep
        };
        assert!(near || fits, "{id}: {reason:?}");
        if off > worst.0 {
            worst = (off, id);
        }
    }
    eprintln!("OpenNSFW on 600 photographs: at most {worst:?} from the reference");
    assert!(worst.0 < 1e-3, "{worst:?}");
}

#[test]
fn a_dataset_in_memory_goes_through_all_steps() {
    let Some(_) = runtime() else { return };
    let gallery = TestGallery::new("memory://pipeline");
    gallery.fill();
    let said = gallery.curate(&["--shards-per-partition", "2", "--images-per-shard", "5"]);
    let run = Run::at(gallery.at("run")).unwrap();
    check_sums(&run, &said, 48);
    gallery.verify();

    // There are twelve pictures; the others are exact or near copies.
    let decisions: Vec<DecisionRow> = run.rows("export/decisions").unwrap();
    let kept: Vec<&DecisionRow> = decisions.iter().filter(|d| d.keep).collect();
    assert_eq!(kept.len(), 12, "{kept:?}");
    let counts = run.counts("export", UnitKind::Partition).unwrap();
    let dropped: Vec<String> = counts.dropped.keys().map(ToString::to_string).collect();
    let expected = [
        "dedup/perceptual-duplicate",
        "dedup/semantic-duplicate",
        "exact/exact-duplicate",
    ];
    assert_eq!(dropped, expected);

    let output = Run::at(gallery.at("output")).unwrap();
    let objects: Vec<String> = output.hashes("").unwrap().into_keys().collect();
    let shards = ["00000", "00001", "00002"];
    let named = [".sluice.json", "README.md", "croissant.json", "index.json"];
    let mut expected = named.map(str::to_owned).to_vec();
    for shard in shards {
        expected.push(format!("shard-{shard}.parquet"));
        expected.push(format!("shard-{shard}.tar"));
    }
    assert_eq!(objects, expected);
    let mut rows = 0;
    for shard in shards {
        let path = format!("shard-{shard}.parquet");
        let table = output.store.rows::<CuratedRow>(&path).unwrap();
        rows += table.map(Result::unwrap).count();
    }
    assert_eq!(rows, 12);
}
