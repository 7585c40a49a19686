//! `decide`: one decision for every sample, with its stage, reason and score.

use sluice_manifest::rows::DecisionRow;
use sluice_manifest::{Partition, Reason, Receipt, dag};

use crate::support::{Run, exit, of_read, samples, score, words};

fn decisions(run: &Run) -> Vec<DecisionRow> {
    let paths = run.store("run").list("export/decisions").unwrap();
    let rows = paths.iter().map(|object| run.rows(&object.path));
    rows.flatten().collect()
}

fn receipt(run: &Run, unit: &str) -> Receipt {
    let path = format!("export/receipts/{unit}.json");
    serde_json::from_slice(&run.store("run").get(&path).unwrap()).unwrap()
}

#[test]
fn without_filters_only_what_read_set_aside_goes() {
    let run = Run::new("decide-none");
    run.shard("a.tar", &samples(0..10));
    run.shard("b.tar", &samples(10..24));
    run.read(1);
    assert_eq!(run.export(&["decide", "--filters", ""]).unwrap(), (2, 0));
    let (rows, read) = (decisions(&run), run.samples());
    assert_eq!(rows.len(), 24);
    for (row, sample) in rows.iter().zip(&read) {
        assert_eq!(row.image_id, sample.image_id);
        assert_eq!(row.reason, sample.reason);
        assert_eq!(row.keep, sample.reason.is_none());
        assert_eq!(row.stage.as_deref(), row.reason.map(|_| "read"));
        let bytes: u64 = sample.members.iter().map(|member| member.size).sum();
        assert_eq!(row.bytes, bytes);
    }
    let kept: Vec<u64> = rows[10..]
        .iter()
        .filter(|r| r.keep)
        .map(|r| r.bytes)
        .collect();
    let receipt = receipt(&run, "part-00001");
    assert_eq!(receipt.counts.kept, kept.len() as u64);
    assert_eq!(receipt.sums["kept_bytes"], kept.iter().sum::<u64>());
    assert_eq!(receipt.sums["largest_kept"], *kept.iter().max().unwrap());
    assert_eq!(receipt.sums["last_kept"], *kept.last().unwrap());
}

#[test]
fn each_filter_gives_its_reason() {
    let run = Run::new("decide-filters");
    run.shard("a.tar", &samples(0..30));
    run.read(1);
    run.embed();
    run.score(&dag::AESTHETIC, |sample| score(sample) >= 0.25);
    run.score(&dag::NSFW, |sample| score(sample) < 0.75);
    let read = run.samples();
    let twin = read
        .iter()
        .find(|s| s.reason.is_none() && (0.25..0.75).contains(&score(s)));
    run.dedup(&[(Partition(0), twin.unwrap())]);
    assert_eq!(run.export(&["decide"]).unwrap(), (1, 0));
    for (row, sample) in decisions(&run).iter().zip(&read) {
        let reason = match sample.reason {
            Some(reason) => Some(reason),
            None if score(sample) < 0.25 => Some(Reason::BelowMinScore),
            None if score(sample) >= 0.75 => Some(Reason::MaxScoreReached),
            None if twin == Some(sample) => Some(Reason::ExactDuplicate),
            None => None,
        };
        assert_eq!(row.reason, reason, "{}", row.image_id);
        assert_eq!(row.stage.as_deref(), reason.map(Reason::stage));
        let scored = reason.filter(|&reason| !of_read(reason));
        assert_eq!(row.score.is_some(), scored.is_some());
    }
    assert_eq!(run.export(&["decide"]).unwrap(), (1, 1), "up to date");
    let reordered = ["decide", "--filters", "dedup,nsfw,aesthetic"];
    assert_eq!(run.export(&reordered).unwrap(), (1, 1), "the same filters");
    let fewer = ["decide", "--filters", "aesthetic"];
    assert_eq!(run.export(&fewer).unwrap(), (1, 0), "other filters");
}

#[test]
fn a_filter_that_did_not_run_is_named() {
    let run = Run::new("decide-missing");
    run.shard("a.tar", &samples(0..3));
    run.read(1);
    let missing = || run.export(&["decide", "--filters", "nsfw"]);
    let text = words(missing());
    assert!(
        text.contains("filter nsfw") && text.contains("sluice-nsfw"),
        "{text}"
    );
    assert_eq!(exit(missing()), 3);
    assert_eq!(exit(run.export(&["decide", "--filters", "beauty"])), 2);
}
