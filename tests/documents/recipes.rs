//! CONTRIBUTING.md: the tables of files list the files that name an existing part, and no others.

use std::collections::BTreeSet;

use crate::contributing::{is_source, lines_with, read};
use crate::document;
use crate::markdown::files;

/// The sections with a table of files.
const RECIPES: [&str; 6] = [
    "A model",
    "A model layout",
    "An image format",
    "A store option",
    "A function for rules",
    "A column for rules",
];

/// A section whose table is compared with the sources, a part that exists, and the words that name
/// the part.
type Existing = (&'static str, &'static str, &'static [&'static str]);

const EXISTING: [Existing; 3] = [
    (
        "A model layout",
        "open_clip",
        &["open_clip", "open_clip_config"],
    ),
    ("An image format", "bmp", &["bmp", "Bmp"]),
    ("A store option", "anonymous", &["anonymous"]),
];

/// Returns the files of a section's table, with the name of a part for each placeholder.
fn listed(heading: &str, part: &str) -> BTreeSet<String> {
    let (head, rows) = document("CONTRIBUTING.md").table(heading);
    assert_eq!(head, ["file", "change"], "{heading}");
    let files = rows.iter().map(|row| row[0].trim_matches('`'));
    let named = files.map(|file| match (file.find('<'), file.find('>')) {
        (Some(from), Some(to)) => format!("{}{part}{}", &file[..from], &file[to + 1..]),
        _ => file.to_owned(),
    });
    named.collect()
}

#[test]
fn the_files_of_every_recipe_exist() {
    let all: BTreeSet<String> = files().into_iter().collect();
    for heading in RECIPES {
        let part = EXISTING.iter().find(|existing| existing.0 == heading);
        let part = part.map_or("dinov2-small", |existing| existing.1);
        for file in listed(heading, part) {
            assert!(all.contains(&file), "CONTRIBUTING.md, {heading}: {file}");
        }
    }
}

#[test]
fn a_part_is_named_in_the_files_of_its_recipe() {
    for (heading, part, words) in EXISTING {
        let is_code =
            |path: &String| is_source(path) && (path.ends_with(".rs") || path.ends_with(".toml"));
        let own = format!("/{part}.rs");
        let names_it = |path: &String| path.ends_with(&own) || !lines_with(path, words).is_empty();
        let sources = files().into_iter().filter(is_code);
        let named: BTreeSet<String> = sources.filter(names_it).collect();
        let listed = listed(heading, part).into_iter().filter(is_code);
        assert_eq!(named, listed.collect(), "{heading}");
    }
}

#[test]
fn every_store_option_is_in_the_readme() {
    let settings = read("shared/store/src/settings.rs");
    let variables = |text: &str| -> BTreeSet<String> {
        let words = text.split(|c: char| !c.is_ascii_uppercase() && c != '_');
        let names = words.filter(|word| word.starts_with("SLUICE_STORE_") && word.len() > 13);
        names.map(str::to_owned).collect()
    };
    let readme = read("shared/store/README.md");
    let rows = readme.lines().filter(|line| line.starts_with("| `SLUICE_"));
    let rows: String = rows.map(|row| format!("{row}\n")).collect();
    assert_eq!(variables(&settings), variables(&rows));
}
