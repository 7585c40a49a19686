//! `sluice`: the program that people run.
//!
//! `run` runs all steps of a pipeline in this process. `pipeline` shows and checks pipelines, `dag`
//! prints them for workflow engines, and `steps` is the program of their pods. `inspect` prints
//! manifests, `explain` shows what happened to an image, `gallery` shows pictures, `try` shows the
//! effect of other thresholds, `search` finds the nearest images, and `verify` checks a finished
//! run. `models` manages the models, and `doctor` shows the machine's resources. `completions` and
//! `man` generate documentation for the shell.

pub mod dag;
pub mod doctor;
pub mod documents;
pub mod explain;
pub mod funnel;
pub mod gallery;
pub mod inspect;
pub mod models;
pub mod pass;
pub mod pipeline;
pub mod places;
pub mod programs;
pub mod run;
pub mod search;
pub mod steps;
pub mod taken;
pub mod text;
pub mod try_out;
pub mod verify;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use sluice_harness::{LogFormat, Tool, ToolContext, tool_main};

use crate::programs::StageProgram;

/// The entry point. Started under the name of a stage's program, it is that program: an image with
/// all programs contains one file and links to it.
pub fn main() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&called).file_name().unwrap_or_default();
    match name.to_str().and_then(StageProgram::named) {
        Some(program) => (program.main)(),
        None => tool_main::<Args>(),
    }
}

/// Curate image datasets: WebDataset shards in, a smaller and better WebDataset out
///
/// Example: sluice run --input data/ --output out/
#[derive(Debug, Parser)]
#[command(name = "sluice", version)]
pub struct Args {
    /// The subcommand.
    #[command(subcommand)]
    pub command: SluiceCommand,

    /// How logs are written (default: text on a terminal, json otherwise)
    #[arg(
        long,
        global = true,
        env = "SLUICE_LOG_FORMAT",
        value_name = "FORMAT",
        value_enum
    )]
    pub log_format: Option<LogFormat>,
}

/// The subcommands of `sluice`.
#[derive(Debug, Subcommand)]
#[expect(
    missing_docs,
    reason = "the help of a subcommand is the docstring of its arguments"
)]
pub enum SluiceCommand {
    Run(Box<run::RunArgs>),
    Inspect(inspect::InspectArgs),
    Explain(explain::ExplainArgs),
    Gallery(gallery::GalleryArgs),
    Try(try_out::TryArgs),
    Search(search::SearchArgs),
    Verify(verify::VerifyArgs),
    Models(models::ModelsArgs),
    Pipeline(pipeline::commands::PipelineArgs),
    Dag(dag::DagArgs),
    Doctor(doctor::DoctorArgs),
    Steps(steps::StepsArgs),
    Completions(documents::CompletionsArgs),
    Man(documents::ManArgs),
}

impl Tool for Args {
    const NAME: &'static str = "sluice";

    fn jobs(&self) -> Option<usize> {
        match &self.command {
            SluiceCommand::Run(args) => args.jobs,
            SluiceCommand::Verify(args) => args.jobs,
            _ => None,
        }
    }

    fn memory(&self) -> Option<u64> {
        match &self.command {
            SluiceCommand::Run(args) => args.memory,
            _ => None,
        }
    }

    fn log_format(&self) -> Option<LogFormat> {
        self.log_format
    }

    fn result_file(&self) -> Option<&Path> {
        match &self.command {
            SluiceCommand::Run(args) => args.result.as_deref(),
            SluiceCommand::Steps(args) => args.result.as_deref(),
            _ => None,
        }
    }

    fn answers_with_result(line: &[OsString]) -> bool {
        // One flag may precede the command.
        let command = match line {
            [_, flag, _, command, ..] if flag == "--log-format" => Some(command),
            [_, flag, command, ..] if flag.to_string_lossy().starts_with("--log-format=") => {
                Some(command)
            }
            line => line.get(1),
        };
        command.is_some_and(|command| command == "run" || command == "steps")
    }

    fn run(&self, tool: &mut ToolContext<'_>) -> Result<()> {
        match &self.command {
            SluiceCommand::Run(args) => run::run(args, tool),
            SluiceCommand::Inspect(args) => inspect::inspect(args, tool),
            SluiceCommand::Explain(args) => explain::explain(args, tool),
            SluiceCommand::Gallery(args) => gallery::gallery(args, tool),
            SluiceCommand::Try(args) => try_out::try_out(args, tool),
            SluiceCommand::Search(args) => search::search(args, tool),
            SluiceCommand::Verify(args) => verify::verify(args, tool),
            SluiceCommand::Models(args) => models::models(args, tool),
            SluiceCommand::Pipeline(args) => pipeline::commands::pipeline(args, tool),
            SluiceCommand::Dag(args) => dag::dag(args, tool),
            SluiceCommand::Doctor(args) => doctor::doctor(args, tool),
            SluiceCommand::Steps(args) => steps::steps(args, tool),
            SluiceCommand::Completions(args) => documents::completions(args, tool),
            SluiceCommand::Man(args) => documents::man(args, tool),
        }
    }
}
