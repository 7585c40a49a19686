//! Runs the stages' programs by name in this process.

use std::process::ExitCode;
use std::sync::LazyLock;

use anyhow::{Result, anyhow};
use clap::Parser;
use serde_json::Value;
use sluice::programs::StageProgram;
use sluice_harness::{ProcessResources, StepDone, Tool, ToolContext, describe, tool_main};
use sluice_manifest::Class;

/// Returns the context that all tests of this program share. Their stores in memory differ by name.
pub fn shared() -> &'static ProcessResources {
    static SHARED: LazyLock<ProcessResources> = LazyLock::new(ProcessResources::default);
    &SHARED
}

fn stage(name: &str) -> Result<&'static StageProgram> {
    StageProgram::named(name).ok_or_else(|| anyhow!("no program {name:?}"))
}

/// Runs a command line in this process, the program's name first.
///
/// # Errors
/// When there is no such program, or the program fails.
pub fn run<S: AsRef<str>>(command: &[S]) -> Result<StepDone> {
    let command: Vec<String> = command.iter().map(|w| w.as_ref().to_owned()).collect();
    let name = command.first().map(String::as_str).unwrap_or_default();
    (stage(name)?.run)(&command, shared())
}

/// Returns the `main` of a program: `sluice`, a stage's, or the tests' own `copy` and `wipe`.
///
/// # Errors
/// When there is no such program.
pub fn main_of(name: &str) -> Result<fn() -> ExitCode> {
    match name {
        "sluice" => Ok(tool_main::<sluice::Args>),
        "copy" => Ok(crate::copy_main),
        "sluice-spin" => Ok(sluice_harness::main::<crate::spin::Spin>),
        "wipe" => Ok(crate::wipe_main),
        name => stage(name).map(|program| program.main),
    }
}

/// The output of one call of `sluice`.
#[derive(Debug, Default)]
pub struct SluiceOutput {
    /// Its output to stdout.
    pub out: String,
    /// Its output to stderr.
    pub err: String,
    /// Its result.
    pub result: Value,
    /// Whether nothing was left to do.
    pub up_to_date: bool,
    /// The class and the message of its failure.
    pub failed: Option<(Class, String)>,
}

/// Runs `sluice` in this process; `command` does not contain its name. Arguments that do not parse
/// are a failure of the class usage, as in a process.
///
/// # Errors
/// When the result is not valid.
pub fn sluice<S: AsRef<str>>(command: &[S]) -> Result<SluiceOutput> {
    let words = command.iter().map(AsRef::as_ref);
    let args = match sluice::Args::try_parse_from(["sluice"].into_iter().chain(words)) {
        Ok(args) => args,
        Err(e) => {
            return Ok(SluiceOutput {
                failed: Some((Class::Usage, e.to_string())),
                ..SluiceOutput::default()
            });
        }
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut tool = ToolContext {
        shared: shared().clone(),
        out: &mut out,
        err: &mut err,
        result: None,
        up_to_date: false,
    };
    let failed = args.run(&mut tool).err().map(|e| describe(&e));
    let (result, up_to_date) = (tool.result.take().unwrap_or_default(), tool.up_to_date);
    Ok(SluiceOutput {
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
/// When it does not fail.
pub fn failed<S: AsRef<str>>(command: &[S]) -> (Class, String) {
    match run(command) {
        Err(e) => describe(&e),
        Ok(done) => {
            let words: Vec<&str> = command.iter().map(AsRef::as_ref).collect();
            panic!("{}: did not fail: {done:?}", words.join(" "))
        }
    }
}
