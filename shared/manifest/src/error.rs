//! One error type for the shared crates, classed by what the caller can do about it.
//!
//! The rules:
//! - the message is a lower-case fragment that names the object (shard, member, column, flag);
//! - `hint` says what to do next, where there is something to do;
//! - the class alone decides the exit code and whether a workflow engine may try again;
//! - an error that is wrapped keeps its class: [`Class::of`] finds it by type, whatever is around it.

use std::fmt;
use std::io;

use crate::text::shown;

/// Result of the shared crates.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A broken promise of ours; nothing the user did.
    Bug,
    /// A flag, a configuration, a model that does not fit the data.
    Usage,
    /// The data cannot be used: a manifest is missing or broken, too many bad samples.
    Data,
    /// Storage or network; trying again may help.
    Transient,
    /// Stopped by SIGTERM or SIGINT; nothing half-written remains.
    Stopped,
}

/// An error, its source, the source's source, and so on.
fn chain<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'e (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |e| e.source())
}

/// The exit codes of every program. The workflow definitions use the same table.
///
/// 64 and 65 are never used: Argo's executor gives them a meaning of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitStatus {
    /// Done, or up to date already.
    Done = 0,
    /// A bug.
    Bug = 1,
    /// Usage or configuration.
    Usage = 2,
    /// Unusable data.
    Data = 3,
    /// Storage or network: try again.
    TryAgain = 75,
    /// After SIGTERM or SIGINT, with nothing half-written.
    Stopped = 143,
}

impl Class {
    /// The exit code that tells a caller of this class.
    pub fn exit_status(self) -> ExitStatus {
        match self {
            Class::Bug => ExitStatus::Bug,
            Class::Usage => ExitStatus::Usage,
            Class::Data => ExitStatus::Data,
            Class::Transient => ExitStatus::TryAgain,
            Class::Stopped => ExitStatus::Stopped,
        }
    }

    /// Returns the class of an error: that of the error of ours inside of it, else that of the first
    /// error of I/O; none where there is neither.
    pub fn of(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let io = || chain(error).find_map(|e| e.downcast_ref::<io::Error>().map(Self::of_kind));
        Self::of_ours(error).or_else(io)
    }

    /// Returns the class of the error of ours inside of another error.
    pub fn of_ours(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        chain(error).find_map(|e| {
            // What an error of I/O holds is not its source, but what its source is the source of.
            let held = || Self::of_ours(e.downcast_ref::<io::Error>()?.get_ref()?);
            let ours = e.downcast_ref::<Error>().map(Error::class);
            ours.or_else(held)
        })
    }

    /// Returns the class of an error of a stream or a file.
    pub fn of_io(e: &io::Error) -> Self {
        Self::of_ours(e).unwrap_or_else(|| Self::of_kind(e))
    }

    /// What the system answers today and not tomorrow (no room, no descriptor, no process, a device
    /// that does not respond) is transient.
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

    /// The class's name in a program's result.
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

/// An error with its class and, where one helps, a hint.
#[derive(Debug, Clone)]
pub struct Error {
    class: Class,
    message: String,
    hint: Option<String>,
}

impl Error {
    /// An error of a class that is known from elsewhere.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
            hint: None,
        }
    }

    /// A promise of ours was broken.
    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(Class::Bug, message)
    }

    /// A flag or a configuration is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Class::Usage, message)
    }

    /// The data cannot be used.
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(Class::Data, message)
    }

    /// Trying again may help.
    pub fn transient(message: impl Into<String>) -> Self {
        Self::new(Class::Transient, message)
    }

    /// The program was asked to stop.
    pub fn stopped() -> Self {
        Self::new(Class::Stopped, "stopped by a signal")
            .hint("what is done is kept: run the same command again to go on")
    }

    /// Returns an error of a stream with its class; `object` names what was read or written. An error
    /// of ours inside of it is returned as it is.
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

    /// Returns the error of a thread or a process that could not be started: try again.
    pub fn not_started(what: &str, e: &io::Error) -> Self {
        Self::transient(format!("cannot start {what}: {e}"))
            .hint("the limit of processes or memory is reached: allow more, or use fewer --jobs")
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Names what the error is about, before its message.
    #[must_use]
    pub fn within(mut self, object: &str) -> Self {
        self.message = format!("{object}: {}", self.message);
        self
    }

    /// What the caller can do.
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

    /// An error of somebody else's around another one.
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
        // Numbers of Linux and macOS alike.
        let (eperm, enoent, eio, eagain, enomem) = (1, 2, 5, 35, 12);
        let eagain = if cfg!(target_os = "linux") {
            11
        } else {
            eagain
        };
        let (eacces, enotdir, eisdir, einval, enfile, emfile) = (13, 20, 21, 22, 23, 24);
        let (enospc, erofs) = (28, 30);
        let (estale, edquot, etimedout) = match cfg!(target_os = "linux") {
            true => (116, 122, 110),
            false => (70, 69, 60),
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
