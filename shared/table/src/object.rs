//! A user's object in a store: its ranges, its stream, and what an error of either means.

use std::io::{self, Read};
use std::ops::Range;

use bytes::Bytes;
use sluice_manifest::{Error, Result};
use sluice_store::{ObjectReader, Store};

use crate::format::Format;

/// An object that a user named.
#[derive(Debug, Clone)]
pub struct UserObject {
    store: Store,
    path: String,
    /// Its URI.
    pub uri: String,
    /// Its size.
    pub bytes: u64,
}

impl UserObject {
    /// Opens an object.
    ///
    /// # Errors
    /// Data, when there is no such object; of storage.
    pub fn open(store: &Store, path: &str) -> Result<Self> {
        let uri = store.uri(path);
        let Some(info) = store.stat(path)? else {
            return Err(Error::data(format!("{uri}: no such object")));
        };
        Ok(Self {
            store: store.clone(),
            path: path.to_owned(),
            bytes: info.bytes,
            uri,
        })
    }

    /// Returns its path in the store.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the format that its name gives.
    pub fn format(&self) -> Option<Format> {
        Format::of(&self.path)
    }

    /// Streams a range of bytes.
    ///
    /// # Errors
    /// Of storage.
    pub fn stream(&self, range: Range<u64>) -> Result<ObjectReader> {
        let mut reader = self.store.read_ranges(&self.path, self.bytes);
        reader.skip_to(range.start)?;
        reader.prefetch(range);
        Ok(reader)
    }

    /// Reads a range of bytes. What a damaged file claims does not become an allocation.
    ///
    /// # Errors
    /// Data, when the object has no such range; of storage.
    pub fn range(&self, range: Range<u64>) -> Result<Bytes> {
        if range.start > range.end || range.end > self.bytes {
            return Err(self.unreadable("it is shorter than its footer says"));
        }
        let length = range.end - range.start;
        let mut bytes = Vec::with_capacity(length as usize);
        let read = self.stream(range)?.take(length).read_to_end(&mut bytes);
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

    /// Returns the error of an object whose content is not what it should be.
    pub fn unreadable(&self, why: impl std::fmt::Display) -> Error {
        Error::data(format!("{}: cannot read: {why}", self.uri))
    }
}
