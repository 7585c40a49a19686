//! From `main` to the exit code: arguments, signals, the result.

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
use sluice_manifest::{Class, Error, ExitStatus, Operation, Role, StepName, UnitKind};
use sluice_store::{Location, Storage};

use crate::args::{Common, StepArgs, arguments, shell};
use crate::context::{Choice, Context, DeviceUse, Node, Shared, Tally};
use crate::output::{check_result, deliver, print_usage, shown};
use crate::signals::{Deadline, listen};
use crate::threads::{caught, report_panics, start_pool};
use crate::upstream::{Gives, Upstream};
use crate::variables::{Reads, parse};
use crate::{InputPlaces, logs, memory, refuse_lost};

/// Outputs that a result names; it counts the others.
const NAMED_OUTPUTS: usize = 100;

/// A stage's program: its parsed arguments, and what it does with them.
pub trait Program: Parser {
    /// The program's name, `sluice-<stage>`.
    const NAME: &'static str;
    /// The stage's role in a pipeline.
    const ROLE: Role;
    /// What it does: one operation, or one for each subcommand, in their order.
    const OPERATIONS: &'static [Operation];

    /// Returns the arguments that every program takes.
    fn common(&self) -> &Common;

    /// Returns the arguments of the steps after `read`.
    fn step_args(&self) -> Option<&StepArgs> {
        None
    }

    /// Returns the subcommand, where the program has some.
    fn subcommand(&self) -> Option<&'static str> {
        None
    }

    /// Whether the settings ask for this subcommand at all.
    fn is_active(&self) -> bool {
        true
    }

    /// Returns the steps whose manifests are read, other than `read` and the deciding steps.
    ///
    /// # Errors
    /// Usage, when an argument cannot be parsed, such as a rule that does not compile.
    fn needs(&self) -> anyhow::Result<Vec<StepName>> {
        Ok(Vec::new())
    }

    /// Returns where the samples of the run come from; none for stages that read them from the plan.
    ///
    /// # Errors
    /// Data, when there are no shards; usage, when the run would be written into them.
    fn input(&self, _storage: &Storage) -> anyhow::Result<Option<InputPlaces>> {
        Ok(None)
    }

    /// Returns the place that the program writes to in addition to the run, or `None` for most.
    fn output(&self) -> Option<&str> {
        None
    }

    /// Checks all that can be known before the work, given what the steps before give, and returns
    /// what this step gives.
    ///
    /// # Errors
    /// Usage, for settings that cannot work.
    fn check(&self, _upstream: &Upstream) -> anyhow::Result<Gives> {
        Ok(Gives::default())
    }

    /// Does the work.
    ///
    /// # Errors
    /// Of every class; the class decides the exit code.
    fn run(&self, context: &Context) -> anyhow::Result<()>;

    /// Returns the stage's name.
    fn stage() -> &'static str {
        Self::NAME.strip_prefix("sluice-").unwrap_or(Self::NAME)
    }

    /// Returns the node of the DAG that this command line is.
    ///
    /// # Panics
    /// When the operations do not have the subcommand, which the tests of each stage exclude.
    fn node(&self) -> Node {
        let subcommand = self.subcommand();
        let mut operations = Self::OPERATIONS.iter();
        let operation = operations.find(|operation| operation.subcommand == subcommand);
        let args = self.step_args();
        Node {
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

/// Runs a stage's program. Its whole `main`.
pub fn main<P: Program>() -> ExitCode {
    report_panics();
    let shared = listen();
    memory::settle();
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
    shared: &Shared,
) -> sluice_manifest::Result<(Context, anyhow::Result<()>)> {
    let context = open(program, shared)?;
    let outcome = guarded(context.jobs, || work_in(program, &context));
    context.run.tidy();
    Ok((context, outcome))
}

/// Opens the run for a program that an engine or a person started.
fn open<P: Program>(program: &P, shared: &Shared) -> sluice_manifest::Result<Context> {
    let common = program.common();
    for (flag, place) in [
        ("--run", Some(&*common.run)),
        ("--output", program.output()),
    ] {
        let place = place.map(Location::parse).transpose()?;
        place.map_or(Ok(()), |place| refuse_lost(flag, &place))?;
    }
    Context::new(common, P::NAME, program.node(), shared)
}

fn work_in<P: Program>(program: &P, context: &Context) -> anyhow::Result<()> {
    context.check_stop()?;
    if program.common().partitions.is_none() {
        refuse_incomplete(program, context)?;
    }
    program.run(context)?;
    Ok(context.check_committed()?)
}

/// Does a command line in this process as the program does that it names: with the variables of all of
/// its flags. Returns what is special in its result, and whether it was up to date.
///
/// # Errors
/// As the program's.
pub fn task<P: Program>(command: &[String], shared: &Shared) -> anyhow::Result<(Value, bool)> {
    let program = parse::<P, _>(command, Reads::All).map_err(|e| unparsed(&e))?;
    let context = open(&program, shared)?;
    let outcome = work_in(&program, &context);
    context.run.tidy();
    outcome?;
    let tally = context.tally().clone();
    Ok((facts(&tally), tally.is_up_to_date()))
}

/// Returns whether a command line has work to do. Nothing is done but what the program does where it is
/// up to date. What takes longer than until `deadline` to find out counts as work, and so does what
/// cannot be found out.
///
/// # Errors
/// Usage, when the program would refuse the command line; stopped, after a signal.
pub fn has_work<P: Program>(
    command: &[String],
    shared: &Shared,
    deadline: Instant,
) -> anyhow::Result<bool> {
    let program = parse::<P, _>(command, Reads::All).map_err(|e| unparsed(&e))?;
    if Instant::now() >= deadline {
        return Ok(true);
    }
    let mut context = open(&program, shared)?;
    context.look_until = Some(deadline);
    let outcome = work_in(&program, &context);
    shared.storage.check_stop()?;
    Ok(outcome.is_err())
}

/// Refuses to work when units are missing of the steps that this one reads from: engines start it after
/// them, and a step may have ended well with shares left undone.
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

/// Writes the result of a program that is ended in the middle of its work.
fn report_stopped(name: &str, started: Instant, storage: &Storage, file: Option<&Path>) {
    let stopped = Err(Error::stopped().into());
    finish(name, file, started, storage.requests(), None, stopped);
}

/// What clap says about arguments that do not parse, without its usage lines.
pub(crate) fn unparsed(e: &clap::Error) -> Error {
    let text = e.to_string();
    let lines = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.is_empty());
    let words: Vec<&str> = lines.collect();
    Error::usage(words.join(" ").trim_start_matches("error: "))
}

/// The value of `--result` in arguments that do not parse.
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

/// Starts the pool of `jobs` threads, runs `work`, and turns a panic into an error.
pub(crate) fn guarded(
    jobs: usize,
    work: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    start_pool(jobs)?;
    std::panic::catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(caught(&*panic).into()))
}

/// Returns the class of an error, and its message for people, safe for a terminal and without
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
    let tally = context
        .map(|context| context.tally().clone())
        .unwrap_or_default();
    let mut result = facts(&tally);
    add_requests(&mut result, &requests);
    let status = conclude(name, started, tally.is_up_to_date(), &outcome, &mut result);
    if let Some(error) = result["error"]["message"].as_str()
        && context.is_none()
    {
        // No log was started for errors this early.
        let _ = writeln!(std::io::stderr(), "{name}: {error}");
    }
    ExitCode::from(deliver(name, &result, true, result_file, status) as u8)
}

/// Returns what the units of a process were.
fn facts(tally: &Tally) -> Value {
    let named = &tally.outputs[..tally.outputs.len().min(NAMED_OUTPUTS)];
    let mut result = json!({
        "units": { "total": tally.units, "done": tally.done, "up_to_date": tally.up_to_date },
        "counts": tally.counts,
        "outputs": { "objects": tally.outputs.len(), "bytes": tally.output_bytes, "paths": named },
    });
    if !tally.fan_out.is_empty() {
        result["fan_out"] = json!(tally.fan_out);
    }
    add_choices(&mut result, &tally.choices);
    add_device(&mut result, tally.device.as_ref());
    add_rows(&mut result, tally.rows);
    result
}

/// Adds the settings that the step chose itself, where there are some.
pub fn add_choices(result: &mut Value, choices: &BTreeMap<&'static str, Choice>) {
    if !choices.is_empty() {
        result["chosen"] = json!(choices);
    }
}

/// Adds what the step's model ran on, where it has one.
pub fn add_device(result: &mut Value, device: Option<&DeviceUse>) {
    if let Some(device) = device {
        result["device"] = json!(device);
    }
}

/// Adds how many rows were computed and how many were taken over, where the step gives scores or
/// embeddings.
pub fn add_rows(result: &mut Value, rows: Option<(u64, u64)>) {
    if let Some((computed, reused)) = rows {
        result["computed"] = json!(computed);
        result["reused"] = json!(reused);
    }
}

/// Adds the number of HTTP requests, where some were sent.
pub(crate) fn add_requests(result: &mut Value, requests: &BTreeMap<String, u64>) {
    if !requests.is_empty() {
        result["requests"] = json!(requests);
    }
}

/// Completes a result with what every program's has, and says how the program ends.
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
