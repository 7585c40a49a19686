//! What the threads of a process share: how they start, and the memory for decoding.

mod budget;

use std::thread::{Builder, Scope, ScopedJoinHandle};

use sluice_manifest::{Error, Result};

pub use budget::{MemoryBudget, MemoryShare};

/// Starts a scoped thread. Returns an error where `Scope::spawn` panics.
///
/// # Errors
///
/// Returns a transient error if the system has no thread left.
pub fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    let started = Builder::new().spawn_scoped(scope, work);
    started.map_err(|e| Error::not_started("a thread", &e))
}
