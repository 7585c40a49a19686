//! CSV tables of users: a header and records, plain or compressed with gzip.

use std::io::{self, Read};

use ::csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder};
use flate2::bufread::MultiGzDecoder;
use sluice_manifest::{Error, Result};

use crate::format::{TableFormat, is_gzipped};
use crate::object::UserObject;

/// The maximum size of a record in bytes. Without it, a quote that is never closed would turn the
/// rest of the file into one field.
pub(crate) const RECORD_BYTES: usize = 16 << 20;
/// The size of the parse buffer in bytes.
const BUFFER: usize = 256 << 10;

/// The records of an object, in order.
pub struct Records {
    object: UserObject,
    reader: Reader<Limited>,
}

impl Records {
    /// Opens a CSV file. The fields are separated by tabs if the file's name ends with `.tsv`.
    ///
    /// # Errors
    ///
    /// Returns a storage error.
    pub fn open(object: &UserObject) -> Result<Self> {
        let delimiter = match object.format() {
            Some(TableFormat::Tsv) => b'\t',
            _ => b',',
        };
        let reader = ReaderBuilder::new()
            .delimiter(delimiter)
            .buffer_capacity(BUFFER)
            .from_reader(Limited::open(object)?);
        let object = object.clone();
        Ok(Self { object, reader })
    }

    /// Returns the names of the columns.
    ///
    /// # Errors
    ///
    /// Returns a data error if there is no header, and otherwise a storage error.
    pub fn header(&mut self) -> Result<Vec<String>> {
        let header = self.reader.byte_headers();
        let header = header.map_err(|e| error(&self.object, e))?.clone();
        if header.is_empty() {
            return Err(Error::data(format!("{}: is empty", self.object.uri)));
        }
        let names = header.iter().map(|name| {
            let name = String::from_utf8(name.to_vec());
            name.map_err(|_| self.object.unreadable("its header is not UTF-8 text"))
        });
        names.collect()
    }

    /// Reads the next record. Returns false at the end.
    ///
    /// # Errors
    ///
    /// Returns a data error if the number of fields differs from the header's or the record is too
    /// large, and otherwise a storage error.
    pub fn read(&mut self, record: &mut ByteRecord) -> Result<bool> {
        self.reader.get_mut().left = RECORD_BYTES;
        let read = self.reader.read_byte_record(record);
        read.map_err(|e| error(&self.object, e))
    }
}

fn error(object: &UserObject, e: ::csv::Error) -> Error {
    match e.into_kind() {
        ErrorKind::Io(e) => object.of_io(e),
        ErrorKind::UnequalLengths {
            pos,
            expected_len,
            len,
        } => {
            let line = pos.map_or(0, |position| position.line());
            Error::data(format!(
                "{}: line {line} has {len} fields, the header has {expected_len}",
                object.uri
            ))
            .hint("a field that holds a comma or a line break is written in double quotes")
        }
        kind => object.unreadable(format!("{kind:?}")),
    }
}

/// A stream that fails if one record has too many bytes.
pub(crate) struct Limited {
    inner: Box<dyn Read + Send>,
    pub left: usize,
}

impl Limited {
    /// Opens an object, and decompresses it if its name ends with `.gz`.
    pub(crate) fn open(object: &UserObject) -> Result<Self> {
        let plain = object.stream(0..object.bytes)?;
        let inner: Box<dyn Read + Send> = if is_gzipped(object.path()) {
            Box::new(MultiGzDecoder::new(plain))
        } else {
            Box::new(plain)
        };
        let left = RECORD_BYTES;
        Ok(Self { inner, left })
    }
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let text = "a record is larger than 16 MiB: is a quote never closed?";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let read = self.inner.read(buffer)?;
        self.left = self.left.saturating_sub(read);
        Ok(read)
    }
}
