//! How much memory each step takes, and that ten times the input takes no more.
//!
//! Each step runs as a process of its own on shards of real size, with one shard in a partition:
//! first on one shard, then on the same one under ten names. No filter drops anything, so that
//! every step has ten times as much to do. The fit reads a sample of one size; what a step can
//! spread over units is spread over so many that none is larger than the one unit before.
//!
//! Steps that do several units at once do one at a time here, or the peak would depend on which of
//! them meet.
//!
//! `SLUICE_TESTS_SHARDS` sets the number of shards, six at most: with one it takes a minute.

use std::path::Path;
use std::time::Duration;

use sluice_tests::{Finished, Process, fixtures, models};

use crate::support::word;

/// Beyond a tenth: the two chunks that the store reads ahead, which may or may not meet the peak.
const SLACK: u64 = 8 << 20;

/// A step's command line without the run.
struct Command {
    words: Vec<String>,
}

fn commands(input: &Path, output: &Path, models: &Path, times: usize) -> Vec<Command> {
    let (input, output, models) = (word(input), word(output), word(models));
    // Clusters are of uneven size.
    let [ranges, groups] = [times, if times == 1 { 1 } else { 4 * times }].map(|n| n.to_string());
    let lines: [&[&str]; 15] = [
        &["partition", "--input", input, "--shards-per-partition", "1"],
        &["read", "--jobs", "1"],
        &["embed", "--models", models, "--model", "efficientnet-lite0"],
        &[
            "aesthetic",
            "--model",
            "technical-quality",
            "--min-score",
            "0",
        ],
        &[
            "nsfw",
            "--models",
            models,
            "--model",
            "opennsfw",
            "--max-score",
            "2",
        ],
        &["dedup exact", "--ranges", &ranges, "--jobs", "1"],
        &[
            "dedup perceptual",
            "--filters",
            "aesthetic,nsfw",
            "--jobs",
            "1",
        ],
        &[
            "dedup fit",
            "--clusters",
            "40",
            "--sample",
            "100",
            "--jobs",
            "1",
        ],
        &["dedup assign", "--filters", "aesthetic,nsfw", "--jobs", "1"],
        &[
            "dedup match",
            "--eps",
            "0.15",
            "--groups",
            &groups,
            "--jobs",
            "1",
        ],
        &[
            "export decide",
            "--filters",
            "aesthetic,nsfw",
            "--jobs",
            "1",
        ],
        &[
            "export plan",
            "--output",
            output,
            "--images-per-shard",
            "50",
            "--jobs",
            "1",
        ],
        &["export write", "--jobs", "1"],
        &["export index", "--jobs", "1"],
        &["report", "--jobs", "1"],
    ];
    let command = |line: &&[&str]| {
        let (name, options) = line.split_first().expect("a name");
        let name = format!("sluice-{name}");
        let words = name.split(' ').chain(options.iter().copied());
        Command {
            words: words.map(str::to_owned).collect(),
        }
    };
    lines.iter().map(command).collect()
}

impl Command {
    fn name(&self) -> String {
        let subcommand = self.words.get(1).filter(|word| !word.starts_with('-'));
        match subcommand {
            Some(subcommand) => format!("{} {subcommand}", self.words[0]),
            None => self.words[0].clone(),
        }
    }

    fn run(&self, process: &Process, run: &Path) -> Finished {
        let place = ["--run".to_owned(), word(run).to_owned()];
        let finished = process.run(&[&self.words[..], &place].concat()).unwrap();
        assert_eq!(finished.code, 0, "{}: {}", self.name(), finished.stderr);
        finished
    }
}

#[test]
fn ten_times_the_input_takes_no_more_memory() {
    let Some(fixtures) = fixtures() else { return };
    let Some(models) = models(&["efficientnet-lite0", "opennsfw"]) else {
        return;
    };
    let shards: usize = std::env::var("SLUICE_TESTS_SHARDS")
        .map_or(1, |number| number.parse().expect("a number of shards"));
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
        let commands = commands(&input, &folder.join("output"), &models, times);
        let run = folder.join("run");
        let finished = commands.iter().map(|command| command.run(&process, &run));
        let peaks: Vec<(String, Finished)> =
            commands.iter().map(Command::name).zip(finished).collect();
        peaks
    });
    let [once, tenfold] = measured;
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
