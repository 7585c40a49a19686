//! A program and all that it starts, as one process group.

use std::io::{self, ErrorKind};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use sluice_manifest::{Class, Error, Result};

use super::Failure;
use super::pipe::{Activity, Pipe};

/// What a program exits with to be started again, by the convention of `sysexits.h`.
const TRY_AGAIN: i32 = 75;

/// A started program. Dropped, it is killed with its group, and leaves no zombie.
pub(super) struct Process<'a> {
    child: Child,
    group: Pid,
    activity: &'a Activity,
    ended: bool,
}

/// A program's stdin, stdout and stderr.
type Pipes<'a> = (
    Pipe<'a, ChildStdin>,
    Pipe<'a, ChildStdout>,
    Pipe<'a, ChildStderr>,
);

impl<'a> Process<'a> {
    pub(super) fn start(
        command: &str,
        environment: &[(&str, &str)],
        activity: &'a Activity,
    ) -> Result<Self> {
        let child = Command::new("sh")
            .arg("-c")
            .arg(command)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|e| cannot_start(&e))?;
        Ok(Self {
            group: Pid::from_child(&child),
            child,
            activity,
            ended: false,
        })
    }

    /// Returns the program's pipes, once.
    pub(super) fn pipes(&mut self) -> Result<Pipes<'a>> {
        let child = &mut self.child;
        let ends = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = ends else {
            return Err(Error::bug("the pipes of a program are taken twice"));
        };
        let pipes = || -> io::Result<Pipes<'a>> {
            Ok((
                Pipe::new(stdin, self.activity)?,
                Pipe::new(stdout, self.activity)?,
                Pipe::new(stderr, self.activity)?,
            ))
        };
        pipes().map_err(|e| cannot_start(&e))
    }

    /// Returns whether the program has exited. It stays a zombie, so that its group keeps its number,
    /// until [`end`](Self::end).
    pub(super) fn has_exited(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(waitid(WaitId::Pid(self.group), options), Ok(None))
    }

    /// Kills what is left of the group.
    pub(super) fn kill(&self) {
        // It fails where nothing is left.
        let _ = kill_process_group(self.group, Signal::KILL);
    }

    /// Kills what is left of the group. Returns how the program ended.
    pub(super) fn end(&mut self) -> Result<ExitStatus> {
        if !self.ended {
            self.kill();
        }
        self.ended = true;
        let status = self.child.wait();
        status.map_err(|e| Error::bug(format!("a program's exit code is not known: {e}")))
    }
}

impl Drop for Process<'_> {
    fn drop(&mut self) {
        // Its error was reported, or there is another one.
        let _ = self.end();
        self.activity.give_up();
    }
}

fn cannot_start(e: &io::Error) -> Error {
    let text = format!("cannot start sh: {e}");
    match e.kind() {
        ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::ArgumentListTooLong => {
            Error::usage(text)
        }
        _ => Error::transient(text),
    }
}

/// Returns what an exit status means, or None for success.
pub(super) fn failure(status: ExitStatus) -> Option<Failure> {
    let code = status.code();
    let signal = status.signal().or(match code {
        Some(code @ 129..=192) => Some(code - 128),
        _ => None,
    });
    let failure = match (code, signal) {
        (Some(0), _) => return None,
        (_, Some(signal)) => {
            let killed = Failure::program(Class::Transient, format!("killed by signal {signal}"));
            match signal {
                9 => killed.hint("signal 9 is often the kernel's answer to a lack of memory"),
                _ => killed,
            }
        }
        (Some(TRY_AGAIN), _) => Failure::program(
            Class::Transient,
            format!("exit code {TRY_AGAIN}, which asks to try again"),
        ),
        (Some(code @ (126 | 127)), _) => Failure::program(
            Class::Usage,
            format!("exit code {code}: a program was not found or cannot be executed"),
        )
        .hint("give the program's path, or add its folder to PATH"),
        (code, _) => Failure::data(format!("exit code {}", code.unwrap_or_default())),
    };
    Some(failure)
}

/// Returns whether the shell takes a word as it is.
pub(super) fn is_plain(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./+@:-".contains(c);
    word.chars().all(plain)
}

/// Returns whether the shell finds a program, or has a builtin of this name.
pub(super) fn exists(program: &str) -> Result<bool> {
    let script = r#"case $1 in */*) test -f "$1" && test -x "$1";; *) command -v "$1";; esac"#;
    let status = Command::new("sh")
        .args(["-c", script, "sh", program])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    Ok(status.map_err(|e| cannot_start(&e))?.success())
}
