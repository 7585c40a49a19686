//! `sluice-filter --sample-per-cluster` on the clusters of `assign`.

use sluice_harness::run_step;
use sluice_manifest::{Counts, ReasonKind, StepName, Unit, UnitKind};

use super::support::{Made, Run, made, shared};

/// Two clusters far apart, of five images and of two, and one image without an embedding. The first of
/// the large cluster is a duplicate of the second.
fn run(name: &str) -> Run {
    let at = |id, content, degrees| Made {
        degrees,
        ..made(id, content)
    };
    let samples = [
        at("a/0", 1, Some(0.0)),
        Made {
            pixels: 200,
            ..at("a/1", 2, Some(0.01))
        },
        at("a/2", 3, Some(8.0)),
        at("b/3", 4, Some(12.0)),
        at("b/4", 5, Some(20.0)),
        at("b/5", 6, Some(150.0)),
        at("c/6", 7, Some(170.0)),
        at("c/7", 8, None),
    ];
    let run = Run::new(name, &samples);
    run.embed("embed", |_| true);
    run.dedup_all("--methods=semantic --clusters=2 --eps=0.0001");
    assert_eq!(run.removed("dedup").len(), 1);
    run
}

fn sample(run: &Run, words: &str) -> anyhow::Result<()> {
    let words = format!(
        "sluice-filter --run {} --survivors-of dedup {words}",
        run.uri()
    );
    let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
    run_step::<sluice_filter::Args>(&words, shared()).map(drop)
}

#[test]
fn large_clusters_are_cut_and_small_ones_stay() {
    let run = run("sampling-rules");
    for (by, expected) in [
        ("nearest", &["a/2", "b/3", "b/5", "c/6"][..]),
        ("farthest", &["a/1", "b/4", "b/5", "c/6"]),
    ] {
        let words = format!("--step {by} --sample-per-cluster 2 --sample-by {by}");
        sample(&run, &words).unwrap();
        assert_eq!(run.survivors_of(by), expected, "{by}");
    }
    sample(&run, "--step all --sample-per-cluster 4").unwrap();
    assert_eq!(run.survivors_of("all").len(), 6);
    let context = run.open("later", None);
    let step = StepName::fixed("nearest");
    let mut counts = Counts::default();
    for number in 0..3 {
        let unit = Unit::new(UnitKind::Partition, number);
        counts.merge(&context.required_receipt(&step, unit).unwrap().counts);
    }
    let dropped = counts.dropped.iter();
    let dropped = dropped.map(|(dropped, count)| (dropped.reason.kind, *count));
    let expected = [(ReasonKind::NotScored, 1), (ReasonKind::ClusterFull, 2)];
    assert_eq!(dropped.collect::<Vec<_>>(), expected);
}

#[test]
fn a_random_sample_depends_on_the_seed_alone() {
    let run = run("sampling-random");
    let of = |step: &str, words: &str| {
        sample(
            &run,
            &format!("--step {step} --sample-per-cluster 2 {words}"),
        )
        .unwrap();
        run.survivors_of(step)
    };
    let one = of("one", "--seed 1 --jobs 3");
    assert_eq!(one.len(), 4);
    for task in ["2", "0", "1"] {
        let words = "--step tasks --sample-per-cluster 2 --seed 1";
        let words = format!("{words} --task-index {task} --task-count 3");
        sample(&run, &words).unwrap();
    }
    assert_eq!(run.survivors_of("tasks"), one);
    let others = (2..12).map(|seed| of(&format!("seed-{seed}"), &format!("--seed {seed}")));
    assert!(others.into_iter().any(|other| other != one));
}

#[test]
fn a_step_without_clusters_is_refused() {
    let run = run("sampling-none");
    run.filter("plain", |_| true);
    run.dedup_all("--step=unique --methods=exact");
    for (step, words) in [
        ("plain", "it has no clusters"),
        ("unique", "it has no clusters"),
        ("later", "no such receipt"),
    ] {
        let line = format!("--step sampled --sample-per-cluster 2 --clusters-of {step}");
        let error = format!("{:#}", sample(&run, &line).unwrap_err());
        assert!(error.contains(step) && error.contains(words), "{error}");
    }
}
