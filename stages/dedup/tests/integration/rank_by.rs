//! The score that decides which image of a group stays.

use sluice_manifest::{Class, Error};

use super::support::{Made, Run, made, pairs};

/// Three that are equal in all ways: the largest, the one with the highest score, one without a
/// score. A filter drops `a/0`, which the scorer saw, and `b/0` is rejected.
fn run(name: &str) -> Run {
    let first = made("a/1", 1);
    let run = Run::new(
        name,
        &[
            Made {
                score: Some(9.0),
                ..made("a/0", 2)
            },
            Made {
                score: Some(5.0),
                ..first
            },
            Made {
                id: "a/2",
                pixels: 150,
                ..first
            },
            made("b/0", 0),
            Made {
                id: "b/1",
                pixels: 200,
                score: Some(1.0),
                ..first
            },
        ],
    );
    run.embed("embed", |sample| sample.content > 0);
    run.score("aesthetic", |sample| sample.content > 0);
    run.filter("filter", |sample| sample.id != "a/0");
    run
}

const METHODS: [&str; 3] = ["exact", "perceptual", "semantic"];

#[test]
fn without_a_score_the_largest_stays() {
    let run = run("rank-none");
    for method in METHODS {
        let flags = format!("--step={method} --methods={method} --survivors-of=filter");
        run.dedup_all(&flags);
        let expected = pairs(&[("a/1", "b/1"), ("a/2", "b/1")]);
        assert_eq!(run.removed(method), expected, "{method}");
    }
}

#[test]
fn the_highest_score_stays() {
    let run = run("rank-score");
    for method in METHODS {
        let flags = format!("--step={method} --methods={method} --survivors-of=filter");
        run.dedup_all(&format!("{flags} --rank-by=aesthetic"));
        let expected = pairs(&[("a/2", "a/1"), ("b/1", "a/1")]);
        assert_eq!(run.removed(method), expected, "{method}");
    }
}

#[test]
fn the_score_may_be_named_by_its_output() {
    let run = run("rank-output");
    run.dedup("exact --methods=exact --rank-by=aesthetic.score")
        .unwrap();
    assert_eq!(
        run.removed("dedup"),
        pairs(&[("a/2", "a/1"), ("b/1", "a/1")])
    );
}

#[test]
fn a_score_that_is_not_there_is_refused() {
    let run = run("rank-missing");
    for (words, class) in [
        ("exact --rank-by=aesthetic.beauty", Class::Usage),
        ("exact --rank-by=embed", Class::Usage),
        ("exact --rank-by=clip", Class::Data),
    ] {
        let error = run.dedup(words).unwrap_err();
        let error = error.downcast_ref::<Error>().unwrap();
        assert_eq!(error.class(), class, "{words}: {error}");
    }
}
