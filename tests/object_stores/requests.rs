//! The number of requests for a shard of a hundred images, and the number of bytes for a few
//! images.
//!
//! The proxy counts requests, and the programs must report the same numbers.
//! `SLUICE_TESTS_REQUESTS=1` prints every request.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use sluice_tests::servers::{HaProxy, ProxyFaults, SeaweedFs, SeenRequest};
use sluice_tests::step_commands;

use crate::reference::Reference;
use crate::remote::{RemoteFolder, result};

/// The maximum number of requests of a step for one shard of a hundred images in one partition,
/// with all methods: for its own manifests and receipts, for those that it reads, and for the
/// shard.
const MOST: &[(&str, u64)] = &[
    ("sluice-read", 20),
    ("sluice-embed", 26),
    ("sluice-nsfw", 26),
    ("sluice-export write", 80),
];

/// The approximate size of a request for a shard.
const WINDOW: u64 = 2 << 20;

/// Returns the number of new requests by method.
fn by_method(seen: &[SeenRequest]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for request in seen {
        *counts.entry(request.method.clone()).or_default() += 1;
    }
    counts
}

/// Writes one shard of the photographs to a separate folder.
fn one_shard(reference: &Reference, remote: &RemoteFolder) -> u64 {
    let folder = remote.here("one");
    std::fs::create_dir_all(&folder).unwrap();
    let shard = reference.input().join("00000.tar");
    let bytes = std::fs::copy(shard, folder.join("00000.tar")).unwrap();
    remote.bring(&folder, "photos");
    bytes
}

#[test]
fn a_shard_of_a_hundred_images_takes_few_requests() {
    let Some(seaweedfs) = SeaweedFs::shared() else {
        return;
    };
    let Some(proxy) = HaProxy::before(&seaweedfs.site, ProxyFaults::NONE) else {
        return;
    };
    let Some(reference) = Reference::get() else {
        return;
    };
    let remote = RemoteFolder::new(&proxy.site, "requests");
    let bytes = one_shard(reference, &remote);
    let [input, run, output] = ["photos", "run", "output"].map(|path| remote.at(path));
    let values = [
        ("INPUT", input.as_str()),
        ("OUTPUT", &output),
        ("MODELS", &reference.models),
        ("RANGES", "1"),
        ("GROUPS", "1"),
        ("IMAGES", "100"),
    ];
    eprintln!("\nrequests for one shard ({bytes} bytes) in one partition, and one output shard:");
    let mut before = proxy.seen().len();
    let mut wrong = Vec::new();
    for command in step_commands(&run, &values) {
        let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
        let finished = remote.done(&words);
        let all = proxy.seen();
        let (seen, name) = (&all[before..], &command.name);
        before = all.len();
        let counted = by_method(seen);
        let of_shard = seen
            .iter()
            .filter(|seen| seen.path.ends_with("photos/00000.tar"))
            .count() as u64;
        let total: u64 = counted.values().sum();
        eprintln!(
            "  {name:<24} {total:>4} {:<50} for the shard: {}",
            format!("{counted:?}"),
            of_shard
        );
        if std::env::var_os("SLUICE_TESTS_REQUESTS").is_some() {
            for seen in seen {
                eprintln!(
                    "      {} {} {} {}",
                    seen.method, seen.status, seen.bytes, seen.path
                );
            }
        }
        let told = &result(&finished)["requests"];
        assert_eq!(*told, serde_json::to_value(&counted).unwrap(), "{name}");
        let most = MOST.iter().find(|(step, _)| step == name);
        if most.is_some_and(|(_, most)| total > *most) || of_shard > 4 + bytes / WINDOW {
            wrong.push(format!("{name}: {total}"));
        }
        let failed: Vec<&SeenRequest> = seen.iter().filter(|seen| seen.status >= 500).collect();
        assert!(failed.is_empty(), "{failed:?}");
    }
    assert!(wrong.is_empty(), "too many requests: {wrong:?}");
}

#[test]
fn a_few_images_of_a_shard_take_few_bytes() {
    let Some(seaweedfs) = SeaweedFs::shared() else {
        return;
    };
    let Some(proxy) = HaProxy::before(&seaweedfs.site, ProxyFaults::NONE) else {
        return;
    };
    let Some(reference) = Reference::get() else {
        return;
    };
    let remote = RemoteFolder::new(&proxy.site, "few");
    let shard = one_shard(reference, &remote);
    let [input, run, output] = ["photos", "run", "output"].map(|path| remote.at(path));
    let step = |words: &[&str]| remote.done(&[words, &["--run", &run]].concat());
    step(&["sluice-partition", "--input", &input]);
    step(&["sluice-read"]);
    let models = ["--models", &reference.models, "--model"];
    step(&[&["sluice-embed"][..], &models, &["efficientnet-lite0"]].concat());
    step(&["sluice-aesthetic", "--model", "technical-quality"]);
    // The threshold is so high that only a few images pass.
    let scores = scores(reference);
    let threshold = format!("aesthetic={}", scores[scores.len() - 3]);
    step(&["sluice-filter", "--min", &threshold]);
    step(&["sluice-export", "decide", "--survivors-of", "filter"]);
    step(&["sluice-export", "plan", "--output", &output]);
    let before = proxy.seen().len();
    let finished = step(&["sluice-export", "write"]);
    let seen = proxy.seen().split_off(before);

    let counts = &result(&finished)["counts"];
    let kept = counts["kept"].as_u64().unwrap();
    assert!((1..=5).contains(&kept), "{counts}");
    let written = remote.fetch("output");
    let written = Path::new(&written).join("shard-00000.tar");
    let wanted = std::fs::metadata(written).unwrap().len();
    let of_shard = seen
        .iter()
        .filter(|seen| seen.method == "GET" && seen.path.ends_with("photos/00000.tar"));
    let of_shard: Vec<u64> = of_shard.map(|seen| seen.bytes).collect();
    let fetched: u64 = of_shard.iter().sum();
    eprintln!(
        "\n{kept} images of {wanted} bytes out of a shard of {shard}: {fetched} bytes in {} requests",
        of_shard.len()
    );
    assert!(
        !of_shard.is_empty() && of_shard.len() as u64 <= kept,
        "{of_shard:?}"
    );
    // The remaining bytes are the responses' headers, and gaps that are cheaper to fetch than
    // another request.
    assert!(fetched < wanted + wanted / 4 + kept * 1024 + GAP * (kept - of_shard.len() as u64));
}

/// The maximum gap between two images of one request.
const GAP: u64 = 1 << 20;

/// Returns the quality scores of the first shard's images, in order.
fn scores(reference: &Reference) -> Vec<f32> {
    let run = reference.made(crate::reference::LARGE_SHARDS).0;
    let run = sluice_tests::Run::at(run.to_str().unwrap()).unwrap();
    let scores = run.scores("aesthetic").unwrap();
    let first = scores.iter().filter(|(id, _)| id.starts_with("00000/"));
    let mut scores: Vec<f32> = first.map(|(_, score)| *score).collect();
    scores.sort_by(f32::total_cmp);
    scores
}

#[test]
fn on_local_disk_there_are_none() {
    let Some(reference) = Reference::get() else {
        return;
    };
    let process = sluice_tests::Process::new(
        env!("CARGO_BIN_EXE_sluice-tests-step"),
        std::time::Duration::from_secs(60),
    )
    .unwrap();
    let run = reference.made(crate::reference::LARGE_SHARDS).0;
    let finished = process
        .run(&["sluice-read", "--run", run.to_str().unwrap()])
        .unwrap();
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    assert_eq!(result(&finished)["requests"], Value::Null);
}
