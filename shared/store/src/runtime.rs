//! The threads that run requests.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use sluice_manifest::{Error, Result};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::stop::StopFlag;

/// A runtime for requests. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Io {
    threads: Arc<Threads>,
    /// Cancels requests.
    pub stop: StopFlag,
}

/// A runtime that shuts down without waiting for requests in flight.
#[derive(Debug)]
struct Threads(Option<Runtime>);

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Io {
    /// Starts the threads. Requests are cancelled shortly after `stop` is set.
    ///
    /// # Errors
    ///
    /// Returns a transient error if the system cannot start a thread.
    pub(crate) fn start(stop: StopFlag) -> Result<Self> {
        let build = || {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(2).thread_name("sluice-io");
            builder.enable_all().build()
        };
        // The builder panics if it cannot start a thread.
        let runtime = catch_unwind(AssertUnwindSafe(build))
            .unwrap_or_else(|_| Err(std::io::ErrorKind::WouldBlock.into()));
        let runtime = runtime.map_err(|e| Error::not_started("the threads for requests", &e))?;
        Ok(Self {
            threads: Arc::new(Threads(Some(runtime))),
            stop,
        })
    }

    fn runtime(&self) -> &Runtime {
        // Unwrap safety: only `drop` takes the runtime out.
        self.threads.0.as_ref().expect("the threads are at work")
    }

    /// Runs a request to completion on the calling thread.
    pub(crate) fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime().block_on(future)
    }

    /// Starts a request in the background.
    pub(crate) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.runtime().spawn(future)
    }
}
