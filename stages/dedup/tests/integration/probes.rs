//! `--probes`: duplicates on both sides of the border of two clusters. There are as many clusters as
//! images, so that each image has one of its own.

use super::support::{Made, Run, made, pairs};

/// Two images are like each other: those of 44 and 46 degrees.
fn samples() -> Vec<Made> {
    let at = |id, content, degrees| Made {
        degrees: Some(degrees),
        ..made(id, content)
    };
    vec![
        at("a/0", 1, 0.0),
        at("a/1", 2, 20.0),
        Made {
            pixels: 200,
            ..at("a/2", 3, 44.0)
        },
        at("b/0", 4, 46.0),
        at("b/1", 5, 70.0),
        at("b/2", 6, 90.0),
    ]
}

fn run(name: &str) -> Run {
    let run = Run::new(name, &samples());
    run.embed("embed", |_| true);
    run
}

#[test]
fn borders_are_crossed_where_it_is_asked_for() {
    let run = run("probes-border");
    let flags = "--methods=semantic --clusters=6";
    run.dedup_all(&format!("{flags} --step=one"));
    assert_eq!(run.removed("one"), []);
    for groups in ["1", "2"] {
        let step = format!("two-{groups}");
        run.dedup_all(&format!(
            "{flags} --step={step} --probes=2 --groups={groups}"
        ));
        assert_eq!(run.removed(&step), pairs(&[("b/0", "a/2")]));
        assert_eq!(run.survivors_of(&step).len(), 5);
    }
}

#[test]
fn every_rule_leaves_one_image_of_a_group() {
    let run = run("probes-rules");
    for keep in ["best", "hard", "easy", "random"] {
        let flags = "--methods=semantic --clusters=6 --probes=2";
        run.dedup_all(&format!("{flags} --step={keep} --keep={keep}"));
        assert_eq!(run.removed(keep).len(), 1, "{keep}");
    }
}

#[test]
fn more_probes_than_clusters_are_all_clusters() {
    let run = run("probes-many");
    run.dedup_all("--methods=semantic --clusters=6 --probes=64");
    assert_eq!(run.removed("dedup"), pairs(&[("b/0", "a/2")]));
}

#[test]
fn an_image_in_a_reference_set_removes_nothing_in_another_cluster() {
    let like = Made {
        degrees: Some(42.5),
        ..made("a/like", 9)
    };
    let bench = Run::new("probes-reference-bench", &[like]);
    bench.embed("embed", |_| true);
    let index = "memory://probes-reference/index";
    bench.dedup(&format!("index --output {index}")).unwrap();
    let run = run("probes-reference");
    // `a/2` is like the one in the set; `b/0` is like `a/2` alone.
    let flags = "--methods=semantic --clusters=6 --probes=2 --eps=0.001";
    run.dedup_all(&format!("{flags} --against={index}"));
    assert_eq!(run.removed("dedup"), pairs(&[("a/2", "a/like")]));
}

#[test]
fn partitions_with_different_probes_are_refused() {
    let run = run("probes-mixed");
    let flags = "--methods=semantic --clusters=6";
    run.dedup(&format!("fit {flags}")).unwrap();
    let assign = |probes: u32, part: &str| {
        let words = "assign --methods=semantic";
        run.dedup(&format!("{words} --probes={probes} --partitions={part}"))
    };
    assign(1, "0").unwrap();
    assign(2, "1").unwrap();
    let error = run.dedup("match --methods=semantic").unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("--probes 2"), "{text}");
}
