//! The command line of each step, as a person would type it.

use sluice_manifest::dag::Step;

use crate::run::RunArgs;

/// A step's command line, the program's name first.
///
/// Options that were not given are left out: the stage's own default holds.
pub fn command(step: &Step, args: &RunArgs, run: &str) -> Vec<String> {
    let mut line = Line(vec![format!("sluice-{}", step.stage)]);
    line.0.extend(step.subcommand.map(str::to_owned));
    line.option("--run", Some(run));
    match step.name {
        "partition" => {
            line.0.push("--input".to_owned());
            line.0.extend(args.input.iter().cloned());
            line.option("--shards-per-partition", args.shards_per_partition);
        }
        "read" => {
            line.option("--min-side", args.min_side);
            line.option("--max-aspect", args.max_aspect);
        }
        "embed" => line.option("--model", Some(&args.embedder)),
        "aesthetic" => {
            line.option("--model", Some(&args.aesthetic));
            line.option("--min-score", args.min_aesthetic);
        }
        "nsfw" => {
            line.option("--model", Some(&args.nsfw));
            line.option("--max-score", args.max_nsfw);
        }
        "dedup-perceptual" => line.option("--max-distance", args.max_distance),
        "dedup-fit" => line.option("--clusters", args.clusters),
        "dedup-match" => {
            line.option("--eps", args.eps);
            line.option("--keep", args.keep.as_ref());
        }
        "export-plan" => {
            line.option("--output", Some(&args.output));
            line.option("--images-per-shard", args.images_per_shard);
            line.option("--bytes-per-shard", args.bytes_per_shard);
            line.flag("--embeddings", args.embeddings);
        }
        _ => {}
    }
    if matches!(step.stage, "embed" | "aesthetic" | "nsfw") {
        line.option("--models", args.models.as_ref());
    }
    line.option("--jobs", args.jobs);
    line.flag("--force", args.force);
    line.0
}

struct Line(Vec<String>);

impl Line {
    fn option(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            let value = value.to_string();
            // `--min-score -1` would be read as another option.
            match value.starts_with('-') {
                true => self.0.push(format!("{name}={value}")),
                false => self.0.extend([name.to_owned(), value]),
            }
        }
    }

    fn flag(&mut self, name: &str, given: bool) {
        if given {
            self.0.push(name.to_owned());
        }
    }
}

/// A command line for a shell.
pub fn shell(command: &[String]) -> String {
    let words: Vec<String> = command.iter().map(|word| quoted(word)).collect();
    words.join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use sluice_manifest::dag::STEPS;

    use super::*;
    use crate::{Args, Command};

    fn lines(line: &str) -> String {
        let args = Args::try_parse_from(line.split(' ')).unwrap();
        let Command::Run(mut args) = args.command else {
            panic!("{line}");
        };
        if !line.contains("--models") {
            // It may stand in the environment.
            args.models = None;
        }
        let commands = STEPS.iter().map(|step| command(step, &args, "runs/a"));
        commands
            .map(|words| shell(&words))
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn options_that_were_not_given_are_left_out() {
        insta::assert_snapshot!(lines("sluice run --input data --output out"), @r"
        sluice-partition --run runs/a --input data
        sluice-read --run runs/a
        sluice-embed --run runs/a --model clip-vit-l14
        sluice-aesthetic --run runs/a --model laion-aesthetic-v2
        sluice-nsfw --run runs/a --model laion-nsfw
        sluice-dedup exact --run runs/a
        sluice-dedup perceptual --run runs/a
        sluice-dedup fit --run runs/a
        sluice-dedup assign --run runs/a
        sluice-dedup match --run runs/a
        sluice-export decide --run runs/a
        sluice-export plan --run runs/a --output out
        sluice-export write --run runs/a
        sluice-export index --run runs/a
        sluice-report --run runs/a
        ");
    }

    #[test]
    fn options_reach_their_step() {
        let all = "sluice run --input a/*.tar b --output out --embedder e --aesthetic s --nsfw n \
            --min-aesthetic -1.5 --max-nsfw 0.5 --eps 0.15 --keep hard --clusters 7 --max-distance 3 \
            --min-side 200 --max-aspect 3 --bytes-per-shard 1000000 --shards-per-partition 2 \
            --embeddings --jobs 3 --force --models /models";
        insta::assert_snapshot!(lines(all), @r"
        sluice-partition --run runs/a --input 'a/*.tar' b --shards-per-partition 2 --jobs 3 --force
        sluice-read --run runs/a --min-side 200 --max-aspect 3 --jobs 3 --force
        sluice-embed --run runs/a --model e --models /models --jobs 3 --force
        sluice-aesthetic --run runs/a --model s --min-score=-1.5 --models /models --jobs 3 --force
        sluice-nsfw --run runs/a --model n --max-score 0.5 --models /models --jobs 3 --force
        sluice-dedup exact --run runs/a --jobs 3 --force
        sluice-dedup perceptual --run runs/a --max-distance 3 --jobs 3 --force
        sluice-dedup fit --run runs/a --clusters 7 --jobs 3 --force
        sluice-dedup assign --run runs/a --jobs 3 --force
        sluice-dedup match --run runs/a --eps 0.15 --keep hard --jobs 3 --force
        sluice-export decide --run runs/a --jobs 3 --force
        sluice-export plan --run runs/a --output out --bytes-per-shard 1000000 --embeddings --jobs 3 --force
        sluice-export write --run runs/a --jobs 3 --force
        sluice-export index --run runs/a --jobs 3 --force
        sluice-report --run runs/a --jobs 3 --force
        ");
    }

    #[test]
    fn every_stage_takes_its_command_line() {
        let args = Args::try_parse_from([
            "sluice",
            "run",
            "--input",
            "in",
            "--output",
            "out",
            "--min-aesthetic",
            "-1.5",
            "--max-nsfw",
            "0.5",
            "--eps",
            "0.15",
            "--keep",
            "hard",
            "--clusters",
            "7",
            "--max-distance",
            "3",
            "--min-side",
            "200",
            "--max-aspect",
            "3",
            "--images-per-shard",
            "9",
            "--shards-per-partition",
            "2",
            "--embeddings",
            "--jobs",
            "3",
            "--force",
            "--models",
            "/models",
        ]);
        let Command::Run(args) = args.unwrap().command else {
            panic!("not run");
        };
        for step in STEPS {
            let line = command(step, &args, "runs/a");
            crate::run::check(step, &line).unwrap();
        }
    }

    #[test]
    fn a_shell_gets_back_what_was_meant() {
        let words = ["a b", "it's", "", "x-1"].map(str::to_owned);
        assert_eq!(shell(&words), r"'a b' 'it'\''s' '' x-1");
    }
}
