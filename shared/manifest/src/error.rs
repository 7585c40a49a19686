//! One error type for the shared crates, classed by what the caller can do about it.
//!
//! The rules:
//! - the message is a lower-case fragment that names the object (shard, member, column, flag);
//! - `hint` says what to do next, where there is something to do;
//! - the class alone decides the exit code and whether a workflow engine may try again.

use std::fmt;
use std::io;

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

/// An error with its class and, where one helps, a hint.
#[derive(Debug)]
pub struct Error {
    class: Class,
    message: String,
    hint: Option<String>,
}

impl Error {
    fn new(class: Class, message: impl Into<String>) -> Self {
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
    }

    /// What an error of a stream is to a caller; `object` names what was read or written. An error
    /// of ours inside of it stays what it is.
    pub fn of_io(e: io::Error, object: &str) -> Self {
        let kind = e.kind();
        match e.downcast::<Self>() {
            Ok(ours) => ours,
            Err(e) => match kind {
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                    Self::data(format!("{object}: {e}"))
                        .hint("it may have changed: run sluice-partition and the steps after it")
                }
                _ => Self::transient(format!("{object}: {e}")),
            },
        }
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
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}
