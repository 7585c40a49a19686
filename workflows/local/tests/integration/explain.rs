//! `sluice explain` for every possible outcome of an image.

use serde_json::Value;
use sluice_manifest::Class;

use crate::support::{
    again, curate, dataset, deduplicate, export, failure, filter, picture, read, shard, sluice,
    store, usable,
};

fn story(run: &str, id: &str) -> (String, Value) {
    let words = sluice(&["explain", "--run", run, id]);
    words.outcome.unwrap();
    let json = sluice(&["explain", "--run", run, id, "--json"]);
    json.outcome.unwrap();
    (words.out, serde_json::from_str(&json.out).unwrap())
}

/// Returns the steps that decided about an image, each with its decision.
fn decisions(json: &Value) -> Vec<(&str, Option<bool>)> {
    let decisions = json["decisions"].as_array().unwrap().iter();
    decisions
        .map(|decision| {
            (
                decision["step"].as_str().unwrap(),
                decision["keep"].as_bool(),
            )
        })
        .collect()
}

#[test]
fn every_fate_is_explained() {
    let run = curate("explain");
    let fates = [
        ("a/html", "dropped by read: not-an-image"),
        ("a/cut", "dropped by read: truncated-image"),
        ("a/text-only", "dropped by read: no-image"),
        ("torn/torn", "dropped by read: shard-damaged"),
        ("a/flat", "dropped by usable: rule:detailed"),
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
        assert_eq!(json["not_run"], Value::Array(Vec::new()), "{words}");
    }
}

/// Untrusted names are printed to a terminal by `explain`, `inspect`, `verify` and errors.
#[test]
fn names_do_not_steer_the_terminal() {
    let base = "memory://explain-terminal";
    let (name, caption) = ("1\u{1b}]0;x\u{7}\u{202e}\n", "\u{9b}31mred\r\u{2066}");
    let picture = picture(1, 0);
    let members = [
        (format!("{name}.png"), picture.as_slice()),
        (format!("{name}.txt"), caption.as_bytes()),
    ];
    let members = members
        .each_ref()
        .map(|(name, bytes)| (name.as_str(), *bytes));
    let input = store(&format!("{base}/in"));
    input.put("a\u{1b}[2J.tar", shard(&members)).unwrap();
    let run = format!("{base}/run");
    again::<sluice_partition::Args>(&run, &format!("sluice-partition --input {base}/in"));
    again::<sluice_read::Args>(&run, "sluice-read");
    export(&run, None);

    let id = format!("a\u{1b}[2J/{name}");
    let (words, json) = story(&run, &id);
    assert_eq!(json["image_id"], id);
    assert_eq!(
        words.lines().next(),
        Some(r"a\u001b[2J/1\u001b]0;x\u0007\u202e\u000a")
    );
    let images = format!("{run}/read/images/part-00000.parquet");
    let inspected = sluice(&["inspect", &images]);
    let unknown = sluice(&["explain", "--run", &run, "a\u{1b}[2J/2"]);
    let unknown = failure(&unknown).1;
    for path in store(&format!("{base}/out")).list("").unwrap() {
        if path.path.ends_with(".tar") {
            store(&format!("{base}/out"))
                .put(&path.path, "changed")
                .unwrap();
        }
    }
    let verified = sluice(&["verify", "--run", &run]);
    assert!(verified.outcome.is_err());
    for text in [words, inspected.out, unknown, verified.out] {
        let steers = |c: char| (c.is_control() && c != '\n') || "\u{202e}\u{2066}".contains(c);
        assert!(!text.contains(steers), "{text:?}");
        assert!(!text.lines().any(|line| line.starts_with("]0")), "{text:?}");
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
    assert_eq!(json["duplicates"][0]["step"], "dedup");
    // The ranking determines which of the two is better.
    let (one, other) = (
        story(&run, "sub/b/semantic").1,
        story(&run, "sub/b/keep-3").1,
    );
    let (gone, stays) = if one["decision"]["keep"] == true {
        (&other, &one)
    } else {
        (&one, &other)
    };
    assert_eq!(gone["duplicates"][0]["method"], "semantic");
    assert_eq!(gone["duplicates"][0]["duplicate_of"], stays["image_id"]);
    assert_eq!(gone["duplicates"][0]["other"]["keep"], true);
}

#[test]
fn scores_and_decisions_are_shown_step_by_step() {
    let run = curate("explain-scores");
    let (words, json) = story(&run, "a/keep-1");
    let kept = Some(true);
    let expected = [("usable", kept), ("filter", kept), ("dedup", kept)];
    assert_eq!(decisions(&json), expected, "{words}");
    let names: Vec<&Value> = json["scores"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| &s["name"])
        .collect();
    assert_eq!(names, ["aesthetic", "nsfw"]);
    let score = &json["scores"][0];
    assert_eq!(score["model"], "technical-quality");
    assert!(score["score"].as_f64().unwrap() >= 0.2, "{words}");
    assert_eq!(json["embeddings"][0]["embedded"], true);
    let members = &json["output"]["members"];
    assert_eq!(members[0], "a/keep-1.png");
    assert_eq!(members.as_array().unwrap().len(), 3);
    // An image that an early filter dropped reached no later step.
    let (words, json) = story(&run, "a/flat");
    assert_eq!(decisions(&json), [("usable", Some(false))], "{words}");
    assert!(words.contains("low_information"), "{words}");
    for nothing in ["scores", "embeddings", "duplicates"] {
        assert_eq!(json[nothing], Value::Array(Vec::new()), "{words}");
    }
}

#[test]
fn a_stricter_threshold_is_explained() {
    let run = curate("explain-nsfw");
    filter(&run, "--min aesthetic=0.2 --max nsfw=0.1");
    deduplicate(&run);
    again::<sluice_export::Args>(&run, "sluice-export decide --survivors-of dedup");
    let (words, json) = story(&run, "a/keep-1");
    assert!(
        words.contains("dropped by filter: above-max:nsfw"),
        "{words}"
    );
    assert!(words.contains(">= 0.1"), "{words}");
    assert_eq!(
        decisions(&json),
        [("usable", Some(true)), ("filter", Some(false))]
    );
    assert_eq!(json["output"], Value::Null);
}

#[test]
fn an_unknown_image_is_answered_with_similar_names() {
    let run = curate("explain-unknown");
    for (id, near) in [
        ("a/kep-1", "a/keep-1"),
        ("sub/c/exacd", "sub/b/exact"),
        ("kep-1", "a/keep-1"),
    ] {
        let (class, message) = failure(&sluice(&["explain", "--run", &run, id]));
        assert_eq!(class, Class::Usage);
        assert!(message.contains(near), "{message}");
    }
}

#[test]
fn a_run_that_has_only_begun_is_explained_too() {
    let (input, run) = ("memory://explain-half/in", "memory://explain-half/run");
    dataset(&store(input));
    again::<sluice_partition::Args>(run, &format!("sluice-partition --input {input}"));
    let (words, _) = story(run, "a/keep-1");
    assert!(words.contains("not run yet"), "{words}");
    again::<sluice_read::Args>(run, "sluice-read");
    let (words, json) = story(run, "a/keep-1");
    assert!(
        words.contains("not decided yet") && words.contains("a caption"),
        "{words}"
    );
    assert_eq!(json["decision"], Value::Null);
    let (words, _) = story(run, "a/html");
    assert!(words.contains("dropped by read: not-an-image"), "{words}");
    usable(run);
    let (words, json) = story(run, "a/keep-1");
    assert!(words.contains("not decided yet"), "{words}");
    assert_eq!(decisions(&json), [("usable", Some(true))]);
    let (words, _) = story(run, "a/flat");
    assert!(
        words.contains("dropped by usable: rule:detailed"),
        "{words}"
    );
}

#[test]
fn steps_of_the_pipeline_file_that_were_not_run_are_named() {
    let run = read("explain-planned");
    let pipeline =
        "[[steps]]\nstage = \"read\"\n\n[[steps]]\nstage = \"filter\"\nname = \"usable\"\n";
    store(&run).put("pipeline.toml", pipeline).unwrap();
    let (words, json) = story(&run, "a/keep-1");
    assert_eq!(json["not_run"], serde_json::json!(["usable"]), "{words}");
    usable(&run);
    let (_, json) = story(&run, "a/keep-1");
    assert_eq!(json["not_run"], Value::Array(Vec::new()));
}

#[test]
fn a_run_of_three_stages_is_explained() {
    let run = read("explain-three");
    export(&run, None);
    let (words, json) = story(&run, "a/flat");
    assert!(words.lines().nth(1) == Some("kept"), "{words}");
    assert_eq!(json["output"]["members"][0], "a/flat.png");
    let (words, _) = story(&run, "a/cut");
    assert!(
        words.contains("dropped by read: truncated-image"),
        "{words}"
    );
}

#[test]
fn a_run_that_is_not_there_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("none");
    let said = sluice(&["explain", "--run", run.to_str().unwrap(), "a/1"]);
    assert_eq!(failure(&said).0, Class::Data);
    assert!(!run.exists());
}

#[test]
fn images_are_named_by_what_people_have() {
    let run = curate("explain-names");
    let output = run.replace("/run", "/out");
    let [key, place] = {
        let json = story(&run, "a/keep-1").1;
        let members = json["output"]["members"][0].as_str().unwrap().to_owned();
        let shard = json["output"]["shard"].as_str().unwrap().to_owned();
        [members.clone(), format!("{shard}/{members}")]
    };
    assert!(place.starts_with(&output), "{place}");
    for (name, id) in [
        ("exact", "sub/b/exact"),
        ("exact.png", "sub/b/exact"),
        ("/home/me/keep-1.png", "a/keep-1"),
        ("semant", "sub/b/semantic"),
        (key.as_str(), "a/keep-1"),
        (place.as_str(), "a/keep-1"),
    ] {
        let words = sluice(&["explain", "--run", &run, name]);
        words.outcome.unwrap();
        assert_eq!(words.out.lines().next(), Some(id), "{name}");
    }
    let both = sluice(&["explain", "--run", &run, "a/flat", "a/cut", "--json"]);
    both.outcome.unwrap();
    assert_eq!(both.out.lines().count(), 2);
    let (class, message) = failure(&sluice(&["explain", "--run", &run, "keep"]));
    assert_eq!(class, Class::Usage);
    assert!(message.contains("a/keep-1, a/keep-2"), "{message}");
}

#[test]
fn an_image_that_stays_names_its_duplicates() {
    let run = curate("explain-neighbours");
    let (words, json) = story(&run, "a/keep-1");
    assert_eq!(json["neighbours"][0]["image_id"], "sub/b/exact");
    assert!(words.contains("sub/b/exact (1)"), "{words}");
}
