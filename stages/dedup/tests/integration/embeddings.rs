//! How `assign` joins survivors and embeddings.

use sluice_manifest::{Unit, UnitKind};

use super::support::{Made, Run, made, pairs};

/// All in one direction, but for `a/2`, which has no embedding.
fn samples() -> Vec<Made> {
    let ids = ["a/1", "a/2", "a/3", "a/4", "b/1", "b/2"];
    let samples = ids.into_iter().zip(1..);
    let samples = samples.map(|(id, content)| Made {
        degrees: (id != "a/2").then_some(content as f32 / 10.0),
        pixels: 100 - u32::from(content),
        ..made(id, content)
    });
    samples.collect()
}

#[test]
fn a_sample_without_an_embedding_stays() {
    let run = Run::new("embeddings-missing", &samples());
    run.embed("embed", |_| true);
    run.dedup_all("--methods=semantic");
    let first = run
        .receipt("dedup", Unit::once(UnitKind::Partition))
        .unwrap();
    assert_eq!((first.counts.input, first.counts.kept), (4, 4));
    assert_eq!(first.sums.not_embedded, 1);
    let second = run
        .receipt("dedup", Unit::new(UnitKind::Partition, 1))
        .unwrap();
    assert_eq!((second.counts.kept, second.sums.not_embedded), (2, 0));
    let fit = run.receipt("dedup", Unit::once(UnitKind::Fit)).unwrap();
    assert_eq!((fit.sums.sample, fit.sums.clusters), (5, 1));
    let matched = run.receipt("dedup", Unit::once(UnitKind::Group)).unwrap();
    assert_eq!(matched.counts.input, 5);
    assert_eq!(run.survivors_of("dedup"), ["a/1", "a/2"]);
}

#[test]
fn the_encoder_may_have_seen_more_or_fewer_samples() {
    let run = Run::new("embeddings-other", &samples());
    run.embed("embed", |sample| sample.id != "a/4");
    run.filter("filter", |sample| !["a/1", "b/1"].contains(&sample.id));
    run.dedup_all("--methods=semantic --survivors-of=filter");
    assert_eq!(run.removed("dedup"), pairs(&[("b/2", "a/3")]));
    assert_eq!(run.survivors_of("dedup"), ["a/2", "a/3", "a/4"]);
    let first = run
        .receipt("dedup", Unit::once(UnitKind::Partition))
        .unwrap();
    assert_eq!((first.counts.kept, first.sums.not_embedded), (3, 2));
}

#[test]
fn no_embedding_at_all_removes_nothing() {
    let run = Run::new("embeddings-none", &samples());
    run.embed("embed", |sample| sample.id == "a/2");
    run.dedup_all("--methods=semantic");
    assert!(run.removed("dedup").is_empty());
    assert_eq!(run.survivors_of("dedup").len(), 6);
}

#[test]
fn embeddings_are_those_of_the_step_that_is_named() {
    let run = Run::new("embeddings-named", &samples());
    run.embed("clip", |sample| sample.id < "b");
    assert!(run.dedup("fit").is_err());
    run.dedup_all("--methods=semantic --embeddings=clip");
    assert_eq!(
        run.removed("dedup"),
        pairs(&[("a/3", "a/1"), ("a/4", "a/1")])
    );
}

#[test]
fn embeddings_in_another_order_are_refused() {
    let mut run = Run::new("embeddings-order", &samples());
    run.samples[0].reverse();
    run.embed("embed", |_| true);
    run.dedup("fit").unwrap();
    let error = run.dedup("assign --methods=semantic").unwrap_err();
    assert!(error.to_string().contains("a/3 is not among"), "{error}");
}
