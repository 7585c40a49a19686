//! Objects as streams.

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes, BytesMut};
use futures::StreamExt;
use opendal::{FuturesBytesStream, Operator, Writer};
use sluice_manifest::{Error, Output, Result};

use crate::runtime::wait;
use crate::store::classify;

/// A stream is read in requests of this size, of which [`READS_AHEAD`] are in flight, and written
/// in parts of this size.
const CHUNK: usize = 4 << 20;
const READS_AHEAD: usize = 2;

/// An object from its start.
pub struct ObjectReader {
    stream: FuturesBytesStream,
    current: Bytes,
}

impl ObjectReader {
    pub(crate) fn open(operator: &Operator, path: &str) -> opendal::Result<Self> {
        let stream = wait(async {
            let reader = operator
                .reader_with(path)
                .chunk(CHUNK)
                .concurrent(READS_AHEAD);
            reader.await?.into_bytes_stream(..).await
        })?;
        Ok(Self {
            stream,
            current: Bytes::new(),
        })
    }
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match wait(self.stream.next()) {
                Some(chunk) => self.current = chunk?,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// A new object that appears on [`finish`](Self::finish).
pub struct ObjectWriter {
    writer: Option<Writer>,
    pending: BytesMut,
    path: String,
    uri: String,
    bytes: u64,
    hasher: blake3::Hasher,
}

impl ObjectWriter {
    pub(crate) fn open(operator: &Operator, full: &str, path: &str, uri: String) -> Result<Self> {
        let writer = wait(operator.writer(full)).map_err(|e| classify(&e, &uri))?;
        Ok(Self {
            writer: Some(writer),
            pending: BytesMut::new(),
            path: path.to_owned(),
            uri,
            bytes: 0,
            hasher: blake3::Hasher::new(),
        })
    }

    fn send(&mut self) -> Result<()> {
        let part = self.pending.split().freeze();
        let Some(writer) = &mut self.writer else {
            return Err(Error::bug(format!(
                "{}: written to after its end",
                self.uri
            )));
        };
        wait(writer.write(part)).map_err(|e| classify(&e, &self.uri))
    }

    /// Makes the object appear, and says what was written.
    pub fn finish(mut self) -> Result<Output> {
        if !self.pending.is_empty() {
            self.send()?;
        }
        if let Some(mut writer) = self.writer.take() {
            wait(writer.close()).map_err(|e| classify(&e, &self.uri))?;
        }
        Ok(Output {
            path: std::mem::take(&mut self.path),
            bytes: self.bytes,
            blake3: self.hasher.finalize().to_hex().to_string(),
        })
    }
}

impl Write for ObjectWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.hasher.update(buffer);
        self.bytes += buffer.len() as u64;
        if self.pending.is_empty() {
            // A part that grew bit by bit would leave holes of all sizes in the heap.
            self.pending.reserve(CHUNK);
        }
        self.pending.extend_from_slice(buffer);
        if self.pending.len() >= CHUNK {
            self.send().map_err(io::Error::other)?;
        }
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for ObjectWriter {
    fn drop(&mut self) {
        if let Some(mut writer) = self.writer.take() {
            // Nothing more can be done about an object that was never to appear.
            let _ = wait(writer.abort());
        }
    }
}
