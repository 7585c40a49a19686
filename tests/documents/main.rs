//! The documents match the programs.
//!
//! Failures: a command line in a code block that its program's parser rejects; a pipeline that does
//! not load; a table that differs from the type it describes (columns, flags, reasons, exit codes,
//! models, the DAG); a broken link; a crate without a README; a funnel that does not sum; a
//! workflow file that differs from the output of `sluice dag`; a stage that is named in more lines
//! than CONTRIBUTING.md lists; a glossary that is long or not linked. Change the document, or the
//! code if the code is wrong.
//!
//! Code blocks without command lines have a language: `text`, `json`, `toml`, `rust`, `mermaid`.

mod commands;
mod contributing;
mod glossary;
mod journey;
mod markdown;
mod pipelines;
mod recipes;
mod tables;
mod words;
mod workflows;

use std::collections::BTreeSet;

use markdown::{MarkdownFile, documents};
use sluice::dag::{Dag, DagNode};
use sluice::pipeline;

/// Returns the document at this path below the repository's root.
fn document(path: &str) -> MarkdownFile {
    let found = documents()
        .into_iter()
        .find(|document| document.path == path);
    found.unwrap_or_else(|| panic!("there is no {path}"))
}

#[test]
fn every_command_line_parses() {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for document in documents() {
        for command in document
            .blocks()
            .iter()
            .filter(|block| block.is_shell())
            .flat_map(commands::of)
        {
            match commands::check(&command) {
                Ok(program) => seen.extend(program),
                Err(e) => wrong.push(format!("{}: {}\n{e}", document.path, command.join(" "))),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let missing: Vec<_> = commands::programs()
        .filter(|name| !seen.contains(*name))
        .collect();
    assert!(
        missing.is_empty(),
        "no document shows how to call {missing:?}"
    );
}

#[test]
fn every_link_leads_somewhere() {
    let all = documents();
    let mut wrong = Vec::new();
    for document in &all {
        for link in document.links() {
            if !markdown::leads_somewhere(&link, document, &all) {
                wrong.push(format!("{}: {link}", document.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The maximum length of a line in characters.
const LINE: usize = 100;

/// Tables, links and the output of programs cannot be wrapped.
#[test]
fn lines_of_documents_are_short() {
    let mut wrong = Vec::new();
    for document in documents() {
        for (number, line) in document.wrappable() {
            if line.chars().count() > LINE {
                wrong.push(format!("{}:{number}: {line}", document.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_crate_says_what_it_is_for() {
    let missing = markdown::crates_without_readme();
    assert!(missing.is_empty(), "no README.md in {}", missing.join(", "));
}

#[test]
fn the_picture_of_the_dag_is_the_dag() {
    let blocks = document("README.md").blocks();
    let drawn = blocks
        .iter()
        .find(|block| block.language == "mermaid")
        .expect("README.md draws the DAG");
    let lines = || drawn.text.lines().map(str::trim);
    let edges: BTreeSet<(String, String)> = lines()
        .filter_map(|line| line.split_once(" --> "))
        .map(|(from, to)| (from.to_owned(), to.to_owned()))
        .collect();
    let nodes: BTreeSet<String> = lines()
        .filter(|line| line.contains("[\""))
        .map(str::to_owned)
        .collect();
    let dag = Dag::of(&pipeline::open(&sluice_tests::shared().storage, None).unwrap());
    let own = |node: &DagNode| -> Vec<(String, String)> {
        let pairs = node
            .after
            .iter()
            .map(|after| (after.clone(), node.name.clone()));
        pairs.collect()
    };
    assert_eq!(edges, dag.steps.iter().flat_map(own).collect());
    let node = |node: &DagNode| format!("{0}[\"{0}<br>{1}\"]", node.name, words(&node.fan_out));
    assert_eq!(nodes, dag.steps.iter().map(node).collect());
}

fn words(fan_out: &str) -> &'static str {
    match fan_out {
        "one" => "once",
        "partitions" => "per partition",
        "hash-ranges" => "per range of hashes",
        "cluster-groups" => "per group of clusters",
        "output-shards" => "per output shard",
        other => panic!("no words for {other:?}"),
    }
}

#[test]
fn the_funnel_shown_sums() {
    let readme = document("README.md");
    let (_, after) = readme
        .text
        .split_once("<!-- demo-funnel")
        .expect("README.md marks the demo's funnel");
    let block = markdown::blocks(after)
        .into_iter()
        .next()
        .expect("a code block follows the mark");
    let number = |line: &str| {
        let digits = |word: &&str| !word.is_empty() && word.chars().all(|c| c.is_ascii_digit());
        let found = line
            .split_whitespace()
            .map(|word| word.trim_start_matches('-'))
            .find(digits);
        found.and_then(|word| word.parse::<u64>().ok())
    };
    let (mut came, mut kept, mut dropped) = (None, None, 0);
    for line in block.text.lines() {
        match (
            line.starts_with("came in"),
            line.starts_with("kept"),
            line.contains(" -"),
        ) {
            (true, _, _) => came = number(line),
            (_, true, _) => kept = number(line),
            (_, _, true) if came.is_some() && kept.is_none() => {
                dropped += number(line).unwrap_or_else(|| panic!("no number in {line:?}"));
            }
            _ => {}
        }
    }
    assert_eq!(
        came.expect("how many came in"),
        kept.expect("how many are kept") + dropped
    );
}
