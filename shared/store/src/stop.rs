//! The flag that ends requests, also while a store does not answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sluice_manifest::{Error, Result};

/// How often a waiting request looks at the flag.
const POLL: Duration = Duration::from_millis(250);
/// What a request in flight may take once the flag is set.
const GRACE: Duration = Duration::from_secs(1);
/// Aborting an upload is given up after so long; once the flag is set there is less time.
const ABORT: Duration = Duration::from_secs(5);
const ABORT_STOPPED: Duration = Duration::from_millis(1500);

/// A flag that a signal sets. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn new(flag: Arc<AtomicBool>) -> Self {
        Self(flag)
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Fails when the program is to stop. Called before each part of an object that is read, so
    /// that whoever reads much stops soon.
    pub fn check(&self) -> Result<()> {
        match self.is_set() {
            true => Err(Error::stopped()),
            false => Ok(()),
        }
    }

    /// Returns the time that aborting an upload may take.
    pub fn abort_limit(&self) -> Duration {
        match self.is_set() {
            true => ABORT_STOPPED,
            false => ABORT,
        }
    }

    /// Returns once the program is to stop and requests in flight had their time.
    pub async fn passed(&self) {
        while !self.is_set() {
            tokio::time::sleep(POLL).await;
        }
        tokio::time::sleep(GRACE).await;
    }
}
