//! A pipeline with every kind of score and of decision, on real photographs.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, AsArray};
use arrow::datatypes::Float32Type;
use serde_json::Value;
use sluice_manifest::UnitKind;
use sluice_manifest::rows::{DecisionRow, SampleRow};
use sluice_tests::{Run, demo_input, models, python, sluice};

use crate::gallery::verify;
use crate::support::word;

const PIPELINE: &str = r#"
[parameters]
kinds = { value = "URI", help = "Table of how much each kind of picture is liked" }
command = { value = "COMMAND", help = "Program that scores how sharp an image is" }
sharp = "1.0"

[[steps]]
stage = "partition"
shards-per-partition = 2

[[steps]]
stage = "read"

[[steps]]
stage = "filter"
name = "usable"
rule = { large = "min(width, height) >= 64", whole = "!metadata.kind.startsWith('tile')" }

[[steps]]
stage = "dedup"
name = "exact"
methods = ["exact"]
ranges = 2

[[steps]]
stage = "embed"
model = "efficientnet-lite0"

[[steps]]
stage = "aesthetic"
name = "quality"
model = "technical-quality"

[[steps]]
stage = "nsfw"
model = "opennsfw"

[[steps]]
stage = "score"
name = "liked"
import = "${kinds}"
by = "metadata.kind"

[[steps]]
stage = "score"
name = "sharpness"
command = "${command}"

[[steps]]
stage = "filter"
min = { liked = 0.5, sharpness = "${sharp}" }
max = { nsfw = 0.9 }
rule = { bright = "quality >= 0.0" }

[[steps]]
stage = "dedup"
name = "near"
methods = ["perceptual", "semantic"]
rank-by = "sharpness"
eps = 0.15

[[steps]]
stage = "export"
images-per-shard = 20
"#;

/// One row repeats another, two conflict, and two kinds are missing.
const KINDS: &str = "\
kind,like
original,3
exact-copy,2
resized-50,1
brightened,1
png,1
webp,1
progressive,1
original,3
cropped-5,1
cropped-5,2
jpeg-q60,0.1
";

/// The kinds of pictures that may be kept.
const LIKED: [&str; 7] = [
    "original",
    "exact-copy",
    "resized-50",
    "brightened",
    "png",
    "webp",
    "progressive",
];

/// Returns the `kind` in a sample's metadata.
fn kind(metadata: &str) -> String {
    let metadata: Value = serde_json::from_str(metadata).unwrap();
    metadata["kind"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_pipeline_with_scores_of_every_kind_curates_photographs() {
    let (Some(input), Some(python)) = (demo_input(), python("pyarrow, PIL")) else {
        return;
    };
    let Some(models) = models(&["efficientnet-lite0", "opennsfw"]) else {
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| word(&place.path().join(name)).to_owned();
    let [file, table, run, output] = ["photos.toml", "kinds.csv", "run", "output"].map(at);
    std::fs::write(&file, PIPELINE).unwrap();
    std::fs::write(&table, KINDS).unwrap();
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../stages/score/examples/score_sharpness.py"
    );
    let settings = [
        format!("kinds={table}"),
        format!("command='{}' -B '{script}'", python.display()),
    ];
    let set = ["--set", &settings[0], "--set", &settings[1]];
    let checked = [&["pipeline", "check", &file], &set[..]].concat();
    let said = sluice(
        &[
            &checked[..],
            &["--set", &format!("models={}", word(&models))],
        ]
        .concat(),
    );
    let said = said.unwrap();
    assert!(said.out.contains("steps can run"), "{said:?}");

    let places = ["--input", word(&input), "--run", &run, "--output", &output];
    let command = ["run", "--pipeline", &file, "--models", word(&models)];
    let curate = || {
        let said = sluice(&[&command[..], &places, &set].concat()).unwrap();
        assert_eq!(said.failed, None, "{said:?}");
        said
    };
    let said = curate();
    eprintln!("{}", said.err);
    verify(&run);
    assert!(curate().up_to_date);

    let run = Run::at(&run).unwrap();
    check_decisions(&run);
    check_scores(&run, &Run::at(&output).unwrap());
}

/// Every step dropped something, for the expected reasons.
fn check_decisions(run: &Run) {
    let samples: Vec<SampleRow> = run.rows("read/images").unwrap();
    let decisions: Vec<DecisionRow> = run.rows("export/decisions").unwrap();
    let mut reasons = BTreeSet::new();
    for (sample, decision) in samples.iter().zip(&decisions) {
        assert_eq!(sample.image_id, decision.image_id);
        let kind = kind(sample.metadata.as_deref().unwrap_or("{}"));
        let reason = decision.reason.as_ref().map(ToString::to_string);
        let is_liked = LIKED.contains(&kind.as_str());
        match reason.as_deref() {
            None => assert!(is_liked, "{kind}: {decision:?}"),
            Some("rule:whole") => assert!(kind.starts_with("tile"), "{kind}: {decision:?}"),
            Some("below-min:liked") => assert_eq!(kind, "jpeg-q60", "{decision:?}"),
            // Not in the table, or in the table with two values.
            Some("not-scored:liked") => {
                assert!(!is_liked && kind != "jpeg-q60", "{kind}: {decision:?}");
            }
            Some(_) => {}
        }
        let step = decision.step.as_ref().map(ToString::to_string);
        reasons.extend(
            step.zip(reason)
                .map(|(step, reason)| format!("{step}/{reason}")),
        );
    }
    eprintln!("{reasons:?}");
    for expected in [
        "usable/rule:whole",
        "exact/exact-duplicate",
        "filter/below-min:liked",
        "filter/not-scored:liked",
        "near/perceptual-duplicate",
    ] {
        assert!(reasons.contains(expected), "{expected}: {reasons:?}");
    }
    // Images that the early steps dropped were not embedded.
    let exact = run.counts("exact", UnitKind::Exact).unwrap();
    let usable = run.counts("usable", UnitKind::Partition).unwrap();
    let embedded = run.counts("embed", UnitKind::Partition).unwrap();
    assert_eq!(embedded.input, usable.kept - exact.dropped_total());
    let receipts = run.receipts("liked").unwrap();
    let about = &receipts.values().next().unwrap().about["table"];
    assert!(
        about.contains("1 repeated, 1 in conflict for 1 keys"),
        "{about}"
    );
}

/// The output has a column for each score, with the values of the steps.
fn check_scores(run: &Run, output: &Run) {
    let liked: BTreeMap<&str, f32> = KINDS
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(','))
        .map(|(kind, score)| (kind, score.parse().unwrap()))
        .collect();
    let mut rows = 0;
    for object in output.store.list("").unwrap() {
        if !object.path.ends_with(".parquet") {
            continue;
        }
        for batch in output.store.any_table(&object.path).unwrap() {
            let batch = batch.unwrap();
            let ids = batch["image_id"].as_string::<i32>();
            let metadata = batch["metadata"].as_string::<i32>();
            let scores = batch["liked"].as_primitive::<Float32Type>();
            for row in 0..batch.num_rows() {
                let kind = kind(metadata.value(row));
                assert_eq!(scores.value(row), liked[kind.as_str()], "{kind}");
            }
            for name in ["quality", "nsfw", "sharpness"] {
                let given: BTreeMap<String, f32> = run.scores(name).unwrap().into_iter().collect();
                let scores = batch[name].as_primitive::<Float32Type>();
                assert_eq!(scores.null_count(), 0, "{name}");
                for (id, score) in ids.iter().zip(scores.values()) {
                    assert_eq!(given[id.unwrap()], *score, "{name} of {id:?}");
                }
            }
            rows += batch.num_rows() as u64;
        }
    }
    let kept = run.counts("export", UnitKind::Partition).unwrap().kept;
    assert_eq!(rows, kept);
    assert!(rows > 20, "{rows}");
}
