//! Shards that are unreadable in whole or in part.

use std::io::Write;

use sluice_harness::describe;
use sluice_manifest::Class;

use crate::support::{
    again, export, failure, partition, picture, read_input, shard, sluice, step, store,
};

const POINTER: &str =
    "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1073741824\n";
const PAGE: &str = "<!DOCTYPE html>\n<html><body>404 Not Found</body></html>";
const DENIED: &str = "<?xml version=\"1.0\"?>\n<Error><Code>AccessDenied</Code></Error>";
const JSON: &str = "{\"error\": \"Repository not found\"}";

fn sound() -> Vec<u8> {
    shard(&[("a.png", &picture(1, 0)), ("b.png", &picture(2, 0))])
}

/// Plans an input of these shards, one in each partition.
fn planned(name: &str, shards: &[&[u8]]) -> String {
    let input = store(&format!("memory://{name}/in"));
    for (number, shard) in shards.iter().enumerate() {
        input.put(&format!("{number}.tar"), shard.to_vec()).unwrap();
    }
    partition(name)
}

/// Runs `read`, and returns the error message.
fn refused(run: &str, flags: &str) -> String {
    let error = step::<sluice_read::Args>(run, &format!("sluice-read{flags}")).unwrap_err();
    let (class, message) = describe(&error);
    assert_eq!(class, Class::Data, "{message}");
    message
}

#[test]
fn an_input_without_a_readable_sample_is_no_success() {
    let rejected = shard(&[("a.jpg", b"no image")]);
    let empty = shard(&[]);
    let cases: [(&str, &[&[u8]], &str); 8] = [
        (
            "lfs",
            &[POINTER.as_bytes(), POINTER.as_bytes()],
            "0.tar: this is a Git LFS pointer",
        ),
        ("page", &[PAGE.as_bytes()], "this is an HTML page"),
        ("denied", &[DENIED.as_bytes()], "this is an XML document"),
        ("json", &[JSON.as_bytes()], "this is a JSON document"),
        ("zero", &[b""], "the shard has 0 bytes"),
        (
            "mixed",
            &[&empty, PAGE.as_bytes()],
            "1.tar: this is an HTML page",
        ),
        ("rejected", &[&rejected], "no sample can be used"),
        ("empty", &[&empty], "no sample can be used"),
    ];
    for (name, shards, words) in cases {
        let run = planned(&format!("unreadable-{name}"), shards);
        // In the second call, all units are up to date.
        for flags in ["", "", " --force"] {
            let message = refused(&run, flags);
            assert!(message.contains(words), "{name}: {message}");
        }
    }
}

#[test]
fn a_part_of_an_input_may_be_unreadable_but_not_all_of_it() {
    let run = planned("unreadable-part", &[POINTER.as_bytes(), PAGE.as_bytes()]);
    for number in 0..2 {
        again::<sluice_read::Args>(&run, &format!("sluice-read --partitions {number}"));
    }
    again::<sluice_export::Args>(&run, "sluice-export decide");
    let line = "sluice-export plan --output memory://unreadable-part/out";
    let (class, message) = describe(&step::<sluice_export::Args>(&run, line).unwrap_err());
    assert_eq!(class, Class::Data);
    assert!(message.contains("Git LFS pointer"), "{message}");
    let run = planned("readable-part", &[POINTER.as_bytes(), &sound()]);
    again::<sluice_read::Args>(&run, "sluice-read");
    export(&run, None);
}

#[test]
fn the_bad_fraction_counts_samples_and_shards() {
    let half = shard(&[("a.png", &picture(1, 0)), ("b.png", b"no image")]);
    let (sound, truncated) = (
        sound(),
        sound()[..200_000.min(sound().len() - 2000)].to_vec(),
    );
    type Case<'a> = (&'a str, &'a [&'a [u8]], &'a str, Option<&'a str>);
    let cases: [Case<'_>; 7] = [
        ("none", &[&sound], "0", None),
        (
            "shard",
            &[&sound, POINTER.as_bytes()],
            "0",
            Some("1 of 2 shards"),
        ),
        (
            "few",
            &[&sound, &sound, &sound, PAGE.as_bytes()],
            "0.2",
            Some("1 of 4 shards"),
        ),
        (
            "enough",
            &[&sound, &sound, &sound, PAGE.as_bytes()],
            "0.25",
            None,
        ),
        ("samples", &[&half], "0.4", Some("1 of 2 samples")),
        ("half", &[&half], "0.5", None),
        ("torn", &[&sound, &truncated], "0", Some("samples")),
    ];
    for (name, shards, limit, words) in cases {
        let run = planned(&format!("bad-{name}"), shards);
        let flags = format!(" --max-bad-fraction {limit}");
        for _ in 0..2 {
            match words {
                None => again::<sluice_read::Args>(&run, &format!("sluice-read{flags}")),
                Some(words) => {
                    let message = refused(&run, &flags);
                    assert!(message.contains(words), "{name}: {message}");
                }
            }
        }
    }
}

#[test]
fn a_bad_fraction_is_a_number_from_0_to_1() {
    let run = planned("bad-numbers", &[&sound()]);
    for wrong in ["NaN", "nan", "inf", "-0.1", "1.01", "", "10%"] {
        let line = format!("sluice-read --max-bad-fraction={wrong} --jobs 1");
        let outcome = step::<sluice_read::Args>(&run, &line);
        if wrong.is_empty() {
            continue; // left out
        }
        let (class, message) = describe(&outcome.unwrap_err());
        assert_eq!(class, Class::Usage, "{wrong}: {message}");
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// `read`, `export` and `verify` agree on the readable samples of a truncated compressed shard.
#[test]
fn torn_compressed_shards_are_exported() {
    let images: Vec<Vec<u8>> = (0..12).map(|seed| picture(seed, 0)).collect();
    let names: Vec<String> = (0..12).map(|number| format!("{number}.png")).collect();
    let members = names.iter().zip(&images);
    let members: Vec<(&str, &[u8])> = members
        .map(|(name, image)| (name.as_str(), image.as_slice()))
        .collect();
    let plain = shard(&members);
    let packed = [
        gzip(&plain),
        zstd::stream::encode_all(plain.as_slice(), 3).unwrap(),
    ];
    let input = store("memory://torn/in");
    for (number, packed) in packed.iter().enumerate() {
        for cut in 1..6 {
            let cut_at = packed.len() * cut / 6;
            let mut flipped = packed.clone();
            flipped[cut_at] ^= 0x55;
            let name = |kind: &str| format!("{kind}-{number}-{cut}.tar");
            input.put(&name("cut"), packed[..cut_at].to_vec()).unwrap();
            input.put(&name("flipped"), flipped).unwrap();
        }
    }
    let run = read_input("torn");
    export(&run, None);
    let said = sluice(&["verify", "--run", &run]);
    assert!(said.outcome.is_ok(), "{:?} {}", failure(&said), said.out);
}
