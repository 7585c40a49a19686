//! The DAG's parameters as flags, and the command line of each step, as a person would type it.

use clap::{Arg, ArgAction, ArgMatches, FromArgMatches};
use sluice_manifest::dag::{PARAMETERS, Parameter, Step, Values};

use crate::run::RunArgs;

/// The DAG's parameters, as they were given.
#[derive(Debug, Clone)]
pub struct Parameters(pub Values);

impl Parameters {
    /// All values of a parameter; none where it was not given.
    pub fn all(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// The value of a parameter that has one; empty where it was not given.
    pub fn one(&self, name: &str) -> &str {
        self.all(name).first().map_or("", String::as_str)
    }
}

/// A parameter's flag.
fn flag(parameter: &Parameter) -> Arg {
    let arg = Arg::new(parameter.name)
        .long(parameter.name)
        .env(parameter.variable)
        .help(parameter.help);
    if parameter.value.is_empty() {
        return arg
            .value_name("true")
            .value_parser(clap::value_parser!(bool))
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true");
    }
    let arg = arg
        .value_name(parameter.value)
        .required(parameter.required)
        // Scores may be below zero. What a value must be the stage's own program says.
        .allow_negative_numbers(true);
    let arg = match parameter.many {
        true => arg.num_args(1..).action(ArgAction::Append),
        false => arg,
    };
    match parameter.default {
        Some(default) => arg.default_value(default),
        None => arg,
    }
}

impl clap::Args for Parameters {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.args(PARAMETERS.iter().map(flag))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Parameters {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let values = PARAMETERS.iter().filter_map(|parameter| {
            let values: Vec<String> = match parameter.value.is_empty() {
                true => {
                    let on = matches.get_one::<bool>(parameter.name);
                    on.filter(|on| **on)
                        .map(bool::to_string)
                        .into_iter()
                        .collect()
                }
                false => {
                    let given = matches.get_many::<String>(parameter.name);
                    given.into_iter().flatten().cloned().collect()
                }
            };
            (!values.is_empty()).then_some((parameter.name, values))
        });
        Ok(Self(values.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// A step's command line, the program's name first.
pub fn command(step: &Step, args: &RunArgs, run: &str) -> Vec<String> {
    let mut line = step.command(run, &args.parameters.0);
    if let Some(jobs) = args.jobs {
        line.extend(["--jobs".to_owned(), jobs.to_string()]);
    }
    if args.force {
        line.push("--force".to_owned());
    }
    line
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use sluice_harness::shell;
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
            args.parameters.0.remove("models");
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
}
