//! Real object stores on this machine, and a proxy that causes faults.
//!
//! `tests/servers/install.sh` installs the programs. If one is missing, starting it returns `None`
//! and the test counts as skipped. A server uses free ports and a temporary folder. It ends when
//! its value is dropped, or with this process.

mod azurite;
mod cutter;
mod daemon;
mod gcs;
mod haproxy;
mod http;
mod seaweedfs;

use std::sync::{Arc, Mutex, PoisonError, Weak};

pub use azurite::Azurite;
pub use cutter::Cutter;
pub use gcs::FakeGcs;
pub use haproxy::{HaProxy, ProxyFaults, SeenRequest};
pub use seaweedfs::SeaweedFs;

/// A bucket, and the settings of a program that accesses it.
#[derive(Debug, Clone)]
pub struct Site {
    /// The bucket's URI.
    pub bucket: String,
    /// The same URI with a bucket that does not exist.
    pub missing: String,
    /// The port of the server, on 127.0.0.1.
    pub port: u16,
    /// Variables of the environment.
    pub variables: Vec<(&'static str, String)>,
    /// Secrets that no output may contain.
    pub secrets: Vec<String>,
}

impl Site {
    /// Returns the same bucket, accessed through another port.
    #[must_use]
    pub fn through(&self, port: u16) -> Self {
        let [before, now] = [self.port, port].map(|port| format!("127.0.0.1:{port}"));
        let mut site = self.clone();
        site.port = port;
        for (_, value) in &mut site.variables {
            *value = value.replace(&before, &now);
        }
        site
    }

    /// Returns the same bucket with another value of a variable.
    #[must_use]
    pub fn with(&self, name: &'static str, value: &str) -> Self {
        let mut site = self.without(name);
        site.variables.push((name, value.to_owned()));
        site
    }

    /// Returns the same bucket without a variable.
    #[must_use]
    pub fn without(&self, name: &str) -> Self {
        let mut site = self.clone();
        site.variables.retain(|(known, _)| *known != name);
        site
    }
}

/// A value that tests share as long as one test uses it.
pub struct SharedServer<T>(Mutex<Weak<T>>);

impl<T> SharedServer<T> {
    /// Returns a cell without a value.
    pub const fn new() -> Self {
        Self(Mutex::new(Weak::new()))
    }

    /// Returns the value of another test, or else a new one.
    pub fn get(&self, make: impl FnOnce() -> Option<T>) -> Option<Arc<T>> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = held.upgrade() {
            return Some(shared);
        }
        let made = Arc::new(make()?);
        *held = Arc::downgrade(&made);
        Some(made)
    }
}

impl<T> Default for SharedServer<T> {
    fn default() -> Self {
        Self::new()
    }
}
