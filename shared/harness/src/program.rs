//! The `main` of a stage's program: arguments, signals, the work, the result and the exit code.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use serde_json::{Value, json};
use sluice_manifest::text::{self, mask_json};
use sluice_manifest::{Class, DeviceUse, Error, ExitStatus, Operation, Role, StepName, UnitKind};
use sluice_run::{InputPlaces, StepOutputs, Upstream};
use sluice_store::{Location, Storage};

use crate::args::{Common, StepArgs, arguments, shell};
use crate::context::{ChosenSetting, Context, ProcessResources, ProgramNode, Totals};
use crate::output::{check_result, deliver, print_usage, shown};
use crate::pod::refuse_lost;
use crate::signals::{Deadline, listen};
use crate::threads::{caught, report_panics, start_pool};
use crate::variables::{Reads, parse};
use crate::{logs, memory};

/// The maximum number of outputs that a result names. The others are only counted.
const NAMED_OUTPUTS: usize = 100;

/// A stage's program: its parsed arguments and its work.
pub trait Program: Parser {
    /// The program's name, `sluice-<stage>`.
    const NAME: &'static str;
    /// The stage's role in a pipeline.
    const ROLE: Role;
    /// The operations of the stage: one, or one for each subcommand, in order.
    const OPERATIONS: &'static [Operation];

    /// Returns the arguments that all programs share.
    fn common(&self) -> &Common;

    /// Returns the arguments of the steps after `read`, if the program has them.
    fn step_args(&self) -> Option<&StepArgs> {
        None
    }

    /// Returns the subcommand, if the program has several.
    fn subcommand(&self) -> Option<&'static str> {
        None
    }

    /// Returns whether the settings require this subcommand.
    fn is_active(&self) -> bool {
        true
    }

    /// Returns the steps whose manifests are read, except `read` and the deciding steps.
    ///
    /// # Errors
    ///
    /// Returns a usage error if an argument cannot be parsed, such as a rule that does not compile.
    fn needs(&self) -> anyhow::Result<Vec<StepName>> {
        Ok(Vec::new())
    }

    /// Returns the locations of the samples, or `None` for stages that read them from the plan.
    ///
    /// # Errors
    ///
    /// Returns a data error if there are no shards, and a usage error if the run would be written
    /// into them.
    fn input(&self, _storage: &Storage) -> anyhow::Result<Option<InputPlaces>> {
        Ok(None)
    }

    /// Returns the location that the program writes to in addition to the run, or `None` for most.
    fn output(&self) -> Option<&str> {
        None
    }

    /// Checks everything that can be known before the work, given the outputs of earlier steps.
    /// Returns the outputs of this step.
    ///
    /// # Errors
    ///
    /// Returns a usage error if the settings cannot work, and otherwise a storage error.
    fn check(&self, _upstream: &Upstream) -> anyhow::Result<StepOutputs> {
        Ok(StepOutputs::default())
    }

    /// Does the work of the stage.
    ///
    /// # Errors
    ///
    /// Returns errors of every class. The class decides the exit code.
    fn run(&self, context: &Context) -> anyhow::Result<()>;

    /// Returns the name of the stage.
    fn stage() -> &'static str {
        Self::NAME.strip_prefix("sluice-").unwrap_or(Self::NAME)
    }

    /// Returns the step and the operation that this command line selects.
    ///
    /// # Panics
    ///
    /// Panics if no operation has the subcommand. The tests of each stage exclude this.
    fn node(&self) -> ProgramNode {
        let subcommand = self.subcommand();
        let mut operations = Self::OPERATIONS.iter();
        let operation = operations.find(|operation| operation.subcommand == subcommand);
        let args = self.step_args();
        ProgramNode {
            step: args
                .and_then(|args| args.step.clone())
                .unwrap_or_else(|| StepName::fixed(Self::stage())),
            stage: Self::stage(),
            // Unwrap safety: see # Panics.
            operation: operation.expect("an operation for each subcommand"),
            survivors_of: args.and_then(|args| args.survivors_of.clone()),
        }
    }
}

/// Runs a stage's program, as the only call of its `main`.
pub fn main<P: Program>() -> ExitCode {
    report_panics();
    let shared = listen();
    memory::limit_arenas();
    let started = Instant::now();
    let deadline = Deadline::start(&shared);
    let report_to = |file: Option<PathBuf>| {
        let storage = shared.storage.clone();
        deadline.report_by(move || report_stopped(P::NAME, started, &storage, file.as_deref()));
    };
    report_to(None);
    let end = |result: Option<&Path>, context: Option<&Context>, outcome| {
        deadline.conclude();
        let requests = shared.storage.requests();
        finish(P::NAME, result, started, requests, context, outcome)
    };
    let arguments = match arguments(std::env::args_os(), &shared.storage) {
        Ok(arguments) => arguments,
        Err(e) => return end(None, None, Err(e.into())),
    };
    let program = match parse::<P, _>(&arguments, Reads::All) {
        Ok(program) => program,
        Err(e) if !e.use_stderr() => return ExitCode::from(shown(P::NAME, print_usage(&e)) as u8),
        Err(e) => {
            let _ = print_usage(&e);
            let result = named_result(&arguments);
            return end(result.as_deref(), None, Err(unparsed(&e).into()));
        }
    };
    let common = program.common();
    report_to(common.result.clone());
    logs::start(false, common.log_format);
    let words: Vec<_> = arguments
        .iter()
        .map(|word| word.to_string_lossy())
        .collect();
    tracing::info!(command = shell(&words), "starts");
    if let Err(e) = check_result(common.result.as_deref()) {
        return end(None, None, Err(e.into()));
    }
    let (context, outcome) = match work(&program, &shared.with_memory(common.jobs, common.memory)) {
        Ok((context, outcome)) => (Some(context), outcome),
        Err(e) => (None, Err(e.into())),
    };
    end(common.result.as_deref(), context.as_ref(), outcome)
}

/// Opens the run and does the work. The outer error is about opening the run.
fn work<P: Program>(
    program: &P,
    shared: &ProcessResources,
) -> sluice_manifest::Result<(Context, anyhow::Result<()>)> {
    let context = open(program, shared)?;
    let outcome = guarded(context.jobs, || work_in(program, &context));
    context.run.tidy();
    Ok((context, outcome))
}

/// Opens the run for a program that was started by an engine or a person.
fn open<P: Program>(program: &P, shared: &ProcessResources) -> sluice_manifest::Result<Context> {
    refuse_lost_places(program)?;
    Context::new(program.common(), P::NAME, program.node(), shared)
}

/// Returns an error if the run or the output would be lost when the pod ends.
fn refuse_lost_places<P: Program>(program: &P) -> sluice_manifest::Result<()> {
    for (flag, place) in [
        ("--run", Some(&*program.common().run)),
        ("--output", program.output()),
    ] {
        let place = place.map(Location::parse).transpose()?;
        place.map_or(Ok(()), |place| refuse_lost(flag, &place))?;
    }
    Ok(())
}

fn work_in<P: Program>(program: &P, context: &Context) -> anyhow::Result<()> {
    check_earlier(program, context)?;
    program.run(context)?;
    Ok(context.check_committed()?)
}

fn check_earlier<P: Program>(program: &P, context: &Context) -> anyhow::Result<()> {
    context.check_stop()?;
    if program.common().partitions.is_none() {
        refuse_incomplete(program, context)?;
    }
    Ok(())
}

/// Who starts a step in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Starter {
    /// `sluice run`, which has completed the earlier steps. Only the variables of
    /// [`MACHINE_FLAGS`](crate::MACHINE_FLAGS) are read.
    Run,
    /// A task of a workflow engine. The variables of all flags are read, and missing units of earlier
    /// steps are an error.
    Engine,
}

/// Parses a command line that begins with the name of a stage's program, and opens its run.
///
/// # Errors
///
/// Returns a usage error if the program would refuse the command line, a data error if units of
/// earlier steps are missing, and otherwise a storage error.
pub fn open_step<P: Program>(
    command: &[String],
    shared: &ProcessResources,
    starter: Starter,
) -> anyhow::Result<(P, Context)> {
    let reads = match starter {
        Starter::Run => Reads::Machine,
        Starter::Engine => Reads::All,
    };
    let program = parse::<P, _>(command, reads).map_err(|e| unparsed(&e))?;
    let context = match starter {
        Starter::Run => Context::new(program.common(), P::NAME, program.node(), shared)?,
        Starter::Engine => open(&program, shared)?,
    };
    if starter == Starter::Engine {
        check_earlier(&program, &context)?;
    }
    Ok((program, context))
}

/// Runs a command line in this process exactly as its program would, with the variables of all of
/// its flags. Returns the fields of its result, and whether it was up to date.
///
/// # Errors
///
/// Fails like the program.
pub fn task<P: Program>(
    command: &[String],
    shared: &ProcessResources,
) -> anyhow::Result<(Value, bool)> {
    let (program, context) = open_step::<P>(command, shared, Starter::Engine)?;
    let outcome = program.run(&context);
    context.run.tidy();
    outcome?;
    Ok(task_done(&context)?)
}

/// Returns the fields of the result of a task whose work has ended, and whether it was up to date.
///
/// # Errors
///
/// Returns a bug if a unit was begun and not committed.
pub fn task_done(context: &Context) -> sluice_manifest::Result<(Value, bool)> {
    context.check_committed()?;
    let totals = context.totals().clone();
    Ok((facts(&totals), totals.is_up_to_date()))
}

/// Returns whether a command line has work to do. Runs the program until its first unit with work.
/// Returns true if this cannot be determined, or not before `deadline`.
///
/// # Errors
///
/// Returns a usage error if the program would refuse the command line or its locations, and a
/// stopped error after a signal.
pub fn has_work<P: Program>(
    command: &[String],
    shared: &ProcessResources,
    deadline: Instant,
) -> anyhow::Result<bool> {
    let program = parse::<P, _>(command, Reads::All).map_err(|e| unparsed(&e))?;
    refuse_lost_places(&program)?;
    if Instant::now() >= deadline {
        return Ok(true);
    }
    let mut context = open(&program, shared)?;
    context.work_check_deadline = Some(deadline);
    let outcome = work_in(&program, &context);
    shared.storage.check_stop()?;
    Ok(outcome.is_err())
}

/// Returns an error if units of the earlier steps that this one reads are missing. A step may have
/// succeeded although some of its shares were never run.
fn refuse_incomplete<P: Program>(program: &P, context: &Context) -> anyhow::Result<()> {
    let Some(args) = program.step_args() else {
        return Ok(());
    };
    let own = context.step();
    let after = context.node().operation.after;
    let mut before = P::OPERATIONS.iter().filter(|operation| {
        let name = operation.subcommand.unwrap_or_default();
        after.contains(&name)
    });
    before.try_for_each(|operation| context.run.refuse_incomplete(own, &[operation.unit]))?;
    let survivors_of = args.survivors_of.clone().unwrap_or_else(StepName::read);
    let mut steps = program.needs()?;
    steps.push(survivors_of);
    let all = |step: &StepName| context.run.refuse_incomplete(step, UnitKind::ALL);
    Ok(steps.iter().filter(|step| *step != own).try_for_each(all)?)
}

/// Writes the result of a program that is terminated during its work.
fn report_stopped(name: &str, started: Instant, storage: &Storage, file: Option<&Path>) {
    let stopped = Err(Error::stopped().into());
    finish(name, file, started, storage.requests(), None, stopped);
}

/// Returns clap's message about arguments that cannot be parsed, without the usage lines.
pub(crate) fn unparsed(e: &clap::Error) -> Error {
    let text = e.to_string();
    let lines = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.is_empty());
    let words: Vec<&str> = lines.collect();
    Error::usage(words.join(" ").trim_start_matches("error: "))
}

/// Returns the value of `--result` in arguments that cannot be parsed.
pub(crate) fn named_result(arguments: &[OsString]) -> Option<PathBuf> {
    let behind = |argument: &OsString| {
        argument
            .to_str()?
            .strip_prefix("--result=")
            .map(PathBuf::from)
    };
    arguments.iter().find_map(behind).or_else(|| {
        let at = arguments
            .iter()
            .position(|argument| argument == "--result")?;
        arguments.get(at + 1).map(PathBuf::from)
    })
}

/// Starts a pool of `jobs` threads, runs `work`, and converts a panic to an error.
pub(crate) fn guarded(
    jobs: usize,
    work: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    start_pool(jobs)?;
    std::panic::catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(caught(&*panic).into()))
}

/// Returns the class of an error and a message for people, without control characters and
/// credentials.
pub fn describe(error: &anyhow::Error) -> (Class, String) {
    let class = Class::of(error.as_ref()).unwrap_or(Class::Bug);
    (class, text::shown(&format!("{error:#}")))
}

fn finish(
    name: &str,
    result_file: Option<&Path>,
    started: Instant,
    requests: BTreeMap<String, u64>,
    context: Option<&Context>,
    outcome: anyhow::Result<()>,
) -> ExitCode {
    let totals = context
        .map(|context| context.totals().clone())
        .unwrap_or_default();
    let mut result = facts(&totals);
    add_requests(&mut result, &requests);
    let status = conclude(name, started, totals.is_up_to_date(), &outcome, &mut result);
    if let Some(error) = result["error"]["message"].as_str()
        && context.is_none()
    {
        // The logger is not running for errors this early.
        let _ = writeln!(std::io::stderr(), "{name}: {error}");
    }
    ExitCode::from(deliver(name, &result, true, result_file, status) as u8)
}

/// Returns the fields of the result that describe the units.
fn facts(totals: &Totals) -> Value {
    let named = &totals.outputs[..totals.outputs.len().min(NAMED_OUTPUTS)];
    let mut result = json!({
        "units": { "total": totals.units, "done": totals.done, "up_to_date": totals.up_to_date },
        "counts": totals.counts,
        "outputs": { "objects": totals.outputs.len(), "bytes": totals.output_bytes, "paths": named },
    });
    if !totals.fan_out.is_empty() {
        result["fan_out"] = json!(totals.fan_out);
    }
    add_choices(&mut result, &totals.choices);
    add_reported(&mut result, &totals.reported);
    add_device(&mut result, totals.device.as_ref());
    add_rows(&mut result, totals.rows);
    result
}

/// Adds the settings that the step chose, if there are any.
pub fn add_choices(result: &mut Value, choices: &BTreeMap<&'static str, ChosenSetting>) {
    if !choices.is_empty() {
        result["chosen"] = json!(choices);
    }
}

/// Adds the facts that the step reported.
pub fn add_reported(result: &mut Value, reported: &BTreeMap<&'static str, Value>) {
    for (field, fact) in reported {
        result[*field] = fact.clone();
    }
}

/// Adds the device that the step's model ran on, if it has one.
pub fn add_device(result: &mut Value, device: Option<&DeviceUse>) {
    if let Some(device) = device {
        result["device"] = json!(device);
    }
}

/// Adds the numbers of computed and of reused rows, if the step writes scores or embeddings.
pub fn add_rows(result: &mut Value, rows: Option<(u64, u64)>) {
    if let Some((computed, reused)) = rows {
        result["computed"] = json!(computed);
        result["reused"] = json!(reused);
    }
}

/// Adds the number of HTTP requests, if there were any.
pub(crate) fn add_requests(result: &mut Value, requests: &BTreeMap<String, u64>) {
    if !requests.is_empty() {
        result["requests"] = json!(requests);
    }
}

/// Adds the fields that every result has. Returns the exit status of the program.
pub(crate) fn conclude(
    name: &str,
    started: Instant,
    up_to_date: bool,
    outcome: &anyhow::Result<()>,
    result: &mut Value,
) -> ExitStatus {
    let failure = outcome.as_ref().err().map(describe);
    let status = match &failure {
        Some(_) => "failed",
        None if up_to_date => "up-to-date",
        None => "done",
    };
    result["program"] = json!(name);
    result["version"] = json!(env!("CARGO_PKG_VERSION"));
    result["status"] = json!(status);
    result["seconds"] = json!((started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0);
    if let Some((class, message)) = &failure {
        tracing::error!("{message}");
        result["error"] = json!({
            "kind": class.as_str(),
            "message": message,
            "retryable": *class == Class::Transient,
        });
    } else if up_to_date {
        tracing::info!("up to date");
    }
    mask_json(result);
    failure.map_or(ExitStatus::Done, |(class, _)| class.exit_status())
}
