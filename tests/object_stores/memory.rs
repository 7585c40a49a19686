//! The peak memory of each step on S3 exceeds that on local disk only by a constant.

use std::time::Duration;

use sluice_tests::servers::SeaweedFs;
use sluice_tests::{Process, step_commands};

use crate::reference::{Reference, word};

/// The additional memory for an object store: connections and their buffers, and chunks in flight
/// that local disk does not have, of 8 MiB and three parts of 5 MiB.
const SLACK: u64 = 28 << 20;

#[test]
fn steps_take_no_more_memory_than_on_local_disk() {
    let Some(seaweedfs) = SeaweedFs::shared() else {
        return;
    };
    let Some(reference) = Reference::get() else {
        return;
    };
    let limit = Duration::from_secs(120);
    let process = || Process::new(env!("CARGO_BIN_EXE_sluice-tests-step"), limit).unwrap();
    let place = tempfile::tempdir().unwrap();
    let input = place.path().join("photos");
    std::fs::create_dir_all(&input).unwrap();
    std::fs::copy(reference.input().join("00000.tar"), input.join("00000.tar")).unwrap();
    let there = format!("{}/memory", seaweedfs.site.bucket);
    let remote = process().at(&seaweedfs.site);
    let brought = remote.run(&["copy", word(place.path()), &there]).unwrap();
    assert_eq!(brought.code, 0, "{}", brought.stderr);

    let peaks = [(process(), word(place.path())), (remote, &there)].map(|(process, place)| {
        let at = |name: &str| format!("{place}/{name}");
        let values = [
            ("INPUT", &*at("photos")),
            ("OUTPUT", &at("output")),
            ("MODELS", &reference.models),
            ("RANGES", "1"),
            ("GROUPS", "1"),
            ("IMAGES", "100"),
        ];
        let peaks = step_commands(&at("run"), &values)
            .into_iter()
            .map(|command| {
                let finished = process.run(&command.words).unwrap();
                assert_eq!(finished.code, 0, "{}: {}", command.name, finished.stderr);
                (command.name, finished.peak)
            });
        peaks.collect::<Vec<_>>()
    });
    let [disk, store] = peaks;
    eprintln!("\none shard of photographs; most memory in MB:");
    eprintln!("  {:<24} {:>7} {:>7} {:>7}", "", "disk", "S3", "");
    let mut grown = Vec::new();
    for ((name, disk), (_, store)) in disk.iter().zip(&store) {
        let megabytes = [*disk, *store].map(|bytes| bytes as f64 / 1e6);
        eprintln!(
            "  {name:<24} {:>7.1} {:>7.1} {:>+7.1}",
            megabytes[0],
            megabytes[1],
            megabytes[1] - megabytes[0]
        );
        if *store > disk + SLACK {
            grown.push(name);
        }
    }
    assert!(grown.is_empty(), "these take more: {grown:?}");
}
