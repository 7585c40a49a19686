//! From `main` to the exit code: arguments, signals, the result.

use std::ffi::OsString;
use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use serde_json::{Value, json};
use sluice_manifest::{Class, Error, ExitStatus, Operation, Role, StepName};

use crate::args::{Common, StepArgs, arguments, parse, shell};
use crate::context::{Context, Node, Shared};
use crate::upstream::{Gives, Upstream};
use crate::{logs, memory};

/// Outputs that a result names; it counts the others.
const NAMED_OUTPUTS: usize = 100;

/// Where Kubernetes reads a container's last words.
const LAST_WORDS: &str = "/dev/termination-log";

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
    memory::settle();
    let started = Instant::now();
    let arguments = match arguments(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(e) => return finish(P::NAME, None, started, None, Err(e.into())),
    };
    let program = match parse::<P>(&arguments) {
        Ok(program) => program,
        Err(e) if !e.use_stderr() => {
            // Nothing can be done about a closed stdout.
            let _ = e.print();
            return ExitCode::SUCCESS;
        }
        Err(e) => {
            let _ = e.print();
            let result = named_result(&arguments);
            let error = Err(unparsed(&e).into());
            return finish(P::NAME, result.as_deref(), started, None, error);
        }
    };
    logs::start(false);
    let words: Vec<_> = arguments
        .iter()
        .map(|word| word.to_string_lossy())
        .collect();
    tracing::info!(command = shell(&words), "starts");
    let shared = Shared::default();
    listen(&shared);
    let common = program.common();
    let context = Context::new(common, P::NAME, program.node(), &shared);
    let (context, outcome) = match context {
        Ok(context) => {
            let outcome = guarded(context.jobs, || program.run(&context));
            context.run.tidy();
            (Some(context), outcome)
        }
        Err(e) => (None, Err(e.into())),
    };
    finish(
        P::NAME,
        common.result.as_deref(),
        started,
        context.as_ref(),
        outcome,
    )
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
fn named_result(arguments: &[OsString]) -> Option<PathBuf> {
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

pub(crate) fn listen(shared: &Shared) {
    sluice_store::heed(&shared.stop);
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        // Twice the same signal ends the program at once.
        let conditional = signal_hook::flag::register_conditional_shutdown(
            signal,
            ExitStatus::Stopped as i32,
            shared.stop.clone(),
        );
        let flag = signal_hook::flag::register(signal, shared.stop.clone());
        if let Err(e) = conditional.and(flag) {
            tracing::warn!("signal {signal} cannot be handled: {e}");
        }
    }
}

/// Starts the pool of `jobs` threads, runs `work`, and turns a panic into an error.
pub(crate) fn guarded(
    jobs: usize,
    work: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    // Within one process (tests) the first caller's pool stays.
    let _ = rayon::ThreadPoolBuilder::new()
        .num_threads(jobs)
        .build_global();
    std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let words = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(Error::bug(format!("panic: {words}"))
            .hint("please report this")
            .into())
    })
}

/// The class of an error, and its message for people.
pub fn describe(error: &anyhow::Error) -> (Class, String) {
    let class = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Error>());
    let class = class.map_or(Class::Bug, Error::class);
    (class, format!("{error:#}"))
}

fn finish(
    name: &str,
    result_file: Option<&Path>,
    started: Instant,
    context: Option<&Context>,
    outcome: anyhow::Result<()>,
) -> ExitCode {
    let tally = context
        .map(|context| context.tally().clone())
        .unwrap_or_default();
    let named = &tally.outputs[..tally.outputs.len().min(NAMED_OUTPUTS)];
    let mut result = json!({
        "units": { "total": tally.units, "done": tally.done, "up_to_date": tally.up_to_date },
        "counts": tally.counts,
        "outputs": { "objects": tally.outputs.len(), "bytes": tally.output_bytes, "paths": named },
    });
    if !tally.fan_out.is_empty() {
        result["fan_out"] = json!(tally.fan_out);
    }
    let up_to_date = tally.units > 0 && tally.units == tally.up_to_date;
    let status = conclude(name, started, up_to_date, &outcome, &mut result);
    if let Some(error) = result["error"]["message"].as_str()
        && context.is_none()
    {
        // No log was started for errors this early.
        let _ = writeln!(std::io::stderr(), "{name}: {error}");
    }
    print(&result);
    publish(&result, result_file);
    ExitCode::from(status as u8)
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
    let requests = sluice_store::requests();
    if !requests.is_empty() {
        result["requests"] = json!(requests);
    }
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
    failure.map_or(ExitStatus::Done, |(class, _)| class.exit_status())
}

/// Writes the result to stdout.
pub(crate) fn print(result: &Value) {
    // Nothing can be done about a closed stdout.
    let _ = writeln!(std::io::stdout(), "{result}");
}

/// Writes the result to `--result` (atomically), and an error to the container's last words.
#[expect(
    clippy::disallowed_methods,
    reason = "the result lies on local disk by definition"
)]
pub(crate) fn publish(result: &Value, file: Option<&Path>) {
    let line = format!("{result}\n");
    if let Some(file) = file {
        let part = file.with_extension("part");
        let written = std::fs::write(&part, &line).and_then(|()| std::fs::rename(&part, file));
        if let Err(e) = written {
            tracing::warn!("--result {}: {e}", file.display());
        }
    }
    if result["error"].is_object() && Path::new(LAST_WORDS).exists() {
        let _ = std::fs::write(LAST_WORDS, result["error"].to_string());
    }
}
