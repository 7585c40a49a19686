//! The outputs of a program: its result on stdout and in `--result`, and its logs on stderr.
//!
//! If a result cannot be written, the program does not end with 0. A log that cannot be written has
//! no effect. A reader that closed the pipe (`| head`) is not an error.

use std::borrow::Cow;
use std::fs::OpenOptions;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use sluice_manifest::text::{safe, visible};
use sluice_manifest::{Class, Error, ExitStatus, Result};

/// The maximum size of a result in bytes. It names a hundred outputs and counts the others.
const RESULT: u64 = 16 << 20;
/// The file from which Kubernetes reads the termination message of a container.
const LAST_WORDS: &str = "/dev/termination-log";

/// Writes the result to `--result` (atomically), to stdout if `to_stdout`, and an error to the
/// termination message. Returns `status`, or the status of a failed write if the work itself
/// succeeded.
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
    let printed = if to_stdout {
        print(line.as_bytes())
    } else {
        Ok(())
    };
    match (saved.and(printed), status) {
        (Err(e), ExitStatus::Done) => lost(name, &e),
        _ => status,
    }
}

/// Prints the help, or clap's message about the arguments, which repeats them.
pub(crate) fn print_usage(e: &clap::Error) -> io::Result<()> {
    let plain = e.to_string();
    let safe = safe(&plain);
    if safe == plain {
        e.print()
    } else {
        io::stderr().write_all(safe.as_bytes())
    }
}

/// Returns the status of a program that wrote text to stdout, with the outcome `written`.
pub(crate) fn shown(name: &str, written: io::Result<()>) -> ExitStatus {
    match unless_closed(written.and_then(|()| io::stdout().flush())) {
        Ok(()) => ExitStatus::Done,
        Err(e) => lost(name, &Error::of_io(e, "stdout")),
    }
}

fn lost(name: &str, e: &Error) -> ExitStatus {
    tracing::error!("{e}");
    // The logger may not have been started.
    let _ = writeln!(io::stderr(), "{name}: {e}");
    e.class().exit_status()
}

fn print(line: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(line).and_then(|()| stdout.flush());
    unless_closed(written).map_err(|e| Error::of_io(e, "stdout"))
}

/// Checks that `--result` can be written, and that it would replace only an earlier result.
///
/// # Errors
///
/// Returns a usage error if not, and a transient error if the disk is full.
pub(crate) fn check_result(file: Option<&Path>) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    refuse_other_file(file)?;
    if is_special(file) {
        return Ok(());
    }
    let probe = Part::create(file);
    probe.map(drop).map_err(|e| not_saved(file, e))
}

/// Writes a result atomically.
fn save(file: &Path, line: &str) -> Result<()> {
    refuse_other_file(file)?;
    write_result(file, line.as_bytes()).map_err(|e| not_saved(file, e))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the result is a file of local disk by definition"
)]
fn write_result(file: &Path, line: &[u8]) -> io::Result<()> {
    if is_special(file) {
        return std::fs::write(file, line);
    }
    let mut part = Part::create(file)?;
    part.file.write_all(line)?;
    std::fs::rename(&part.path, file)
}

/// Returns whether the file is a terminal, a pipe or another device, which cannot be renamed to.
fn is_special(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|found| !found.is_file() && !found.is_dir())
}

/// Returns an error if the file is not empty and not the result of a program.
fn refuse_other_file(file: &Path) -> Result<()> {
    let refused = |what: &str| {
        let message = format!("--result {}: {what}", file.display());
        Err(Error::usage(message).hint("name a file of its own"))
    };
    match file.metadata() {
        Ok(found) if found.is_dir() => return refused("is a folder"),
        Ok(found) if found.is_file() && found.len() > 0 => {}
        _ => return Ok(()),
    }
    if is_result(file) {
        Ok(())
    } else {
        refused("is not a result, and would be overwritten")
    }
}

/// Returns whether a file is the result of a program.
#[expect(
    clippy::disallowed_types,
    reason = "the result is a file of local disk by definition"
)]
fn is_result(file: &Path) -> bool {
    let Ok(file) = std::fs::File::open(file) else {
        return false;
    };
    let mut reader = serde_json::Deserializer::from_reader(io::BufReader::new(file.take(RESULT)));
    let result = Value::deserialize(&mut reader);
    result.is_ok_and(|result| result["program"].is_string() && result["status"].is_string())
}

fn not_saved(file: &Path, e: io::Error) -> Error {
    let object = format!("--result {}", file.display());
    match Class::of_io(&e) {
        // The folder does not exist.
        Class::Data => Error::usage(format!("{object}: {e}")),
        _ => Error::of_io(e, &object),
    }
}

/// A temporary file next to the result. It is either renamed to the result or removed.
struct Part {
    path: PathBuf,
    #[expect(
        clippy::disallowed_types,
        reason = "the result is a file of local disk by definition"
    )]
    file: std::fs::File,
}

impl Part {
    fn create(result: &Path) -> io::Result<Self> {
        let random = RandomState::new().hash_one(result);
        let path = result.with_file_name(format!(".sluice-result-{random:016x}"));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)?;
        Ok(Self { path, file })
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After the rename, the file does not exist.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "Kubernetes reads a file of the container"
)]
fn leave_last_words(error: &Value) {
    if Path::new(LAST_WORDS).exists() {
        // The exit code and the log contain the error as well.
        let _ = std::fs::write(LAST_WORDS, error.to_string());
    }
}

/// Ignores the error of a reader that closed the pipe.
pub(crate) fn unless_closed(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Forwards everything and never fails, because a full disk under the log must not end the work.
pub(crate) struct BestEffort<W>(pub W);

impl<W: Write> Write for BestEffort<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A failure of the log cannot be reported anywhere else.
        let _ = self.0.write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.0.flush();
        Ok(())
    }
}

/// Rewrites text before it is written. Each call must contain a whole text.
pub(crate) struct SafeWriter<W> {
    writer: W,
    rewrite: fn(&str) -> Cow<'_, str>,
}

impl<W: Write> SafeWriter<W> {
    /// Masks credentials and escapes control characters: for messages of the program.
    pub(crate) fn words(writer: W) -> Self {
        Self {
            writer,
            rewrite: safe,
        }
    }

    /// Escapes control characters: for data, which may contain the URLs of samples.
    pub(crate) fn data(writer: W) -> Self {
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

    #[test]
    #[expect(clippy::disallowed_methods, reason = "looks at the files")]
    fn a_result_replaces_nothing_but_a_result() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let result = |status: &str| format!("{{\"program\":\"x\",\"status\":{status:?}}}\n");
        let before = [
            ("shard.tar", "a".repeat(4096)),
            ("index.json", "{\"shardlist\": []}".to_owned()),
            ("result.part", "somebody's".to_owned()),
        ];
        for (name, content) in &before {
            std::fs::write(at(name), content).unwrap();
        }
        for name in ["shard.tar", "index.json"] {
            let refused = check_result(Some(&at(name))).unwrap_err();
            assert_eq!(refused.class(), Class::Usage, "{refused}");
            assert_eq!(save(&at(name), "x").unwrap_err().class(), Class::Usage);
        }
        std::fs::write(at("empty"), "").unwrap();
        for name in ["result.json", "result.json", "empty"] {
            check_result(Some(&at(name))).unwrap();
            save(&at(name), &result("done")).unwrap();
            assert_eq!(std::fs::read_to_string(at(name)).unwrap(), result("done"));
        }
        for (name, content) in &before {
            assert_eq!(std::fs::read_to_string(at(name)).unwrap(), *content);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 5);
        check_result(Some(&at("none/result.json"))).unwrap_err();
        check_result(Some(Path::new("/dev/null"))).unwrap();
        save(Path::new("/dev/null"), "x").unwrap();
        assert!(is_special(Path::new("/dev/null")));
    }
}
