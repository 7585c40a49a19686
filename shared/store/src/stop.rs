//! The flag that cancels requests, including those without an answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sluice_manifest::{Error, Result};

/// How often a waiting request checks the flag.
const POLL: Duration = Duration::from_millis(250);
/// How long a request in flight may continue once the flag is set.
const GRACE: Duration = Duration::from_secs(1);
/// How long aborting an upload may take, before and after the flag is set.
const ABORT: Duration = Duration::from_secs(5);
const ABORT_STOPPED: Duration = Duration::from_millis(1500);

/// A flag set by a signal handler. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    pub(crate) fn new(flag: Arc<AtomicBool>) -> Self {
        Self(flag)
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Returns an error if the flag is set. Called before each read of a part, so that long reads
    /// stop soon.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_set() {
            Err(Error::stopped())
        } else {
            Ok(())
        }
    }

    /// Returns how long aborting an upload may take.
    pub(crate) fn abort_limit(&self) -> Duration {
        if self.is_set() { ABORT_STOPPED } else { ABORT }
    }

    /// Completes once the flag is set and requests in flight have had time to finish.
    pub(crate) async fn grace_period(&self) {
        while !self.is_set() {
            tokio::time::sleep(POLL).await;
        }
        tokio::time::sleep(GRACE).await;
    }
}
