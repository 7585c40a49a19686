//! `plan`: what it rejects, and which scores it chooses. Packing is tested in its module.

use clap::Parser;
use sluice_export::Args;
use sluice_export::plan::PlanSettings;
use sluice_harness::Program;
use sluice_manifest::rows::OutputPlanRow;
use sluice_manifest::{Class, Error, ScoreColumn, StepName};
use sluice_run::{Embedder, StepOutputs, Upstream};

use crate::support::{Run, exit, samples, shared, words};

fn read(name: &str) -> Run {
    let run = Run::new(name);
    run.shard("a.tar", &samples(0..10));
    run.shard("b.tar", &samples(10..24));
    run.read(1);
    run
}

fn decided(name: &str) -> Run {
    let run = read(name);
    run.decide(None).unwrap();
    run
}

/// Creates a run with two scorers, an early filter by the first, dedup ranked by the second, and a
/// filter by the second.
fn chain(name: &str) -> Run {
    let run = read(name);
    for scorer in ["clear", "aesthetic", "unused"] {
        run.score(scorer, &["score"]);
    }
    run_chain(&run, 0.2);
    run
}

fn run_chain(run: &Run, threshold: f32) {
    run.filter("usable", None, "clear", threshold);
    after_usable(run);
}

fn after_usable(run: &Run) {
    run.dedup("dedup", Some("usable"), "aesthetic", &[]);
    run.filter("filter", Some("dedup"), "aesthetic", 0.1);
    run.decide(Some("filter")).unwrap();
}

/// Returns the score columns that a plan chose.
fn columns(run: &Run) -> Vec<String> {
    let receipt = run.receipt("export/receipts/plan.json");
    let settings: PlanSettings = receipt.settings().unwrap();
    let scores = settings.scores.into_iter();
    scores.map(|score| score.column).collect()
}

#[test]
fn the_plan_needs_the_decisions() {
    let run = read("plan-early");
    let text = words(run.plan(&[]));
    assert!(text.contains("sluice-export decide"), "{text}");
    assert_eq!(exit(run.plan(&[])), 3);
}

#[test]
fn outputs_that_would_overwrite_something_are_refused() {
    let run = decided("plan-outputs");
    run.store("mine").put("notes.txt", "x").unwrap();
    for folder in ["run", "run/out", "", "in", "in/curated", "mine"] {
        let output = format!("{}/{folder}", run.base);
        let output = output.trim_end_matches('/');
        let outcome = || run.export(&["plan", "--output", output]);
        let text = words(outcome());
        assert!(text.contains(&format!("--output {output}")), "{text}");
        assert_eq!(exit(outcome()), 2);
    }
    let text = words(run.export(&["plan", "--output", &format!("{}/mine", run.base)]));
    assert!(
        text.contains("notes.txt") && text.contains("hint"),
        "{text}"
    );
}

#[test]
fn an_interrupted_export_goes_on_and_another_replaces_it() {
    let run = decided("plan-ours");
    run.plan(&["--images-per-shard", "5"]).unwrap();
    run.export(&["write", "--partitions", "1"]).unwrap();
    assert_eq!(run.plan(&["--images-per-shard", "5"]).unwrap(), (1, 1));
    run.store("run")
        .delete("export/receipts/plan.json")
        .unwrap();
    run.plan(&["--images-per-shard", "5"]).unwrap();
    run.export(&["write"]).unwrap();
    run.export(&["index"]).unwrap();
    run.store("out").put("LICENSE", "x").unwrap();
    run.plan(&["--images-per-shard", "6"]).unwrap();
}

/// The number of units that a step did, and the number of all units.
type Done = anyhow::Result<(u64, u64)>;

/// Creates two runs of the same samples. Returns one, and a function that exports the other.
fn two_runs(name: &str) -> (Run, impl Fn(&[&str]) -> Done) {
    let run = decided(name);
    let uri = format!("{}/run", decided(&format!("{name}-second")).base);
    let second = move |words: &[&str]| {
        let words = words
            .iter()
            .map(|&word| word.to_owned())
            .collect::<Vec<_>>();
        let line = [
            vec!["sluice-export".to_owned()],
            words,
            vec!["--run".to_owned(), uri.clone()],
        ];
        let done = sluice_harness::run_step::<Args>(&line.concat(), shared())?;
        Ok((done.units, done.up_to_date))
    };
    (run, second)
}

#[test]
fn the_output_of_another_run_is_not_overwritten() {
    let (run, second) = two_runs("plan-claims");
    run.export_all(None, &["--images-per-shard", "5"]);
    let before = run.output();
    let output = format!("{}/out", run.base);
    let plan = ["plan", "--output", &output, "--images-per-shard", "20"];
    let text = words(second(&plan));
    assert!(
        text.contains("the run ../run") && text.contains("--overwrite"),
        "{text}"
    );
    assert_eq!(exit(second(&plan)), 2);
    assert_eq!(run.output(), before);

    // The second run takes it over: nothing of the first remains, and the first one notices.
    second(&[&plan[..], &["--overwrite"]].concat()).unwrap();
    for subcommand in ["write", "index"] {
        let text = words(run.export(&[subcommand, "--force"]));
        assert!(text.contains("-second/run"), "{text}");
        assert_eq!(exit(run.export(&[subcommand])), 2);
    }
    second(&["write"]).unwrap();
    second(&["index"]).unwrap();
    let names: Vec<String> = run.output().into_keys().collect();
    assert_eq!(names.len(), 2 * 2 + 4, "{names:?}");
    // It belongs to the second one without repeating the flag.
    assert_eq!(second(&plan).unwrap(), (1, 1));
}

/// The claim names the run by its identity: neither another run at its path nor a copy of its output
/// elsewhere makes the output somebody else's.
#[test]
fn a_claim_is_of_a_run_and_not_of_a_path() {
    let run = decided("plan-identity");
    run.export_all(None, &[]);
    let (place, claim) = (
        run.store("run"),
        run.store("out").get(".sluice.json").unwrap(),
    );
    let info = place.get("run.json").unwrap();
    let id = serde_json::from_slice::<serde_json::Value>(&info).unwrap()["id"].clone();
    let claimed: serde_json::Value = serde_json::from_slice(&claim).unwrap();
    assert!(id.as_str().is_some_and(|id| !id.is_empty()));
    assert_eq!(claimed["id"], id);
    let with = |name: &str, value: &str| {
        let mut claim = claimed.clone();
        claim[name] = value.into();
        run.store("out")
            .put(".sluice.json", claim.to_string())
            .unwrap();
    };
    with("id", "another");
    for subcommand in ["write", "index"] {
        let text = words(run.export(&[subcommand, "--force"]));
        assert!(text.contains("an earlier run at ../run"), "{text}");
    }
    assert_eq!(exit(run.plan(&["--force"])), 2);
    with("run", "../moved");
    run.export(&["write", "--force"]).unwrap();
    run.plan(&["--force"]).unwrap();
    assert_eq!(run.store("out").get(".sluice.json").unwrap(), claim);
}

#[test]
fn two_exports_of_a_run_do_not_share_an_output() {
    let run = decided("plan-steps");
    run.plan(&[]).unwrap();
    run.export(&["decide", "--step", "again"]).unwrap();
    let text = words(run.plan(&["--step", "again"]));
    assert!(text.contains("step export"), "{text}");
}

#[test]
fn an_output_of_an_older_version_is_claimed_by_its_run_alone() {
    let (run, second) = two_runs("plan-older");
    run.export_all(None, &[]);
    run.store("out").delete(".sluice.json").unwrap();
    let output = format!("{}/out", run.base);
    assert_eq!(exit(second(&["plan", "--output", &output])), 2);
    // Its tasks continue, and the plan claims it.
    assert_eq!(run.export(&["write"]).unwrap(), (1, 1));
    assert_eq!(run.plan(&[]).unwrap(), (1, 1));
    assert!(run.output().contains_key(".sluice.json"));
}

#[test]
fn a_sample_larger_than_a_shard_is_refused() {
    let run = Run::new("plan-large");
    run.shard("a.tar", &samples(300..301)); // with a member of 3900 bytes
    run.read(1);
    run.decide(None).unwrap();
    let text = words(run.plan(&["--bytes-per-shard", "2048"]));
    assert!(
        text.contains("--bytes-per-shard 2048: the largest sample has"),
        "{text}"
    );
    assert_eq!(exit(run.plan(&["--bytes-per-shard", "2048"])), 2);
    let both = ["--bytes-per-shard", "2048", "--images-per-shard", "10"];
    assert!(words(run.plan(&both)).contains("cannot be used with"));
    for impossible in ["0", "1", "2047"] {
        let text = words(run.plan(&["--bytes-per-shard", impossible]));
        assert!(text.contains("is not in 2048.."), "{text}");
    }
}

#[test]
fn decisions_on_different_survivors_are_refused() {
    let run = chain("plan-mixed");
    let some = ["decide", "--survivors-of=usable", "--partitions", "1"];
    run.export(&some).unwrap();
    let text = words(run.plan(&[]));
    assert!(
        text.contains("part-00000") && text.contains("part-00001"),
        "{text}"
    );
    assert_eq!(exit(run.plan(&[])), 3);
}

#[test]
fn the_chain_is_that_of_decide() {
    let run = chain("plan-chain");
    run.plan(&["--survivors-of=filter"]).unwrap();
    let text = words(run.plan(&["--survivors-of=usable"]));
    assert!(text.contains("the survivors of filter"), "{text}");
    assert_eq!(exit(run.plan(&["--survivors-of=usable"])), 2);
    run.plan(&[]).unwrap();
    for subcommand in ["write", "index"] {
        let other = || run.export(&[subcommand, "--survivors-of=usable"]);
        assert_eq!(exit(other()), 2);
        run.export(&[subcommand, "--survivors-of=filter"]).unwrap();
    }
}

#[test]
fn stale_decisions_are_refused() {
    let run = chain("plan-stale");
    run.plan(&[]).unwrap();
    // The early filter accepts other samples, and dedup is not run again.
    run.filter("usable", None, "clear", 0.1);
    run.filter("filter", Some("dedup"), "aesthetic", 0.1);
    let decide = || run.decide(Some("filter"));
    let text = words(decide());
    assert!(
        text.contains("usable") && text.contains("hint: run the step dedup (exact) again"),
        "{text}"
    );
    assert_eq!(exit(decide()), 3);
    assert_eq!(exit(run.plan(&[])), 3);
    run_chain(&run, 0.1);
    run.plan(&[]).unwrap();
    // Decisions that are older than a filter.
    run.filter("filter", Some("dedup"), "aesthetic", 0.2);
    let text = words(run.plan(&[]));
    assert!(
        text.contains("run the step export (decide) again"),
        "{text}"
    );
    // Receipts that an earlier pipeline left in the run are ignored.
    run.decide(Some("usable")).unwrap();
    run.plan(&[]).unwrap();
}

#[test]
fn units_with_different_settings_are_refused() {
    let run = chain("plan-thresholds");
    run.filter_by("usable", None, "clear", |unit| match unit.index {
        0 => 0.3,
        _ => 0.2,
    });
    after_usable(&run);
    let text = words(run.plan(&[]));
    assert!(text.contains("part-00000 and part-00001"), "{text}");
    assert_eq!(exit(run.plan(&[])), 3);
}

#[test]
fn scores_that_the_chain_reads_are_the_default() {
    let run = chain("plan-scores");
    run.plan(&[]).unwrap();
    assert_eq!(columns(&run), ["aesthetic", "clear"]);
    run.plan(&["--scores", "unused,clear"]).unwrap();
    assert_eq!(columns(&run), ["unused", "clear"]);
    run.decide(Some("usable")).unwrap();
    run.plan(&[]).unwrap();
    assert_eq!(columns(&run), ["clear"]);
    run.decide(None).unwrap();
    run.plan(&[]).unwrap();
    assert!(columns(&run).is_empty());
}

#[test]
fn scores_that_cannot_be_columns_are_refused() {
    let run = read("plan-columns");
    run.score("tags", &["cat", "dog"]);
    run.score("tags-cat", &["score"]);
    run.score("width", &["score"]);
    run.decide(None).unwrap();
    for (scores, word) in [
        ("tags,tags-cat", "\"tags_cat\""),
        ("width", "\"width\""),
        ("read", "gives no scores"),
    ] {
        let outcome = || run.plan(&["--scores", scores]);
        let text = words(outcome());
        assert!(text.contains(word), "{text}");
        assert_eq!(exit(outcome()), 2);
    }
    let missing = || run.plan(&["--scores=nsfw"]);
    assert!(words(missing()).contains("run the step nsfw first"));
    assert_eq!(exit(missing()), 3);
    run.plan(&["--scores=tags"]).unwrap();
    assert_eq!(columns(&run), ["tags_cat", "tags_dog"]);
}

#[test]
fn what_can_be_known_before_the_work_is_checked() {
    let mut upstream = Upstream::default();
    let mut give = |step, gives| upstream.insert(StepName::fixed(step), gives);
    give(
        "aesthetic",
        StepOutputs {
            scores: vec![ScoreColumn::named(ScoreColumn::ONLY)],
            ..StepOutputs::default()
        },
    );
    let model = "clip".to_owned();
    let embedder = Some(Embedder {
        model,
        dimension: None,
    });
    give(
        "dino",
        StepOutputs {
            embedder,
            ..StepOutputs::default()
        },
    );
    let base = "memory://export-plan-check";
    let plan = |flags: &[&str]| {
        let (run, output) = (format!("--run={base}/run"), format!("--output={base}/out"));
        let line = ["sluice-export", "plan", &run, &output];
        Args::try_parse_from(line.iter().chain(flags)).unwrap()
    };
    let check = |flags: &[&str]| plan(flags).check(&upstream).map(drop);
    check(&[]).unwrap();
    check(&["--scores=aesthetic", "--embeddings=dino"]).unwrap();
    for flags in [
        "--scores=nsfw",
        "--scores=dino",
        "--scores=aesthetic,aesthetic",
        "--embeddings",
    ] {
        let error = check(&[flags]).unwrap_err();
        let class = error.downcast_ref::<Error>().map(Error::class);
        assert_eq!(class, Some(Class::Usage), "{flags}");
    }
    let inside = format!("--output={base}/run/out");
    let line = [
        "sluice-export",
        "plan",
        &format!("--run={base}/run"),
        &inside,
    ];
    assert!(Args::parse_from(line).check(&upstream).is_err());
    let needs = |flags: &[&str]| plan(flags).needs().unwrap();
    let names = ["embed", "a", "b"].map(StepName::fixed);
    assert_eq!(needs(&["--scores=a,b", "--embeddings"]), names);
    assert!(needs(&["--embeddings=false"]).is_empty());
}

#[test]
fn a_plan_is_up_to_date_until_a_setting_changes() {
    let run = decided("plan-again");
    assert_eq!(run.plan(&["--images-per-shard", "7"]).unwrap(), (1, 0));
    assert_eq!(run.plan(&["--images-per-shard", "7"]).unwrap(), (1, 1));
    assert_eq!(run.plan(&["--images-per-shard", "8"]).unwrap(), (1, 0));
    let rows: Vec<OutputPlanRow> = run.rows("export/plan/plan.parquet");
    let shards: Vec<u32> = rows.iter().map(|row| row.shard).collect();
    assert_eq!(
        shards,
        [0, 1, 1, 2],
        "9 and 12 of 24 samples stay: 8, 1 + 7, 5"
    );
}
