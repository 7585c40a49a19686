//! The stages' programs. A new stage is one line of [`PROGRAMS`].

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use serde_json::Value;
use sluice_harness::{
    Gives, InputPlaces, Program, Shared, StepDone, Upstream, Wiring, check_step, has_work,
    input_of, run_step, task, wiring,
};
use sluice_manifest::{Operation, Role};
use sluice_store::Storage;

/// Does a command line, and returns its result and whether it was up to date.
type Task = fn(&[String], &Shared) -> Result<(Value, bool)>;
/// Returns whether a command line has work to do, as far as is known by then.
type HasWork = fn(&[String], &Shared, Instant) -> Result<bool>;

/// A stage's program, its argument types forgotten.
pub struct StageProgram {
    /// Its name, `sluice-<stage>`.
    pub name: &'static str,
    /// The stage's role in a pipeline.
    pub role: Role,
    /// What it does.
    pub operations: &'static [Operation],
    /// Its command line's definition.
    pub command: fn() -> clap::Command,
    /// Parses a command line, of which the first word is its name, and returns how it is wired.
    pub wiring: fn(&[String]) -> Result<Wiring>,
    /// Lists the input that a command line names, and returns where it is; none for stages that read
    /// the plan.
    pub input: fn(&[String], &Storage) -> Result<Option<InputPlaces>>,
    /// Checks a command line before the work, and returns what the step gives.
    pub check: fn(&[String], &Upstream) -> Result<Gives>,
    /// Runs a command line in this process.
    pub run: fn(&[String], &Shared) -> Result<StepDone>,
    /// Does a command line in this process as an engine's task, and returns its result and whether it
    /// was up to date.
    pub task: Task,
    /// Returns whether a command line has work to do.
    pub has_work: HasWork,
    /// Its `main`.
    pub main: fn() -> ExitCode,
}

const fn program<P: Program>() -> StageProgram {
    StageProgram {
        name: P::NAME,
        role: P::ROLE,
        operations: P::OPERATIONS,
        command: P::command,
        wiring: wiring::<P>,
        input: input_of::<P>,
        check: check_step::<P>,
        run: run_step::<P>,
        task: task::<P>,
        has_work: has_work::<P>,
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
    program::<sluice_score::Args>(),
    program::<sluice_filter::Args>(),
    program::<sluice_dedup::Args>(),
    program::<sluice_export::Args>(),
    program::<sluice_report::Args>(),
];

impl StageProgram {
    /// Returns the program of that name.
    pub fn named(name: &str) -> Option<&'static StageProgram> {
        PROGRAMS.iter().find(|program| program.name == name)
    }

    /// Returns the program of a stage.
    pub fn of_stage(stage: &str) -> Option<&'static StageProgram> {
        PROGRAMS.iter().find(|program| program.stage() == stage)
    }

    /// Returns its stage.
    pub fn stage(&self) -> &'static str {
        self.name.strip_prefix("sluice-").unwrap_or(self.name)
    }

    /// Returns the definition of an operation's command line.
    pub fn command_of(&self, operation: &Operation) -> clap::Command {
        let command = (self.command)();
        match operation.subcommand {
            None => command,
            Some(name) => command.find_subcommand(name).cloned().unwrap_or(command),
        }
    }
}
