//! Programs in separate processes.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::places;
use crate::servers::Site;

/// The variable that names the file for a process's peak memory.
const PEAK: &str = "SLUICE_TESTS_PEAK";

/// Prefixes of variables that would redirect a program.
const FOREIGN: [&str; 6] = [
    "AWS_",
    "AZURE_",
    "GOOGLE_",
    "STORAGE_EMULATOR_HOST",
    "SLUICE_STORE_",
    "SLUICE_LOG",
];

/// Starts the stages' programs as processes.
pub struct Process {
    program: PathBuf,
    scratch: tempfile::TempDir,
    limit: Duration,
    variables: Vec<(String, String)>,
    alone: bool,
}

/// A running process. It is killed on drop.
pub struct Running {
    child: Child,
    folder: tempfile::TempDir,
    name: String,
    limit: Duration,
    started: Instant,
}

/// The result of a process that may have been killed.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Its exit code, or the signal that ended it.
    pub status: ExitStatus,
    /// Its output to stderr.
    pub stderr: String,
}

/// The result of a process that exited.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its exit code.
    pub code: i32,
    /// Its peak memory in bytes.
    pub peak: u64,
    /// Its output to stdout.
    pub stdout: String,
    /// Its output to stderr.
    pub stderr: String,
    /// Its duration.
    pub took: Duration,
}

impl Process {
    /// Returns a starter of processes. `program` is `sluice-tests-step`, or a folder of programs. A
    /// process that takes longer than `limit` is killed.
    ///
    /// # Errors
    /// When there is no temporary folder.
    pub fn new(program: &str, limit: Duration) -> Result<Self> {
        Ok(Self {
            program: program.into(),
            scratch: tempfile::tempdir()?,
            limit,
            variables: Vec::new(),
            alone: false,
        })
    }

    /// Sets a variable for the processes.
    #[must_use]
    pub fn with(mut self, variable: &str, value: &str) -> Self {
        self.variables.push((variable.to_owned(), value.to_owned()));
        self
    }

    /// Gives the processes access to this object store, and hides others that this machine may use.
    #[must_use]
    pub fn at(mut self, site: &Site) -> Self {
        self.alone = true;
        for (variable, value) in &site.variables {
            self = self.with(variable, value);
        }
        self
    }

    /// Runs a command line, the program's name first.
    ///
    /// # Errors
    /// When the process does not start, is killed or exceeds the time limit.
    pub fn run<S: AsRef<OsStr>>(&self, command: &[S]) -> Result<Finished> {
        self.start(command)?.wait()
    }

    /// Starts a command line, the program's name first.
    ///
    /// # Errors
    /// When the process does not start.
    #[expect(clippy::disallowed_types, reason = "output goes to local files")]
    pub fn start<S: AsRef<OsStr>>(&self, command: &[S]) -> Result<Running> {
        let (name, arguments) = command.split_first().context("no program")?;
        let folder = tempfile::tempdir_in(&self.scratch)?;
        let at = |name: &str| folder.path().join(name);
        let mut process = if self.program.is_dir() {
            Command::new(self.program.join(name.as_ref()))
        } else {
            Command::new(&self.program)
        };
        if self.alone {
            for (variable, _) in std::env::vars_os() {
                let text = variable.to_string_lossy().to_uppercase();
                if text.ends_with("_PROXY") || FOREIGN.iter().any(|name| text.starts_with(name)) {
                    process.env_remove(&variable);
                }
            }
            process.env("HOME", self.scratch.path());
        }
        process
            .arg0(name)
            .args(arguments)
            .env(PEAK, at("peak"))
            // Microsoft's builds of ONNX Runtime send telemetry and create files. Only this
            // variable prevents both.
            .env("ORT_DISABLE_TELEMETRY", "1")
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(at("stdout"))?)
            .stderr(std::fs::File::create(at("stderr"))?);
        if let Some(library) = places::library() {
            process.env("ORT_DYLIB_PATH", library);
        }
        process.envs(self.variables.iter().map(|(name, value)| (name, value)));
        Ok(Running {
            started: Instant::now(),
            child: process.spawn()?,
            name: name.as_ref().to_string_lossy().into_owned(),
            limit: self.limit,
            folder,
        })
    }

    /// Writes the peak memory of this process, for the process that started it.
    #[expect(
        clippy::disallowed_methods,
        reason = "the kernel reports on this process in a file"
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
        // The reader notices a missing peak.
        let _ = std::fs::write(Path::new(&file), bytes.to_string());
    }
}

impl Running {
    /// Whether it is still running.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Whether it has installed a handler of SIGTERM.
    #[expect(
        clippy::disallowed_methods,
        reason = "the kernel reports on a process in a file"
    )]
    pub fn handles_sigterm(&self) -> bool {
        const SIGTERM: u64 = 1 << 14;
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        caught.is_some_and(|mask| mask & SIGTERM != 0)
    }

    /// Sends it SIGTERM, as an orchestrator does.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Sends it SIGSTOP, which suspends it.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Sends it SIGCONT, after [`pause`](Self::pause).
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Sends it a signal. Until it is waited for, an exited process ignores signals.
    fn signal(&self, signal: Signal) -> Result<()> {
        let process = Pid::from_child(&self.child);
        kill_process(process, signal).with_context(|| format!("{}: {signal:?}", self.name))
    }

    /// Kills it, like a lost machine. Returns its exit status.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill(mut self) -> Result<ExitStatus> {
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    /// Waits until it exits, for any reason.
    ///
    /// # Errors
    /// When it exceeds the time limit, or its output cannot be read.
    #[expect(clippy::disallowed_methods, reason = "output goes to local files")]
    pub fn end(mut self) -> Result<Ended> {
        let status = self.ended()?;
        let stderr = std::fs::read(self.folder.path().join("stderr"))?;
        Ok(Ended {
            status,
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        })
    }

    /// Waits until it exits.
    ///
    /// # Errors
    /// When it is killed by a signal, exceeds the time limit, or its output cannot be read.
    #[expect(clippy::disallowed_methods, reason = "output goes to local files")]
    pub fn wait(mut self) -> Result<Finished> {
        let status = self.ended()?;
        let took = self.started.elapsed();
        let read = |name: &str| std::fs::read_to_string(self.folder.path().join(name));
        let stderr = read("stderr")?;
        let Some(code) = status.code() else {
            bail!("{:?}: ended by {status}: {stderr}", self.name);
        };
        Ok(Finished {
            code,
            // A process that is killed at its deadline writes none.
            peak: read("peak").map_or(Ok(0), |peak| peak.trim().parse())?,
            stdout: read("stdout")?,
            stderr,
            took,
        })
    }

    fn ended(&mut self) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if self.started.elapsed() > self.limit {
                bail!("{:?}: not done after {:?}", self.name, self.limit);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // This fails if the process has already exited.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}
