//! `sluice`: the program for people.
//!
//! `run` does all steps of a pipeline in this process, `pipeline` shows and checks pipelines, `dag`
//! prints them for workflow engines, `steps` is what their pods run, `inspect` prints a manifest, `explain` reports what became of an
//! image, `gallery` shows pictures, `try` what other thresholds would keep, `search` the nearest images,
//! `verify` proves a finished run, `models` manages the models, `doctor` shows what this machine has,
//! `completions` and `man` are for the shell.

pub mod dag;
pub mod doctor;
pub mod documents;
pub mod explain;
pub mod funnel;
pub mod gallery;
pub mod inspect;
pub mod models;
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
use sluice_harness::{Desk, LogFormat, Tool, tool_main};

use crate::programs::StageProgram;

/// The whole `main`. Started under the name of a stage's program it is that program: an image with
/// all of them holds the code that they share once, and links.
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
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

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

/// What `sluice` does.
#[derive(Debug, Subcommand)]
pub enum Command {
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
            Command::Run(args) => args.jobs,
            Command::Verify(args) => args.jobs,
            _ => None,
        }
    }

    fn memory(&self) -> Option<u64> {
        match &self.command {
            Command::Run(args) => args.memory,
            _ => None,
        }
    }

    fn log_format(&self) -> Option<LogFormat> {
        self.log_format
    }

    fn result_file(&self) -> Option<&Path> {
        match &self.command {
            Command::Run(args) => args.result.as_deref(),
            Command::Steps(args) => args.result.as_deref(),
            _ => None,
        }
    }

    fn answers_with_result(line: &[OsString]) -> bool {
        // One flag may be before the command.
        let command = match line {
            [_, flag, _, command, ..] if flag == "--log-format" => Some(command),
            [_, flag, command, ..] if flag.to_string_lossy().starts_with("--log-format=") => {
                Some(command)
            }
            line => line.get(1),
        };
        command.is_some_and(|command| command == "run" || command == "steps")
    }

    fn run(&self, desk: &mut Desk<'_>) -> Result<()> {
        match &self.command {
            Command::Run(args) => run::run(args, desk),
            Command::Inspect(args) => inspect::inspect(args, desk),
            Command::Explain(args) => explain::explain(args, desk),
            Command::Gallery(args) => gallery::gallery(args, desk),
            Command::Try(args) => try_out::try_out(args, desk),
            Command::Search(args) => search::search(args, desk),
            Command::Verify(args) => verify::verify(args, desk),
            Command::Models(args) => models::models(args, desk),
            Command::Pipeline(args) => pipeline::commands::pipeline(args, desk),
            Command::Dag(args) => dag::dag(args, desk),
            Command::Doctor(args) => doctor::doctor(args, desk),
            Command::Steps(args) => steps::steps(args, desk),
            Command::Completions(args) => documents::completions(args, desk),
            Command::Man(args) => documents::man(args, desk),
        }
    }
}
