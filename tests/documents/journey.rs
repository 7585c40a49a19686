//! The functions that documents name exist. HOW-A-SAMPLE-TRAVELS.md: every file and every function in
//! its tables exists, and every step of the default pipeline has a section.

use std::collections::{BTreeMap, BTreeSet};

use sluice::pipeline;

use crate::contributing::read;
use crate::document;
use crate::markdown::{MarkdownFile, documents, files};

fn page() -> MarkdownFile {
    document("HOW-A-SAMPLE-TRAVELS.md")
}

/// Returns the texts in backticks in a row of a table.
fn code_of(row: &str) -> Vec<&str> {
    row.split('`').skip(1).step_by(2).collect()
}

/// Returns the functions in the tables of the page, each with its file. The columns with code are
/// functions, then the file, then maybe a description.
fn functions(page: &MarkdownFile) -> Vec<(String, String)> {
    let rows = page.text.lines().filter(|line| line.starts_with("| "));
    let pairs = rows.flat_map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        let file_at = cells.iter().position(|cell| {
            let code = code_of(cell);
            code.first().is_some_and(|code| code.ends_with(".rs"))
        });
        let Some(at) = file_at else {
            return Vec::new();
        };
        let file = code_of(cells[at])[0];
        let functions = code_of(cells[at - 1]).into_iter();
        functions
            .map(|function| (function.to_owned(), file.to_owned()))
            .collect()
    });
    pairs.collect()
}

/// Returns whether a file defines a function: `name`, or `Type::name` in an `impl` of the type.
fn defines(text: &str, function: &str) -> bool {
    let (of, name) = match function.split_once("::") {
        Some((of, name)) => (Some(of), name),
        None => (None, function),
    };
    let mut current: Option<&str> = None;
    text.lines().any(|line| {
        if line.starts_with("impl") || line.starts_with("pub trait") {
            current = Some(line);
        } else if line.starts_with('}') {
            current = None;
        }
        let is_here = ["(", "<"].map(|after| line.contains(&format!("fn {name}{after}")));
        is_here.contains(&true) && of.is_none_or(|of| current.is_some_and(|line| is_of(line, of)))
    })
}

/// Returns whether the first line of an `impl` is that of the type.
fn is_of(line: &str, name: &str) -> bool {
    let subject = line.split(" for ").last().unwrap_or(line);
    let mut words = subject.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.any(|word| word == name)
}

/// Returns the texts `Type::item` in backticks, without generic arguments and parameters.
fn items_of(text: &str) -> BTreeSet<(&str, &str)> {
    let lines = text.lines().flat_map(code_of);
    let items = lines.filter_map(|code| {
        let (of, item) = code.split_once("::")?;
        let is_word = |text: &str| {
            let mut characters = text.chars();
            characters.all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        let item = item.split(['(', ':']).next()?;
        let is_type = of.starts_with(|c: char| c.is_ascii_uppercase());
        (is_type && is_word(of) && is_word(item)).then_some((of, item))
    });
    items.collect()
}

#[test]
fn every_function_of_the_journey_exists() {
    let all: BTreeSet<String> = files().into_iter().collect();
    let functions = functions(&page());
    assert!(functions.len() > 40, "{}", functions.len());
    for (function, file) in functions {
        assert!(all.contains(&file), "there is no {file}");
        assert!(
            defines(&read(&file), &function),
            "{file} has no function {function}"
        );
    }
}

#[test]
fn every_item_of_a_type_that_a_document_names_exists() {
    let sources = files().into_iter().filter(|path| {
        let is_source = path.contains("/src/") && path.ends_with(".rs");
        is_source && !path.starts_with("tests/")
    });
    // The text of each crate.
    let mut crates: BTreeMap<String, String> = BTreeMap::new();
    for path in sources {
        let (name, _) = path.split_once("/src/").expect("a source file");
        crates
            .entry(name.to_owned())
            .or_default()
            .push_str(&read(&path));
    }
    let mut found = 0;
    for document in documents() {
        for (of, item) in items_of(&document.text) {
            let type_of = |text: &&String| {
                let kinds = ["struct", "enum", "trait"];
                kinds.iter().any(|kind| has_word_after(text, kind, of))
            };
            let has_item = |text: &String| {
                let starts = [
                    format!("fn {item}"),
                    format!("pub {item}:"),
                    format!("    {item}"),
                ];
                starts.iter().any(|start| text.contains(start.as_str()))
            };
            let mut owners = crates.values().filter(type_of);
            assert!(owners.any(has_item), "{}: {of}::{item}", document.path);
            found += 1;
        }
    }
    assert!(found > 60, "{found}");
}

/// Returns whether `keyword name` is in a text, and ends there.
fn has_word_after(text: &str, keyword: &str, name: &str) -> bool {
    let start = format!("{keyword} {name}");
    text.match_indices(&start).any(|(at, _)| {
        let after = text[at + start.len()..].chars().next();
        after.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '_')
    })
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
