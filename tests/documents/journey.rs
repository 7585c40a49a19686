//! HOW-A-SAMPLE-TRAVELS.md: every file and every function in its tables exists, and every step of the
//! default pipeline has a section.

use std::collections::BTreeSet;

use sluice::pipeline;

use crate::contributing::read;
use crate::document;
use crate::markdown::{MarkdownFile, files};

fn page() -> MarkdownFile {
    document("HOW-A-SAMPLE-TRAVELS.md")
}

/// Returns the texts in backticks in a row of a table.
fn code_of(row: &str) -> Vec<&str> {
    row.split('`').skip(1).step_by(2).collect()
}

/// Returns the functions in the tables of the page, each with its file.
fn functions(page: &MarkdownFile) -> Vec<(String, String)> {
    let rows = page.text.lines().filter(|line| line.starts_with("| "));
    let pairs = rows.filter_map(|row| {
        let code = code_of(row);
        let file = code.iter().find(|text| text.ends_with(".rs"))?;
        Some((code[0].to_owned(), (*file).to_owned()))
    });
    pairs.collect()
}

#[test]
fn every_function_of_the_journey_exists() {
    let all: BTreeSet<String> = files().into_iter().collect();
    let functions = functions(&page());
    assert!(functions.len() > 40, "{}", functions.len());
    for (function, file) in functions {
        assert!(all.contains(&file), "there is no {file}");
        let text = read(&file);
        let is_there = ["(", "<"].map(|after| text.contains(&format!("fn {function}{after}")));
        assert!(
            is_there.contains(&true),
            "{file} has no function {function}"
        );
    }
}

#[test]
fn the_journey_visits_every_step() {
    let page = page();
    let headings = page
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("## "));
    let visited: BTreeSet<&str> = headings.flat_map(|heading| heading.split(", ")).collect();
    let pipeline = pipeline::default().unwrap();
    for node in &pipeline.nodes {
        let step = node.step.as_str();
        assert!(visited.contains(step), "no section about the step {step}");
    }
}
