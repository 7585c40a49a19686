//! `plan`: what it refuses. How it packs is tested beside the packing.

use sluice_manifest::rows::OutputPlanRow;

use crate::support::{Run, exit, samples, words};

fn decided(name: &str) -> Run {
    let run = Run::new(name);
    run.shard("a.tar", &samples(0..10));
    run.shard("b.tar", &samples(10..24));
    run.read(1);
    run.export(&["decide", "--filters", ""]).unwrap();
    run
}

#[test]
fn the_plan_needs_the_decisions() {
    let run = Run::new("plan-early");
    run.shard("a.tar", &samples(0..3));
    run.read(1);
    let text = words(run.plan(&[]));
    assert!(text.contains("sluice-export decide"), "{text}");
    assert_eq!(exit(run.plan(&[])), 3);
}

#[test]
fn outputs_that_would_overwrite_something_are_refused() {
    let run = decided("plan-outputs");
    for folder in ["run", "in", "in/curated"] {
        let output = format!("{}/{folder}", run.base);
        let outcome = || run.export(&["plan", "--output", &output]);
        let text = words(outcome());
        assert!(text.contains(&format!("--output {output}")), "{text}");
        assert_eq!(exit(outcome()), 2);
    }
}

#[test]
fn a_sample_larger_than_a_shard_is_refused() {
    let run = decided("plan-large");
    let text = words(run.plan(&["--bytes-per-shard", "10"]));
    assert!(
        text.contains("--bytes-per-shard 10: the largest sample has"),
        "{text}"
    );
    assert_eq!(exit(run.plan(&["--bytes-per-shard", "10"])), 2);
    let both = ["--bytes-per-shard", "10", "--images-per-shard", "10"];
    assert!(words(run.plan(&both)).contains("cannot be used with"));
}

#[test]
fn decisions_under_different_filters_are_refused() {
    let run = decided("plan-mixed");
    run.embed();
    run.score(&sluice_manifest::dag::NSFW, |_| true);
    let some = ["decide", "--filters", "nsfw", "--partitions", "1"];
    run.export(&some).unwrap();
    let text = words(run.plan(&[]));
    assert!(
        text.contains("part-00000") && text.contains("part-00001"),
        "{text}"
    );
    assert_eq!(exit(run.plan(&[])), 3);
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
