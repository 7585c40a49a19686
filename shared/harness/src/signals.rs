//! SIGTERM and SIGINT: a flag that the work checks, and a deadline for work that does not.
//!
//! [`listen`] is the first call of every `main`. From then on a signal sets the flag, and whoever
//! works stops at its next check with an error of the class `Stopped`. A step that does not check
//! for [`GRACE`] is ended by the [`Deadline`]: outputs appear whole or not at all, so a program may
//! end anywhere. The same signal a second time ends the program at once.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use sluice_manifest::ExitStatus;

use crate::context::{Shared, lock};

/// Time from the signal until the program is ended from outside of the work.
const GRACE: Duration = Duration::from_secs(3);
/// Time to write the result, which nobody may be reading.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Registers the handlers. They set the stop flag of what is returned.
pub(crate) fn listen() -> Shared {
    let shared = Shared::default();
    for signal in [SIGTERM, SIGINT] {
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
    shared
}

type Report = Box<dyn FnOnce() + Send>;

/// Ends the program when its work does not stop in time after a signal.
pub(crate) struct Deadline {
    report: Arc<Mutex<Option<Report>>>,
    /// Set by the one that writes the result: the work's end or the deadline.
    is_concluded: Arc<AtomicBool>,
}

impl Deadline {
    /// Waits for a signal on a thread of its own. Without a thread to be had, there is no deadline.
    pub fn start(shared: &Shared) -> Self {
        let deadline = Self {
            report: Arc::default(),
            is_concluded: Arc::default(),
        };
        let (report, is_concluded) = (deadline.report.clone(), deadline.is_concluded.clone());
        let stop = shared.stop.clone();
        let watch = move |signals: UnixStream| {
            wait_for_signal(signals, &stop);
            std::thread::sleep(GRACE);
            if !is_concluded.swap(true, Ordering::SeqCst)
                && let Some(report) = lock(&report).take()
            {
                // Without a thread there is no result; the exit code says enough.
                let _ = std::thread::Builder::new().spawn(report);
            }
            std::thread::sleep(LAST_WORDS);
            signal_hook::low_level::exit(ExitStatus::Stopped as i32);
        };
        if let Err(e) = signalled().and_then(|signals| {
            let thread = std::thread::Builder::new().name("deadline".to_owned());
            thread.spawn(move || watch(signals)).map(drop)
        }) {
            tracing::debug!("no deadline after signals: {e}");
        }
        deadline
    }

    /// Sets how the deadline reports the end of the program, unless the work has ended.
    pub fn report_by(&self, report: impl FnOnce() + Send + 'static) {
        *lock(&self.report) = Some(Box::new(report));
    }

    /// Claims the result for the work, which has ended. Waits for the end of the program where the
    /// deadline was faster.
    pub fn conclude(&self) {
        while self.is_concluded.swap(true, Ordering::SeqCst) {
            std::thread::sleep(LAST_WORDS);
        }
    }
}

/// Returns a stream that gets a byte with each signal.
fn signalled() -> std::io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    for signal in [SIGTERM, SIGINT] {
        signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
    }
    Ok(reader)
}

/// Blocks until there was a signal, also one before the stream was registered.
fn wait_for_signal(mut signals: UnixStream, stop: &AtomicBool) {
    while !stop.load(Ordering::SeqCst) {
        let mut byte = [0];
        match signals.read(&mut byte) {
            Ok(1..) => return,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            // Cannot happen while the handlers hold the other end.
            Ok(0) | Err(_) => std::thread::sleep(LAST_WORDS),
        }
    }
}
