//! An object of a user in a store, and the classes of its errors.

use std::io::{self, Read};
use std::ops::Range;

use bytes::Bytes;
use sluice_manifest::{Error, Result};
use sluice_store::{ObjectReader, Store};

use crate::format::TableFormat;

/// An object that a user gave.
#[derive(Debug, Clone)]
pub struct UserObject {
    store: Store,
    path: String,
    /// The URI of the object.
    pub uri: String,
    /// The size in bytes.
    pub bytes: u64,
}

impl UserObject {
    /// Opens an object.
    ///
    /// # Errors
    ///
    /// Returns a data error if it does not exist, and otherwise a storage error.
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

    /// Returns the path in the store.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the format from the object's name.
    pub fn format(&self) -> Option<TableFormat> {
        TableFormat::of(&self.path)
    }

    /// Streams a range of bytes.
    ///
    /// # Errors
    ///
    /// Returns a storage error.
    pub fn stream(&self, range: Range<u64>) -> Result<ObjectReader> {
        let mut reader = self.store.read_ranges(&self.path, self.bytes);
        reader.skip_to(range.start)?;
        reader.prefetch(range);
        Ok(reader)
    }

    /// Reads a range of bytes. The length is checked before memory is allocated, because it may
    /// come from a damaged file.
    ///
    /// # Errors
    ///
    /// Returns a data error if the range is outside of the object, and otherwise a storage error.
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

    /// Classifies an error of a stream. Errors of the store keep their class.
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

    /// Returns the error for an object with unusable content.
    pub fn unreadable(&self, why: impl std::fmt::Display) -> Error {
        Error::data(format!("{}: cannot read: {why}", self.uri))
    }
}
