//! How much memory each step takes, and that ten times the input takes no more.
//!
//! Each step runs as a process of its own on shards of real size, with one shard in a partition:
//! first on two shards, then on the same two under ten names each. What a step could spread over
//! more processes is spread over ten times as many units, and the fit reads a sample of one size.
//! No filter drops anything, so that every step has ten times as much to do.
//!
//! `SLUICE_TESTS_SHARDS` sets the number of shards, six at most (`make test` keeps to two, or it
//! would take minutes).

use std::path::Path;
use std::time::Duration;

use sluice_tests::{Finished, Process, fixtures, models};

use crate::support::word;

/// Beyond a tenth: what differs from one run of a process to the next.
const SLACK: u64 = 4 << 20;

/// A step's command line without the run.
struct Command {
    words: Vec<String>,
}

fn commands(input: &Path, output: &Path, models: &Path, times: usize) -> Vec<Command> {
    let times = times.to_string();
    let (input, output, models) = (word(input), word(output), word(models));
    let lines: [&[&str]; 15] = [
        &[
            "sluice-partition",
            "--input",
            input,
            "--shards-per-partition",
            "1",
        ],
        &["sluice-read"],
        &[
            "sluice-embed",
            "--models",
            models,
            "--model",
            "efficientnet-lite0",
        ],
        &[
            "sluice-aesthetic",
            "--model",
            "technical-quality",
            "--min-score",
            "0",
        ],
        &[
            "sluice-nsfw",
            "--models",
            models,
            "--model",
            "opennsfw",
            "--max-score",
            "2",
        ],
        &["sluice-dedup exact", "--ranges", &times],
        &["sluice-dedup perceptual", "--filters", "aesthetic,nsfw"],
        &["sluice-dedup fit", "--clusters", "20", "--sample", "200"],
        &["sluice-dedup assign", "--filters", "aesthetic,nsfw"],
        &["sluice-dedup match", "--eps", "0.15", "--groups", &times],
        &["sluice-export decide", "--filters", "aesthetic,nsfw"],
        &[
            "sluice-export plan",
            "--output",
            output,
            "--images-per-shard",
            "100",
        ],
        &["sluice-export write"],
        &["sluice-export index"],
        &["sluice-report"],
    ];
    let command = |line: &&[&str]| Command {
        words: line
            .iter()
            .enumerate()
            // A program's name and its subcommand stand together in the table.
            .flat_map(|(place, word)| match place {
                0 => word.split(' ').map(str::to_owned).collect(),
                _ => vec![(*word).to_owned()],
            })
            .collect(),
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
        let commands = commands(&input, &folder.join("output"), &models, times);
        let run = folder.join("run");
        let finished = commands.iter().map(|command| command.run(&process, &run));
        let peaks: Vec<(String, Finished)> =
            commands.iter().map(Command::name).zip(finished).collect();
        peaks
    });
    let [once, tenfold] = measured;
    eprintln!("\n{shards} shards of 100 photographs, and ten times that; most memory in MB:");
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
        if ten.peak > one.peak + one.peak / 10 + SLACK {
            grown.push(name);
        }
    }
    assert!(grown.is_empty(), "these grow with the input: {grown:?}");
}
