//! `copy FROM TO` copies all objects below a URI to another URI, and `wipe URI` deletes them. Tests
//! use these to access an object store from a process that has the store's variables.

use std::process::ExitCode;

use anyhow::{Context, Result};
use sluice_store::{Location, Storage};

/// The `main` of `copy`, for [`main_of`](crate::main_of).
pub fn copy_main() -> ExitCode {
    exit(copy(std::env::args().skip(1)))
}

/// The `main` of `wipe`, for [`main_of`](crate::main_of).
pub fn wipe_main() -> ExitCode {
    exit(wipe(std::env::args().skip(1)))
}

#[expect(clippy::print_stderr, reason = "a program without a log")]
fn exit(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e:#}");
            ExitCode::FAILURE
        }
    }
}

fn wipe(mut words: impl Iterator<Item = String>) -> Result<()> {
    let uri = words.next().context("no URI")?;
    let store = Storage::default().create(&Location::parse(&uri)?)?;
    for object in store.list("")? {
        store.delete(&object.path)?;
    }
    store.tidy();
    Ok(())
}

fn copy(mut words: impl Iterator<Item = String>) -> Result<()> {
    let storage = Storage::default();
    let [from, to] = [words.next(), words.next()];
    let from = storage.open(&Location::parse(&from.context("no source")?)?)?;
    let to = storage.create(&Location::parse(&to.context("no target")?)?)?;
    for object in from.list("")? {
        to.put(&object.path, from.get(&object.path)?)?;
    }
    to.tidy();
    Ok(())
}
