//! Pipes to a program that never block for good.
//!
//! A pipe stays open as long as any process has its other end open, and a process that left the
//! program's group cannot be killed with it. So our ends are non-blocking, and waiting is done in short
//! turns until somebody gives up.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionbio;

/// How often waiting is interrupted to look around.
pub(super) const TICK: Duration = Duration::from_millis(50);

/// When a byte last went through a program's pipes, and whether they are given up.
pub(super) struct Activity {
    start: Instant,
    /// In milliseconds since the start.
    last: AtomicU64,
    /// The program waits for samples.
    waiting: AtomicBool,
    given_up: AtomicBool,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            last: AtomicU64::new(0),
            waiting: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
        }
    }

    pub(super) fn touch(&self) {
        let now = self.start.elapsed().as_millis() as u64;
        self.last.store(now, Ordering::Relaxed);
    }

    /// Returns the time since the last byte. A program that waits for samples is not silent.
    pub(super) fn silence(&self) -> Duration {
        if self.waiting.load(Ordering::Relaxed) {
            return Duration::ZERO;
        }
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(last)
    }

    /// Does the work that the program waits for.
    pub(super) fn while_waiting<T>(&self, work: impl FnOnce() -> T) -> T {
        self.waiting.store(true, Ordering::Relaxed);
        let done = work();
        self.touch();
        self.waiting.store(false, Ordering::Relaxed);
        done
    }

    /// Ends all waiting for the program.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }
}

/// Our end of a pipe to a program.
pub(super) struct Pipe<'a, P> {
    end: P,
    activity: &'a Activity,
    closed: bool,
}

impl<'a, P: AsFd> Pipe<'a, P> {
    pub(super) fn new(end: P, activity: &'a Activity) -> io::Result<Self> {
        ioctl_fionbio(&end, true)?;
        Ok(Self {
            end,
            activity,
            closed: false,
        })
    }

    /// Returns whether the other end is closed, or was given up.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    fn transfer(
        &mut self,
        ready: PollFlags,
        mut attempt: impl FnMut(&mut P) -> io::Result<usize>,
    ) -> io::Result<usize> {
        while !self.activity.given_up.load(Ordering::Relaxed) {
            match attempt(&mut self.end) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.wait(ready)?,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                done => {
                    self.activity.touch();
                    self.closed = !matches!(done, Ok(1..));
                    return done;
                }
            }
        }
        self.closed = true;
        Err(io::Error::other("the program was given up"))
    }

    fn wait(&self, ready: PollFlags) -> io::Result<()> {
        let tick = Timespec {
            tv_sec: 0,
            tv_nsec: TICK.subsec_nanos().into(),
        };
        let mut ends = [PollFd::new(&self.end, ready)];
        match poll(&mut ends, Some(&tick)) {
            Err(e) if e != rustix::io::Errno::INTR => Err(e.into()),
            _ => Ok(()),
        }
    }
}

impl<P: AsFd + Read> Read for Pipe<'_, P> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.transfer(PollFlags::IN, |end| end.read(buffer))
    }
}

impl<P: AsFd + Write> Write for Pipe<'_, P> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.transfer(PollFlags::OUT, |end| end.write(buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
