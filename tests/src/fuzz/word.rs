//! Words of command lines: URIs, patterns of shards, lists of units, names, thresholds.

use std::fmt::Display;
use std::str::FromStr;

use sluice::programs::StageProgram;
use sluice_harness::describe;
use sluice_manifest::{Dropped, Reason, ScoreName, StepName, Unit};
use sluice_store::Location;
use sluice_testkit::Shard;

use super::{choice, refused_as, refused_well};
use crate::{Run, shared};

const PLACE: &str = "memory://fuzz-word";

/// Command lines whose last word ends in the text. They access only memory.
const LINES: &[(&str, &[&str])] = &[
    ("sluice-filter", &["--min="]),
    ("sluice-filter", &["--max="]),
    ("sluice-filter", &["--top="]),
    ("sluice-filter", &["--scores="]),
    ("sluice-filter", &["--step="]),
    ("sluice-score", &["--import=x", "--by="]),
    ("sluice-dedup", &["match", "--eps="]),
    ("sluice-dedup", &["exact", "--methods="]),
    ("sluice-export", &["plan", "--bytes-per-shard="]),
    (
        "sluice-partition",
        &["--input=x", "--shards-per-partition="],
    ),
];

pub(super) fn run(data: &[u8]) {
    let (choice, data) = choice(data);
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match choice {
        0 => location(text),
        1 => named(text),
        2 => shards(text),
        3 => units(text),
        more => line(LINES[more % LINES.len()], text),
    }
}

/// A parsed location can be printed and parsed again. An error does not contain a password.
fn location(text: &str) {
    match Location::parse(text) {
        Err(e) => refused_well(&e),
        Ok(location) => {
            let shown = location.to_string();
            let again = Location::parse(&shown).unwrap_or_else(|e| panic!("{shown}: {e}"));
            assert_eq!(again, location, "{shown}");
            if let Some((folder, name)) = location.split() {
                assert!(
                    !name.is_empty() && !name.contains('/'),
                    "{name} in {folder}"
                );
            }
        }
    }
}

/// Names, units and reasons.
fn named(text: &str) {
    if let Ok(step) = text.parse::<StepName>() {
        assert_eq!(step.to_string(), text);
    }
    printed_and_parsed::<ScoreName>(text);
    printed_and_parsed::<Unit>(text);
    printed_and_parsed::<Reason>(text);
    printed_and_parsed::<Dropped>(text);
}

fn printed_and_parsed<T: FromStr + Display + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        let again = value.to_string().parse::<T>();
        assert!(again.is_ok_and(|again| again == value), "{text}: {value}");
    }
}

/// Lists the shards of a pattern, in memory.
fn shards(text: &str) {
    let place = Run::at(PLACE).expect("memory can be opened");
    for name in ["00000.tar", "00001.tar.gz", "more/00002.tgz", "note.txt"] {
        let shard = Shard::new().finish();
        place
            .store
            .put(&format!("input/{name}"), shard)
            .expect("memory can be written");
    }
    let input = format!("--input={PLACE}/input/{text}");
    done("sluice-partition", &[&input]);
}

/// Parses a list of units of `read`.
fn units(text: &str) {
    let input = format!("--input={PLACE}/input");
    shards("");
    done("sluice-partition", &[&input, "--shards-per-partition=1"]);
    done("sluice-read", &[&format!("--partitions={text}")]);
}

/// Runs a program in memory. It may reject the words.
fn done(program: &str, words: &[&str]) {
    let mut command = vec![program.to_owned(), format!("--run={PLACE}/run")];
    command.extend(words.iter().map(|word| (*word).to_owned()));
    let program = StageProgram::named(program).expect("a program");
    if let Err(e) = (program.run)(&command, shared()) {
        let (class, message) = describe(&e);
        refused_as(class, &message);
    }
}

/// Parses a word with its program, without running it.
fn line((program, words): (&str, &[&str]), text: &str) {
    let mut command = vec![program.to_owned()];
    command.extend(words.iter().map(|word| (*word).to_owned()));
    command.push("--run=x".to_owned());
    let value = words.len();
    command[value].push_str(text);
    let program = StageProgram::named(program).expect("a program");
    let _ = (program.wiring)(&command);
}
