//! The stages' programs. A new stage is one line in [`PROGRAMS`].

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use serde_json::Value;
use sluice_harness::{
    ProcessResources, Program, StepDone, Wiring, check_step, has_work, input_of, run_step, task,
    wiring,
};
use sluice_manifest::{Operation, Role};
use sluice_run::{InputPlaces, StepOutputs, Upstream};
use sluice_scoring::ImageProgram;
use sluice_store::Storage;

use crate::pass::{self, OpenImages};

/// Runs a command line, and returns its result and whether it was up to date.
type RunTask = fn(&[String], &ProcessResources) -> Result<(Value, bool)>;
/// Returns whether a command line has work to do, as far as it is known before the deadline.
type HasWork = fn(&[String], &ProcessResources, Instant) -> Result<bool>;

/// A stage's program, independent of its argument type.
pub struct StageProgram {
    /// Its name, `sluice-<stage>`.
    pub name: &'static str,
    /// The stage's role in a pipeline.
    pub role: Role,
    /// The stage's operations.
    pub operations: &'static [Operation],
    /// The definition of its command line.
    pub command: fn() -> clap::Command,
    /// Parses a command line, whose first word is the program's name, and returns its inputs and
    /// outputs.
    pub wiring: fn(&[String]) -> Result<Wiring>,
    /// Lists the input of a command line, and returns its location; `None` for stages that read the
    /// plan.
    pub input: fn(&[String], &Storage) -> Result<Option<InputPlaces>>,
    /// Checks a command line before the work, and returns the scores and embeddings of the step.
    pub check: fn(&[String], &Upstream) -> Result<StepOutputs>,
    /// Runs a command line in this process.
    pub run: fn(&[String], &ProcessResources) -> Result<StepDone>,
    /// Runs a command line in this process as an engine's task, and returns its result and whether
    /// it was up to date.
    pub task: RunTask,
    /// Returns whether a command line has work to do.
    pub has_work: HasWork,
    /// Opens a command line that may share a pass over the images with others.
    pub images: Option<OpenImages>,
    /// The stage's `main`.
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
        images: None,
        main: sluice_harness::main::<P>,
    }
}

const fn image_program<P: ImageProgram>() -> StageProgram {
    StageProgram {
        images: Some(pass::open::<P>),
        ..program::<P>()
    }
}

/// The programs of all stages.
pub const PROGRAMS: &[StageProgram] = &[
    program::<sluice_partition::Args>(),
    program::<sluice_read::Args>(),
    image_program::<sluice_embed::Args>(),
    image_program::<sluice_aesthetic::Args>(),
    image_program::<sluice_nsfw::Args>(),
    image_program::<sluice_score::Args>(),
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

    /// Returns the stage: the program's name without `sluice-`.
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
