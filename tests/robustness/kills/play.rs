//! Plays a case.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use sluice_tests::{Ended, Running};

use super::case::{Disturbance, KillCase, What};
use super::lab::{Lab, Objects, RunProcess, Way};

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
/// The exit code for unusable data.
const DATA: i32 = 3;
/// The exit code for a transient failure.
const AGAIN: i32 = 75;
/// The maximum number of attempts of a node.
const TRIES: usize = 10;

/// Numbers of the disturbances.
#[derive(Debug, Default, Clone)]
pub(super) struct KillCounts {
    /// Cases.
    pub cases: u64,
    /// Processes killed while they ran.
    pub killed: u64,
    terminated: u64,
    rivals: u64,
    zombies: u64,
    stale: u64,
    /// Processes that failed because of others and were run again.
    again: u64,
    /// Temporary files left by runs.
    temporary: usize,
}

impl fmt::Display for KillCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} cases: {} killed, {} terminated, {} rivals, {} stopped that went on later ({} with other \
            settings), {} tried again, {} temporary files left",
            self.cases,
            self.killed,
            self.terminated,
            self.rivals,
            self.zombies,
            self.stale,
            self.again,
            self.temporary
        )
    }
}

/// Plays a case.
///
/// # Errors
/// When a process ends with an unexpected code, when the run does not verify, or when an object
/// differs from an undisturbed run's.
pub(super) fn play(lab: &Lab, case: &KillCase, tally: &mut KillCounts) -> Result<()> {
    let way = lab.way(case.whole);
    lab.wipe()?;
    let mut play = Play {
        lab,
        tally,
        stopped: Vec::new(),
        going_on: Vec::new(),
        is_stale: false,
    };
    for (number, node) in way.nodes.iter().enumerate() {
        play.wake(number)?;
        let of_node = |disturbance: &&Disturbance| disturbance.node == number;
        for disturbance in case.disturbances.iter().filter(of_node) {
            play.disturb(node, disturbance)
                .with_context(|| format!("{disturbance:?}"))?;
        }
        play.finish(node)?;
    }
    play.end_of_zombies()?;
    for node in &way.nodes {
        play.finish(node)?;
    }
    lab.verify()?;
    let (objects, temporary) = lab.objects()?;
    play.tally.temporary += temporary;
    compare(way, &objects)
}

/// A run in progress.
struct Play<'l> {
    lab: &'l Lab,
    tally: &'l mut KillCounts,
    /// Stopped processes, and the node before which each continues.
    stopped: Vec<(usize, Running)>,
    /// Processes that were stopped and continue.
    going_on: Vec<Running>,
    /// Whether a stopped process may have other settings. A node may then find inputs missing or stale,
    /// and fail.
    is_stale: bool,
}

impl Play<'_> {
    fn disturb(&mut self, node: &RunProcess, disturbance: &Disturbance) -> Result<()> {
        let is_stale = matches!(disturbance.what, What::Zombie { stale: true, .. });
        let command = if is_stale { &node.stale } else { &node.command };
        let running = self.lab.programs.start(command)?;
        let rival = match disturbance.what {
            What::Rival | What::RivalOfKilled => Some(self.lab.programs.start(command)?),
            _ => None,
        };
        std::thread::sleep(node.takes.mul_f64(disturbance.at));
        match disturbance.what {
            What::Kill | What::RivalOfKilled => self.kill(running)?,
            What::Terminate => self.terminate(running)?,
            What::Rival => self.ends_well(running)?,
            What::Zombie { until, .. } => self.stop(running, until, is_stale)?,
        }
        if let Some(rival) = rival {
            self.tally.rivals += 1;
            self.ends_well(rival)?;
        }
        Ok(())
    }

    fn kill(&mut self, running: Running) -> Result<()> {
        let status = running.kill()?;
        self.tally.killed += u64::from(status.signal() == Some(SIGKILL));
        Ok(())
    }

    fn terminate(&mut self, running: Running) -> Result<()> {
        running.terminate()?;
        let ended = running.end()?;
        let was_early = ended.status.signal() == Some(SIGTERM);
        let is_stopped = was_early || is_one_of(ended.status, &[0, 143]);
        ensure!(
            is_stopped || self.may_try_again(&ended),
            "after SIGTERM: {}",
            said(&ended)
        );
        self.tally.terminated += 1;
        Ok(())
    }

    fn stop(&mut self, mut running: Running, until: usize, is_stale: bool) -> Result<()> {
        running.pause()?;
        if running.is_running()? {
            self.is_stale |= is_stale;
            self.tally.zombies += 1;
            self.tally.stale += u64::from(is_stale);
            self.stopped.push((until, running));
        }
        Ok(())
    }

    /// Waits for a process that runs concurrently with another one.
    fn ends_well(&mut self, running: Running) -> Result<()> {
        let ended = running.end()?;
        let is_done = ended.status.success();
        ensure!(
            is_done || self.may_try_again(&ended),
            "beside another: {}",
            said(&ended)
        );
        Ok(())
    }

    /// Whether a process failed in a way that is allowed while others work on the same run.
    fn may_try_again(&mut self, ended: &Ended) -> bool {
        let codes: &[i32] = if self.is_stale {
            &[DATA, AGAIN]
        } else {
            &[AGAIN]
        };
        let may = is_one_of(ended.status, codes);
        self.tally.again += u64::from(may);
        may
    }

    /// Resumes the processes whose node has come.
    fn wake(&mut self, node: usize) -> Result<()> {
        let stopped = std::mem::take(&mut self.stopped);
        for (until, running) in stopped {
            if until > node {
                self.stopped.push((until, running));
                continue;
            }
            running.resume()?;
            self.going_on.push(running);
        }
        Ok(())
    }

    /// Resumes all processes and waits for them. Their inputs may have changed in the meantime, so
    /// every exit code except a bug is valid.
    fn end_of_zombies(&mut self) -> Result<()> {
        self.wake(usize::MAX)?;
        for running in self.going_on.drain(..) {
            let ended = running.end()?;
            ensure!(
                is_one_of(ended.status, &[0, DATA, AGAIN]),
                "stopped for a while: {}",
                said(&ended)
            );
        }
        self.is_stale = false;
        Ok(())
    }

    /// Runs a node until it succeeds, as an engine does, or until it fails because of others.
    fn finish(&mut self, node: &RunProcess) -> Result<()> {
        for attempt in 0..TRIES {
            let ended = self.lab.programs.start(&node.command)?.end()?;
            // A failed node runs again when no other process is left.
            if ended.status.success() || (self.is_stale && is_one_of(ended.status, &[DATA])) {
                return Ok(());
            }
            if !self.may_try_again(&ended) {
                bail!("{}: {}", node.command.join(" "), said(&ended));
            }
            std::thread::sleep(Duration::from_millis(10 << attempt));
        }
        bail!("{}: {TRIES} times in vain", node.command.join(" "))
    }
}

fn is_one_of(status: ExitStatus, codes: &[i32]) -> bool {
    status.code().is_some_and(|code| codes.contains(&code))
}

/// Returns the exit status of a process and its last lines.
fn said(ended: &Ended) -> String {
    let mut lines: Vec<&str> = ended.stderr.lines().rev().take(5).collect();
    lines.reverse();
    format!("{}: {}", ended.status, lines.join("\n"))
}

fn compare(way: &Way, found: &Objects) -> Result<()> {
    let expected = &way.expected;
    let differs = |(path, bytes): (&String, &Vec<u8>)| match found.get(path) {
        None => Some(format!("{path} is missing")),
        Some(other) if other != bytes => Some(format!("{path} differs")),
        Some(_) => None,
    };
    let mut wrong: Vec<String> = expected.iter().filter_map(differs).collect();
    let more = found.keys().filter(|path| !expected.contains_key(*path));
    wrong.extend(more.map(|path| format!("{path} is too many")));
    ensure!(wrong.is_empty(), "{}", wrong.join(", "));
    Ok(())
}
