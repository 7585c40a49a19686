//! Fault injection for stores, as an opendal layer: the n-th call of an operation on matching paths
//! fails, or all calls from there on. The layer counts its calls, so a test can run a program
//! without faults first, and then break each call that was made.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

pub use opendal::raw::Operation;
use opendal::raw::oio;
use opendal::raw::{
    Layer, OpCopy, OpCreateDir, OpDelete, OpList, OpPresign, OpRead, OpRename, OpStat, OpWrite,
    RpCreateDir, RpPresign, RpRead, RpRename, RpStat, Service, ServiceInfo, Servicer,
};
use opendal::{
    Buffer, BytesRange, Capability, Error, ErrorKind, Metadata, OperationContext, Result,
};

/// The fault to inject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The store asks for a retry, as with 503.
    Transient,
    /// The store refuses, as with 403.
    Permanent,
    /// The program receives a signal during the call.
    Stopped,
    /// The disk is full.
    Full,
    /// The call takes this much longer, and succeeds.
    Slow(Duration),
    /// The call succeeds, but the answer is lost.
    Lost,
    /// Only half of the bytes are read.
    Cut,
    /// All bits that are read are flipped.
    Wrong,
}

/// The calls that fail, and how.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The operation. Each part of an object, and its completion, is one call of `Write`.
    pub operation: Operation,
    /// The text that the path must contain.
    pub path: &'static str,
    /// Which of these calls fail.
    pub calls: Calls,
    /// The fault to inject.
    pub fault: Fault,
}

/// Some of the calls that a rule matches, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calls {
    /// The call with this number.
    Nth(usize),
    /// This call and all after it.
    From(usize),
}

/// A call of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The operation.
    pub operation: Operation,
    /// The path.
    pub path: String,
}

/// The layer. Clones share the rule and the calls.
#[derive(Debug, Clone, Default)]
pub struct Failing(Arc<Mutex<FailingState>>);

#[derive(Debug, Default)]
struct FailingState {
    rule: Option<Rule>,
    /// The number of calls that the rule matched.
    counted: usize,
    calls: Vec<Call>,
    struck: usize,
}

impl Failing {
    /// Sets or removes the rule, and forgets all calls.
    pub fn set(&self, rule: Option<Rule>) {
        *self.state() = FailingState {
            rule,
            ..FailingState::default()
        };
    }

    /// Returns the calls since the rule was set.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// Returns the number of calls that failed since the rule was set.
    pub fn struck(&self) -> usize {
        self.state().struck
    }

    fn state(&self) -> MutexGuard<'_, FailingState> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Counts a call. Returns the fault to inject into it.
    fn call(&self, operation: Operation, path: &str) -> Option<Fault> {
        let mut state = self.state();
        state.calls.push(Call {
            operation,
            path: path.to_owned(),
        });
        let rule = state.rule.clone()?;
        if rule.operation != operation || !path.contains(rule.path) {
            return None;
        }
        let number = state.counted;
        state.counted += 1;
        let is_hit = match rule.calls {
            Calls::Nth(nth) => number == nth,
            Calls::From(first) => number >= first,
        };
        state.struck += usize::from(is_hit);
        is_hit.then_some(rule.fault)
    }

    /// Counts a call. Returns an error if it fails before anything is done, and otherwise what to
    /// do with its outcome.
    fn begin(&self, operation: Operation, path: &str) -> Result<After> {
        match self.call(operation, path) {
            None => Ok(After::Nothing),
            Some(Fault::Slow(time)) => {
                std::thread::sleep(time);
                Ok(After::Nothing)
            }
            Some(Fault::Lost) => Ok(After::Lose),
            Some(Fault::Cut) => Ok(After::Cut),
            Some(Fault::Wrong) => Ok(After::Flip),
            Some(Fault::Transient) => Err(again("injected: slow down")),
            Some(Fault::Permanent) => Err(Error::new(ErrorKind::PermissionDenied, "injected")),
            Some(Fault::Stopped) => {
                let error = Error::new(ErrorKind::Unexpected, "injected");
                Err(error.set_source(sluice_manifest::Error::stopped()))
            }
            Some(Fault::Full) => {
                let error = Error::new(ErrorKind::Unexpected, "injected");
                Err(error.set_source(io::Error::from(io::ErrorKind::StorageFull)))
            }
        }
    }
}

fn again(message: &str) -> Error {
    Error::new(ErrorKind::Unexpected, message).set_temporary()
}

/// What to do with a call's outcome.
#[derive(Debug, Clone, Copy)]
enum After {
    Nothing,
    Lose,
    Cut,
    Flip,
}

impl After {
    fn outcome<T>(self, outcome: T) -> Result<T> {
        match self {
            Self::Lose => Err(again("injected: the answer is lost")),
            Self::Nothing | Self::Cut | Self::Flip => Ok(outcome),
        }
    }

    fn bytes(self, bytes: Buffer) -> Buffer {
        match self {
            Self::Nothing | Self::Lose => bytes,
            Self::Cut => bytes.slice(..bytes.len() / 2),
            Self::Flip => {
                let flipped = bytes.to_vec().iter().map(|byte| !byte).collect::<Vec<_>>();
                Buffer::from(flipped)
            }
        }
    }
}

impl Layer for Failing {
    fn apply_service(&self, inner: Servicer) -> Servicer {
        Arc::new(FailingService {
            inner,
            failing: self.clone(),
        })
    }
}

#[derive(Debug)]
struct FailingService {
    inner: Servicer,
    failing: Failing,
}

/// A reader, a writer or a deleter, with its path.
struct Wrapped<T> {
    inner: T,
    path: String,
    failing: Failing,
}

impl FailingService {
    fn wrap<T>(&self, inner: T, path: &str) -> Wrapped<T> {
        Wrapped {
            inner,
            path: path.to_owned(),
            failing: self.failing.clone(),
        }
    }
}

impl Service for FailingService {
    type Reader = Wrapped<oio::Reader>;
    type Writer = Wrapped<oio::Writer>;
    type Lister = oio::Lister;
    type Deleter = Wrapped<oio::Deleter>;
    type Copier = oio::Copier;
    type Composer = oio::Composer;

    fn info(&self) -> ServiceInfo {
        self.inner.info()
    }

    fn capability(&self) -> Capability {
        self.inner.capability()
    }

    async fn create_dir(
        &self,
        context: &OperationContext,
        path: &str,
        args: OpCreateDir,
    ) -> Result<RpCreateDir> {
        self.inner.create_dir(context, path, args).await
    }

    async fn stat(&self, context: &OperationContext, path: &str, args: OpStat) -> Result<RpStat> {
        let after = self.failing.begin(Operation::Stat, path)?;
        after.outcome(self.inner.stat(context, path, args).await?)
    }

    fn read(&self, context: &OperationContext, path: &str, args: OpRead) -> Result<Self::Reader> {
        Ok(self.wrap(self.inner.read(context, path, args)?, path))
    }

    fn write(&self, context: &OperationContext, path: &str, args: OpWrite) -> Result<Self::Writer> {
        Ok(self.wrap(self.inner.write(context, path, args)?, path))
    }

    fn delete(&self, context: &OperationContext) -> Result<Self::Deleter> {
        Ok(self.wrap(self.inner.delete(context)?, ""))
    }

    fn list(&self, context: &OperationContext, path: &str, args: OpList) -> Result<Self::Lister> {
        let after = self.failing.begin(Operation::List, path)?;
        after.outcome(self.inner.list(context, path, args)?)
    }

    fn copy(
        &self,
        context: &OperationContext,
        from: &str,
        to: &str,
        args: OpCopy,
    ) -> Result<Self::Copier> {
        self.inner.copy(context, from, to, args)
    }

    async fn rename(
        &self,
        context: &OperationContext,
        from: &str,
        to: &str,
        args: OpRename,
    ) -> Result<RpRename> {
        self.inner.rename(context, from, to, args).await
    }

    async fn presign(
        &self,
        context: &OperationContext,
        path: &str,
        args: OpPresign,
    ) -> Result<RpPresign> {
        self.inner.presign(context, path, args).await
    }
}

impl oio::Read for Wrapped<oio::Reader> {
    async fn open(&self, range: BytesRange) -> Result<(RpRead, Box<dyn oio::ReadStreamDyn>)> {
        let after = self.failing.begin(Operation::Read, &self.path)?;
        let (answer, mut stream) = self.inner.open(range).await?;
        let bytes = after.bytes(stream.read_all_dyn().await?);
        after.outcome((answer, Box::new(bytes) as Box<dyn oio::ReadStreamDyn>))
    }

    async fn read(&self, range: BytesRange) -> Result<(RpRead, Buffer)> {
        let after = self.failing.begin(Operation::Read, &self.path)?;
        let (answer, bytes) = self.inner.read(range).await?;
        after.outcome((answer, after.bytes(bytes)))
    }
}

impl oio::Write for Wrapped<oio::Writer> {
    async fn write(&mut self, bytes: Buffer) -> Result<()> {
        let after = self.failing.begin(Operation::Write, &self.path)?;
        self.inner.write(bytes).await?;
        after.outcome(())
    }

    async fn close(&mut self) -> Result<Metadata> {
        let after = self.failing.begin(Operation::Write, &self.path)?;
        let metadata = self.inner.close().await?;
        after.outcome(metadata)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

impl oio::Delete for Wrapped<oio::Deleter> {
    async fn delete(&mut self, path: &str, args: OpDelete) -> Result<()> {
        let after = self.failing.begin(Operation::Delete, path)?;
        self.inner.delete(path, args).await?;
        after.outcome(())
    }

    async fn close(&mut self) -> Result<()> {
        self.inner.close().await
    }
}
