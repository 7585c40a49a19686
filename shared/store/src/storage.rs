//! What the stores of a process share: threads, connections, limits, settings, and the flag that
//! ends requests. The harness makes one and passes it on; there is nothing process-wide here, so each
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
use crate::stop::Stop;
use crate::store::{Place, Store};
use crate::transport::Sent;

/// Opens stores. Cheap to clone: clones share everything.
#[derive(Clone, Default)]
pub struct Storage {
    shared: Arc<Shared>,
    layer: Option<Wrap>,
}

/// Puts a layer around an operator.
type Wrap = Arc<dyn Fn(Operator) -> Operator + Send + Sync>;

#[derive(Default)]
struct Shared {
    stop: Stop,
    sent: Sent,
    state: Mutex<State>,
}

/// What is made when it is first needed: a run on local disk needs no threads and no connections.
#[derive(Default)]
struct State {
    io: Option<Io>,
    connections: Option<Connections>,
    /// One for each bucket.
    clients: HashMap<(Scheme, String), Client>,
    /// The memories by name.
    memories: HashMap<String, Operator>,
}

impl Storage {
    /// Returns storage whose requests are given up some seconds after `stop` is set, with an error of
    /// the class [`Stopped`](sluice_manifest::Class::Stopped).
    pub fn new(stop: Arc<AtomicBool>) -> Self {
        let shared = Shared {
            stop: Stop::new(stop),
            ..Shared::default()
        };
        Self {
            shared: Arc::new(shared),
            layer: None,
        }
    }

    /// Fails when a signal asked the program to stop.
    ///
    /// # Errors
    /// Stopped, after a signal.
    pub fn check_stop(&self) -> Result<()> {
        self.shared.stop.check()
    }

    /// Returns storage with the same memories, and a layer of opendal around each of them. For tests:
    /// a layer that fails shows what programs make of it.
    #[must_use]
    pub fn with_layer(&self, layer: impl Layer + Clone) -> Self {
        Self {
            shared: self.shared.clone(),
            layer: Some(Arc::new(move |operator| operator.layer(layer.clone()))),
        }
    }

    /// Opens a prefix for reading. A folder on local disk must exist.
    ///
    /// # Errors
    /// Data, when there is no such folder; usage, when the store cannot be set up; of storage.
    pub fn open(&self, location: &Location) -> Result<Store> {
        let found = self.open_if_there(location)?;
        found.ok_or_else(|| Error::data(format!("{location}: no such folder")))
    }

    /// Opens a prefix for reading; none where it is a folder on local disk that does not exist.
    ///
    /// # Errors
    /// Usage, when the store cannot be set up; of storage, when the folder cannot be looked at.
    pub fn open_if_there(&self, location: &Location) -> Result<Option<Store>> {
        let store = self.create(location)?;
        Ok(store.is_there()?.then_some(store))
    }

    /// Opens a prefix for reading and writing; a folder on local disk is made with its first object.
    ///
    /// # Errors
    /// Usage, when the store cannot be set up; transient, when no thread can be started for it.
    pub fn create(&self, location: &Location) -> Result<Store> {
        let (client, path) = match location {
            Location::Local(path) => {
                let disk = Disk::new(path, self.shared.stop.clone());
                return Ok(Store::new(location, Place::Disk(disk)));
            }
            Location::Memory { name, path } => (self.memory(name)?, path),
            Location::Bucket {
                scheme,
                bucket,
                path,
            } => (self.bucket(*scheme, bucket)?, path),
        };
        let prefix = match path.is_empty() {
            true => String::new(),
            false => format!("{path}/"),
        };
        let prefix = prefix.into();
        Ok(Store::new(location, Place::Bucket { client, prefix }))
    }

    /// Returns the number of HTTP requests sent to object stores, by method, retries included. Methods
    /// that were not used are left out.
    pub fn requests(&self) -> BTreeMap<String, u64> {
        self.shared.sent.by_method()
    }

    fn memory(&self, name: &str) -> Result<Client> {
        let mut state = self.state();
        let io = state.io(&self.shared.stop)?;
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
        Ok(Client::near(operator, io))
    }

    fn bucket(&self, scheme: Scheme, bucket: &str) -> Result<Client> {
        let mut state = self.state();
        let key = (scheme, bucket.to_owned());
        if let Some(client) = state.clients.get(&key) {
            return Ok(client.clone());
        }
        let io = state.io(&self.shared.stop)?;
        let connections = match &mut state.connections {
            Some(connections) => connections,
            none => none.insert(Connections::new(self.shared.sent.clone())?),
        };
        let client = connections.client(scheme, bucket, io)?;
        state.clients.insert(key, client.clone());
        Ok(client)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl State {
    fn io(&mut self, stop: &Stop) -> Result<Io> {
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
