//! Which work is repeated after a change, and which is not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sluice_manifest::UnitKind;
use sluice_testkit::pictures::{png, waves};
use sluice_tests::{Process, Run, SluiceOutput, runtime};

use crate::gallery::{TestGallery, busy, done};
use crate::support::word;

const OPTIONS: [&str; 4] = ["--shards-per-partition", "2", "--images-per-shard", "5"];

/// The steps that compute a row for each image. They reuse rows if only the survivors changed.
const SCORERS: [&str; 3] = ["embed", "aesthetic", "nsfw"];

/// Returns a gallery on disk, curated once: three partitions of two shards.
fn curated() -> Option<(tempfile::TempDir, TestGallery, Run)> {
    runtime()?;
    let place = tempfile::tempdir().unwrap();
    let gallery = TestGallery::new(word(place.path()));
    gallery.fill();
    let said = gallery.curate(&OPTIONS);
    assert!(!said.up_to_date);
    let run = Run::at(gallery.at("run")).unwrap();
    Some((place, gallery, run))
}

/// Returns the nodes of the default pipeline.
fn nodes() -> Vec<sluice::pipeline::PipelineNode> {
    sluice::pipeline::open(&sluice_tests::shared().storage, None)
        .unwrap()
        .nodes
}

/// Returns a set of node names.
fn names(nodes: &[&str]) -> BTreeSet<String> {
    nodes.iter().map(|&name| name.to_owned()).collect()
}

/// Returns by partition the number of rows of a step, and how many the last run reused.
fn rows(run: &Run, step: &str) -> Vec<(u64, u64)> {
    let receipts = run.receipts_of(step, UnitKind::Partition).unwrap();
    let rows = receipts.iter().map(|receipt| {
        let rows = receipt.counts.kept - receipt.sums.unscored;
        (rows, receipt.sums.reused)
    });
    rows.collect()
}

/// Returns the objects that differ between two states.
fn changed(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    let all: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differ = all
        .into_iter()
        .filter(|path| before.get(*path) != after.get(*path));
    differ.cloned().collect()
}

#[test]
fn a_second_run_does_nothing_and_says_so() {
    let Some((_place, gallery, run)) = curated() else {
        return;
    };
    let output = Run::at(gallery.at("output")).unwrap();
    let before = (run.hashes("").unwrap(), output.hashes("").unwrap());
    let said = gallery.curate(&OPTIONS);
    assert!(
        said.up_to_date && said.err.contains("everything was up to date"),
        "{said:?}"
    );
    let done = done(&said);
    assert!(busy(&said).is_empty(), "{done:?}");
    let nodes = nodes();
    assert_eq!(done.len(), nodes.len());
    for node in nodes {
        let step = node.step.as_str();
        let receipts = run.receipts_of(step, node.operation.unit).unwrap();
        assert_eq!(done[&node.name].1, receipts.len() as u64, "{}", node.name);
    }
    assert_eq!(
        before,
        (run.hashes("").unwrap(), output.hashes("").unwrap())
    );

    // The programs on their own do no work either.
    let limit = Duration::from_secs(60);
    let process = Process::new(env!("CARGO_BIN_EXE_sluice-tests-step"), limit).unwrap();
    let finished = process.run(&["sluice-read", "--run", &run.uri]).unwrap();
    assert_eq!(finished.code, 0);
    assert!(
        finished.stdout.contains(r#""status":"up-to-date""#),
        "{}",
        finished.stdout
    );
    assert!(
        finished.stderr.contains("up to date"),
        "{}",
        finished.stderr
    );
}

#[test]
fn another_threshold_decides_again_without_a_model() {
    let Some((_place, gallery, run)) = curated() else {
        return;
    };
    let before = run.hashes("").unwrap();
    let decided = run.counts("export", UnitKind::Partition).unwrap();

    // By hand, and without ONNX Runtime, because the scores exist.
    let limit = Duration::from_secs(60);
    let process = Process::new(env!("CARGO_BIN_EXE_sluice-tests-step"), limit).unwrap();
    let process = process.with("ORT_DYLIB_PATH", "/nothing/here.so");
    let filter = ["sluice-filter", "--run", &run.uri, "--survivors-of=exact"];
    let thresholds = ["--min=aesthetic=4.8", "--max=nsfw="];
    let finished = process.run(&[&filter[..], &thresholds].concat()).unwrap();
    assert_eq!(finished.code, 0, "{finished:?}");
    assert!(
        finished.stdout.contains(r#""done":3"#),
        "{}",
        finished.stdout
    );

    // The pipeline accepts that result, and runs the later steps.
    let said = gallery.curate(&[&OPTIONS[..], &["--min-aesthetic", "4.8"]].concat());
    let dedup = ["dedup-perceptual", "dedup-assign", "dedup-match"];
    let export = [
        "export-decide",
        "export-plan",
        "export-write",
        "export-index",
    ];
    let expected = names(&[&dedup[..], &export, &["report"]].concat());
    assert_eq!(busy(&said), expected, "{:?}", done(&said));
    let after = run.hashes("").unwrap();
    for path in changed(&before, &after) {
        let step = path.split('/').next().unwrap();
        let may_change = ["filter", "dedup", "export", "report", "pipeline.toml"];
        assert!(may_change.contains(&step), "{path} changed");
        assert_ne!(path, "dedup/receipts/fit.json");
    }
    let now = run.counts("export", UnitKind::Partition).unwrap();
    assert_eq!(now.input, decided.input);
    assert!(now.kept < decided.kept, "{now:?} {decided:?}");
    gallery.verify();

    // With the first threshold again, the manifests are the first ones again.
    gallery.curate(&OPTIONS);
    assert_eq!(run.counts("export", UnitKind::Partition).unwrap(), decided);
    let data = |hashes: &BTreeMap<String, String>| -> BTreeMap<String, String> {
        let mut hashes = hashes.clone();
        hashes.retain(|path, _| path.ends_with(".parquet"));
        hashes
    };
    let again = run.hashes("").unwrap();
    assert_eq!(changed(&data(&before), &data(&again)), Vec::<String>::new());
}

/// Adds four small pictures, to a shard of the second partition and to one of the third.
fn put_small_pictures(gallery: &TestGallery) {
    for number in [3, 4] {
        let small = |key: u64| png(&waves(500 + 10 * number + key, 32, 24));
        let shard = TestGallery::shard(number).with("small-1.png", small(1));
        let shard = shard.with("small-2.png", small(2));
        gallery.put(&format!("{number:05}.tar"), shard.finish());
    }
}

/// Returns the outputs of the steps, except those that contain the run's location.
fn written(gallery: &TestGallery, run: &Run) -> BTreeMap<String, String> {
    let mut written = data(run);
    written.retain(|path, _| path.ends_with(".parquet") && !path.starts_with("export/plan/"));
    let shards = Run::at(gallery.at("output")).unwrap().hashes("").unwrap();
    let shards = shards
        .into_iter()
        .filter(|(path, _)| path.starts_with("shard-"));
    written.extend(shards);
    written
}

#[test]
fn a_looser_rule_computes_what_it_lets_through_and_nothing_else() {
    let Some(_) = runtime() else { return };
    let gallery = TestGallery::new("memory://looser");
    gallery.fill();
    put_small_pictures(&gallery);
    let run = Run::at(gallery.at("run")).unwrap();
    let with = |side: &'static str| [&OPTIONS[..], &["--min-side", side]].concat();
    gallery.curate(&with("40"));
    let strict = written(&gallery, &run);
    let counts: Vec<Vec<(u64, u64)>> = SCORERS.map(|step| rows(&run, step)).to_vec();

    let said = gallery.curate(&with("20"));
    assert_eq!(done(&said)["read"], (0, 3));
    for (step, before) in SCORERS.into_iter().zip(counts) {
        for (unit, (now, before)) in rows(&run, step).into_iter().zip(before).enumerate() {
            let added = if unit == 0 { 0 } else { 2 };
            assert_eq!(now, (before.0 + added, before.0), "{step} {unit}");
        }
    }
    gallery.verify();

    // The bytes equal those of a run that was never strict.
    let fresh = TestGallery::new("memory://looser-fresh");
    fresh.fill();
    put_small_pictures(&fresh);
    fresh.curate(&with("20"));
    let fresh_run = Run::at(fresh.at("run")).unwrap();
    let (expected, found) = (written(&fresh, &fresh_run), written(&gallery, &run));
    assert_eq!(changed(&expected, &found), Vec::<String>::new());

    // With the strict rule again, nothing is computed.
    gallery.curate(&with("40"));
    for step in SCORERS {
        for (rows, reused) in rows(&run, step) {
            assert_eq!(rows, reused, "{step}");
        }
    }
    assert_eq!(
        changed(&strict, &written(&gallery, &run)),
        Vec::<String>::new()
    );
    gallery.verify();
}

#[test]
fn another_scorer_computes_itself_and_what_follows() {
    let Some(_) = runtime() else { return };
    let gallery = TestGallery::new("memory://scorer");
    gallery.fill();
    gallery.curate(&OPTIONS);
    let run = Run::at(gallery.at("run")).unwrap();
    let before = run.hashes("").unwrap();

    // The default pipeline with an additional step before the filter of scores.
    let filter = "[[steps]]\nstage = \"filter\"\nmin = ";
    let scorer =
        "[[steps]]\nstage = \"score\"\nname = \"quality\"\nmodel = \"technical-quality\"\n\n";
    let (earlier, later) = sluice::pipeline::DEFAULT.split_once(filter).unwrap();
    let models = gallery.at("models");
    let options = ["--models", &models, "--embedder=tiny-embedder", "--eps=0.1"];
    let scorers = ["--aesthetic=tiny-beauty", "--nsfw=tiny-shame"];
    let options = [&OPTIONS[..], &options, &scorers].concat();
    let said = gallery.curate_by(&[earlier, scorer, filter, later].concat(), &options);
    let export = ["export-plan", "export-write", "export-index"];
    let expected = names(&[&["quality"], &export[..], &["report"]].concat());
    assert_eq!(busy(&said), expected, "{:?}", done(&said));

    // The filter reads the new score, so the later steps run again too.
    let with = later.replacen("{ ", "{ quality = 0.0, ", 1);
    let said = gallery.curate_by(&[earlier, scorer, filter, &with].concat(), &options);
    let busy = busy(&said);
    assert!(
        busy.contains("filter") && busy.contains("dedup-assign"),
        "{busy:?}"
    );
    let after = run.hashes("").unwrap();
    for path in changed(&before, &after) {
        let step = path.split('/').next().unwrap();
        let earlier = [
            "partition",
            "read",
            "usable",
            "exact",
            "embed",
            "aesthetic",
            "nsfw",
        ];
        assert!(!earlier.contains(&step), "{path} changed");
    }
    gallery.verify();
}

/// Checks the number of units that ran in the steps with partitions. `read` and the early filter
/// ran `few` units. Later steps ran all, because duplicates are compared across partitions.
fn assert_done(said: &SluiceOutput, few: u64, all: u64) {
    let done = done(said);
    for node in ["read", "usable"] {
        assert_eq!(done[node], (few, all), "{node}");
    }
    for node in [
        "embed",
        "aesthetic",
        "nsfw",
        "filter",
        "dedup-assign",
        "export-decide",
    ] {
        assert_eq!(done[node], (all, all), "{node}");
    }
    for node in [
        "partition",
        "exact",
        "dedup-perceptual",
        "dedup-fit",
        "dedup-match",
    ] {
        assert_eq!(done[node], (1, 1), "{node}");
    }
}

/// Checks that only the manifests of one partition changed, and that the rows of the others were
/// reused.
fn assert_only(run: &Run, before: &BTreeMap<String, String>, partition: usize) {
    let name = format!("part-{partition:05}.");
    for path in changed(before, &run.hashes("").unwrap()) {
        let (step, rest) = path.split_once('/').unwrap_or((&path, ""));
        let by_partition = ["read", "usable", "filter"].contains(&step) || SCORERS.contains(&step);
        if by_partition && !rest.starts_with("receipts") {
            assert!(rest.contains(&name), "{path} changed");
        }
    }
    for step in SCORERS {
        for (unit, (rows, reused)) in rows(run, step).into_iter().enumerate() {
            let expected = if unit == partition { 0 } else { rows };
            assert_eq!(reused, expected, "{step} {unit}");
        }
    }
}

#[test]
fn another_shard_does_its_partition_again_and_what_depends_on_it() {
    let Some((_place, gallery, run)) = curated() else {
        return;
    };
    let counts = || {
        let counts = run.counts("export", UnitKind::Partition).unwrap();
        (counts.input, counts.kept)
    };
    let before = run.hashes("").unwrap();
    let new = png(&waves(1000, 64, 48));
    // Shard 3 is in the second of three partitions.
    gallery.put(
        "00003.tar",
        TestGallery::shard(3).with("new.png", new).finish(),
    );
    let said = gallery.curate(&OPTIONS);
    assert_done(&said, 1, 3);
    assert_only(&run, &before, 1);
    assert_eq!(counts(), (49, 13));
    gallery.verify();

    // With one more shard, the earlier partitions are unchanged.
    let before = run.hashes("").unwrap();
    let newer = png(&waves(2000, 64, 48));
    let shard = sluice_testkit::Shard::new().with("newer.png", newer);
    gallery.put("00006.tar", shard.finish());
    let said = gallery.curate(&OPTIONS);
    assert_done(&said, 1, 4);
    assert_only(&run, &before, 3);
    assert_eq!(counts(), (50, 14));
    assert!(gallery.curate(&OPTIONS).up_to_date);
    gallery.verify();

    // With one shard less, nothing of its partition remains.
    std::fs::remove_file(gallery.at("input/00006.tar")).unwrap();
    let said = gallery.curate(&OPTIONS);
    assert_eq!(said.result["funnel"]["in"], 49, "{}", said.err);
    assert_done(&said, 0, 3);
    assert_eq!(counts(), (49, 13));
    for (path, _) in run.hashes("").unwrap() {
        assert!(!path.contains("part-00003"), "{path} is left");
    }
    gallery.verify();
}

/// Returns all objects except receipts, which contain durations, and the report's page.
fn data(run: &Run) -> BTreeMap<String, String> {
    let mut hashes = run.hashes("").unwrap();
    hashes.retain(|path, _| !path.contains("/receipts/") && !path.starts_with("report/"));
    hashes
}

#[test]
fn force_reproduces_every_byte() {
    let Some((_place, gallery, run)) = curated() else {
        return;
    };
    let output = Run::at(gallery.at("output")).unwrap();
    let before = (data(&run), data(&output));
    assert!(before.0.len() > 20 && before.1.len() == 10, "{before:?}");
    let said = gallery.curate(&[&OPTIONS[..], &["--force"]].concat());
    for (node, (done, total)) in done(&said) {
        assert_eq!(done, total, "{node}");
    }
    let after = (data(&run), data(&output));
    assert_eq!(changed(&before.0, &after.0), Vec::<String>::new());
    assert_eq!(changed(&before.1, &after.1), Vec::<String>::new());

    // The number of threads has no effect.
    gallery.curate(&[&OPTIONS[..], &["--force", "--jobs", "7"]].concat());
    let after = (data(&run), data(&output));
    assert_eq!(changed(&before.0, &after.0), Vec::<String>::new());
    assert_eq!(changed(&before.1, &after.1), Vec::<String>::new());
    gallery.verify();
}

#[test]
fn how_many_go_through_a_model_at_once_moves_scores_by_rounding_alone() {
    let Some((_place, gallery, run)) = curated() else {
        return;
    };
    let models = gallery.at("models");
    let scores = |batch_size: &str| -> Vec<(String, f32)> {
        let program = ["sluice-nsfw", "--run", &run.uri, "--models", &models];
        let settings = [
            "--model",
            "tiny-shame",
            "--force",
            "--batch-size",
            batch_size,
        ];
        sluice_tests::run(&[&program[..], &settings].concat()).unwrap();
        run.scores("nsfw").unwrap()
    };
    for (all, few) in scores("32").iter().zip(scores("3")) {
        assert_eq!(all.0, few.0);
        assert!((all.1 - few.1).abs() < 1e-5, "{all:?} {few:?}");
    }
}

#[test]
fn what_was_removed_is_made_again() {
    let Some((_place, gallery, run)) = curated() else {
        return;
    };
    let output = Run::at(gallery.at("output")).unwrap();
    let before = (data(&run), data(&output));
    for path in [
        "read/images/part-00001.parquet",
        "embed/embeddings/part-00002.parquet",
        "exact/duplicates/exact-00000.parquet",
        "filter/decisions/part-00001.parquet",
        "export/decisions/part-00000.parquet",
    ] {
        run.store.delete(path).unwrap();
    }
    output.store.delete("shard-00001.tar").unwrap();
    output.store.delete("index.json").unwrap();
    let said = gallery.curate(&OPTIONS);
    eprintln!("after objects were removed: {:?}", done(&said));
    assert_eq!(before, (data(&run), data(&output)));
    gallery.verify();
}
