//! The peak memory of each step, which must not grow with ten times the input.
//!
//! Each step runs as a separate process on shards of real size, with one shard per partition: first
//! on one shard, then on the same shard under ten names. No filter drops anything, and each method
//! of duplicates is a separate step, so that every step has ten times the work. The fit reads a
//! sample of constant size. Steps with units have so many that no unit is larger than in the first
//! run.
//!
//! Steps that process several units concurrently process one at a time here. Otherwise the peak
//! would depend on timing.
//!
//! `SLUICE_TESTS_SHARDS` sets the number of shards, six at most. The default is two, because
//! `embed` works on two partitions concurrently.

use std::path::Path;
use std::time::Duration;

use sluice_manifest::UnitKind;
use sluice_tests::{Finished, Process, Run, StepCommand, fixtures, models, step_commands};

use crate::support::word;

/// Tolerance beyond a tenth: the two chunks that the store prefetches, which may coincide with the
/// peak.
const SLACK: u64 = 8 << 20;

fn commands(
    run: &Path,
    input: &Path,
    output: &Path,
    models: &Path,
    times: usize,
) -> Vec<StepCommand> {
    // Clusters differ in size, so more groups are needed than for equal clusters.
    let groups = if times == 1 { 1 } else { 4 * times };
    let values = [
        ("INPUT", word(input)),
        ("OUTPUT", word(output)),
        ("MODELS", word(models)),
        ("RANGES", &times.to_string()),
        ("GROUPS", &groups.to_string()),
        ("IMAGES", "50"),
    ];
    step_commands(word(run), &values)
}

/// Returns the number of images in the largest group of clusters. A group is in memory as a whole,
/// and similar pictures form large clusters. With ten copies of each picture, some groups are
/// larger than the whole first run.
fn largest_group(run: &Path) -> u64 {
    let run = Run::at(word(run)).unwrap();
    let receipts = run.receipts_of("dedup", UnitKind::Group).unwrap();
    receipts.iter().map(|r| r.counts.input).max().unwrap()
}

/// Memory of an image in a group, in bytes: its embedding in input order and in rank order, and the
/// related data.
const BYTES_IN_GROUP: u64 = 3 * 4 * 1280;

fn run(process: &Process, command: &StepCommand) -> Finished {
    let finished = process.run(&command.words).unwrap();
    assert_eq!(finished.code, 0, "{}: {}", command.name, finished.stderr);
    finished
}

#[test]
fn ten_times_the_input_takes_no_more_memory() {
    let Some(fixtures) = fixtures() else { return };
    let Some(models) = models(&["efficientnet-lite0", "opennsfw"]) else {
        return;
    };
    let shards: usize = std::env::var("SLUICE_TESTS_SHARDS")
        .map_or(2, |number| number.parse().expect("a number of shards"));
    let place = tempfile::tempdir().unwrap();
    let limit = Duration::from_secs(3600);
    let process = Process::new(env!("CARGO_BIN_EXE_sluice-tests-step"), limit).unwrap();
    let measured = [1, 10].map(|times| {
        let folder = place.path().join(times.to_string());
        let input = folder.join("input");
        std::fs::create_dir_all(&input).unwrap();
        for copy in 0..times {
            for shard in 0..shards {
                let name = format!("{shard:05}.tar");
                let source = fixtures.join("imagenet-1k-sample").join(&name);
                let twin = input.join(format!("{copy:02}-{name}"));
                std::os::unix::fs::symlink(source, twin).unwrap();
            }
        }
        let place = folder.join("run");
        let commands = commands(&place, &input, &folder.join("output"), &models, times);
        let finished = commands.iter().map(|command| run(&process, command));
        let names = commands.iter().map(|command| command.name.clone());
        let peaks: Vec<(String, Finished)> = names.zip(finished).collect();
        (peaks, largest_group(&place))
    });
    let [(once, group), (tenfold, large_group)] = measured;
    let larger_group = large_group.saturating_sub(group) * BYTES_IN_GROUP;
    eprintln!("\n{shards} shard(s) of 100 photographs, and ten times that; most memory in MB:");
    eprintln!(
        "  {:<24} {:>7} {:>7} {:>7} {:>8}",
        "", "1x", "10x", "", "10x took"
    );
    let mut grown = Vec::new();
    for ((name, one), (_, ten)) in once.iter().zip(&tenfold) {
        let megabytes = [one.peak, ten.peak].map(|bytes| bytes as f64 / 1e6);
        let share = (ten.peak as f64 / one.peak as f64 - 1.0) * 100.0;
        eprintln!(
            "  {name:<24} {:>7.1} {:>7.1} {share:>+6.1}% {:>7.1}s",
            megabytes[0],
            megabytes[1],
            ten.took.as_secs_f64()
        );
        let larger = if name == "sluice-dedup match" {
            larger_group
        } else {
            0
        };
        if ten.peak > one.peak + one.peak / 10 + SLACK + larger {
            grown.push(name);
        }
    }
    assert!(grown.is_empty(), "these grow with the input: {grown:?}");
}
