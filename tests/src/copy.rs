//! `copy FROM TO`: all objects under one URI to another one. How tests bring data to an object
//! store and back, in a process that has the store's variables.

use std::process::ExitCode;

use anyhow::{Context, Result};
use sluice_store::{Location, Store};

/// The program's `main`.
#[expect(clippy::print_stderr, reason = "a program without a log")]
pub fn copy_main() -> ExitCode {
    match copy(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("copy: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn copy(mut words: impl Iterator<Item = String>) -> Result<()> {
    let [from, to] = [words.next(), words.next()];
    let from = Store::open(&Location::parse(&from.context("no source")?)?)?;
    let to = Store::create(&Location::parse(&to.context("no target")?)?)?;
    for object in from.list("")? {
        to.put(&object.path, from.get(&object.path)?)?;
    }
    to.tidy();
    Ok(())
}
