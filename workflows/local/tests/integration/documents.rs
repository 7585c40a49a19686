//! Every command line in the README parses, and the table of checks is the program's.

use clap::Parser;

const README: &str = include_str!("../../README.md");

#[test]
fn command_lines_parse() {
    let lines: Vec<&str> = README
        .lines()
        .filter(|line| line.starts_with("sluice "))
        .collect();
    assert!(lines.len() >= 10);
    for line in lines {
        if let Err(e) = sluice::Args::try_parse_from(line.split_whitespace()) {
            panic!("{line}\n{e}");
        }
    }
}

#[test]
fn the_checks_are_those_that_verify_makes() {
    let run = crate::support::curate("documents");
    let said = crate::support::sluice(&["verify", "--run", &run, "--json"]);
    let found: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    for check in found["checks"].as_array().unwrap() {
        let (name, about) = (check["check"].as_str(), check["about"].as_str());
        let line = format!("| `{}` | {} |", name.unwrap(), about.unwrap());
        assert!(README.contains(&line), "{line}");
    }
}
