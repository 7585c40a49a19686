//! A user's object in a store: its ranges, its stream, and what an error of either means.

use std::io::{self, Read};
use std::ops::Range;

use bytes::Bytes;
use sluice_manifest::{Error, Result};
use sluice_store::{ObjectReader, Store};

/// An object that a user named.
#[derive(Debug, Clone)]
pub(super) struct UserObject {
    store: Store,
    path: String,
    pub uri: String,
    pub bytes: u64,
}

impl UserObject {
    pub fn open(store: &Store, path: &str) -> Result<Self> {
        let uri = store.uri(path);
        let Some(info) = store.stat(path)? else {
            return Err(Error::data(format!("{uri}: no such object"))
                .hint("--import takes the URI of one Parquet or CSV object"));
        };
        Ok(Self {
            store: store.clone(),
            path: path.to_owned(),
            bytes: info.bytes,
            uri,
        })
    }

    /// Streams a range of bytes.
    pub fn stream(&self, range: Range<u64>) -> Result<ObjectReader> {
        let mut reader = self.store.stretches(&self.path, self.bytes);
        reader.skip_to(range.start)?;
        reader.want(range);
        Ok(reader)
    }

    /// Reads a range of bytes. What a damaged file claims does not become an allocation.
    pub fn range(&self, range: Range<u64>) -> Result<Bytes> {
        if range.start > range.end || range.end > self.bytes {
            return Err(self.unreadable("it is shorter than its footer says"));
        }
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        let read = self.stream(range)?.read_to_end(&mut bytes);
        read.map_err(|e| self.of_io(e))?;
        Ok(bytes.into())
    }

    /// Classes an error of a stream. An error of the store stays what it is.
    pub fn of_io(&self, e: io::Error) -> Error {
        use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
        let kind = e.kind();
        match e.downcast::<Error>() {
            Ok(ours) => ours,
            Err(e) if matches!(kind, InvalidData | InvalidInput | UnexpectedEof) => {
                self.unreadable(e)
            }
            Err(e) => Error::transient(format!("{}: {e}", self.uri)),
        }
    }

    pub fn unreadable(&self, why: impl std::fmt::Display) -> Error {
        Error::data(format!("{}: cannot read: {why}", self.uri))
    }
}
