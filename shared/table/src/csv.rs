//! A CSV table of the user's: a header, then records; plain or gzipped.

use std::io::{self, Read};

use ::csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder};
use flate2::bufread::MultiGzDecoder;
use sluice_manifest::{Error, Result};

use crate::format::{Format, is_gzipped};
use crate::object::UserObject;

/// Bytes of a record at most. A quote that is never closed would make the rest of the file one field.
pub(crate) const RECORD_BYTES: usize = 16 << 20;
/// Bytes that are parsed at once.
const BUFFER: usize = 256 << 10;

/// The records of an object, front to back.
pub struct Records {
    object: UserObject,
    reader: Reader<Limited>,
}

impl Records {
    /// Opens a CSV file, one whose fields are separated by tabs where its name says `.tsv`.
    ///
    /// # Errors
    /// Of storage.
    pub fn open(object: &UserObject) -> Result<Self> {
        let delimiter = match object.format() {
            Some(Format::Tsv) => b'\t',
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
    /// Data, when there is no header.
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
    /// Data, when it has another number of fields than the header or takes too many bytes.
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

/// A stream that ends with an error where one record takes too many bytes.
pub(crate) struct Limited {
    inner: Box<dyn Read + Send>,
    pub left: usize,
}

impl Limited {
    /// Opens an object, and decompresses it where its name says so.
    pub fn open(object: &UserObject) -> Result<Self> {
        let plain = object.stream(0..object.bytes)?;
        let inner: Box<dyn Read + Send> = match is_gzipped(object.path()) {
            true => Box::new(MultiGzDecoder::new(plain)),
            false => Box::new(plain),
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
