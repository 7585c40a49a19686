//! Programs other than stages: for people, or made of several stages.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use serde_json::{Value, json};
use sluice_manifest::{Counts, DeviceUse, Error, ExitStatus, StepName};
use sluice_run::{InputPlaces, StepOutputs, Upstream};
use sluice_store::Storage;

use crate::args::arguments;
use crate::context::{ChosenSetting, Context, ProcessResources, threads};
use crate::output::{BestEffort, SafeWriter, check_result, deliver, print_usage, shown};
use crate::program::{
    Program, Starter, add_requests, conclude, describe, guarded, named_result, open_step, unparsed,
};
use crate::signals::{Deadline, listen};
use crate::threads::report_panics;
use crate::variables::{Reads, parse};
use crate::{LogFormat, logs, memory};

/// A program other than a stage.
pub trait Tool: Parser {
    /// The name of the program.
    const NAME: &'static str;
    /// Returns the number of worker threads. The default is the number of CPUs that the cgroup
    /// grants.
    fn jobs(&self) -> Option<usize> {
        None
    }
    /// Returns the memory for decoding in bytes. The default depends on the machine and the
    /// threads.
    fn memory(&self) -> Option<u64> {
        None
    }
    /// Returns the format of log lines. The default is plain lines on a terminal, JSON otherwise.
    fn log_format(&self) -> Option<LogFormat> {
        None
    }
    /// Returns the file that the result is written to in addition to stdout.
    fn result_file(&self) -> Option<&Path> {
        None
    }
    /// Returns whether this command line, which may not parse, is answered with one JSON result.
    fn answers_with_result(_line: &[OsString]) -> bool {
        false
    }
    /// Does the work of the program.
    ///
    /// # Errors
    ///
    /// Returns errors of every class. The class decides the exit code.
    fn run(&self, context: &mut ToolContext<'_>) -> anyhow::Result<()>;
}

/// What a tool works with: shared resources and its outputs.
pub struct ToolContext<'a> {
    /// The resources for the steps that it runs.
    pub shared: ProcessResources,
    /// stdout, for tools that answer with text.
    pub out: &'a mut dyn Write,
    /// stderr, for text in addition to the log.
    pub err: &'a mut dyn Write,
    /// The fields of the result, for tools that answer with one JSON result. It is written to
    /// [`Tool::result_file`] and to stdout unless that is a terminal, also after a failure.
    pub result: Option<Value>,
    /// Whether everything was up to date.
    pub up_to_date: bool,
}

/// Runs a tool, as the only call of its `main`.
pub fn tool_main<T: Tool>() -> ExitCode {
    report_panics();
    let shared = listen();
    memory::limit_arenas();
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
            return if e.use_stderr() {
                refused::<T>(&arguments, started, unparsed(&e))
            } else {
                ExitCode::from(shown(T::NAME, printed) as u8)
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
    let mut context = ToolContext {
        shared: shared.with_memory(tool.jobs(), tool.memory()),
        out: &mut out,
        err: &mut err,
        result: None,
        up_to_date: false,
    };
    let outcome = guarded(threads(tool.jobs()), || {
        if let Some(file) = tool.result_file() {
            context.result = Some(json!({}));
            check_result(Some(file))?;
        }
        tool.run(&mut context)
    });
    deadline.conclude();
    let status = match context.result.take() {
        Some(mut result) => {
            add_requests(&mut result, &context.shared.storage.requests());
            let status = conclude(T::NAME, started, context.up_to_date, &outcome, &mut result);
            answer(T::NAME, &result, tool.result_file(), status)
        }
        None => match &outcome {
            Ok(()) => shown(T::NAME, Ok(())),
            Err(e) if closed(e) => ExitStatus::Done,
            Err(e) => {
                let (class, message) = describe(e);
                let _ = writeln!(context.err, "{}: {message}", T::NAME);
                class.exit_status()
            }
        },
    };
    ExitCode::from(status as u8)
}

/// Writes the result. On a terminal, stdout is left to the text on stderr.
fn answer(name: &str, result: &Value, file: Option<&Path>, status: ExitStatus) -> ExitStatus {
    let to_stdout = !std::io::stdout().is_terminal();
    deliver(name, result, to_stdout, file, status)
}

/// Writes the result of a tool that is terminated during its work.
fn report_stopped(name: &str, started: Instant, file: Option<&Path>) {
    let mut result = json!({});
    let stopped = Err(Error::stopped().into());
    let status = conclude(name, started, false, &stopped, &mut result);
    answer(name, &result, file, status);
}

/// Writes the message of a tool that answers with text and is terminated during its work.
fn say_stopped(name: &str) {
    // The exit code contains this as well.
    let _ = writeln!(std::io::stderr(), "{name}: {}", Error::stopped());
}

/// Ends a tool whose arguments cannot be parsed, after the message has been printed.
fn refused<T: Tool>(line: &[OsString], started: Instant, e: Error) -> ExitCode {
    let mut status = e.class().exit_status();
    if T::answers_with_result(line) {
        let mut result = json!({});
        status = conclude(T::NAME, started, false, &Err(e.into()), &mut result);
        status = answer(T::NAME, &result, named_result(line).as_deref(), status);
    }
    ExitCode::from(status as u8)
}

/// Returns whether the error is about a reader that closed the pipe, as with `| head`.
fn closed(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

/// The outcome of a step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepDone {
    /// The number of units.
    pub units: u64,
    /// The number of units that were up to date.
    pub up_to_date: u64,
    /// The samples that entered, were kept and were dropped.
    pub counts: Counts,
    /// The numbers of computed and of reused rows, or `None` if the step writes neither scores nor
    /// embeddings.
    pub rows: Option<(u64, u64)>,
    /// The settings that the step chose because the user gave none.
    pub choices: BTreeMap<&'static str, ChosenSetting>,
    /// The facts that the step reported, by field of its result.
    pub reported: BTreeMap<&'static str, Value>,
    /// The device that the step's model ran on.
    pub device: Option<DeviceUse>,
    /// The wall time in seconds.
    pub seconds: f64,
}

/// The position of a command line in a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wiring {
    /// Whether the settings require the command at all.
    pub is_active: bool,
    /// The steps whose manifests it reads, except `read` and the deciding steps.
    pub needs: Vec<StepName>,
}

/// Parses a command line of a stage's program and returns its position in the pipeline.
///
/// # Errors
///
/// Returns a usage error if the program would refuse the command line.
pub fn wiring<P: Program>(command: &[String]) -> anyhow::Result<Wiring> {
    let program = parse::<P, _>(command, Reads::Nothing).map_err(|e| unparsed(&e))?;
    Ok(Wiring {
        is_active: program.is_active(),
        needs: program.needs()?,
    })
}

/// Parses a command line of a stage's program and returns the locations of its samples, if the
/// stage lists them.
///
/// # Errors
///
/// Returns a usage error if the program would refuse the command line, and a data error if there
/// are no shards.
pub fn input_of<P: Program>(
    command: &[String],
    storage: &Storage,
) -> anyhow::Result<Option<InputPlaces>> {
    let program = parse::<P, _>(command, Reads::Machine).map_err(|e| unparsed(&e))?;
    program.input(storage)
}

/// Checks a command line of a stage's program before the work. Returns the outputs of the step.
///
/// # Errors
///
/// Returns a usage error if the program would refuse the command line.
pub fn check_step<P: Program>(
    command: &[String],
    upstream: &Upstream,
) -> anyhow::Result<StepOutputs> {
    let program = parse::<P, _>(command, Reads::Machine).map_err(|e| unparsed(&e))?;
    program.check(upstream)
}

/// Runs a stage's program in this process. `command` begins with the program's name, as on a
/// command line.
///
/// # Errors
///
/// Returns a usage error if the command line cannot be parsed, and otherwise fails like the
/// program.
pub fn run_step<P: Program>(
    command: &[String],
    shared: &ProcessResources,
) -> anyhow::Result<StepDone> {
    let started = Instant::now();
    let (program, context) = open_step::<P>(command, shared, Starter::Run)?;
    let outcome = program.run(&context);
    context.run.tidy();
    outcome?;
    Ok(StepDone::of(&context, started)?)
}

impl StepDone {
    /// Returns the outcome of a step whose work has ended.
    ///
    /// # Errors
    ///
    /// Returns a bug if a unit was begun and not committed.
    pub fn of(context: &Context, started: Instant) -> sluice_manifest::Result<Self> {
        context.check_committed()?;
        let (units, up_to_date) = context.units();
        Ok(Self {
            units,
            up_to_date,
            counts: context.counts(),
            rows: context.rows(),
            choices: context.choices(),
            reported: context.reported(),
            device: context.device(),
            seconds: started.elapsed().as_secs_f64(),
        })
    }
}
