//! What is done again, and what is not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sluice_manifest::dag::STEPS;
use sluice_manifest::rows::ScoreRow;
use sluice_testkit::pictures::{png, waves};
use sluice_tests::{Process, Run, Said, runtime};

use crate::gallery::Gallery;
use crate::support::word;

const OPTIONS: [&str; 4] = ["--shards-per-partition", "2", "--images-per-shard", "5"];

/// A gallery on disk, curated once. Three partitions of two shards.
fn curated() -> Option<(tempfile::TempDir, Gallery, Run)> {
    runtime()?;
    let place = tempfile::tempdir().unwrap();
    let gallery = Gallery::new(word(place.path()));
    gallery.fill();
    let said = gallery.curate(&OPTIONS);
    assert!(!said.up_to_date);
    let run = Run::at(gallery.at("run")).unwrap();
    Some((place, gallery, run))
}

/// For each step, how many of its units were done, and how many there are.
fn done(said: &Said) -> BTreeMap<&'static str, (u64, u64)> {
    let steps = said.result["steps"].as_array().unwrap();
    assert_eq!(steps.len(), STEPS.len());
    let done = STEPS.iter().zip(steps).map(|(step, line)| {
        assert_eq!(line["step"], step.name);
        let units = &line["units"];
        let [done, total] = ["done", "total"].map(|name| units[name].as_u64().unwrap());
        let up_to_date = line["status"] == "up-to-date";
        assert_eq!(up_to_date, done == 0, "{line}");
        (step.name, (done, total))
    });
    done.collect()
}

/// The steps that had something to do.
fn busy(said: &Said) -> BTreeSet<&'static str> {
    let steps = done(said).into_iter();
    steps
        .filter(|(_, (n, _))| *n > 0)
        .map(|(step, _)| step)
        .collect()
}

/// The objects that differ between two looks.
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
    assert!(busy(&said).is_empty(), "{:?}", done(&said));
    for (step, (_, total)) in done(&said) {
        let receipts = run.receipts(step).unwrap();
        assert_eq!(total, receipts.len() as u64, "{step}");
    }
    assert_eq!(
        before,
        (run.hashes("").unwrap(), output.hashes("").unwrap())
    );

    // Neither do the programs by themselves.
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
fn another_threshold_decides_again_without_the_model() {
    let Some((_place, gallery, run)) = curated() else {
        return;
    };
    let before = run.hashes("").unwrap();
    let decided = run.counts("export-decide").unwrap();
    let threshold = "4.8";

    // By itself, and where ONNX Runtime cannot be had: the scores are there.
    let limit = Duration::from_secs(60);
    let process = Process::new(env!("CARGO_BIN_EXE_sluice-tests-step"), limit).unwrap();
    let process = process.with("ORT_DYLIB_PATH", "/nothing/here.so");
    let models = gallery.at("models");
    let score = [
        "sluice-aesthetic",
        "--run",
        &run.uri,
        "--models",
        &models,
        "--model",
        "tiny-beauty",
        "--min-score",
        threshold,
    ];
    let finished = process.run(&score).unwrap();
    assert_eq!(finished.code, 0, "{finished:?}");
    assert!(
        finished.stdout.contains(r#""done":3"#),
        "{}",
        finished.stdout
    );
    let forced = process.run(&[&score[..], &["--force"]].concat()).unwrap();
    assert_eq!(
        forced.code, 2,
        "with --force it does need the model: {forced:?}"
    );

    let said = gallery.curate(&[&OPTIONS[..], &["--min-aesthetic", threshold]].concat());
    let expected = STEPS.iter().map(|step| step.name).filter(|step| {
        let untouched = ["partition", "read", "embed", "nsfw", "dedup-fit"];
        !untouched.contains(step)
    });
    let expected: BTreeSet<&str> = expected.collect();
    assert_eq!(busy(&said), expected, "{:?}", done(&said));
    let after = run.hashes("").unwrap();
    for path in changed(&before, &after) {
        let stage = path.split('/').next().unwrap();
        assert!(
            ["aesthetic", "dedup", "export", "report"].contains(&stage),
            "{path} changed"
        );
        assert_ne!(path, "dedup/receipts/fit.json");
    }
    let now = run.counts("export-decide").unwrap();
    assert_eq!(now.input, decided.input);
    assert!(now.kept < decided.kept, "{now:?} {decided:?}");
    gallery.verify();

    // And back: the curated shards are the first ones again.
    gallery.curate(&OPTIONS);
    assert_eq!(run.counts("export-decide").unwrap(), decided);
    let data = |hashes: &BTreeMap<String, String>| -> BTreeMap<String, String> {
        let mut hashes = hashes.clone();
        hashes.retain(|path, _| path.ends_with(".parquet"));
        hashes
    };
    let again = run.hashes("").unwrap();
    assert_eq!(changed(&data(&before), &data(&again)), Vec::<String>::new());
}

#[test]
fn another_shard_does_its_partition_again_and_what_depends_on_it() {
    let Some((_place, gallery, run)) = curated() else {
        return;
    };
    let before = run.hashes("").unwrap();
    let new = png(&waves(1000, 64, 48));
    // Shard 3 is in the second of three partitions.
    gallery.put("00003.tar", Gallery::shard(3).with("new.png", new).finish());
    let said = gallery.curate(&OPTIONS);
    let done = done(&said);
    for step in ["read", "embed", "aesthetic", "nsfw"] {
        assert_eq!(done[step], (1, 3), "{step}");
    }
    for step in [
        "partition",
        "dedup-exact",
        "dedup-perceptual",
        "dedup-fit",
        "dedup-match",
    ] {
        assert_eq!(done[step], (1, 1), "{step}");
    }
    for step in ["dedup-assign", "export-decide"] {
        assert_eq!(done[step], (3, 3), "{step}");
    }
    let after = run.hashes("").unwrap();
    for path in changed(&before, &after) {
        let (stage, rest) = path.split_once('/').unwrap_or((&path, ""));
        if ["read", "embed", "aesthetic", "nsfw"].contains(&stage) {
            assert!(rest.contains("part-00001."), "{path} changed");
        }
    }
    let counts = run.counts("export-decide").unwrap();
    assert_eq!((counts.input, counts.kept), (49, 13), "{counts:?}");
    gallery.verify();

    // A shard more: the partitions before it stay as they are.
    let before = run.hashes("").unwrap();
    let newer = png(&waves(2000, 64, 48));
    let shard = sluice_testkit::Shard::new().with("newer.png", newer);
    gallery.put("00006.tar", shard.finish());
    let said = gallery.curate(&OPTIONS);
    let counts = run.counts("export-decide").unwrap();
    assert_eq!((counts.input, counts.kept), (50, 14), "{counts:?}");
    let done = self::done(&said);
    for step in ["read", "embed", "aesthetic", "nsfw"] {
        assert_eq!(done[step], (1, 4), "{step}");
    }
    for path in changed(&before, &run.hashes("").unwrap()) {
        // Receipts tell how many partitions there are.
        let (stage, rest) = path.split_once('/').unwrap_or((&path, ""));
        if ["read", "embed", "aesthetic", "nsfw"].contains(&stage) && !rest.starts_with("receipts")
        {
            assert!(rest.contains("part-00003."), "{path} changed");
        }
    }
    assert!(gallery.curate(&OPTIONS).up_to_date);
    gallery.verify();

    // And one less: nothing of its partition is left.
    std::fs::remove_file(gallery.at("input/00006.tar")).unwrap();
    let said = gallery.curate(&OPTIONS);
    assert_eq!(said.result["funnel"]["in"], 49, "{}", said.err);
    for step in ["read", "embed", "aesthetic", "nsfw"] {
        assert_eq!(self::done(&said)[step], (0, 3), "{step}");
    }
    let counts = run.counts("export-decide").unwrap();
    assert_eq!((counts.input, counts.kept), (49, 13), "{counts:?}");
    for (path, _) in run.hashes("").unwrap() {
        assert!(!path.contains("part-00003"), "{path} is left");
    }
    gallery.verify();
}

/// Everything but receipts (which tell how long it took), the run's own page and place.
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
    assert!(before.0.len() > 20 && before.1.len() == 8, "{before:?}");
    let said = gallery.curate(&[&OPTIONS[..], &["--force"]].concat());
    for (step, (done, total)) in done(&said) {
        assert_eq!(done, total, "{step}");
    }
    let after = (data(&run), data(&output));
    assert_eq!(changed(&before.0, &after.0), Vec::<String>::new());
    assert_eq!(changed(&before.1, &after.1), Vec::<String>::new());

    // How many threads there are changes nothing.
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
    let scores = |batch_size: &str| -> Vec<ScoreRow> {
        let program = ["sluice-nsfw", "--run", &run.uri, "--models", &models];
        let settings = [
            "--model",
            "tiny-shame",
            "--force",
            "--batch-size",
            batch_size,
        ];
        sluice_tests::run(&[&program[..], &settings].concat()).unwrap();
        run.rows("nsfw/scores").unwrap()
    };
    for (all, few) in scores("32").iter().zip(scores("3")) {
        assert_eq!((&all.image_id, all.keep), (&few.image_id, few.keep));
        assert!((all.score - few.score).abs() < 1e-5, "{all:?} {few:?}");
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
        "dedup/duplicates/exact-00000.parquet",
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
