//! Compares every irregular or damaged shard of the fixtures with the findings of an independent
//! reader.

use std::collections::BTreeMap;

use serde_json::Value;
use sluice_shard::{Missing, Sample, Skip, image_member};
use sluice_testkit::fixtures;

use crate::support::{Read, read, sha256, summary};

/// The outcome for each shard, as formatted by `support::summary`.
const OUTCOMES: &[(&str, &str)] = &[
    ("broken-00000.tar", "42 samples"),
    ("formats-00000.tar", "65 samples"),
    (
        "names-00000.tar",
        "37 samples, no-key, no-key, no-extension",
    ),
    ("names-00001.tar", "2 samples"),
    ("tar-10k-padding.tar", "4 samples"),
    (
        "tar-bad-checksum.tar",
        "2 samples, 0001 is damage-after, damage bad-header at 11776",
    ),
    ("tar-bad-pax.tar", "1 samples, bad-extended-header"),
    ("tar-base256.tar", "4 samples"),
    ("tar-concatenated.tar", "6 samples, note another-archive"),
    (
        "tar-dirs.tar",
        "2 samples, directory, directory, directory, directory",
    ),
    ("tar-empty.tar", "0 samples"),
    ("tar-evil-names.tar", "5 samples, no-key"),
    ("tar-gnu-longlink.tar", "1 samples"),
    ("tar-gz-as-tar.tar", "4 samples"),
    (
        "tar-gz-bad-crc.tar.gz",
        "4 samples, damage compressed-corrupt at 24064",
    ),
    (
        "tar-gz-bomb.tar.gz",
        "1 samples, zeros is truncated, damage inflates-too-much at 33554432",
    ),
    (
        "tar-gz-truncated.tar.gz",
        "3 samples, 0002 is truncated, damage compressed-truncated at 13755",
    ),
    ("tar-gz-two.tar.gz", "4 samples"),
    ("tar-gz.tar.gz", "4 samples"),
    ("tar-gz.tgz", "4 samples"),
    ("tar-huge-longname.tar", "0 samples, name-too-long"),
    (
        "tar-huge-size.tar",
        "2 samples, huge is truncated, damage truncated-member at 10012",
    ),
    (
        "tar-huge-size64.tar",
        "2 samples, huge is truncated, damage truncated-member at 10012",
    ),
    (
        "tar-links.tar",
        "4 samples, link, link, link, device, device, device, unknown-type",
    ),
    (
        "tar-negative-size.tar",
        "1 samples, 0000 is damage-after, damage bad-size at 5632",
    ),
    ("tar-no-eoa.tar", "4 samples, note no-end-of-archive"),
    ("tar-not-a-tar.tar", "0 samples, damage not-a-tar at 0"),
    ("tar-one-zero-block.tar", "4 samples"),
    ("tar-pax-long.tar", "2 samples"),
    ("tar-pax-size.tar", "2 samples"),
    ("tar-space-size.tar", "4 samples"),
    ("tar-sparse-gnu.tar", "2 samples, sparse is sparse"),
    ("tar-sparse-pax.tar", "2 samples, sparse is sparse"),
    ("tar-text.tar", "0 samples, damage not-a-tar at 0"),
    (
        "tar-trailing-garbage.tar",
        "4 samples, note trailing-garbage",
    ),
    (
        "tar-truncated-header.tar",
        "2 samples, 0001 is damage-after, damage truncated-header at 11976",
    ),
    (
        "tar-truncated-member.tar",
        "3 samples, 0002 is truncated, damage truncated-member at 14592",
    ),
    (
        "tar-truncated-padding.tar",
        "4 samples, note no-end-of-archive",
    ),
    ("tar-ustar-prefix.tar", "1 samples"),
    ("tar-v7.tar", "4 samples"),
    ("tar-zero-bytes.tar", "0 samples, damage empty at 0"),
    ("tar-zstd.tar.zst", "4 samples"),
    ("text-00000.tar", "16 samples"),
];

/// A member in the tar: its name, its size, and its hash if its data was read.
type FoundMember = (String, u64, Option<String>);

fn name_of(sample: &Sample, member: usize) -> String {
    format!("{}.{}", sample.key, sample.members[member].extension)
}

fn found(read: &Read) -> Vec<(u64, FoundMember)> {
    let mut found = Vec::new();
    for sample in &read.samples {
        for (i, member) in sample.members.iter().enumerate() {
            if member.missing == Some(Missing::Link) {
                continue; // Has no bytes of its own.
            }
            let hash = member.data.as_deref().map(sha256);
            found.push((member.offset, (name_of(sample, i), member.size, hash)));
        }
    }
    for skipped in &read.skipped {
        let is_file = !matches!(
            skipped.why,
            Skip::Directory | Skip::Link | Skip::Device | Skip::UnknownType
        );
        if is_file {
            found.push((skipped.offset, (skipped.name.clone(), skipped.bytes, None)));
        }
    }
    found.sort();
    found
}

fn check_members(shard: &str, expected: &Value, read: &Read) {
    let Some(expected) = expected["members_in_order"].as_array() else {
        return;
    };
    let found = found(read);
    match shard {
        // The second archive is read too, as is the part of a truncated gzip that can be
        // decompressed.
        "tar-concatenated.tar" | "tar-gz-truncated.tar.gz" => {
            assert!(found.len() > expected.len(), "{shard}");
        }
        // The shard ends inside the bomb. The fixtures do not describe the content of the other
        // members.
        "tar-gz-bomb.tar.gz" | "tar-bad-pax.tar" | "tar-huge-longname.tar" => {}
        _ => assert_eq!(found.len(), expected.len(), "{shard}: {found:?}"),
    }
    for (expected, (_, (name, bytes, hash))) in expected.iter().zip(&found) {
        let there = expected["name"].as_str().unwrap_or_default();
        let there = there.strip_prefix("./").unwrap_or(there);
        assert_eq!(there, name, "{shard}");
        let Some(hash) = hash else { continue };
        assert_eq!(expected["bytes"], *bytes, "{shard} {name}");
        assert_eq!(expected["sha256"], **hash, "{shard} {name}");
    }
}

fn check_outcome(shard: &str, expected: &Value, read: &Read) {
    let damaged = read.damage.is_some();
    match expected["shard_outcome"].as_str().expect("an outcome") {
        "ok" => assert!(!damaged, "{shard}: {:?}", read.damage),
        "ok-if-supported" | "ok-if-supported-or-error" => {
            assert_eq!(
                damaged,
                shard.contains("bomb"),
                "{shard}: {:?}",
                read.damage
            );
            assert_ne!(read.compression, "none", "{shard}");
        }
        "error" => assert!(damaged && read.samples.is_empty(), "{shard}"),
        "error-after-prefix" => assert!(damaged, "{shard}"),
        "ok-or-error" | "ok-or-error-after-prefix" => {}
        other => panic!("{shard}: unknown outcome {other}"),
    }
}

fn check_samples(shard: &str, expected: &Value, read: &Read) {
    for wanted in expected["samples"].as_array().into_iter().flatten() {
        // The `./` of `tar -C folder .` is not part of a key.
        let key = wanted["key"]
            .as_str()
            .expect("a key")
            .trim_start_matches("./");
        let names: Vec<&str> = wanted["members"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(|name| name.trim_start_matches("./"))
            .collect();
        let of_key: Vec<&Sample> = read.samples.iter().filter(|s| s.key == key).collect();
        let listed = |name: &str| {
            of_key
                .iter()
                .any(|s| (0..s.members.len()).any(|i| name_of(s, i) == name))
        };
        let left_out = |name: &str| read.skipped.iter().any(|skipped| skipped.name == name);
        let context = format!("{shard} {key}");
        match wanted["expect"].as_str().expect("an expectation") {
            "decode" | "decode-if-supported" => {
                for name in names {
                    assert!(listed(name), "{context} {name}");
                }
                let sound = |s: &&&Sample| s.problem.as_ref().is_none_or(|p| !p.lost_a_member());
                let picture = of_key.iter().filter(sound).find_map(|s| {
                    image_member(&s.members).and_then(|i| s.members[i].data.as_ref())
                });
                assert!(picture.is_some(), "{context}");
            }
            "decode-or-reject" if shard.starts_with("tar-sparse") => {
                for sample in &of_key {
                    assert!(sample.problem.is_some(), "{context}");
                    assert!(sample.members.iter().all(|m| m.data.is_none()), "{context}");
                    assert_eq!(
                        sample.members[0].missing,
                        Some(Missing::Sparse),
                        "{context}"
                    );
                }
            }
            "reject" if shard.contains("bomb") => {
                assert!(of_key[0].problem.is_some(), "{context}");
            }
            "skip" => {
                for name in names {
                    assert!(left_out(name) && !listed(name), "{context} {name}");
                }
            }
            "no-image" => {
                assert!(
                    of_key.iter().all(|s| image_member(&s.members).is_none()),
                    "{context}"
                );
                assert!(names.into_iter().all(listed), "{context}");
            }
            "decode-or-reject" | "decode-or-skip" | "reject" => {
                for name in names {
                    assert!(listed(name) || left_out(name), "{context} {name}");
                }
            }
            other => panic!("{context}: unknown expectation {other}"),
        }
    }
}

#[test]
fn every_shard_gives_what_was_found_in_it() {
    let Some(fixtures) = fixtures() else { return };
    let pinned: BTreeMap<&str, &str> = OUTCOMES.iter().copied().collect();
    let mut wrong = Vec::new();
    let mut shards = 0;
    for entry in std::fs::read_dir(fixtures.join("hard")).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a file");
        let expected: Value = serde_json::from_str(&text).expect("JSON");
        let shard = expected["shard"].as_str().expect("a name");
        let bytes = std::fs::read(path.with_file_name(shard)).expect("a shard");
        assert_eq!(
            expected["sha256"],
            *sha256(&bytes),
            "{shard} is the fixture"
        );
        let read = read(&bytes);
        let outcome = summary(&read);
        if pinned.get(shard).copied() != Some(outcome.as_str()) {
            wrong.push(format!(
                "    (\n        {shard:?},\n        {outcome:?},\n    ),"
            ));
        }
        check_outcome(shard, &expected, &read);
        check_members(shard, &expected, &read);
        check_samples(shard, &expected, &read);
        shards += 1;
    }
    assert_eq!(shards, pinned.len().max(43));
    wrong.sort();
    assert!(wrong.is_empty(), "outcomes differ:\n{}", wrong.join("\n"));
}

#[test]
fn offsets_point_at_the_data() {
    let Some(fixtures) = fixtures() else { return };
    // The same archive, plain and compressed in four ways. Offsets are positions in the
    // decompressed stream.
    let hard = fixtures.join("hard");
    let plain = std::fs::read(hard.join("tar-v7.tar")).expect("a shard");
    for shard in [
        "tar-v7.tar",
        "tar-base256.tar",
        "tar-space-size.tar",
        "tar-gz.tar.gz",
        "tar-gz-two.tar.gz",
        "tar-zstd.tar.zst",
    ] {
        let read = read(&std::fs::read(hard.join(shard)).expect("a shard"));
        for member in read.samples.iter().flat_map(|sample| &sample.members) {
            let at = usize::try_from(member.offset).unwrap();
            let data = member.data.as_deref().expect("data");
            assert_eq!(data.len() as u64, member.size);
            assert!(plain[at..].starts_with(data), "{shard}");
        }
    }
}
