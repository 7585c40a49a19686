//! Which methods a step has, and what each method compares.

use std::collections::BTreeSet;

use sluice_manifest::rows::Method;
use sluice_manifest::{Dropped, ReasonKind, StepName, Unit, UnitKind};

use super::support::{Made, Run, made, pairs};

/// `a/1` and `b/1` are equal, `a/2` looks like them, `b/3` means the same, `a/4` is like no other.
fn samples() -> Vec<Made> {
    let first = made("a/1", 1);
    vec![
        first,
        Made {
            phash: first.phash ^ 0b11,
            pixels: 150,
            ..made("a/2", 2)
        },
        made("a/4", 4),
        made("b/0", 0),
        Made {
            id: "b/1",
            pixels: 200,
            ..first
        },
        Made {
            degrees: Some(31.0),
            ..made("b/3", 3)
        },
    ]
}

fn run(name: &str) -> Run {
    let run = Run::new(name, &samples());
    run.embed("embed", |sample| sample.content > 0);
    run
}

fn compared(run: &Run, step: &str, unit: Unit) -> u64 {
    run.receipt(step, unit).unwrap().counts.input
}

#[test]
fn each_method_compares_what_the_ones_before_left() {
    let run = run("methods-all");
    run.dedup_all("");
    let removed = pairs(&[("a/1", "b/1"), ("a/2", "b/1"), ("b/3", "b/1")]);
    assert_eq!(run.removed("dedup"), removed);
    let units = [UnitKind::Exact, UnitKind::Perceptual, UnitKind::Group].map(Unit::once);
    assert_eq!(units.map(|unit| compared(&run, "dedup", unit)), [5, 4, 3]);
    let decides = [UnitKind::Exact, UnitKind::Perceptual, UnitKind::Group];
    for (unit, reason) in units.into_iter().zip([
        ReasonKind::ExactDuplicate,
        ReasonKind::PerceptualDuplicate,
        ReasonKind::SemanticDuplicate,
    ]) {
        let receipt = run.receipt("dedup", unit).unwrap();
        assert_eq!(receipt.decides, decides);
        let dropped = Dropped {
            step: StepName::fixed("dedup"),
            reason: reason.into(),
        };
        assert_eq!(receipt.counts.dropped[&dropped], 1);
    }
    for unit in [Unit::once(UnitKind::Fit), Unit::once(UnitKind::Partition)] {
        assert_eq!(run.receipt("dedup", unit).unwrap().decides, []);
    }
    assert_eq!(run.survivors_of("dedup"), ["a/4", "b/1"]);
}

#[test]
fn methods_that_are_not_asked_for_exclude_nothing() {
    let run = run("methods-some");
    run.dedup_all("--step=p --methods=perceptual");
    assert_eq!(run.removed("p"), pairs(&[("a/1", "b/1"), ("a/2", "b/1")]));
    assert_eq!(run.kinds("p"), BTreeSet::from([UnitKind::Perceptual]));
    run.dedup_all("--step=s --methods=semantic");
    assert_eq!(run.removed("s"), pairs(&[("a/1", "b/1"), ("b/3", "b/1")]));
    run.dedup_all("--step=es --methods=semantic,exact");
    assert_eq!(compared(&run, "es", Unit::once(UnitKind::Group)), 4);
    assert_eq!(run.survivors_of("es"), ["a/2", "a/4", "b/1"]);
}

#[test]
fn a_subcommand_of_no_active_method_is_refused() {
    let run = run("methods-refused");
    for words in ["fit --methods=exact,perceptual", "exact --methods=semantic"] {
        let error = run.dedup(words).unwrap_err().to_string();
        assert!(error.contains("--methods"), "{error}");
    }
}

#[test]
fn units_of_methods_that_went_are_removed() {
    let run = run("methods-shrink");
    run.dedup_all("--ranges=2");
    let all = BTreeSet::from([
        UnitKind::Exact,
        UnitKind::Pairs,
        UnitKind::Perceptual,
        UnitKind::Fit,
        UnitKind::Partition,
        UnitKind::Group,
    ]);
    assert_eq!(run.kinds("dedup"), all);

    // Two tasks, the second of which finds nothing to remove.
    for task in 0..2 {
        let task = format!("--task-index={task} --task-count=2");
        run.dedup(&format!("exact --methods=exact --ranges=2 {task}"))
            .unwrap();
        assert_eq!(run.kinds("dedup"), BTreeSet::from([UnitKind::Exact]));
    }
    assert_eq!(run.survivors_of("dedup"), ["a/2", "a/4", "b/1", "b/3"]);

    run.dedup_all("--methods=exact,semantic");
    assert_eq!(run.survivors_of("dedup"), ["a/2", "a/4", "b/1"]);
    run.dedup("fit --methods=semantic").unwrap();
    let semantic = [UnitKind::Fit, UnitKind::Partition, UnitKind::Group];
    assert_eq!(run.kinds("dedup"), BTreeSet::from(semantic));
    run.dedup_all("--methods=semantic");
    assert_eq!(run.survivors_of("dedup"), ["a/2", "a/4", "b/1"]);
    assert_eq!(
        run.removed("dedup"),
        pairs(&[("a/1", "b/1"), ("b/3", "b/1")])
    );

    run.dedup_all("--ranges=2");
    assert_eq!(run.kinds("dedup"), all);
    assert_eq!(run.survivors_of("dedup"), ["a/4", "b/1"]);
}

#[test]
fn parts_of_a_step_must_agree() {
    let run = run("methods-agree");
    run.filter("filter", |_| true);
    run.dedup("exact --methods=exact,perceptual").unwrap();
    for words in [
        "perceptual",
        "perceptual --methods=exact,perceptual --survivors-of=filter",
    ] {
        let error = run.dedup(words).unwrap_err();
        let error = format!("{error:#}");
        assert!(
            error.contains("exact-00000 was not made with the same --methods"),
            "{error}"
        );
    }
    run.dedup("fit --methods=semantic").unwrap();
    run.dedup("assign --methods=semantic").unwrap();
    let error = run
        .dedup("match --methods=semantic --survivors-of=filter")
        .unwrap_err();
    assert!(error.to_string().contains("part-00000"), "{error}");
}

#[test]
fn steps_follow_each_other() {
    let run = run("methods-steps");
    run.dedup_all("--step=early --methods=exact");
    run.dedup_all("--step=late --survivors-of=early");
    let removed = pairs(&[("a/2", "b/1"), ("b/3", "b/1")]);
    assert_eq!(run.removed("late"), removed);
    assert_eq!(run.survivors_of("late"), ["a/4", "b/1"]);
}

#[test]
fn an_image_that_a_filter_dropped_is_not_compared() {
    let run = run("methods-filter");
    run.filter("filter", |sample| sample.id != "b/1");
    run.dedup_all("--survivors-of=filter");
    assert_eq!(run.removed("dedup"), pairs(&[("a/1", "a/2")]));
    assert_eq!(run.survivors_of("dedup"), ["a/2", "a/4", "b/3"]);
}

#[test]
fn methods_work_in_order() {
    assert!(Method::Exact < Method::Perceptual && Method::Perceptual < Method::Semantic);
}
