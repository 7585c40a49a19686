//! `sluice explain` for every fate that an image can have.

use serde_json::Value;
use sluice_harness::{Shared, run_step};
use sluice_manifest::Class;

use crate::support::{again, curate, dataset, failure, sluice, store};

fn story(run: &str, id: &str) -> (String, Value) {
    let words = sluice(&["explain", "--run", run, id]);
    words.outcome.unwrap();
    let json = sluice(&["explain", "--run", run, id, "--json"]);
    json.outcome.unwrap();
    (words.out, serde_json::from_str(&json.out).unwrap())
}

#[test]
fn every_fate_is_told() {
    let run = curate("explain");
    let fates = [
        ("a/html", "dropped by read: not-an-image"),
        ("a/cut", "dropped by read: truncated-image"),
        ("a/text-only", "dropped by read: no-image"),
        ("torn/torn", "dropped by read: shard-damaged"),
        ("a/flat", "dropped by aesthetic: below-min-score"),
        ("sub/b/exact", "dropped by dedup: exact-duplicate"),
        ("sub/b/perceptual", "dropped by dedup: perceptual-duplicate"),
        ("a/keep-1", "kept"),
        ("sub/b/<b>&keep-4", "kept"),
    ];
    for (id, fate) in fates {
        let (words, json) = story(&run, id);
        let mut lines = words.lines();
        assert_eq!(lines.next(), Some(id));
        let second = lines.next().unwrap();
        assert!(second.starts_with(fate), "{words}");
        assert_eq!(json["image_id"], id);
        assert_eq!(json["decision"]["keep"], fate == "kept");
    }
}

#[test]
fn a_duplicate_names_what_it_duplicates() {
    let run = curate("explain-duplicates");
    let (words, json) = story(&run, "sub/b/exact");
    assert!(
        words.contains("exact duplicate of a/keep-1 (similarity 1), which is kept"),
        "{words}"
    );
    assert_eq!(json["duplicates"][0]["duplicate_of"], "a/keep-1");
    // Which of the two is better is for the scores to say.
    let (one, other) = (
        story(&run, "sub/b/semantic").1,
        story(&run, "sub/b/keep-3").1,
    );
    let (gone, stays) = match one["decision"]["keep"] == true {
        true => (&other, &one),
        false => (&one, &other),
    };
    assert_eq!(gone["duplicates"][0]["method"], "semantic");
    assert_eq!(gone["duplicates"][0]["duplicate_of"], stays["image_id"]);
    assert_eq!(gone["duplicates"][0]["other"]["keep"], true);
}

#[test]
fn scores_stand_beside_their_thresholds() {
    let run = curate("explain-scores");
    let (words, json) = story(&run, "a/flat");
    assert!(words.contains("does not pass --min-score 0.2"), "{words}");
    let score = &json["scores"][0];
    assert_eq!(score["model"], "technical-quality");
    assert!(score["score"].as_f64().unwrap() < score["threshold"].as_f64().unwrap());
    let (words, json) = story(&run, "a/keep-1");
    assert!(words.contains("passes --max-score 2"), "{words}");
    let members = &json["output"]["members"];
    assert_eq!(members[0], "a/keep-1.png");
    assert_eq!(members.as_array().unwrap().len(), 3);
}

#[test]
fn a_stricter_threshold_is_told() {
    let run = curate("explain-nsfw");
    let line = "sluice-nsfw --model technical-quality --max-score 0.1";
    again::<sluice_nsfw::Args>(&run, line);
    again::<sluice_export::Args>(&run, "sluice-export decide");
    let (words, json) = story(&run, "a/keep-1");
    assert!(
        words.contains("dropped by nsfw: max-score-reached"),
        "{words}"
    );
    assert!(words.contains("does not pass --max-score 0.1"), "{words}");
    assert_eq!(json["output"], Value::Null);
}

#[test]
fn an_unknown_image_is_answered_with_near_names() {
    let run = curate("explain-unknown");
    for (id, near) in [("a/kep-1", "a/keep-1"), ("sub/c/exact", "sub/b/exact")] {
        let (class, message) = failure(&sluice(&["explain", "--run", &run, id]));
        assert_eq!(class, Class::Usage);
        assert!(message.contains(near), "{message}");
    }
}

#[test]
fn a_run_that_has_only_begun_is_explained_too() {
    let (input, run) = ("memory://explain-half/in", "memory://explain-half/run");
    dataset(&store(input));
    let line = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    let shared = Shared::default();
    let partition = line(&["sluice-partition", "--run", run, "--input", input]);
    run_step::<sluice_partition::Args>(&partition, &shared).unwrap();
    let (words, _) = story(run, "a/keep-1");
    assert!(words.contains("has not come to it"), "{words}");
    run_step::<sluice_read::Args>(&line(&["sluice-read", "--run", run]), &shared).unwrap();
    let (words, json) = story(run, "a/keep-1");
    assert!(words.contains("not decided yet"), "{words}");
    assert!(
        words.contains("not run") && words.contains("a caption"),
        "{words}"
    );
    assert_eq!(json["not_run"][0], "embed");
    let (words, _) = story(run, "a/html");
    assert!(words.contains("will be dropped by read"), "{words}");
}

#[test]
fn a_run_that_is_not_there_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("none");
    let said = sluice(&["explain", "--run", run.to_str().unwrap(), "a/1"]);
    assert_eq!(failure(&said).0, Class::Data);
    assert!(!run.exists());
}
