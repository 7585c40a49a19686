//! Real photographs as written by cameras and editors.

use sluice_pixels::{Format, Limits, decode, hamming, phash, quality, technical_quality};

#[test]
fn all_600_photos_decode_and_measure() {
    let Some(fixtures) = sluice_testkit::fixtures() else {
        return;
    };
    let mut shards: Vec<_> = std::fs::read_dir(fixtures.join("imagenet-1k-sample"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "tar"))
        .collect();
    shards.sort();
    let mut photos = 0;
    for shard in shards {
        for (name, bytes) in crate::members(&shard) {
            if !name.ends_with(".jpg") {
                continue;
            }
            let decoded =
                decode(&bytes, &Limits::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(decoded.format, Format::Jpeg, "{name}");
            let image = decoded.upright();
            let score = technical_quality(&quality(&image));
            assert!(score > 0.0 && score < 1.0, "{name}: {score}");
            photos += 1;
        }
    }
    assert_eq!(photos, 600);
}

/// Copies, re-encoded copies and mirrored copies of the same 60 photos.
#[test]
fn hashes_of_known_duplicates() {
    let Some(fixtures) = sluice_testkit::fixtures() else {
        return;
    };
    let folder = fixtures.join("dups");
    let truth = std::fs::read_to_string(folder.join("truth.csv")).unwrap();
    let header: Vec<_> = truth.lines().next().unwrap().split(',').collect();
    let column = |name| header.iter().position(|&h| h == name).unwrap();
    let (shard, key) = (column("shard"), column("key"));
    let (group, form) = (column("group"), column("transformation"));

    let mut hashes = std::collections::BTreeMap::new();
    for index in 0..6 {
        let name = format!("{index:05}.tar");
        for (member, bytes) in crate::members(&folder.join(&name)) {
            if let Some(key) = member.strip_suffix(".jpg") {
                let image = decode(&bytes, &Limits::default()).unwrap().upright();
                hashes.insert((name.clone(), key.to_owned()), phash(&image));
            }
        }
    }
    let hash_of = |row: &[&str]| {
        let name = row[shard].trim_end_matches(".tar");
        hashes[&(format!("{name}.tar"), row[key].to_owned())]
    };
    let rows: Vec<Vec<&str>> = truth
        .lines()
        .skip(1)
        .map(|l| l.split(',').collect())
        .collect();
    let originals: std::collections::BTreeMap<&str, u64> = rows
        .iter()
        .filter(|row| row[form] == "original")
        .map(|row| (row[group], hash_of(row)))
        .collect();
    // Distances from the original by kind of copy, sorted.
    let distances = |wanted: &str| -> Vec<u32> {
        let mut found: Vec<u32> = rows
            .iter()
            .filter(|row| row[form] == wanted)
            .filter_map(|row| Some(hamming(*originals.get(row[group])?, hash_of(row))))
            .collect();
        found.sort_unstable();
        found
    };
    let exact = distances("exact-copy");
    assert!(
        exact.len() >= 60 && exact.iter().all(|&d| d == 0),
        "{exact:?}"
    );
    let again = distances("jpeg-q60");
    assert!(again[again.len() * 95 / 100] <= 4, "{again:?}");
    let smaller = distances("resize-50");
    assert!(smaller[smaller.len() * 95 / 100] <= 4, "{smaller:?}");
    let mirrored = distances("hflip");
    assert!(mirrored[mirrored.len() / 20] >= 12, "{mirrored:?}");
}
