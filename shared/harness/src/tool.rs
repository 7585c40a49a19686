//! Programs that are no stage: for people, or made of several stages' programs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use serde_json::{Value, json};
use sluice_manifest::{Counts, Error, ExitStatus, StepName};
use sluice_store::Storage;

use crate::args::arguments;
use crate::context::{Choice, Context, DeviceUse, Shared, threads};
use crate::output::{BestEffort, SafeWriter, check_result, deliver, print_usage, shown};
use crate::program::{Program, add_requests, conclude, describe, guarded, named_result, unparsed};
use crate::signals::{Deadline, listen};
use crate::threads::report_panics;
use crate::upstream::{Gives, Upstream};
use crate::variables::{Reads, parse};
use crate::{InputPlaces, LogFormat, logs, memory};

/// A program that is no stage.
pub trait Tool: Parser {
    /// The program's name.
    const NAME: &'static str;
    /// Threads that work at once; by default the CPUs that the cgroup grants.
    fn jobs(&self) -> Option<usize> {
        None
    }
    /// Memory for decoding in bytes; by default what [`Shared::new`] chooses.
    fn memory(&self) -> Option<u64> {
        None
    }
    /// How logs are written; by default lines for people on a terminal, JSON otherwise.
    fn log_format(&self) -> Option<LogFormat> {
        None
    }
    /// The file that the result goes to besides stdout.
    fn result_file(&self) -> Option<&Path> {
        None
    }
    /// Whether this command line, which may not parse, is answered with one JSON result.
    fn answers_with_result(_line: &[OsString]) -> bool {
        false
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
    report_panics();
    let shared = listen();
    memory::settle();
    let started = Instant::now();
    let deadline = Deadline::start(&shared);
    deadline.report_by(|| say_stopped(T::NAME));
    let arguments = match arguments(std::env::args_os(), &shared.storage) {
        Ok(arguments) => arguments,
        Err(e) => {
            let _ = writeln!(std::io::stderr(), "{}: {e}", T::NAME);
            let line: Vec<OsString> = std::env::args_os().collect();
            return refused::<T>(&line, started, e);
        }
    };
    let tool = match parse::<T, _>(&arguments, Reads::All) {
        Ok(tool) => tool,
        Err(e) => {
            let printed = print_usage(&e);
            return match e.use_stderr() {
                true => refused::<T>(&arguments, started, unparsed(&e)),
                false => ExitCode::from(shown(T::NAME, printed) as u8),
            };
        }
    };
    if T::answers_with_result(&arguments) {
        let file = tool.result_file().map(Path::to_owned);
        deadline.report_by(move || report_stopped(T::NAME, started, file.as_deref()));
    }
    let is_watched = std::io::stderr().is_terminal() && tool.log_format() != Some(LogFormat::Json);
    let has_result = T::answers_with_result(&arguments);
    logs::start(is_watched || !has_result, tool.log_format());
    let mut out = SafeWriter::data(std::io::stdout());
    let mut err = SafeWriter::words(BestEffort(std::io::stderr()));
    let mut desk = Desk {
        shared: shared.with_memory(tool.jobs(), tool.memory()),
        out: &mut out,
        err: &mut err,
        result: None,
        up_to_date: false,
    };
    let outcome = guarded(threads(tool.jobs()), || {
        if let Some(file) = tool.result_file() {
            desk.result = Some(json!({}));
            check_result(Some(file))?;
        }
        tool.run(&mut desk)
    });
    deadline.conclude();
    let status = match desk.result.take() {
        Some(mut result) => {
            add_requests(&mut result, &desk.shared.storage.requests());
            let status = conclude(T::NAME, started, desk.up_to_date, &outcome, &mut result);
            answer(T::NAME, &result, tool.result_file(), status)
        }
        None => match &outcome {
            Ok(()) => shown(T::NAME, Ok(())),
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

/// Writes the result. Whoever looks at a terminal has the words on stderr.
fn answer(name: &str, result: &Value, file: Option<&Path>, status: ExitStatus) -> ExitStatus {
    let to_stdout = !std::io::stdout().is_terminal();
    deliver(name, result, to_stdout, file, status)
}

/// Writes the result of a tool that is ended in the middle of its work.
fn report_stopped(name: &str, started: Instant, file: Option<&Path>) {
    let mut result = json!({});
    let stopped = Err(Error::stopped().into());
    let status = conclude(name, started, false, &stopped, &mut result);
    answer(name, &result, file, status);
}

/// The same for a tool that answers with words.
fn say_stopped(name: &str) {
    // The exit code says it as well.
    let _ = writeln!(std::io::stderr(), "{name}: {}", Error::stopped());
}

/// Ends a tool whose arguments do not parse, after people were told.
fn refused<T: Tool>(line: &[OsString], started: Instant, e: Error) -> ExitCode {
    let mut status = e.class().exit_status();
    if T::answers_with_result(line) {
        let mut result = json!({});
        status = conclude(T::NAME, started, false, &Err(e.into()), &mut result);
        status = answer(T::NAME, &result, named_result(line).as_deref(), status);
    }
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
    /// Rows of scores or embeddings that were computed and that were taken over; none where the step
    /// gives neither.
    pub rows: Option<(u64, u64)>,
    /// Settings that the step chose itself, because none was given.
    pub choices: BTreeMap<&'static str, Choice>,
    /// What the step's model ran on.
    pub device: Option<DeviceUse>,
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
    let program = parse::<P, _>(command, Reads::Nothing).map_err(|e| unparsed(&e))?;
    Ok(Wiring {
        is_active: program.is_active(),
        needs: program.needs()?,
    })
}

/// Parses a command line of a stage's program and returns where the samples come from, where the
/// stage lists them.
///
/// # Errors
/// Usage, when the program would refuse it; data, when there are no shards.
pub fn input_of<P: Program>(
    command: &[String],
    storage: &Storage,
) -> anyhow::Result<Option<InputPlaces>> {
    let program = parse::<P, _>(command, Reads::Machine).map_err(|e| unparsed(&e))?;
    program.input(storage)
}

/// Checks a command line of a stage's program before the work, and returns what the step gives.
///
/// # Errors
/// Usage, when the program would refuse it.
pub fn check_step<P: Program>(command: &[String], upstream: &Upstream) -> anyhow::Result<Gives> {
    let program = parse::<P, _>(command, Reads::Machine).map_err(|e| unparsed(&e))?;
    program.check(upstream)
}

/// Runs a stage's program inside of this process. `command` begins with the program's name, as on
/// a command line.
pub fn run_step<P: Program>(command: &[String], shared: &Shared) -> anyhow::Result<StepDone> {
    let started = Instant::now();
    let program = parse::<P, _>(command, Reads::Machine).map_err(|e| unparsed(&e))?;
    let context = Context::new(program.common(), P::NAME, program.node(), shared)?;
    let outcome = program.run(&context);
    context.run.tidy();
    outcome?;
    context.check_committed()?;
    let (units, up_to_date) = context.units();
    Ok(StepDone {
        units,
        up_to_date,
        counts: context.counts(),
        rows: context.rows(),
        choices: context.choices(),
        device: context.device(),
        seconds: started.elapsed().as_secs_f64(),
    })
}
