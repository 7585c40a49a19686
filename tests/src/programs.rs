//! The stages' programs, by name, inside of this process.

use std::process::ExitCode;
use std::sync::LazyLock;

use anyhow::{Result, anyhow};
use clap::Parser;
use serde_json::Value;
use sluice::programs::StageProgram;
use sluice_harness::{Desk, Shared, StepDone, Tool, describe, tool_main};
use sluice_manifest::Class;

/// What all tests of this program share. Their memories are told apart by name.
pub fn shared() -> &'static Shared {
    static SHARED: LazyLock<Shared> = LazyLock::new(Shared::default);
    &SHARED
}

fn stage(name: &str) -> Result<&'static StageProgram> {
    StageProgram::named(name).ok_or_else(|| anyhow!("no program {name:?}"))
}

/// Runs a command line, the program's name first, in this process.
pub fn run<S: AsRef<str>>(command: &[S]) -> Result<StepDone> {
    let command: Vec<String> = command.iter().map(|w| w.as_ref().to_owned()).collect();
    let name = command.first().map(String::as_str).unwrap_or_default();
    (stage(name)?.run)(&command, shared())
}

/// The `main` of a program: `sluice`, the stages', and the tests' own `copy` and `wipe`.
pub fn main_of(name: &str) -> Result<fn() -> ExitCode> {
    match name {
        "sluice" => Ok(tool_main::<sluice::Args>),
        "copy" => Ok(crate::copy_main),
        "sluice-spin" => Ok(sluice_harness::main::<crate::spin::Spin>),
        "wipe" => Ok(crate::wipe_main),
        name => stage(name).map(|program| program.main),
    }
}

/// What `sluice` said.
#[derive(Debug, Default)]
pub struct Said {
    /// On stdout.
    pub out: String,
    /// On stderr.
    pub err: String,
    /// Its result.
    pub result: Value,
    /// Whether nothing was left to do.
    pub up_to_date: bool,
    /// How it failed.
    pub failed: Option<(Class, String)>,
}

/// Runs `sluice` in this process; `command` begins after its name. Arguments that do not parse are a
/// failure of the class usage, as they are in a process.
pub fn sluice<S: AsRef<str>>(command: &[S]) -> Result<Said> {
    let words = command.iter().map(AsRef::as_ref);
    let args = match sluice::Args::try_parse_from(["sluice"].into_iter().chain(words)) {
        Ok(args) => args,
        Err(e) => {
            return Ok(Said {
                failed: Some((Class::Usage, e.to_string())),
                ..Said::default()
            });
        }
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut desk = Desk {
        shared: shared().clone(),
        out: &mut out,
        err: &mut err,
        result: None,
        up_to_date: false,
    };
    let failed = args.run(&mut desk).err().map(|e| describe(&e));
    let (result, up_to_date) = (desk.result.take().unwrap_or_default(), desk.up_to_date);
    Ok(Said {
        out: String::from_utf8(out)?,
        err: String::from_utf8(err)?,
        result,
        up_to_date,
        failed,
    })
}

/// Runs a command line that must fail. Returns the class and the message.
///
/// # Panics
/// Where it does not fail.
pub fn failed<S: AsRef<str>>(command: &[S]) -> (Class, String) {
    match run(command) {
        Err(e) => describe(&e),
        Ok(done) => {
            let words: Vec<&str> = command.iter().map(AsRef::as_ref).collect();
            panic!("{}: did not fail: {done:?}", words.join(" "))
        }
    }
}
