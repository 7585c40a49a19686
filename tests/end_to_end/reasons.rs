//! Every reason, on one small dataset, and the output of `sluice explain` for each.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sha2::{Digest, Sha256};
use sluice_manifest::rows::DecisionRow;
use sluice_manifest::{Reason, ReasonKind};
use sluice_testkit::Shard;
use sluice_testkit::pictures::{brighter, flat, noisy, png, waves};
use sluice_tests::{Run, runtime, sluice};

use crate::gallery::TestGallery;

/// A pipeline with every way to drop an image.
const PIPELINE: &str = r#"
[[steps]]
stage = "read"

[[steps]]
stage = "filter"
name = "usable"
rule = { large = "min(width, height) >= 32", shape = "aspect <= 4" }

[[steps]]
stage = "embed"
model = "tiny-embedder"

[[steps]]
stage = "aesthetic"
model = "tiny-beauty"

[[steps]]
stage = "nsfw"
model = "tiny-shame"

[[steps]]
stage = "filter"
min = { aesthetic = "" }
max = { nsfw = "" }

[[steps]]
stage = "filter"
name = "best"
top = { aesthetic = "80%" }

[[steps]]
stage = "dedup"
rank-by = "aesthetic"
against = "memory://reasons/known.txt"
max-distance = 1
eps = 0.1

[[steps]]
stage = "export"
"#;

/// Returns a BMP whose header states 60000 by 60000 pixels.
fn bomb() -> Vec<u8> {
    let mut bytes = b"BM".to_vec();
    for number in [1_000_000_u32, 0, 54, 40, 60_000, 60_000] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend([1, 0, 24, 0]);
    bytes.resize(1000, 0);
    bytes
}

/// Returns for each reason a sample that must be dropped for it, and samples that must be kept. A
/// sample's key is its reason, with `-` for `:`.
fn shards() -> Vec<(&'static str, Vec<u8>)> {
    let of = |seed: u64| png(&waves(seed, 64, 48));
    let whole = of(1);
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    let damaged = [
        ("no-image.txt", b"a caption and no picture".to_vec()),
        ("empty-file.png", Vec::new()),
        (
            "not-an-image.jpg",
            b"no picture at all, whatever it is called".to_vec(),
        ),
        (
            "unsupported-format.jpg",
            b"<svg xmlns='http://www.w3.org/2000/svg'/>".to_vec(),
        ),
        ("truncated-image.png", whole[..middle].to_vec()),
        ("corrupt-image.png", flipped),
        ("too-large.bmp", bomb()),
        ("rule-large.png", png(&waves(2, 20, 15))),
        ("rule-shape.png", png(&waves(3, 300, 40))),
    ];
    let scored = [
        // This image is kept, and is compared with no other.
        ("no-embedding.png", png(&flat([128; 3], 64, 48))),
        ("not-scored-aesthetic.png", png(&flat([255; 3], 64, 48))),
        (
            "below-min-aesthetic.png",
            png(&noisy(flat([250; 3], 64, 48), 4, 5)),
        ),
        ("not-scored-nsfw.png", png(&flat([255, 0, 0], 64, 48))),
        (
            "above-max-nsfw.png",
            png(&noisy(flat([250, 5, 5], 64, 48), 5, 5)),
        ),
        (
            "below-top-aesthetic.png",
            png(&noisy(flat([200; 3], 64, 48), 6, 5)),
        ),
    ];
    let originals = [
        ("exact.png", of(10)),
        ("perceptual.png", of(11)),
        ("semantic.png", of(12)),
    ];
    // A brighter image is nearer to white and scores lower, so the originals have the best scores.
    let copies = [
        ("exact-duplicate.png", of(10)),
        ("in-reference.png", of(13)),
        (
            "perceptual-duplicate.png",
            png(&brighter(waves(11, 64, 48), 6)),
        ),
        (
            "semantic-duplicate.png",
            png(&noisy(brighter(waves(12, 64, 48), 6), 9, 90)),
        ),
    ];
    let shard = |members: &[(&str, Vec<u8>)]| {
        members
            .iter()
            .fold(Shard::new(), |shard, (name, data)| shard.with(name, data))
    };
    vec![
        ("a-originals.tar", shard(&originals).finish()),
        ("b-copies.tar", shard(&copies).finish()),
        (
            "c-damaged.tar",
            shard(&damaged)
                .with_sparse("sparse-member.png", &whole)
                .finish(),
        ),
        ("d-scored.tar", shard(&scored).finish()),
        (
            "e-cut.tar",
            shard(&[("before.png", of(20)), ("shard-damaged.png", of(21))]).cut(600),
        ),
    ]
}

#[test]
fn every_reason_is_given_and_explained() {
    let Some(_) = runtime() else { return };
    let gallery = TestGallery::new("memory://reasons");
    for (name, bytes) in shards() {
        gallery.put(name, bytes);
    }
    let digest = hex::encode(Sha256::digest(png(&waves(13, 64, 48))));
    let known = format!("{digest}  benchmark/13.png\n");
    let place = Run::at("memory://reasons").unwrap();
    place.store.put("known.txt", known).unwrap();
    let models = gallery.at("models");
    let said = gallery.curate_by(PIPELINE, &["--models", &models]);
    gallery.verify();

    let run = Run::at(gallery.at("run")).unwrap();
    let decisions: Vec<DecisionRow> = run.rows("export/decisions").unwrap();
    let mut by_reason: BTreeMap<&Reason, &DecisionRow> = BTreeMap::new();
    let mut kept = Vec::new();
    for decision in &decisions {
        let key = decision.image_id.as_str().rsplit('/').next().unwrap();
        let Some(reason) = &decision.reason else {
            kept.push(key);
            continue;
        };
        assert_eq!(key, reason.to_string().replace(':', "-"), "{decision:?}");
        let step = match reason.kind {
            ReasonKind::Rule => "usable",
            ReasonKind::BelowTop => "best",
            kind => kind.stage(),
        };
        assert_eq!(
            decision.step.as_ref().unwrap().as_str(),
            step,
            "{decision:?}"
        );
        by_reason.insert(reason, decision);
    }
    assert_eq!(
        kept,
        ["exact", "perceptual", "semantic", "no-embedding", "before"]
    );
    let given: BTreeSet<ReasonKind> = by_reason.keys().map(|reason| reason.kind).collect();
    let mut all: BTreeSet<ReasonKind> = ReasonKind::ALL.iter().copied().collect();
    all.remove(&ReasonKind::Missing); // only for lists of objects
    all.remove(&ReasonKind::ClusterFull); // only for sampling
    assert_eq!(given, all, "every kind of the list");

    // The result and the printed funnel count each sample once.
    let levels = said.result["funnel"]["steps"].as_array().unwrap();
    let reasons = levels
        .iter()
        .flat_map(|level| level["reasons"].as_array().unwrap());
    let reasons: Vec<&str> = reasons
        .map(|reason| reason["reason"].as_str().unwrap())
        .collect();
    assert_eq!(reasons.len(), by_reason.len());
    for (reason, decision) in by_reason {
        let name = reason.to_string();
        assert!(reasons.contains(&name.as_str()), "{name}: {reasons:?}");
        explained(&gallery, decision, reason);
    }
    let (words, story) = explain(&gallery, "a-originals/exact");
    assert!(words.contains("kept"), "{words}");
    assert_eq!(story["decision"]["keep"], true);
    assert_eq!(story["output"]["written"], true, "{story}");
}

/// Returns the output of `sluice explain` for an image, as text and as JSON.
fn explain(gallery: &TestGallery, id: &str) -> (String, Value) {
    let run = gallery.at("run");
    let words = sluice(&["explain", "--run", &run, id]).unwrap();
    assert_eq!(words.failed, None, "{id}: {words:?}");
    let json = sluice(&["explain", "--run", &run, "--json", id]).unwrap();
    (words.out, serde_json::from_str(&json.out).unwrap())
}

fn explained(gallery: &TestGallery, decision: &DecisionRow, reason: &Reason) {
    let id = decision.image_id.as_str();
    let (words, story) = explain(gallery, id);
    eprintln!("{words}");
    assert!(words.contains(id), "{words}");
    let named = words.contains(&reason.to_string()) && words.contains(reason.text());
    assert!(named, "{reason}: {words}");
    assert_eq!(story["decision"]["reason"], reason.to_string(), "{story}");
    let told = match reason.kind {
        ReasonKind::ExactDuplicate
        | ReasonKind::PerceptualDuplicate
        | ReasonKind::SemanticDuplicate => {
            let method = reason.kind.as_str().split('-').next().unwrap();
            let original = format!("a-originals/{method}");
            assert_eq!(story["duplicates"][0]["duplicate_of"], original, "{story}");
            original
        }
        ReasonKind::InReference => {
            let set = "memory://reasons/known.txt";
            assert_eq!(story["duplicates"][0]["reference"], set, "{story}");
            assert!(words.contains(set), "{words}");
            "benchmark/13.png".to_owned()
        }
        // The value and the threshold.
        ReasonKind::BelowMin => "< 3".to_owned(),
        ReasonKind::AboveMax => ">= -3".to_owned(),
        ReasonKind::NotScored => "is missing".to_owned(),
        ReasonKind::BelowTop => "aesthetic 4.0".to_owned(),
        ReasonKind::Rule => "the rule does not hold (".to_owned(),
        _ => return,
    };
    assert!(words.contains(&told), "{told}: {words}");
}
