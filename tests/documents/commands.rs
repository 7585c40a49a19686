//! Command lines in code blocks, and the parsers that must accept them.

use clap::CommandFactory;
use sluice::programs::{PROGRAMS, StageProgram};

use crate::markdown::CodeBlock;

/// The program `sluice`, which has the subcommands.
const SLUICE: &str = "sluice";

/// Returns the names of all programs.
pub(crate) fn programs() -> impl Iterator<Item = &'static str> {
    std::iter::once(SLUICE).chain(PROGRAMS.iter().map(|program| program.name))
}

/// Returns the definition of a program's command line; `None` if there is no such program.
fn parser(program: &str) -> Option<clap::Command> {
    match program {
        SLUICE => Some(sluice::Args::command()),
        name => Some((StageProgram::named(name)?.command)()),
    }
}

/// Checks a command. Returns the name of its program if it belongs to Sluice.
pub(crate) fn check(words: &[String]) -> Result<Option<String>, String> {
    let is_variable = |word: &&String| {
        let name = word.split_once('=').map(|(name, _)| name);
        name.is_some_and(|name| {
            name.chars()
                .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
        })
    };
    let words = words
        .iter()
        .filter(|word| *word != "$")
        .skip_while(is_variable);
    let words: Vec<String> = words
        .take_while(|word| !word.starts_with('>'))
        .cloned()
        .collect();
    let Some(first) = words.first() else {
        return Ok(None);
    };
    let program = first.rsplit('/').next().unwrap_or(first);
    if program != SLUICE && !program.starts_with("sluice-") {
        return Ok(None);
    }
    let parser = parser(program).ok_or_else(|| format!("there is no program {program}"))?;
    match parser.try_get_matches_from(filled_in(&words)) {
        Err(e) if e.use_stderr() => Err(e.to_string()),
        _ => Ok(Some(program.to_owned())),
    }
}

/// Replaces placeholders by values: `N` and `[--flag X]` by any value, `…` by a value or by
/// nothing.
fn filled_in(words: &[String]) -> Vec<String> {
    let mut filled: Vec<String> = Vec::new();
    let mut bracket = false;
    for word in words {
        let mut word = word.as_str();
        if word.starts_with("[-") {
            bracket = true;
            word = &word[1..];
        }
        if bracket && word.ends_with(']') {
            bracket = false;
            word = &word[..word.len() - 1];
        }
        let after_flag = filled.last().is_some_and(|last| last.starts_with("--"));
        let is_placeholder = word.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        match word {
            "…" | "..." if !after_flag => {}
            "…" | "..." => filled.push("1".to_owned()),
            _ if is_placeholder => filled.push("1".to_owned()),
            _ => filled.push(word.to_owned()),
        }
    }
    filled
}

/// Returns the commands of a code block, split as a shell does.
pub(crate) fn of(block: &CodeBlock) -> Vec<Vec<String>> {
    let text = block.text.replace("\\\n", " ");
    text.lines().flat_map(split).collect()
}

fn split(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, ';' | '&' | '|') => {
                commands
                    .last_mut()
                    .expect("there is one")
                    .extend(word.take());
                commands.push(Vec::new());
            }
            (None, c) if c.is_whitespace() => {
                commands
                    .last_mut()
                    .expect("there is one")
                    .extend(word.take());
            }
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    commands.last_mut().expect("there is one").extend(word);
    commands.retain(|command| !command.is_empty());
    commands
}

#[test]
fn lines_are_split_as_a_shell_splits_them() {
    let parts = split("A=1 sluice x --scores \"\" 'a || b'; sluice-read --run r && y  # why; z");
    assert_eq!(
        parts,
        [
            vec!["A=1", "sluice", "x", "--scores", "", "a || b"],
            vec!["sluice-read", "--run", "r"],
            vec!["y"],
        ]
    );
}

#[test]
fn wrong_command_lines_are_noticed() {
    let wrong = |line: &str| check(&split(line)[0]).is_err();
    assert!(wrong("sluice-read --rum runs/a"));
    assert!(wrong(
        "SLUICE_X=1 target/release/sluice-dedup march --run runs/a"
    ));
    assert!(wrong("sluice-reed --run runs/a"));
    assert!(wrong("sluice-filter --run runs/a --min aesthetic=high"));
    assert!(!wrong(
        "sluice-dedup match --run runs/a [--eps X] … [--keep hard]"
    ));
    assert!(!wrong("cargo test"));
}
