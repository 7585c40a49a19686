//! The stages' programs, their argument types forgotten.

use std::process::ExitCode;

use anyhow::Result;
use sluice_harness::{Program, Shared, StepDone, check_step, run_step};

/// A stage's program.
pub struct StageProgram {
    /// Its name.
    pub name: &'static str,
    /// Fails when it would refuse a command line, of which the first word is its name.
    pub check: fn(&[String]) -> Result<()>,
    /// Runs a command line in this process.
    pub run: fn(&[String], &Shared) -> Result<StepDone>,
    /// Its `main`.
    pub main: fn() -> ExitCode,
}

const fn program<P: Program>() -> StageProgram {
    StageProgram {
        name: P::NAME,
        check: check_step::<P>,
        run: run_step::<P>,
        main: sluice_harness::main::<P>,
    }
}

/// Every stage's.
pub const PROGRAMS: &[StageProgram] = &[
    program::<sluice_partition::Args>(),
    program::<sluice_read::Args>(),
    program::<sluice_embed::Args>(),
    program::<sluice_aesthetic::Args>(),
    program::<sluice_nsfw::Args>(),
    program::<sluice_dedup::Args>(),
    program::<sluice_export::Args>(),
    program::<sluice_report::Args>(),
];

impl StageProgram {
    /// The program of that name.
    pub fn named(name: &str) -> Option<&'static StageProgram> {
        PROGRAMS.iter().find(|program| program.name == name)
    }
}
