//! Programs in processes of their own.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::places;

/// The file that a process writes its peak to.
const PEAK: &str = "SLUICE_TESTS_PEAK";

/// Starts the stages' programs as processes.
pub struct Process {
    program: PathBuf,
    scratch: tempfile::TempDir,
    limit: Duration,
    variables: Vec<(String, String)>,
}

/// A process that ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code.
    pub code: i32,
    /// The most memory that it held, in bytes.
    pub peak: u64,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Process {
    /// `program` is `sluice-tests-step`; a process that takes longer than `limit` is ended.
    pub fn new(program: &str, limit: Duration) -> Result<Self> {
        Ok(Self {
            program: program.into(),
            scratch: tempfile::tempdir()?,
            limit,
            variables: Vec::new(),
        })
    }

    /// Sets a variable for the processes.
    #[must_use]
    pub fn with(mut self, variable: &str, value: &str) -> Self {
        self.variables.push((variable.to_owned(), value.to_owned()));
        self
    }

    /// Runs a command line, the program's name first.
    #[expect(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        reason = "what a process says goes through local files, which never fill up and block it"
    )]
    pub fn run<S: AsRef<OsStr>>(&self, command: &[S]) -> Result<Finished> {
        let (name, arguments) = command.split_first().context("no program")?;
        let at = |name: &str| self.scratch.path().join(name);
        let mut process = Command::new(&self.program);
        process
            .arg0(name)
            .args(arguments)
            .env(PEAK, at("peak"))
            // Microsoft's builds of ONNX Runtime report home and leave files behind; nothing less
            // than this variable keeps them from it altogether.
            .env("ORT_DISABLE_TELEMETRY", "1")
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(at("stdout"))?)
            .stderr(std::fs::File::create(at("stderr"))?);
        if let Some(library) = places::runtime() {
            process.env("ORT_DYLIB_PATH", library);
        }
        process.envs(self.variables.iter().map(|(name, value)| (name, value)));
        let started = Instant::now();
        let mut child = process.spawn()?;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if started.elapsed() > self.limit {
                child.kill()?;
                child.wait()?;
                bail!("{:?}: not done after {:?}", name.as_ref(), self.limit);
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let stderr = std::fs::read_to_string(at("stderr"))?;
        let Some(code) = status.code() else {
            bail!("{:?}: ended by {status}: {stderr}", name.as_ref());
        };
        Ok(Finished {
            code,
            peak: std::fs::read_to_string(at("peak"))?.trim().parse()?,
            stdout: std::fs::read_to_string(at("stdout"))?,
            stderr,
            took: started.elapsed(),
        })
    }

    /// Writes what this process held at most, for the one that started it.
    #[expect(
        clippy::disallowed_methods,
        reason = "the kernel's words about this process lie in a file"
    )]
    pub fn report_peak() {
        let Some(file) = std::env::var_os(PEAK) else {
            return;
        };
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes =
            line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
        let bytes = kilobytes.map_or(0, |kilobytes: u64| kilobytes * 1024);
        // A peak that cannot be written is missed by the reader.
        let _ = std::fs::write(Path::new(&file), bytes.to_string());
    }
}
