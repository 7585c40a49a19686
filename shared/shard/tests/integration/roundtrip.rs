//! Reads back what was written: with this crate, the `tar` crate and Python; complete and truncated
//! anywhere.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::Command;

use proptest::prelude::*;
use sluice_shard::{DamageKind, ShardWriter};
use sluice_testkit::python;

use crate::support::{read, sha256, summary};

type Members = Vec<(Vec<u8>, Vec<u8>)>;

fn write(members: &Members) -> Vec<u8> {
    let mut writer = ShardWriter::new(Vec::new());
    for (name, data) in members {
        let offset = writer.append(name, data).unwrap();
        assert_eq!(offset % 512, 0);
        assert_eq!(writer.position() % 512, 0);
    }
    writer.finish().unwrap()
}

/// Generates names of all kinds and lengths: few keys, so that they repeat; no keys; bytes in no
/// encoding.
fn any_name() -> impl Strategy<Value = Vec<u8>> {
    let short = "([ab]|a/|\\./|\\.\\./|é|猫){1,2}\\.(jpg|JPG|txt|json|mask\\.png)";
    prop_oneof![
        6 => short.prop_map(String::into_bytes),
        1 => "(\\.jpg|noext|a/\\._b\\.jpg|__meta__/a\\.jpg|\\.\\.)".prop_map(String::into_bytes),
        1 => "[a-z/]{90,300}x\\.jpg".prop_map(String::into_bytes),
        1 => proptest::collection::vec(1_u8..=255, 1..140),
    ]
    .prop_filter("a folder", |name| !name.ends_with(b"/"))
}

fn any_members() -> impl Strategy<Value = Members> {
    let data = proptest::collection::vec(any::<u8>(), 0..1200);
    proptest::collection::vec((any_name(), data), 0..14)
}

/// Offset, name and data as read. For skipped members, only the offset.
type Listed = (u64, Option<Vec<u8>>, Option<Vec<u8>>);

fn listed(bytes: &[u8]) -> Vec<Listed> {
    let read = read(bytes);
    let members = read.samples.into_iter().flat_map(|sample| sample.members);
    let mut all: Vec<_> = members
        .map(|member| (member.offset, Some(member.name), member.data))
        .chain(read.skipped.into_iter().map(|s| (s.offset, None, None)))
        .collect();
    all.sort();
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_member_comes_back_once(members in any_members()) {
        let listed = listed(&write(&members));
        prop_assert_eq!(listed.len(), members.len());
        for ((_, name, data), (wrote, bytes)) in listed.iter().zip(&members) {
            if let Some(name) = name {
                prop_assert_eq!(name, wrote);
                prop_assert_eq!(data.as_ref(), Some(bytes));
            }
        }
    }

    #[test]
    fn truncation_loses_only_the_members_after_it(members in any_members(), cut in 0.0..1.0_f64) {
        let bytes = write(&members);
        let cut = (bytes.len() as f64 * cut) as usize;
        let (whole, truncated) = (listed(&bytes), listed(&bytes[..cut]));
        // A truncated member that is skipped counts as skipped, so there may be one more than the
        // complete ones.
        for (before, after) in whole.iter().zip(&truncated) {
            prop_assert_eq!(before, after);
        }
        prop_assert!(truncated.len() <= whole.len());
        let ends = |i: usize| whole[i].0 + members[i].1.len() as u64 <= cut as u64;
        let survive = (0..members.len()).filter(|&i| ends(i)).count();
        prop_assert!(truncated.len() >= survive, "{} of {survive}", truncated.len());
    }

    #[test]
    fn noise_never_panics(
        members in any_members(),
        noise in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = write(&members);
        for (at, byte) in noise {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        // The assertions are in `read`.
        let _ = read(&bytes);
    }

    #[test]
    fn noise_with_sound_checksums_never_panics(
        members in any_members(),
        noise in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        kind in prop::sample::select(b"0\x001234567gxXLKSDVMZ".to_vec()),
    ) {
        let mut bytes = write(&members);
        for (at, byte) in noise {
            let at = at.index(bytes.len()) / 512 * 512;
            let block = &mut bytes[at..at + 512];
            block[124 + usize::from(byte) % 12] = byte;
            block[156] = kind;
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let _ = read(&bytes);
    }

    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let _ = read(&bytes);
    }
}

/// Returns names that are short, split over the prefix, and long, with irregular keys and
/// extensions.
fn examples() -> Members {
    let deep = ["folder-xxxxxxxxxxxxxxxxxxxx"; 5].join("/");
    [
        "0001.jpg".to_owned(),
        "0001.txt".to_owned(),
        "with space 猫🐈.jpg".to_owned(),
        format!("{deep}/0002.jpg"),
        format!("{}.jpg", "g".repeat(300)),
        format!("{deep}/{deep}/{}.jpg", "é".repeat(120)),
        format!("{}.jpg", "h".repeat(96)),
        format!("{}.jpg", "i".repeat(97)),
        "%2E%2E/x.jpg".to_owned(),
    ]
    .into_iter()
    .enumerate()
    .map(|(i, name)| (name.into_bytes(), vec![b'x'; i * 200]))
    .chain([(b"caf\xe9.jpg".to_vec(), b"latin".to_vec())])
    .collect()
}

#[test]
fn the_same_members_give_the_same_bytes() {
    let bytes = write(&examples());
    assert_eq!(bytes, write(&examples()));
    // Pinned: a change of these bytes changes every output shard of every user.
    assert_eq!(
        sha256(&bytes),
        "2e08fda37e9a70dc4fd9289ee09740268de31d77b8023437d6a233badbcb937d"
    );
}

#[test]
fn the_tar_crate_reads_what_we_write() {
    let bytes = write(&examples());
    let mut archive = tar::Archive::new(bytes.as_slice());
    let mut found = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let header = entry.header();
        assert_eq!(header.mtime().unwrap(), 0);
        assert_eq!(header.uid().unwrap() + header.gid().unwrap(), 0);
        assert_eq!(header.mode().unwrap(), 0o644);
        let name = entry.path_bytes().into_owned();
        let mut data = Vec::new();
        entry.read_to_end(&mut data).unwrap();
        found.push((name, data));
    }
    assert_eq!(found, examples());
}

#[test]
fn python_reads_what_we_write() {
    const SCRIPT: &str = "
import hashlib, sys, tarfile
for m in tarfile.open(sys.argv[1], encoding='utf-8', errors='surrogateescape'):
    assert m.isreg() and (m.mtime, m.uid, m.gid, m.mode) == (0, 0, 0, 0o644), m
    name = m.name.encode('utf-8', 'surrogateescape').hex()
    with open(sys.argv[1], 'rb') as f:
        f.seek(m.offset_data)
        print(name, hashlib.sha256(f.read(m.size)).hexdigest())
";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shard.tar");
    std::fs::write(&path, write(&examples())).unwrap();
    let Some(python) = python("tarfile") else {
        return;
    };
    let output = Command::new(python)
        .args(["-c", SCRIPT])
        .arg(&path)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let expected: String = examples()
        .iter()
        .map(|(name, data)| format!("{} {}\n", hex::encode(name), sha256(data)))
        .collect();
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
}

#[test]
fn keys_that_come_again_are_samples_of_their_own() {
    let names = [
        "a.jpg", "a.txt", "a.jpg", "b.jpg", "b.JPG", "a.json", "a#1.jpg",
    ];
    let members: Members = names
        .iter()
        .map(|n| (n.as_bytes().to_vec(), vec![]))
        .collect();
    let read = read(&write(&members));
    let ids: Vec<(String, usize)> = read
        .samples
        .iter()
        .map(|sample| (sample.id(), sample.members.len()))
        .collect();
    let expected = [
        ("a", 2),
        ("a#1", 1),
        ("b", 1),
        ("b#1", 1),
        ("a#2", 1),
        ("a#1#1", 1),
    ];
    let expected: Vec<(String, usize)> = expected.map(|(id, n)| (id.to_owned(), n)).into();
    assert_eq!(ids, expected);
    let by_key: BTreeMap<String, u64> = read.samples.iter().fold(BTreeMap::new(), |mut all, s| {
        *all.entry(s.key.clone()).or_default() += s.members.len() as u64;
        all
    });
    assert_eq!(by_key.values().sum::<u64>(), names.len() as u64);
}

#[test]
fn an_empty_shard_is_sound_and_no_shard_is_not() {
    let read_empty = read(&write(&Vec::new()));
    assert_eq!((read_empty.counts.members, read_empty.damage), (0, None));
    assert_eq!(read(b"").damage.unwrap().kind, DamageKind::Empty);
}

#[test]
fn zeros_between_members_are_the_end_of_an_archive_or_a_gap() {
    let member = |name: &str| (format!("{name}.jpg").into_bytes(), vec![7; 600]);
    let (first, second) = (
        write(&vec![member("a"), member("b")]),
        write(&vec![member("c")]),
    );
    let outcome = |zeros: usize| {
        let joined = [&first[..], &vec![0; zeros], &second].concat();
        summary(&read(&joined))
    };
    // The first archive ends with two zero blocks of its own.
    for zeros in [0, 512, 9 << 10, 39 * 512] {
        assert_eq!(outcome(zeros), "3 samples, note another-archive");
    }
    for zeros in [40 * 512, 1 << 20] {
        let start = first.len() - 1024;
        assert_eq!(
            outcome(zeros),
            format!("3 samples, b is damage-after, damage gap at {start}")
        );
    }
    let hole = [vec![0; 64 << 10], second].concat();
    assert_eq!(summary(&read(&hole)), "1 samples, damage gap at 0");
}
