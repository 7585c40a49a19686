//! Scores from a program of the user's.
//!
//! The program is started once for each unit, as `sh -c COMMAND`. Its stdin is an Arrow IPC stream of
//! samples ([`samples`]), its stdout an Arrow IPC stream with a column `image_id` and the columns of
//! scores. It may answer in any order and in batches of any size, before or after it has read
//! everything, and may leave images out: those have no score. A null or a number that is not finite
//! is no score either. An image that was not sent, or a second answer for one, is an error.
//!
//! Before any work the program is started once with a stream that has the columns and no batch
//! ([`ScoreCommand::rehearse`]): it must end with 0. A unit with no image left to score starts nothing.
//!
//! | the program ends with | means |
//! | --- | --- |
//! | exit code 0 and a complete stream | done |
//! | exit code 0 and no output at all, where no image was sent | done |
//! | exit code 75, a signal, or silence for longer than the time limit | try again |
//! | exit code 126 or 127 | the command is wrong |
//! | any other exit code, or a stream that is not complete and valid | the unit failed |
//!
//! A shell reports a signal as an exit code from 129 on; both are read as the signal.
//!
//! **Time limit.** It bounds silence: the time in which the program takes no input, gives no output
//! and writes nothing to stderr, while it is not waiting for a sample. So it depends neither on the size
//! of a unit nor on how fast the samples are read.
//!
//! **Processes.** The program leads a process group. The group is killed (SIGKILL) when the unit fails
//! for any reason, when a signal stops us, and when the program exits before its children. The
//! program inherits the working directory and the environment, with `SLUICE_STEP` and `SLUICE_UNIT`
//! added. SIGPIPE has its default action. Lines of stderr are logged, and the last ones are part of the
//! error.
//!
//! One thread writes samples and one reads scores, so that neither side can block the other. Batches
//! are produced when the program reads them: two are in memory.

mod answers;
mod pipe;
mod process;
pub mod samples;
mod stderr;

use std::collections::HashSet;
use std::io::Write;
use std::panic::{self, AssertUnwindSafe};
use std::process::{ChildStdout, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use sluice_harness::spawn;
use sluice_manifest::{Class, Error, Result};

use answers::{Ledger, ScoreStream};
use pipe::{Activity, Pipe, TICK};
use process::Process;

/// What a program may take to exit after its output broke off, and what a process that escaped its
/// group may keep our ends of the pipes open.
const GRACE: Duration = Duration::from_secs(2);
/// Characters of a command that an error repeats.
const NAMED_COMMAND: usize = 100;

/// A program of the user's that scores images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScoreCommand {
    /// The command line, for `sh -c`.
    pub command: String,
    /// The columns of scores that it answers with.
    pub outputs: Vec<String>,
    /// The longest silence. None: no limit.
    pub time_limit: Option<Duration>,
    /// The step's name, which the program finds in `SLUICE_STEP`.
    pub step: String,
}

/// What happened to a program's streams.
enum Event {
    /// Some scores, converted.
    Scores(RecordBatch),
    /// The producer of samples failed. Its thread returns the error.
    SamplesFailed,
    /// The output ended.
    OutputEnded(Result<(), Failure>),
}

/// Why a unit fails.
enum Failure {
    /// For a reason that is not the program's.
    Ours(Error),
    /// The program wrote nothing, which is no fault where it was sent nothing.
    NoOutput,
    /// The program's fault; the error gets the command and the last lines of stderr.
    Program {
        class: Class,
        what: String,
        hint: Option<String>,
    },
}

impl ScoreCommand {
    /// Checks what can be checked without running the program: the names of the outputs, and that the
    /// command's first word is a program, where it is a plain word.
    ///
    /// # Errors
    ///
    /// Usage: the command is empty or no such program exists, or two outputs share a name.
    pub fn check(&self) -> Result<()> {
        let mut names = HashSet::from(["image_id"]);
        if let Some(name) = self.outputs.iter().find(|name| !names.insert(name)) {
            return Err(Error::usage(format!("output {name:?} is named twice"))
                .hint("image_id is always part of the answer"));
        }
        let Some(word) = self.command.split_whitespace().next() else {
            return Err(Error::usage("the command is empty"));
        };
        if process::is_plain(word) && !process::exists(word)? {
            return Err(
                Error::usage(format!("{}: no program {word:?}", self.name()))
                    .hint("give its path, or add its folder to PATH; it must be executable"),
            );
        }
        Ok(())
    }

    /// Scores a unit. `batches` have the columns of `schema`, including `image_id`, and are taken one
    /// by one. `on_scores` gets the answers as they come: `image_id` as text, and the outputs as
    /// `f32`, NaN for no score. `stop` is called several times a second and ends the work by failing.
    ///
    /// What `on_scores` got counts only when this returns `Ok`.
    ///
    /// # Errors
    ///
    /// An error of `batches`, `on_scores` or `stop` is returned as it is. The others follow the table
    /// in the module's documentation: transient (try again), usage (wrong command), data.
    pub fn run(
        &self,
        unit: &str,
        schema: &Schema,
        batches: impl Iterator<Item = Result<RecordBatch>> + Send,
        stop: &dyn Fn() -> Result<()>,
        on_scores: impl FnMut(RecordBatch) -> Result<()>,
    ) -> Result<()> {
        let environment = [("SLUICE_STEP", self.step.as_str()), ("SLUICE_UNIT", unit)];
        let (activity, ledger) = (Activity::new(), Ledger::default());
        let (events, inbox) = sync_channel(1);
        thread::scope(|scope| {
            let mut process = Process::start(&self.command, &environment, &activity)?;
            let (mut stdin, stdout, stderr) = process.pipes()?;
            let log = spawn(scope, || stderr::follow(stderr, &self.step, unit))?;
            let (failed, ledger, activity) = (events.clone(), &ledger, &activity);
            let feeding = spawn(scope, move || {
                let fed = feed(&mut stdin, schema, batches, ledger, activity);
                if fed.is_err() {
                    // Before stdin is closed, so that it precedes the program's error about that.
                    let _ = failed.send(Event::SamplesFailed);
                }
                fed
            })?;
            spawn(scope, || self.receive(stdout, events))?;
            let watch = Watch {
                command: self,
                process: &process,
                activity,
                stop,
            };
            let ended = watch.until_exit(inbox, ledger, on_scores);
            let status = process.end()?;
            // What the program wrote last is still in its pipes.
            let deadline = Instant::now() + GRACE;
            while !log.is_finished() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(1));
            }
            activity.give_up();
            let took_all = joined(feeding)?;
            let outcome = ended.and_then(|ended| ended.outcome(status, ledger.is_empty()));
            outcome.map_err(|failure| failure.into_error(&self.name(), &joined(log)))?;
            if !took_all {
                let command = self.name();
                tracing::warn!(unit, "{command} ended well but did not read all samples");
            }
            Ok(())
        })
    }

    /// Starts the program once with no samples, as `SLUICE_UNIT=check`: it starts, ends with 0, and what
    /// it answers, if anything, has the right columns.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run); what would be data there is usage here, for no data was sent.
    pub fn rehearse(&self, schema: &Schema, stop: &dyn Fn() -> Result<()>) -> Result<()> {
        let none = std::iter::empty();
        let done = self.run("check", schema, none, stop, |_| Ok(()));
        done.map_err(|e| match e.class() {
            Class::Data => Error::usage(e.to_string()).hint(
                "before the work the program is started once with no images: it must end with 0",
            ),
            _ => e,
        })
    }

    /// Reads the program's output to its end. Closing it earlier would end the program by SIGPIPE,
    /// which would hide its own error.
    fn receive(&self, stdout: Pipe<'_, ChildStdout>, events: SyncSender<Event>) {
        let mut stream = ScoreStream::new(stdout, &self.outputs);
        // Nobody receives once the unit has failed.
        let mut send = |scores| events.send(Event::Scores(scores)).is_ok();
        // Arrow's reader panics on some damaged streams.
        let read = panic::catch_unwind(AssertUnwindSafe(|| stream.each(&mut send)));
        let ended = match read {
            Ok(Ok(())) => stream.finish(),
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(Failure::data(
                "its output is not a valid Arrow IPC stream: a buffer is out of bounds",
            )),
        };
        let complete = ended.is_ok();
        let _ = events.send(Event::OutputEnded(ended));
        if !complete {
            stream.drain();
        }
    }

    /// Returns the command as errors show it.
    fn name(&self) -> String {
        let mut text: String = self.command.chars().take(NAMED_COMMAND).collect();
        if text.len() < self.command.len() {
            text.push('…');
        }
        format!("command {text:?}")
    }
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|e| panic::resume_unwind(e))
}

/// Writes the samples. Returns whether the program read all samples. If it stops reading, its exit code
/// and its output decide.
fn feed(
    stdin: impl Write,
    schema: &Schema,
    mut batches: impl Iterator<Item = Result<RecordBatch>>,
    ledger: &Ledger,
    activity: &Activity,
) -> Result<bool> {
    let taken = |written: Result<(), ArrowError>| match written {
        Ok(()) => Ok(true),
        Err(ArrowError::IoError(..)) => Ok(false),
        Err(e) => Err(Error::bug(format!(
            "samples do not fit an Arrow stream: {e}"
        ))),
    };
    let mut writer = match StreamWriter::try_new(stdin, schema) {
        Ok(writer) => writer,
        Err(e) => return taken(Err(e)),
    };
    while let Some(batch) = activity.while_waiting(|| batches.next()) {
        let batch = batch?;
        ledger.sent(&batch)?;
        if !taken(writer.write(&batch))? {
            return Ok(false);
        }
    }
    taken(writer.finish())
}

/// What is watched while a program works.
struct Watch<'a> {
    command: &'a ScoreCommand,
    process: &'a Process<'a>,
    activity: &'a Activity,
    stop: &'a dyn Fn() -> Result<()>,
}

/// How a program ended.
struct Ended {
    /// Whether it exited by itself.
    exited: bool,
    output: Result<(), Failure>,
}

impl Watch<'_> {
    /// Takes the program's answers until its output and then the program end.
    fn until_exit(
        &self,
        inbox: Receiver<Event>,
        ledger: &Ledger,
        mut on_scores: impl FnMut(RecordBatch) -> Result<()>,
    ) -> Result<Ended, Failure> {
        let output = loop {
            match inbox.recv_timeout(TICK) {
                Ok(Event::Scores(scores)) => {
                    ledger.answered(&scores)?;
                    on_scores(scores)?;
                    self.activity.touch();
                }
                Ok(Event::SamplesFailed) => {
                    return Err(Error::bug("samples failed without an error").into());
                }
                Ok(Event::OutputEnded(output)) => break output,
                Err(RecvTimeoutError::Timeout) => self.close_orphans(),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::bug("the reader of a program's output is gone").into());
                }
            }
            self.check()?;
        };
        let exited = self.wait_for_exit(output.is_err().then_some(GRACE))?;
        Ok(Ended { exited, output })
    }

    /// The output of a program that has exited ends when its remaining child processes exit. A process
    /// outside of its group is not waited for.
    fn close_orphans(&self) {
        if self.process.has_exited() {
            self.process.kill();
            if self.activity.silence() > GRACE {
                self.activity.give_up();
            }
        }
    }

    /// Returns false when the program takes longer than `patience`.
    fn wait_for_exit(&self, patience: Option<Duration>) -> Result<bool, Failure> {
        let started = Instant::now();
        let mut pause = Duration::from_millis(1);
        while !self.process.has_exited() {
            if patience.is_some_and(|patience| started.elapsed() > patience) {
                return Ok(false);
            }
            self.check()?;
            thread::sleep(pause);
            pause = TICK.min(pause * 2);
        }
        Ok(true)
    }

    fn check(&self) -> Result<(), Failure> {
        (self.stop)()?;
        match self.command.time_limit {
            Some(limit) if self.activity.silence() > limit => Err(Failure::program(
                Class::Transient,
                format!("silent for {} s, killed", limit.as_secs_f64()),
            )
            .hint("--time-limit sets how long it may take no input and give no output")),
            _ => Ok(()),
        }
    }
}

impl Ended {
    /// The program's own failure explains a broken output, so it counts first.
    fn outcome(self, status: ExitStatus, nothing_sent: bool) -> Result<(), Failure> {
        match (
            process::failure(status).filter(|_| self.exited),
            self.output,
        ) {
            (Some(failure), _) => Err(failure),
            (None, Err(Failure::NoOutput)) if nothing_sent => Ok(()),
            (None, output) => output,
        }
    }
}

impl Failure {
    fn program(class: Class, what: impl Into<String>) -> Self {
        Self::Program {
            class,
            what: what.into(),
            hint: None,
        }
    }

    fn data(what: impl Into<String>) -> Self {
        Self::program(Class::Data, what)
    }

    fn hint(mut self, text: impl Into<String>) -> Self {
        if let Self::Program { hint, .. } = &mut self {
            *hint = Some(text.into());
        }
        self
    }

    fn into_error(self, command: &str, last_lines: &[String]) -> Error {
        let (class, what, hint) = match self {
            Self::Ours(e) => return e,
            Self::NoOutput => (
                Class::Data,
                "no output".to_owned(),
                Some("an Arrow IPC stream is expected on stdout".to_owned()),
            ),
            Self::Program { class, what, hint } => (class, what, hint),
        };
        let mut text = format!("{command}: {what}");
        for line in last_lines {
            text.push_str("\n  stderr: ");
            text.push_str(line);
        }
        let error = match class {
            Class::Usage => Error::usage(text),
            Class::Transient => Error::transient(text),
            _ => Error::data(text),
        };
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Self::Ours(e)
    }
}

#[cfg(test)]
mod tests;
