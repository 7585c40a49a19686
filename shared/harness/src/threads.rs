//! Starts the pool of threads, and reports panics. If the system has no thread left, the error is
//! transient.

use std::any::Any;
use std::io::{self, Write};

use sluice_manifest::text::safe;
use sluice_manifest::{Class, Error, Result};

/// Starts the global pool of `jobs` threads.
///
/// # Errors
///
/// Returns a transient error if the system has too few threads left.
pub(crate) fn start_pool(jobs: usize) -> Result<()> {
    let built = rayon::ThreadPoolBuilder::new()
        .num_threads(jobs)
        .build_global();
    match built {
        Err(e) if Class::of(&e).is_some() => Err(Error::transient(format!(
            "cannot start {jobs} threads: {e}"
        ))
        .hint("the limit of processes or memory is reached: allow more, or use fewer --jobs")),
        // In tests, the pool of an earlier call in the same process is used.
        _ => Ok(()),
    }
}

/// Prints panics without credentials and control characters. Their messages may contain names and
/// addresses from outside.
pub(crate) fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        // If stderr is closed, the panic cannot be reported.
        let _ = writeln!(io::stderr(), "{}", safe(&panic.to_string()));
    }));
}

/// Converts a panic to an error. Libraries panic with the system's message if it has no thread
/// left. Any other panic is a bug.
pub(crate) fn caught(panic: &(dyn Any + Send)) -> Error {
    let words = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    let no_thread = io::Error::from_raw_os_error(libc::EAGAIN);
    let said = no_thread.to_string();
    let said = said.split(" (os error").next().unwrap_or(&said);
    if words.contains("thread") && words.contains(said) {
        Error::not_started("a thread", &no_thread)
    } else {
        Error::bug(format!("panic: {words}")).hint("please report this")
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::thread::Builder;

    use super::*;

    /// No address space has room for such a stack. The system reports this like a missing thread.
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
