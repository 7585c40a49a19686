//! Objects as streams: stretches fetched several requests ahead, and new objects written in parts.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::ops::Range;

use bytes::{Buf, BytesMut};
use opendal::{Buffer, ErrorKind, Writer};
use sluice_manifest::{Error, Output, Result};
use tokio::task::JoinHandle;

use crate::client::{Client, lift};
use crate::runtime::spawn;

/// An object store asks for parts of 5 MiB at least.
const PART: usize = 5 << 20;
/// Parts of one object that are sent at once.
const PARTS_IN_FLIGHT: usize = 2;

/// How an object is fetched.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Bytes of one request at most.
    window: u64,
    /// Bytes that are fetched before they are asked for, at most, besides the window in use.
    ahead: u64,
    /// A gap of so many bytes between two stretches is read through: a request of its own for what
    /// lies behind it would cost more.
    gap: u64,
}

/// A request to local disk costs little, and its bytes lie in the page cache.
const NEAR: Pace = Pace {
    window: 1 << 20,
    ahead: 1 << 20,
    gap: 128 << 10,
};

/// A request to an object store takes some 30 ms until its first byte, and a connection carries 50
/// to 90 MB/s from there: a megabyte or two cost as much as a request. Four in flight, of a size
/// that is worth it, keep up with the cores that wait for the bytes.
const FAR: Pace = Pace {
    window: 2 << 20,
    ahead: 6 << 20,
    gap: 1 << 20,
};

/// Reads stretches of an object, front to back. What is [wanted](Self::want) is fetched ahead;
/// stretches that lie close together come in one request.
pub struct ObjectReader {
    client: Client,
    path: String,
    uri: String,
    size: u64,
    pace: Pace,
    /// What is wanted and not asked for yet, in order and apart by more than a gap.
    wanted: VecDeque<Range<u64>>,
    asked: VecDeque<Asked>,
    /// The bytes from `position` on, as far as they are there.
    current: Buffer,
    position: u64,
}

struct Asked {
    range: Range<u64>,
    bytes: JoinHandle<opendal::Result<Buffer>>,
}

impl ObjectReader {
    pub(crate) fn new(client: Client, path: String, uri: String, size: u64) -> Self {
        Self {
            pace: if client.is_remote() { FAR } else { NEAR },
            client,
            path,
            uri,
            size,
            wanted: VecDeque::new(),
            asked: VecDeque::new(),
            current: Buffer::new(),
            position: 0,
        }
    }

    /// Says that these bytes are going to be read. Stretches are named in order; what lies between
    /// them cannot be read, and what lies behind the object's end is not there.
    pub fn want(&mut self, range: Range<u64>) {
        let range = range.start..range.end.min(self.size);
        if range.is_empty() {
            return;
        }
        match self.wanted.back_mut() {
            Some(last) if range.start <= last.end + self.pace.gap => {
                last.end = last.end.max(range.end);
            }
            _ => self.wanted.push_back(range),
        }
    }

    /// Whether enough is wanted to keep the connection busy; naming more only takes memory.
    pub fn is_busy(&self) -> bool {
        self.ahead() + self.wanted.iter().map(length).sum::<u64>() >= self.pace.ahead
    }

    /// Goes to a later byte.
    pub fn skip_to(&mut self, position: u64) -> Result<()> {
        let Some(distance) = position.checked_sub(self.position) else {
            return Err(Error::bug(format!(
                "{}: byte {position} is asked for after byte {}",
                self.uri, self.position
            )));
        };
        let within = distance.min(self.current.len() as u64);
        self.current.advance(within as usize);
        self.position = position;
        Ok(())
    }

    /// Bytes asked for and not in use yet.
    fn ahead(&self) -> u64 {
        self.asked.iter().map(|asked| length(&asked.range)).sum()
    }

    /// Asks for what is wanted, as far ahead as the pace allows.
    fn ask(&mut self) {
        while self.asked.is_empty() || self.ahead() < self.pace.ahead {
            let Some(stretch) = self.wanted.front_mut() else {
                return;
            };
            let end = stretch.end.min(stretch.start + self.pace.window);
            let range = stretch.start..end;
            stretch.start = end;
            if stretch.is_empty() {
                self.wanted.pop_front();
            }
            let (operator, path) = (self.client.operator.clone(), self.path.clone());
            let wish = range.clone();
            let bytes = spawn(async move { operator.read_with(&path).range(wish).await });
            self.asked.push_back(Asked { range, bytes });
        }
    }

    /// Takes the next request's bytes, and goes to the position in them.
    fn advance(&mut self) -> Result<()> {
        self.current = Buffer::new();
        self.ask();
        let Some(Asked { range, bytes }) = self.asked.pop_front() else {
            return Err(Error::bug(format!(
                "{}: byte {} is read, but not wanted",
                self.uri, self.position
            )));
        };
        let fetched = self.client.wait(async {
            bytes.await.unwrap_or_else(|e| {
                let message = format!("the request's task ended: {e}");
                Err(opendal::Error::new(ErrorKind::Unexpected, message))
            })
        });
        let mut buffer = fetched.map_err(|e| self.client.error(&e, &self.uri))?;
        if buffer.len() as u64 != length(&range) {
            return Err(Error::data(format!(
                "{}: {} bytes instead of {} at byte {}",
                self.uri,
                buffer.len(),
                length(&range),
                range.start
            ))
            .hint("the object has changed"));
        }
        // More requests go out while this one's bytes are in use.
        self.ask();
        if range.contains(&self.position) {
            buffer.advance((self.position - range.start) as usize);
            self.current = buffer;
        } else if range.start > self.position {
            return Err(Error::bug(format!(
                "{}: byte {} is read, but not wanted",
                self.uri, self.position
            )));
        }
        Ok(())
    }
}

fn length(range: &Range<u64>) -> u64 {
    range.end - range.start
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.size || buffer.is_empty() {
            return Ok(0);
        }
        while self.current.is_empty() {
            lift(self.advance())?;
        }
        let length = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..length]);
        self.position += length as u64;
        Ok(length)
    }
}

impl Drop for ObjectReader {
    fn drop(&mut self) {
        for asked in &self.asked {
            asked.bytes.abort();
        }
    }
}

/// A new object that appears on [`finish`](Self::finish).
pub struct ObjectWriter {
    client: Client,
    writer: Option<Writer>,
    pending: BytesMut,
    path: String,
    uri: String,
    bytes: u64,
    hasher: blake3::Hasher,
}

impl ObjectWriter {
    pub(crate) fn open(client: Client, full: &str, path: &str, uri: String) -> Result<Self> {
        let writer = client.wait(async {
            let writer = client.operator.writer_with(full);
            match client.is_remote() {
                true => writer.concurrent(PARTS_IN_FLIGHT).await,
                false => writer.await,
            }
        });
        Ok(Self {
            writer: Some(writer.map_err(|e| client.error(&e, &uri))?),
            client,
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
        let sent = self.client.wait(writer.write(part));
        sent.map_err(|e| self.client.error(&e, &self.uri))
    }

    /// Makes the object appear, and says what was written.
    pub fn finish(mut self) -> Result<Output> {
        if !self.pending.is_empty() {
            self.send()?;
        }
        if let Some(writer) = &mut self.writer {
            let closed = self.client.wait(writer.close());
            closed.map_err(|e| match e.kind() {
                // The answer to an earlier try was lost, or somebody cleaned up: the upload is gone.
                ErrorKind::NotFound => {
                    Error::transient(format!("{}: the upload is gone", self.uri))
                }
                _ => self.client.error(&e, &self.uri),
            })?;
        }
        self.writer = None;
        Ok(Output {
            path: std::mem::take(&mut self.path),
            bytes: self.bytes,
            blake3: self.hasher.finalize().to_hex().to_string(),
        })
    }
}

impl Write for ObjectWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        // Parts are of one size to the byte: some stores insist.
        let taken = buffer.len().min(PART - self.pending.len());
        let buffer = &buffer[..taken];
        self.hasher.update(buffer);
        self.bytes += taken as u64;
        if self.pending.is_empty() {
            // A part that grew bit by bit would leave holes of all sizes in the heap.
            self.pending.reserve(PART);
        }
        self.pending.extend_from_slice(buffer);
        if self.pending.len() == PART {
            lift(self.send())?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for ObjectWriter {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            // Parts of an object that was never to appear would be kept, and paid for.
            if let Err(e) = self.client.abort(writer) {
                let what = crate::client::words(&e);
                tracing::warn!(object = self.uri, "an unfinished upload may remain: {what}");
            }
        }
    }
}
