//! The error type of the shared crates, classified by what the caller can do.
//!
//! Rules:
//! - The message is a lower-case fragment that names the object (shard, member, column, flag).
//! - `hint` gives the next step, where there is one.
//! - The class alone decides the exit code and whether a workflow engine may retry.
//! - Wrapping an error keeps its class: [`Class::of`] finds it by type at any depth.

use std::fmt;
use std::io;

use crate::text::shown;

/// The result type of the shared crates.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do about an error. Documentation says "a data error" for an error of class
/// [`Data`](Self::Data), and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A defect of the program. The user cannot fix it.
    Bug,
    /// A flag or the configuration is wrong, or a model does not fit the data.
    Usage,
    /// The data cannot be used: a manifest is missing or damaged, or too many samples are bad.
    Data,
    /// Storage or network failed. A retry may help.
    Transient,
    /// Stopped by SIGTERM or SIGINT. Nothing is half-written.
    Stopped,
}

/// Returns an error, its source, the source's source, and so on.
fn chain<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'e (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |e| e.source())
}

/// The exit codes of all programs. The workflow definitions use the same table.
///
/// 64 and 65 are never used, because Argo's executor reserves them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitStatus {
    /// Done, or already up to date.
    Done = 0,
    /// A bug.
    Bug = 1,
    /// Usage or configuration.
    Usage = 2,
    /// Unusable data.
    Data = 3,
    /// Storage or network failed: try again.
    TryAgain = 75,
    /// Stopped by SIGTERM or SIGINT. Nothing is half-written.
    Stopped = 143,
}

impl Class {
    /// Returns the exit code for this class.
    pub fn exit_status(self) -> ExitStatus {
        match self {
            Class::Bug => ExitStatus::Bug,
            Class::Usage => ExitStatus::Usage,
            Class::Data => ExitStatus::Data,
            Class::Transient => ExitStatus::TryAgain,
            Class::Stopped => ExitStatus::Stopped,
        }
    }

    /// Returns the class of an error: the class of the first [`Error`] in its chain, else the class
    /// of the first I/O error. Returns `None` if the chain contains neither.
    pub fn of(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let io = || chain(error).find_map(|e| e.downcast_ref::<io::Error>().map(Self::of_kind));
        Self::of_ours(error).or_else(io)
    }

    /// Returns the class of the first [`Error`] in an error's chain.
    pub fn of_ours(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        chain(error).find_map(|e| {
            // `source` of an I/O error skips the error that it wraps, so `get_ref` is checked as
            // well.
            let held = || Self::of_ours(e.downcast_ref::<io::Error>()?.get_ref()?);
            let ours = e.downcast_ref::<Error>().map(Error::class);
            ours.or_else(held)
        })
    }

    /// Returns the class of an I/O error.
    pub fn of_io(e: &io::Error) -> Self {
        Self::of_ours(e).unwrap_or_else(|| Self::of_kind(e))
    }

    /// Conditions that may pass (no space, descriptors or processes left, a device that does not
    /// respond) are transient.
    fn of_kind(e: &io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
                Self::Data
            }
            io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::InvalidFilename
            | io::ErrorKind::InvalidInput => Self::Usage,
            _ => Self::Transient,
        }
    }

    /// Returns the class's name in a program's result.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Bug => "bug",
            Class::Usage => "usage",
            Class::Data => "data",
            Class::Transient => "transient",
            Class::Stopped => "stopped",
        }
    }
}

const CHANGED: &str = "it may have changed: run sluice-partition and the steps after it";

/// An error with its class and an optional hint.
#[derive(Debug, Clone)]
pub struct Error {
    class: Class,
    message: String,
    hint: Option<String>,
}

impl Error {
    /// Creates an error of a class.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
            hint: None,
        }
    }

    /// Creates an error for a defect of the program.
    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(Class::Bug, message)
    }

    /// Creates an error for a wrong flag or configuration.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Class::Usage, message)
    }

    /// Creates an error for unusable data.
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(Class::Data, message)
    }

    /// Creates an error after which a retry may help.
    pub fn transient(message: impl Into<String>) -> Self {
        Self::new(Class::Transient, message)
    }

    /// Creates the error of a program that a signal stopped.
    pub fn stopped() -> Self {
        Self::new(Class::Stopped, "stopped by a signal")
            .hint("what is done is kept: run the same command again to go on")
    }

    /// Converts an I/O error and classifies it. `object` names what was read or written. An
    /// [`Error`] inside `e` is returned unchanged.
    pub fn of_io(e: io::Error, object: &str) -> Self {
        let class = Class::of_io(&e);
        e.downcast::<Self>().unwrap_or_else(|e| {
            let error = Self::new(class, format!("{object}: {e}"));
            match class {
                Class::Data => error.hint(CHANGED),
                _ => error,
            }
        })
    }

    /// Creates a transient error for a thread or process that could not be started.
    pub fn not_started(what: &str, e: &io::Error) -> Self {
        Self::transient(format!("cannot start {what}: {e}"))
            .hint("the limit of processes or memory is reached: allow more, or use fewer --jobs")
    }

    /// Adds a hint: what to do about the error.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Prefixes the message with the object that the error is about.
    #[must_use]
    pub fn within(mut self, object: &str) -> Self {
        self.message = format!("{object}: {}", self.message);
        self
    }

    /// Returns what the caller can do.
    pub fn class(&self) -> Class {
        self.class
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.message))?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {}", shown(hint)),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another library's error that wraps an error.
    #[derive(Debug)]
    struct Around(Box<dyn std::error::Error + Send + Sync>);

    impl fmt::Display for Around {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("around")
        }
    }

    impl std::error::Error for Around {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(self.0.as_ref())
        }
    }

    #[test]
    fn an_error_keeps_its_class_whatever_is_around_it() {
        let classes = [
            Class::Bug,
            Class::Usage,
            Class::Data,
            Class::Transient,
            Class::Stopped,
        ];
        for class in classes {
            let ours = || Error::new(class, "x");
            let stream = || io::Error::other(ours());
            assert_eq!(Class::of(&ours()), Some(class));
            assert_eq!(Class::of(&stream()), Some(class));
            assert_eq!(Class::of(&Around(ours().into())), Some(class));
            assert_eq!(Class::of(&Around(stream().into())), Some(class));
            let twice = io::Error::other(Around(stream().into()));
            assert_eq!(Class::of(&twice), Some(class));
            assert_eq!(Error::of_io(stream(), "object").class(), class);
            assert_eq!(Error::of_io(twice, "object").class(), class);
        }
        assert_eq!(Class::of(&Around("no error of I/O".into())), None);
    }

    #[cfg(unix)]
    #[test]
    fn what_the_system_answers_is_classed_by_what_helps() {
        // Numbers that Linux and macOS share.
        let (eperm, enoent, eio, eagain, enomem) = (1, 2, 5, 35, 12);
        let eagain = if cfg!(target_os = "linux") {
            11
        } else {
            eagain
        };
        let (eacces, enotdir, eisdir, einval, enfile, emfile) = (13, 20, 21, 22, 23, 24);
        let (enospc, erofs) = (28, 30);
        let (estale, edquot, etimedout) = if cfg!(target_os = "linux") {
            (116, 122, 110)
        } else {
            (70, 69, 60)
        };
        let classed = |numbers: &[i32], class| {
            for &number in numbers {
                let error = io::Error::from_raw_os_error(number);
                assert_eq!(Class::of_io(&error), class, "{number}: {error}");
                let shown = error.to_string();
                let error = Error::of_io(error, "shard.tar");
                assert_eq!(error.class(), class, "{number}: {error}");
                assert!(
                    error
                        .to_string()
                        .starts_with(&format!("shard.tar: {shown}"))
                );
            }
        };
        let again = [
            eio, eagain, enomem, enfile, emfile, enospc, estale, edquot, etimedout,
        ];
        classed(&again, Class::Transient);
        classed(&[enoent], Class::Data);
        classed(
            &[eperm, eacces, enotdir, eisdir, einval, erofs],
            Class::Usage,
        );
    }
}
