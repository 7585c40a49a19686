//! Streams of bytes from and to objects. Reads are prefetched by several requests in flight; writes
//! are sent in parts.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use bytes::{Buf, BytesMut};
use opendal::{Buffer, ErrorKind, Writer};
use sluice_manifest::{Blocks, Error, Output, OutputPath, Result};
use tokio::task::JoinHandle;

use crate::client::{Client, lift};
use crate::disk::{self, Disk, NewFile};
use crate::store::Backend;

/// The size of a part. Object stores require at least 5 MiB.
const PART: usize = 5 << 20;
/// The size of one write to a file. It fits a core's cache, so hashing and writing read it from
/// there.
const BLOCK: usize = 256 << 10;
/// The number of parts of one object in flight.
const PARTS_IN_FLIGHT: usize = 2;

/// How far ahead, and in which requests, an object is read.
#[derive(Debug, Clone, Copy)]
struct ReadAhead {
    /// The maximum size of one request, in bytes.
    window: u64,
    /// The maximum number of prefetched bytes, besides the window in use.
    ahead: u64,
    /// The largest gap between two ranges that is read through. Beyond it, a separate request is
    /// cheaper.
    gap: u64,
}

/// A read from local disk costs little and the kernel reads ahead, so a window that fits a core's
/// cache is enough.
const LOCAL: ReadAhead = ReadAhead {
    window: BLOCK as u64,
    ahead: 1 << 20,
    gap: 128 << 10,
};

/// An object store takes about 30 ms to the first byte, then delivers 50 to 90 MB/s per connection:
/// a request costs as much as one or two megabytes. Four requests of that size in flight keep up
/// with the cores that consume the bytes.
const REMOTE: ReadAhead = ReadAhead {
    window: 2 << 20,
    ahead: 6 << 20,
    gap: 1 << 20,
};

/// Reads byte ranges of an object in ascending order. Ranges passed to [`prefetch`](Self::prefetch)
/// are fetched ahead; ranges with a small gap between them share a request.
pub struct ObjectReader {
    origin: Origin,
    path: String,
    uri: String,
    size: u64,
    /// The entity tag that an object in a bucket must have.
    etag: Option<String>,
    read_ahead: ReadAhead,
    /// Ranges to prefetch that are not requested yet: ascending, with gaps larger than
    /// `ReadAhead::gap`.
    announced: VecDeque<Range<u64>>,
    position: u64,
}

/// The source of the bytes, with those already received from the reader's position on.
enum Origin {
    Disk {
        disk: Disk,
        /// Opened by the first read.
        file: Option<File>,
        /// Reused by every read.
        block: Vec<u8>,
        used: usize,
    },
    Bucket {
        client: Client,
        in_flight: VecDeque<InFlight>,
        current: Buffer,
    },
}

struct InFlight {
    range: Range<u64>,
    bytes: JoinHandle<opendal::Result<Buffer>>,
}

impl ObjectReader {
    pub(crate) fn new(backend: &Backend, path: &str, uri: String, size: u64) -> Self {
        let (origin, path, read_ahead) = match backend {
            Backend::Disk(disk) => {
                let origin = Origin::Disk {
                    disk: disk.clone(),
                    file: None,
                    block: Vec::new(),
                    used: 0,
                };
                (origin, path.to_owned(), LOCAL)
            }
            Backend::Bucket { client, prefix } => {
                let origin = Origin::Bucket {
                    client: client.clone(),
                    in_flight: VecDeque::new(),
                    current: Buffer::new(),
                };
                (origin, format!("{prefix}{path}"), REMOTE)
            }
        };
        Self {
            origin,
            path,
            uri,
            size,
            etag: None,
            read_ahead,
            announced: VecDeque::new(),
            position: 0,
        }
    }

    /// Restricts reads to the version of the object with this entity tag, where the store supports
    /// it.
    #[must_use]
    pub fn if_match(mut self, etag: Option<&str>) -> Self {
        // HTTP quotes entity tags.
        self.etag = etag.map(|etag| format!("\"{etag}\""));
        self
    }

    /// Announces that these bytes will be read. Ranges must be announced in ascending order. Bytes
    /// that were not announced cannot be read; the part of a range after the end of the object is
    /// ignored.
    pub fn prefetch(&mut self, range: Range<u64>) {
        let range = range.start..range.end.min(self.size);
        if range.is_empty() {
            return;
        }
        match self.announced.back_mut() {
            Some(last) if range.start <= last.end + self.read_ahead.gap => {
                last.end = last.end.max(range.end);
            }
            _ => self.announced.push_back(range),
        }
    }

    /// Returns whether enough ranges are announced to keep the connection busy. Announcing more
    /// only takes memory.
    pub fn is_prefetch_full(&self) -> bool {
        self.ahead() + self.announced.iter().map(length).sum::<u64>() >= self.read_ahead.ahead
    }

    /// Sends the requests for announced ranges now, rather than with the first read. Does nothing
    /// on local disk.
    pub fn start_prefetch(&mut self) {
        if let Origin::Bucket { .. } = self.origin {
            self.send_requests();
        }
    }

    /// Returns the offset of the next byte.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Skips to a later offset.
    ///
    /// # Errors
    ///
    /// Returns a bug error if `position` is before the current one.
    pub fn skip_to(&mut self, position: u64) -> Result<()> {
        let Some(distance) = position.checked_sub(self.position) else {
            return Err(Error::bug(format!(
                "{}: byte {position} is requested after byte {}",
                self.uri, self.position
            )));
        };
        let there = match &self.origin {
            Origin::Disk { block, used, .. } => block.len() - used,
            Origin::Bucket { current, .. } => current.len(),
        };
        self.take(there.min(distance as usize));
        self.position = position;
        Ok(())
    }

    /// Returns the received bytes from the position on that are contiguous in memory.
    fn current(&self) -> &[u8] {
        match &self.origin {
            Origin::Disk { block, used, .. } => &block[*used..],
            Origin::Bucket { current, .. } => current.chunk(),
        }
    }

    /// Consumes bytes of the current buffer.
    fn take(&mut self, count: usize) {
        match &mut self.origin {
            Origin::Disk { used, .. } => *used += count,
            Origin::Bucket { current, .. } => current.advance(count),
        }
        self.position += count as u64;
    }

    /// Returns the number of bytes requested and not yet in use.
    fn ahead(&self) -> u64 {
        match &self.origin {
            Origin::Disk { .. } => 0,
            Origin::Bucket { in_flight, .. } => {
                in_flight.iter().map(|request| length(&request.range)).sum()
            }
        }
    }

    /// Returns the range of the next request and removes it from the announced ranges.
    fn next_range(&mut self) -> Option<Range<u64>> {
        let next = self.announced.front_mut()?;
        let end = next.end.min(next.start + self.read_ahead.window);
        let range = next.start..end;
        next.start = end;
        if next.is_empty() {
            self.announced.pop_front();
        }
        Some(range)
    }

    /// Sends requests to the bucket until enough bytes are in flight.
    fn send_requests(&mut self) {
        while self.ahead() < self.read_ahead.ahead {
            let Some(range) = self.next_range() else {
                return;
            };
            let Origin::Bucket {
                client, in_flight, ..
            } = &mut self.origin
            else {
                return;
            };
            let (operator, path) = (client.operator.clone(), self.path.clone());
            let can_compare = operator.info().capability().read_with_if_match;
            let etag = self.etag.clone().filter(|_| can_compare);
            let requested = range.clone();
            let bytes = client.io.spawn(async move {
                let read = operator.read_with(&path).range(requested);
                match etag {
                    Some(etag) => read.if_match(&etag).await,
                    None => read.await,
                }
            });
            in_flight.push_back(InFlight { range, bytes });
        }
    }

    /// Receives the next window and moves to the position in it.
    fn advance(&mut self) -> Result<()> {
        let stop = match &self.origin {
            Origin::Disk { disk, .. } => &disk.stop,
            Origin::Bucket { client, .. } => &client.io.stop,
        };
        stop.check()?;
        let range = match &self.origin {
            Origin::Disk { .. } => self.read_block()?,
            Origin::Bucket { .. } => self.receive()?,
        };
        let not_announced = || {
            Error::bug(format!(
                "{}: byte {} is read, but not announced",
                self.uri, self.position
            ))
        };
        let Some(range) = range.filter(|range| range.start <= self.position) else {
            return Err(not_announced());
        };
        let skipped = (self.position - range.start).min(length(&range)) as usize;
        match &mut self.origin {
            Origin::Disk { used, .. } => *used = skipped,
            Origin::Bucket { current, .. } => current.advance(skipped),
        }
        Ok(())
    }

    fn read_block(&mut self) -> Result<Option<Range<u64>>> {
        let Some(mut range) = self.next_range() else {
            return Ok(None);
        };
        let Origin::Disk {
            disk, file, block, ..
        } = &mut self.origin
        else {
            return Ok(None);
        };
        // Bytes before the position are skipped.
        range.start = self.position.clamp(range.start, range.end);
        let wrong = |e: &io::Error| {
            let error = disk::error(e, &self.uri);
            match e.kind() {
                io::ErrorKind::UnexpectedEof => error.hint("the object has changed"),
                _ => error,
            }
        };
        let file = match file {
            Some(file) => file,
            none => none.insert(disk.open(&self.path).map_err(|e| wrong(&e))?),
        };
        block.resize(length(&range) as usize, 0);
        let read = file.read_exact_at(block, range.start);
        read.map_err(|e| wrong(&e))?;
        Ok(Some(range))
    }

    fn receive(&mut self) -> Result<Option<Range<u64>>> {
        self.send_requests();
        let Origin::Bucket {
            client,
            in_flight,
            current,
        } = &mut self.origin
        else {
            return Ok(None);
        };
        *current = Buffer::new();
        let Some(InFlight { range, bytes }) = in_flight.pop_front() else {
            return Ok(None);
        };
        let fetched = client.wait(async {
            bytes.await.unwrap_or_else(|e| {
                let message = format!("the request's task ended: {e}");
                Err(opendal::Error::new(ErrorKind::Unexpected, message))
            })
        });
        let buffer = fetched.map_err(|e| client.error(&e, &self.uri))?;
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
        *current = buffer;
        // Sends further requests while the caller uses these bytes.
        self.send_requests();
        Ok(Some(range))
    }
}

fn length(range: &Range<u64>) -> u64 {
    range.end - range.start
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let current = self.fill_buf()?;
        let length = buffer.len().min(current.len());
        buffer[..length].copy_from_slice(&current[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for ObjectReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.position < self.size && self.current().is_empty() {
            lift(self.advance())?;
        }
        Ok(self.current())
    }

    fn consume(&mut self, count: usize) {
        self.take(count);
    }
}

impl Drop for ObjectReader {
    fn drop(&mut self) {
        if let Origin::Bucket { in_flight, .. } = &self.origin {
            for request in in_flight {
                request.bytes.abort();
            }
        }
    }
}

/// Writes a new object, which becomes visible on [`finish`](Self::finish).
pub struct ObjectWriter {
    sink: Sink,
    pending: BytesMut,
    /// The number of bytes that are hashed and sent at once.
    part: usize,
    path: String,
    uri: String,
    bytes: u64,
    hasher: blake3::Hasher,
    /// The hashes of the blocks, if requested.
    blocks: Option<Blocks>,
}

/// Parts consist of whole blocks, so that each block is hashed while it is in memory.
const _: () = assert!(BLOCK == Blocks::SIZE && PART.is_multiple_of(Blocks::SIZE));

enum Sink {
    Disk(NewFile),
    Bucket { client: Client, writer: Writer },
    Finished,
}

impl ObjectWriter {
    pub(crate) fn open(backend: &Backend, path: &str, uri: String) -> Result<Self> {
        let (sink, part) = match backend {
            Backend::Disk(disk) => {
                let file = disk.create(path).map_err(|e| disk::write_error(&e, &uri))?;
                (Sink::Disk(file), BLOCK)
            }
            Backend::Bucket { client, prefix } => {
                let full = format!("{prefix}{path}");
                let writer = client.wait(async {
                    let writer = client.operator.writer_with(&full);
                    if client.is_remote() {
                        writer.concurrent(PARTS_IN_FLIGHT).await
                    } else {
                        writer.await
                    }
                });
                let sink = Sink::Bucket {
                    writer: writer.map_err(|e| client.error(&e, &uri))?,
                    client: client.clone(),
                };
                (sink, PART)
            }
        };
        Ok(Self {
            sink,
            pending: BytesMut::new(),
            part,
            path: path.to_owned(),
            uri,
            bytes: 0,
            hasher: blake3::Hasher::new(),
            blocks: None,
        })
    }

    /// Also hashes each block of the object, so that byte ranges can be verified.
    pub(crate) fn with_blocks(mut self) -> Self {
        self.blocks = Some(Blocks::default());
        self
    }

    fn send(&mut self) -> Result<()> {
        self.hasher.update(&self.pending);
        if let Some(blocks) = &mut self.blocks {
            let pending = self.pending.chunks(Blocks::SIZE);
            pending.for_each(|block| blocks.push(block));
        }
        self.bytes += self.pending.len() as u64;
        match &mut self.sink {
            Sink::Disk(file) => {
                let written = file.write(&self.pending);
                self.pending.clear();
                written.map_err(|e| disk::write_error(&e, &self.uri))
            }
            Sink::Bucket { client, writer } => {
                let sent = client.wait(writer.write(self.pending.split().freeze()));
                sent.map_err(|e| client.error(&e, &self.uri))
            }
            Sink::Finished => Err(Error::bug(format!(
                "{}: written to after its end",
                self.uri
            ))),
        }
    }

    /// Sends the remaining bytes and makes the object visible. Returns its path, size and hashes.
    ///
    /// # Errors
    ///
    /// Returns a storage error if the last part or the completion of the upload fails, and a bug
    /// error if the path is not a valid output path.
    pub fn finish(mut self) -> Result<Output> {
        if !self.pending.is_empty() {
            self.send()?;
        }
        match std::mem::replace(&mut self.sink, Sink::Finished) {
            Sink::Disk(file) => {
                let finished = file.finish();
                finished.map_err(|e| disk::write_error(&e, &self.uri))?;
            }
            Sink::Bucket { client, mut writer } => {
                let closed = client.wait(writer.close());
                if let Err(e) = closed {
                    self.sink = Sink::Bucket {
                        client: client.clone(),
                        writer,
                    };
                    return Err(match e.kind() {
                        // The answer to an earlier try was lost, or the upload was cleaned up by
                        // someone else.
                        ErrorKind::NotFound => {
                            Error::transient(format!("{}: the upload is gone", self.uri))
                        }
                        _ => client.error(&e, &self.uri),
                    });
                }
            }
            Sink::Finished => {}
        }
        Ok(Output {
            path: OutputPath::new(std::mem::take(&mut self.path))?,
            bytes: self.bytes,
            blake3: self.hasher.finalize().to_hex().to_string(),
            blocks: self.blocks.take().unwrap_or_default(),
        })
    }
}

impl Write for ObjectWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        // All parts have exactly the same size: some stores require it.
        let taken = buffer.len().min(self.part - self.pending.len());
        if self.pending.is_empty() {
            // A buffer that grows in steps would fragment the heap.
            self.pending.reserve(self.part);
        }
        self.pending.extend_from_slice(&buffer[..taken]);
        if self.pending.len() == self.part {
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
        let sink = std::mem::replace(&mut self.sink, Sink::Finished);
        if let Sink::Bucket { client, writer } = sink {
            // The store would keep the parts of an unfinished upload, and charge for them.
            if let Err(e) = client.abort(writer) {
                let what = crate::client::describe(&e);
                tracing::warn!(object = self.uri, "an unfinished upload may remain: {what}");
            }
        }
    }
}
