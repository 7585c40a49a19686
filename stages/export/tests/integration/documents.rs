//! Checks that the command lines in the README and in the help parse.

use clap::Parser;
use sluice_export::Args;

const README: &str = include_str!("../../README.md");

fn parse(line: &str) {
    if let Err(e) = Args::try_parse_from(line.split_whitespace()) {
        panic!("{line}\n{e}");
    }
}

#[test]
fn the_readme_s_commands_parse() {
    let lines = README
        .lines()
        .filter(|line| line.starts_with("sluice-export "));
    assert_eq!(lines.clone().count(), 4);
    lines.for_each(parse);
}

#[test]
fn the_help_s_examples_parse() {
    use clap::CommandFactory;
    let mut examples = 0;
    for step in Args::command().get_subcommands_mut() {
        let help = step.render_long_help().to_string();
        // The help is wrapped at the terminal's width: an example ends with an empty line.
        let Some((_, rest)) = help.split_once("Example: ") else {
            continue;
        };
        let (example, _) = rest.split_once("\n\n").unwrap();
        parse(example);
        examples += 1;
    }
    assert_eq!(examples, 4);
}

#[test]
fn the_readme_names_every_flag() {
    use clap::CommandFactory;
    for step in Args::command().get_subcommands() {
        for argument in step.get_arguments() {
            let common = [
                "run",
                "partitions",
                "task-index",
                "task-count",
                "jobs",
                "memory",
                "force",
                "result",
                "log-format",
                "step",
            ];
            let Some(flag) = argument.get_long().filter(|flag| !common.contains(flag)) else {
                continue;
            };
            assert!(README.contains(&format!("| `--{flag}")), "--{flag}");
        }
    }
}
