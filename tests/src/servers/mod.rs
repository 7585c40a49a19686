//! Real object stores on this machine, and a proxy that spoils their answers.
//!
//! `tests/servers/install.sh` gets the programs. Where one is missing, starting it gives None and the
//! test counts as skipped. A server lives on free ports and in a
//! temporary folder, and ends with the value that stands for it, or with this process.

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
pub use haproxy::{Faults, HaProxy, Seen};
pub use seaweedfs::SeaweedFs;

/// A bucket, and what a program needs to reach it.
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
    /// What must never be shown.
    pub secrets: Vec<String>,
}

impl Site {
    /// The same bucket, reached through another port.
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

    /// The same bucket, with a variable set to another value.
    #[must_use]
    pub fn with(&self, name: &'static str, value: &str) -> Self {
        let mut site = self.without(name);
        site.variables.push((name, value.to_owned()));
        site
    }

    /// The same bucket, with a variable not set.
    #[must_use]
    pub fn without(&self, name: &str) -> Self {
        let mut site = self.clone();
        site.variables.retain(|(known, _)| *known != name);
        site
    }
}

/// Something that tests share while one of them holds it.
pub struct Shared<T>(Mutex<Weak<T>>);

impl<T> Shared<T> {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self(Mutex::new(Weak::new()))
    }

    /// What another test holds, or else a new one.
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

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self::new()
    }
}
