//! What the stores of a process share: threads, connections, limits, settings, and the flag that
//! cancels requests. The harness creates one instance and passes it on. Nothing is static, so each
//! test has its own.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};

use opendal::raw::Layer;
use opendal::{Operator, services};
use sluice_manifest::{Error, Result};

use crate::client::Client;
use crate::disk::Disk;
use crate::location::{Location, Scheme};
use crate::remote::Connections;
use crate::runtime::Io;
use crate::stop::StopFlag;
use crate::store::{Backend, Store};
use crate::transport::RequestCounts;

/// Opens stores. Cheap to clone: clones share everything.
#[derive(Clone, Default)]
pub struct Storage {
    inner: Arc<Inner>,
    layer: Option<WrapOperator>,
}

/// Wraps an operator in a layer.
type WrapOperator = Arc<dyn Fn(Operator) -> Operator + Send + Sync>;

#[derive(Default)]
struct Inner {
    stop: StopFlag,
    sent: RequestCounts,
    state: Mutex<Lazy>,
}

/// What is created on first use: a run on local disk needs neither threads nor connections.
#[derive(Default)]
struct Lazy {
    io: Option<Io>,
    connections: Option<Connections>,
    /// One client for each bucket.
    clients: HashMap<(Scheme, String), Client>,
    /// Memory stores by name.
    memories: HashMap<String, Operator>,
}

impl Storage {
    /// Returns storage whose requests are cancelled shortly after `stop` is set, with an error of
    /// class [`Stopped`](sluice_manifest::Class::Stopped).
    pub fn new(stop: Arc<AtomicBool>) -> Self {
        let inner = Inner {
            stop: StopFlag::new(stop),
            ..Inner::default()
        };
        Self {
            inner: Arc::new(inner),
            layer: None,
        }
    }

    /// Checks whether the program should stop.
    ///
    /// # Errors
    ///
    /// Returns a stopped error after a signal.
    pub fn check_stop(&self) -> Result<()> {
        self.inner.stop.check()
    }

    /// Returns storage with the same memory stores, each wrapped in an opendal layer. Tests use it
    /// to inject faults.
    #[must_use]
    pub fn with_layer(&self, layer: impl Layer + Clone) -> Self {
        Self {
            inner: self.inner.clone(),
            layer: Some(Arc::new(move |operator| operator.layer(layer.clone()))),
        }
    }

    /// Opens a prefix for reading. On local disk the folder must exist.
    ///
    /// # Errors
    ///
    /// Returns a data error if there is no such folder, a usage error if the store cannot be
    /// configured, and otherwise a storage error.
    pub fn open(&self, location: &Location) -> Result<Store> {
        let found = self.open_if_there(location)?;
        found.ok_or_else(|| Error::data(format!("{location}: no such folder")))
    }

    /// Opens a prefix for reading. Returns `None` if it is a local folder that does not exist.
    ///
    /// # Errors
    ///
    /// Returns a usage error if the store cannot be configured, and a storage error if the folder
    /// cannot be accessed.
    pub fn open_if_there(&self, location: &Location) -> Result<Option<Store>> {
        let store = self.create(location)?;
        Ok(store.exists()?.then_some(store))
    }

    /// Opens a prefix for reading and writing. A local folder is created with its first object.
    ///
    /// # Errors
    ///
    /// Returns a usage error if the store cannot be configured, and a transient error if its
    /// threads cannot be started.
    pub fn create(&self, location: &Location) -> Result<Store> {
        let (client, path) = match location {
            Location::Local(path) => {
                let disk = Disk::new(path, self.inner.stop.clone());
                return Ok(Store::new(location, Backend::Disk(disk)));
            }
            Location::Memory { name, path } => (self.memory(name)?, path),
            Location::Bucket {
                scheme,
                bucket,
                path,
            } => (self.bucket(*scheme, bucket)?, path),
        };
        let prefix = if path.is_empty() {
            String::new()
        } else {
            format!("{path}/")
        };
        let prefix = prefix.into();
        Ok(Store::new(location, Backend::Bucket { client, prefix }))
    }

    /// Returns the number of HTTP requests sent to object stores by method, including retries.
    /// Unused methods are omitted.
    pub fn requests(&self) -> BTreeMap<String, u64> {
        self.inner.sent.by_method()
    }

    fn memory(&self, name: &str) -> Result<Client> {
        let mut state = self.state();
        let io = state.io(&self.inner.stop)?;
        let operator = match state.memories.get(name) {
            Some(operator) => operator.clone(),
            None => {
                let operator = Operator::new(services::Memory::default());
                let operator = operator.map_err(|e| Error::bug(e.to_string()))?;
                state.memories.insert(name.to_owned(), operator.clone());
                operator
            }
        };
        let operator = match &self.layer {
            Some(wrap) => wrap(operator),
            None => operator,
        };
        Ok(Client::in_memory(operator, io))
    }

    fn bucket(&self, scheme: Scheme, bucket: &str) -> Result<Client> {
        let mut state = self.state();
        let key = (scheme, bucket.to_owned());
        if let Some(client) = state.clients.get(&key) {
            return Ok(client.clone());
        }
        let io = state.io(&self.inner.stop)?;
        let connections = match &mut state.connections {
            Some(connections) => connections,
            none => none.insert(Connections::new(self.inner.sent.clone())?),
        };
        let client = connections.client(scheme, bucket, io)?;
        state.clients.insert(key, client.clone());
        Ok(client)
    }

    fn state(&self) -> MutexGuard<'_, Lazy> {
        self.inner.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Lazy {
    fn io(&mut self, stop: &StopFlag) -> Result<Io> {
        let io = match &self.io {
            Some(io) => io.clone(),
            None => self.io.insert(Io::start(stop.clone())?).clone(),
        };
        Ok(io)
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Storage")
    }
}
