//! What a program gives away: its result on stdout and in `--result`, its logs on stderr.
//!
//! A result that cannot be written is no result: the program does not end with 0. A log that cannot
//! be written changes nothing. A reader that went away (`| head`) is not an error.

use std::borrow::Cow;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use serde_json::Value;
use sluice_manifest::text::{safe, visible};
use sluice_manifest::{Class, Error, ExitStatus, Result};

/// Where Kubernetes reads a container's last words.
const LAST_WORDS: &str = "/dev/termination-log";

/// Writes the result to `--result` (atomically), to stdout where `to_stdout`, and an error to the
/// container's last words. Returns how the program ends: as `status` has it, or for a result of
/// finished work that could not be written.
pub(crate) fn deliver(
    name: &str,
    result: &Value,
    to_stdout: bool,
    file: Option<&Path>,
    status: ExitStatus,
) -> ExitStatus {
    if result["error"].is_object() {
        leave_last_words(&result["error"]);
    }
    let line = format!("{}\n", visible(&result.to_string()));
    let saved = file.map_or(Ok(()), |file| save(file, &line));
    let printed = match to_stdout {
        true => print(line.as_bytes()),
        false => Ok(()),
    };
    match (saved.and(printed), status) {
        (Err(e), ExitStatus::Done) => lost(name, &e),
        _ => status,
    }
}

/// Prints what clap says: help, or what is wrong with the arguments, which it repeats.
pub(crate) fn print_usage(e: &clap::Error) -> io::Result<()> {
    let plain = e.to_string();
    let safe = safe(&plain);
    match safe == plain {
        true => e.print(),
        false => io::stderr().write_all(safe.as_bytes()),
    }
}

/// Returns how a program ends whose words for people were written to stdout, or were not.
pub(crate) fn shown(name: &str, written: io::Result<()>) -> ExitStatus {
    match unless_closed(written.and_then(|()| io::stdout().flush())) {
        Ok(()) => ExitStatus::Done,
        Err(e) => lost(name, &Error::of_io(e, "stdout")),
    }
}

fn lost(name: &str, e: &Error) -> ExitStatus {
    tracing::error!("{e}");
    // The log may not have been started.
    let _ = writeln!(io::stderr(), "{name}: {e}");
    e.class().exit_status()
}

fn print(line: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(line).and_then(|()| stdout.flush());
    unless_closed(written).map_err(|e| Error::of_io(e, "stdout"))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the result is a file of local disk by definition"
)]
fn save(file: &Path, line: &str) -> Result<()> {
    let part = file.with_extension("part");
    let saved = std::fs::write(&part, line).and_then(|()| std::fs::rename(&part, file));
    saved.map_err(|e| {
        let object = format!("--result {}", file.display());
        match Class::of_io(&e) {
            // There is no folder to write to.
            Class::Data => Error::usage(format!("{object}: {e}")),
            _ => Error::of_io(e, &object),
        }
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "Kubernetes reads a file of the container"
)]
fn leave_last_words(error: &Value) {
    if Path::new(LAST_WORDS).exists() {
        // The exit code and the log say the same.
        let _ = std::fs::write(LAST_WORDS, error.to_string());
    }
}

/// Passes over a reader that went away.
pub(crate) fn unless_closed(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Passes on what is written, and never fails: a full disk under the log must not end the work.
pub(crate) struct BestEffort<W>(pub W);

impl<W: Write> Write for BestEffort<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A log that cannot be written can be reported nowhere.
        let _ = self.0.write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.0.flush();
        Ok(())
    }
}

/// Rewrites what is written. Each call writes a whole text.
pub(crate) struct SafeWriter<W> {
    writer: W,
    rewrite: fn(&str) -> Cow<'_, str>,
}

impl<W: Write> SafeWriter<W> {
    /// Hides credentials and escapes control characters: for what the program says.
    pub fn words(writer: W) -> Self {
        Self {
            writer,
            rewrite: safe,
        }
    }

    /// Escapes control characters: for data, which may hold the URLs that samples came from.
    pub fn data(writer: W) -> Self {
        Self {
            writer,
            rewrite: visible,
        }
    }
}

impl<W: Write> Write for SafeWriter<W> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let words = String::from_utf8_lossy(text);
        self.writer.write_all((self.rewrite)(&words).as_bytes())?;
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;

    #[test]
    #[expect(clippy::disallowed_types, reason = "opens a device")]
    fn a_log_on_a_full_disk_changes_nothing() {
        let full: std::fs::File = OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert!((&full).write_all(b"x").is_err());
        let mut log = BestEffort(full);
        log.write_all(b"x").and_then(|()| log.flush()).unwrap();
    }

    #[test]
    fn a_result_that_is_not_written_is_not_a_success() {
        let result = serde_json::json!({"status": "done"});
        let deliver =
            |file: &str, status| deliver("x", &result, false, Some(Path::new(file)), status);
        let missing = "/no such folder/result.json";
        assert_eq!(deliver(missing, ExitStatus::Done), ExitStatus::Usage);
        assert_eq!(deliver(missing, ExitStatus::TryAgain), ExitStatus::TryAgain);
    }
}
