//! Programs that are no stage: for people, or made of several stages' programs.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use serde_json::Value;
use sluice_manifest::{Counts, ExitStatus, StepName};

use crate::args::{arguments, parse};
use crate::context::{Context, Shared};
use crate::program::{Program, conclude, describe, guarded, listen, print, publish, unparsed};
use crate::upstream::{Gives, Upstream};
use crate::{logs, memory};

/// A program that is no stage.
pub trait Tool: Parser {
    /// The program's name.
    const NAME: &'static str;
    /// Threads that work at once; by default the CPUs that the cgroup grants.
    fn jobs(&self) -> Option<usize> {
        None
    }
    /// The file that the result goes to besides stdout.
    fn result_file(&self) -> Option<&Path> {
        None
    }
    /// Does the work.
    fn run(&self, desk: &mut Desk<'_>) -> anyhow::Result<()>;
}

/// What a tool works with.
pub struct Desk<'a> {
    /// For the steps that it runs.
    pub shared: Shared,
    /// stdout, for tools that answer with words.
    pub out: &'a mut dyn Write,
    /// stderr, for words besides the log.
    pub err: &'a mut dyn Write,
    /// For tools that answer with one JSON result: what is special in it. It is written to stdout,
    /// unless that is a terminal, and to [`Tool::result_file`], on failure too.
    pub result: Option<Value>,
    /// Whether nothing was left to do.
    pub up_to_date: bool,
}

/// Runs a tool. Its whole `main`.
pub fn tool_main<T: Tool>() -> ExitCode {
    memory::settle();
    let started = Instant::now();
    let parsed = arguments(std::env::args_os()).map(|arguments| parse::<T>(&arguments));
    let tool = match parsed {
        Ok(Ok(tool)) => tool,
        Ok(Err(e)) => {
            // Nothing can be done about a closed stdout or stderr.
            let _ = e.print();
            return match e.use_stderr() {
                true => ExitCode::from(ExitStatus::Usage as u8),
                false => ExitCode::SUCCESS,
            };
        }
        Err(e) => {
            let _ = writeln!(std::io::stderr(), "{}: {e}", T::NAME);
            return ExitCode::from(e.class().exit_status() as u8);
        }
    };
    logs::start(std::io::stderr().is_terminal());
    let shared = Shared::default();
    listen(&shared);
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let mut desk = Desk {
        shared,
        out: &mut out,
        err: &mut err,
        result: None,
        up_to_date: false,
    };
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = tool.jobs().unwrap_or(cpus).max(1);
    let outcome = guarded(jobs, || tool.run(&mut desk));
    let status = match desk.result.take() {
        Some(mut result) => {
            let status = conclude(T::NAME, started, desk.up_to_date, &outcome, &mut result);
            // Who looks at a terminal has the words on stderr.
            if !std::io::stdout().is_terminal() {
                print(&result);
            }
            publish(&result, tool.result_file());
            status
        }
        None => match &outcome {
            Ok(()) => ExitStatus::Done,
            Err(e) if closed(e) => ExitStatus::Done,
            Err(e) => {
                let (class, message) = describe(e);
                let _ = writeln!(desk.err, "{}: {message}", T::NAME);
                class.exit_status()
            }
        },
    };
    ExitCode::from(status as u8)
}

/// Whether it failed because nobody reads on, as with `| head`.
fn closed(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

/// What a step did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepDone {
    /// Units of work.
    pub units: u64,
    /// How many of them were up to date already.
    pub up_to_date: u64,
    /// Samples in, kept and dropped.
    pub counts: Counts,
    /// Wall time in seconds.
    pub seconds: f64,
}

/// How a command line is wired into a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wiring {
    /// Whether its settings ask for the work at all.
    pub is_active: bool,
    /// The steps whose manifests it reads, other than `read` and the deciding steps.
    pub needs: Vec<StepName>,
}

/// Parses a command line of a stage's program and returns how it is wired.
///
/// # Errors
/// Usage, when the program would refuse it.
pub fn wiring<P: Program>(command: &[String]) -> anyhow::Result<Wiring> {
    let program = P::try_parse_from(command).map_err(|e| unparsed(&e))?;
    Ok(Wiring {
        is_active: program.is_active(),
        needs: program.needs()?,
    })
}

/// Checks a command line of a stage's program before the work, and returns what the step gives.
///
/// # Errors
/// Usage, when the program would refuse it.
pub fn check_step<P: Program>(command: &[String], upstream: &Upstream) -> anyhow::Result<Gives> {
    let program = P::try_parse_from(command).map_err(|e| unparsed(&e))?;
    program.check(upstream)
}

/// Runs a stage's program inside of this process. `command` begins with the program's name, as on
/// a command line.
pub fn run_step<P: Program>(command: &[String], shared: &Shared) -> anyhow::Result<StepDone> {
    let started = Instant::now();
    let program = P::try_parse_from(command).map_err(|e| unparsed(&e))?;
    let context = Context::new(program.common(), P::NAME, program.node(), shared)?;
    let outcome = program.run(&context);
    context.run.tidy();
    outcome?;
    let (units, up_to_date) = context.units();
    Ok(StepDone {
        units,
        up_to_date,
        counts: context.counts(),
        seconds: started.elapsed().as_secs_f64(),
    })
}
