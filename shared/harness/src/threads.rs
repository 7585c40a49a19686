//! Threads: that there are none left is no bug, and worth another try.

use std::any::Any;
use std::io::{self, Write};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use sluice_manifest::text::safe;
use sluice_manifest::{Class, Error, Result};

/// Starts a thread of a scope. `Scope::spawn` panics where this returns an error.
///
/// # Errors
/// Transient, when the system has no thread left.
pub fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    let started = Builder::new().spawn_scoped(scope, work);
    started.map_err(|e| Error::not_started("a thread", &e))
}

/// Starts the process's pool of `jobs` threads.
///
/// # Errors
/// Transient, when the system has not as many threads left.
pub(crate) fn start_pool(jobs: usize) -> Result<()> {
    let built = rayon::ThreadPoolBuilder::new()
        .num_threads(jobs)
        .build_global();
    match built {
        Err(e) if Class::of(&e).is_some() => Err(Error::transient(format!(
            "cannot start {jobs} threads: {e}"
        ))
        .hint("the limit of processes or memory is reached: allow more, or use fewer --jobs")),
        // Within one process (tests) the first caller's pool stays.
        _ => Ok(()),
    }
}

/// Prints panics of this process without credentials and control characters. Their messages may hold
/// names and addresses from outside.
pub(crate) fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        // Without a terminal or a log there is nobody left to report to.
        let _ = writeln!(io::stderr(), "{}", safe(&panic.to_string()));
    }));
}

/// Returns a panic as an error. Libraries panic when the system has no thread left for them, with
/// its words; any other panic is a bug.
pub(crate) fn caught(panic: &(dyn Any + Send)) -> Error {
    let words = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    let no_thread = io::Error::from_raw_os_error(libc::EAGAIN);
    let said = no_thread.to_string();
    let said = said.split(" (os error").next().unwrap_or(&said);
    match words.contains("thread") && words.contains(said) {
        true => Error::not_started("a thread", &no_thread),
        false => Error::bug(format!("panic: {words}")).hint("please report this"),
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// No process has addresses for such a stack, which the system reports as for a thread too many.
    const TOO_LARGE: usize = 1 << 48;

    #[test]
    fn no_thread_left_is_transient_also_when_a_library_panics() {
        let start = || Builder::new().stack_size(TOO_LARGE).spawn(|| ());
        let refused = start().unwrap_err();
        assert_eq!(Class::of_io(&refused), Class::Transient);
        let texts = [
            format!("failed to spawn thread: {refused:?}"),
            format!("OS can't spawn worker thread: {refused}"),
        ];
        for text in texts {
            let panic = catch_unwind(AssertUnwindSafe(|| panic!("{text}"))).unwrap_err();
            assert_eq!(caught(&*panic).class(), Class::Transient, "{text}");
        }
        let panic = catch_unwind(|| panic!("the thread's index is 7")).unwrap_err();
        assert_eq!(caught(&*panic).class(), Class::Bug);
    }

    #[test]
    fn a_pool_that_cannot_start_is_transient() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1);
        let e = pool.stack_size(TOO_LARGE).build().unwrap_err();
        assert_eq!(Class::of(&e), Some(Class::Transient));
    }
}
