//! SIGTERM and SIGINT: a stop flag that the work checks, and a deadline for work that does not.
//!
//! [`listen`] is the first call of every `main`. A signal sets the flag, and all work stops at its
//! next check with an error of the class `Stopped`. If a step does not check the flag for
//! [`GRACE`], the [`Deadline`] ends the process. This is safe at any time, because outputs appear
//! whole or not at all. A second signal of the same kind ends the process immediately.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use sluice_manifest::ExitStatus;

use crate::context::{ProcessResources, lock};

/// The time between the signal and the end of the process by the deadline.
const GRACE: Duration = Duration::from_secs(3);
/// The maximum time for writing the result, which may block.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Registers the handlers, which set the stop flag of the returned resources.
pub(crate) fn listen() -> ProcessResources {
    let shared = ProcessResources::default();
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

/// Ends the process if the work does not stop in time after a signal.
pub(crate) struct Deadline {
    report: Arc<Mutex<Option<Report>>>,
    /// Set by whoever writes the result: the work or the deadline.
    is_concluded: Arc<AtomicBool>,
}

impl Deadline {
    /// Starts a thread that waits for a signal. Without that thread, the program has no deadline.
    pub(crate) fn start(shared: &ProcessResources) -> Self {
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
                // If no thread can be started, there is only the exit code and no result.
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

    /// Sets the function that reports the end of the process, unless the work has ended.
    pub(crate) fn report_by(&self, report: impl FnOnce() + Send + 'static) {
        *lock(&self.report) = Some(Box::new(report));
    }

    /// Claims the result for work that has ended. If the deadline has already claimed it, waits for
    /// the end of the process.
    pub(crate) fn conclude(&self) {
        while self.is_concluded.swap(true, Ordering::SeqCst) {
            std::thread::sleep(LAST_WORDS);
        }
    }
}

/// Returns a stream that receives a byte with each signal.
fn signalled() -> std::io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    for signal in [SIGTERM, SIGINT] {
        signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
    }
    Ok(reader)
}

/// Blocks until the first signal, which may have arrived before the stream was registered.
fn wait_for_signal(mut signals: UnixStream, stop: &AtomicBool) {
    while !stop.load(Ordering::SeqCst) {
        let mut byte = [0];
        match signals.read(&mut byte) {
            Ok(1..) => return,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            // Cannot happen while the handlers own the other end.
            Ok(0) | Err(_) => std::thread::sleep(LAST_WORDS),
        }
    }
}
