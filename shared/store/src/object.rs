//! Objects as streams: stretches fetched several requests ahead, and new objects written in parts.

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
use crate::store::Place;

/// An object store asks for parts of 5 MiB at least.
const PART: usize = 5 << 20;
/// What a file is written in: it fits a core's cache, so that hashing and writing read it there.
const BLOCK: usize = 256 << 10;
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

/// A read from local disk costs little, the kernel reads ahead, and what fits a core's cache is
/// there when it is used.
const NEAR: Pace = Pace {
    window: BLOCK as u64,
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
    origin: Origin,
    path: String,
    uri: String,
    size: u64,
    /// The entity tag that a bucket's object must have.
    etag: Option<String>,
    pace: Pace,
    /// What is wanted and not asked for yet, in order and apart by more than a gap.
    wanted: VecDeque<Range<u64>>,
    position: u64,
}

/// Where the bytes come from, and those from the reader's position on, as far as they are there.
enum Origin {
    Disk {
        disk: Disk,
        /// Opened with the first read.
        file: Option<File>,
        /// Used again for every read.
        block: Vec<u8>,
        used: usize,
    },
    Bucket {
        client: Client,
        asked: VecDeque<Asked>,
        current: Buffer,
    },
}

struct Asked {
    range: Range<u64>,
    bytes: JoinHandle<opendal::Result<Buffer>>,
}

impl ObjectReader {
    pub(crate) fn new(place: &Place, path: &str, uri: String, size: u64) -> Self {
        let (origin, path, pace) = match place {
            Place::Disk(disk) => {
                let origin = Origin::Disk {
                    disk: disk.clone(),
                    file: None,
                    block: Vec::new(),
                    used: 0,
                };
                (origin, path.to_owned(), NEAR)
            }
            Place::Bucket { client, prefix } => {
                let origin = Origin::Bucket {
                    client: client.clone(),
                    asked: VecDeque::new(),
                    current: Buffer::new(),
                };
                (origin, format!("{prefix}{path}"), FAR)
            }
        };
        Self {
            origin,
            path,
            uri,
            size,
            etag: None,
            pace,
            wanted: VecDeque::new(),
            position: 0,
        }
    }

    /// Reads the object with this entity tag and no other, where the store can compare.
    #[must_use]
    pub fn only(mut self, etag: Option<&str>) -> Self {
        // As HTTP has it.
        self.etag = etag.map(|etag| format!("\"{etag}\""));
        self
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

    /// Requests what is wanted now, not with the first read. Local disk has no need of it.
    pub fn request(&mut self) {
        if let Origin::Bucket { .. } = self.origin {
            self.ask();
        }
    }

    /// Returns the position of the next byte.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Goes to a later byte.
    pub fn skip_to(&mut self, position: u64) -> Result<()> {
        let Some(distance) = position.checked_sub(self.position) else {
            return Err(Error::bug(format!(
                "{}: byte {position} is asked for after byte {}",
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

    /// The bytes from the position on that are there in one piece.
    fn current(&self) -> &[u8] {
        match &self.origin {
            Origin::Disk { block, used, .. } => &block[*used..],
            Origin::Bucket { current, .. } => current.chunk(),
        }
    }

    /// Is done with so many of the current bytes.
    fn take(&mut self, count: usize) {
        match &mut self.origin {
            Origin::Disk { used, .. } => *used += count,
            Origin::Bucket { current, .. } => current.advance(count),
        }
        self.position += count as u64;
    }

    /// Bytes asked for and not in use yet.
    fn ahead(&self) -> u64 {
        match &self.origin {
            Origin::Disk { .. } => 0,
            Origin::Bucket { asked, .. } => asked.iter().map(|asked| length(&asked.range)).sum(),
        }
    }

    /// The range of the next request, out of what is wanted.
    fn next_range(&mut self) -> Option<Range<u64>> {
        let stretch = self.wanted.front_mut()?;
        let end = stretch.end.min(stretch.start + self.pace.window);
        let range = stretch.start..end;
        stretch.start = end;
        if stretch.is_empty() {
            self.wanted.pop_front();
        }
        Some(range)
    }

    /// Asks a bucket for what is wanted, as far ahead as the pace allows.
    fn ask(&mut self) {
        while self.ahead() < self.pace.ahead {
            let Some(range) = self.next_range() else {
                return;
            };
            let Origin::Bucket { client, asked, .. } = &mut self.origin else {
                return;
            };
            let (operator, path) = (client.operator.clone(), self.path.clone());
            let can_compare = operator.info().capability().read_with_if_match;
            let etag = self.etag.clone().filter(|_| can_compare);
            let wish = range.clone();
            let bytes = client.io.spawn(async move {
                let read = operator.read_with(&path).range(wish);
                match etag {
                    Some(etag) => read.if_match(&etag).await,
                    None => read.await,
                }
            });
            asked.push_back(Asked { range, bytes });
        }
    }

    /// Takes the next stretch's bytes, and goes to the position in them.
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
        let not_wanted = || {
            Error::bug(format!(
                "{}: byte {} is read, but not wanted",
                self.uri, self.position
            ))
        };
        let Some(range) = range.filter(|range| range.start <= self.position) else {
            return Err(not_wanted());
        };
        let behind = (self.position - range.start).min(length(&range)) as usize;
        match &mut self.origin {
            Origin::Disk { used, .. } => *used = behind,
            Origin::Bucket { current, .. } => current.advance(behind),
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
        // What lies before the position is passed over.
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
        self.ask();
        let Origin::Bucket {
            client,
            asked,
            current,
        } = &mut self.origin
        else {
            return Ok(None);
        };
        *current = Buffer::new();
        let Some(Asked { range, bytes }) = asked.pop_front() else {
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
        // More requests go out while this one's bytes are in use.
        self.ask();
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
        if let Origin::Bucket { asked, .. } = &self.origin {
            for asked in asked {
                asked.bytes.abort();
            }
        }
    }
}

/// A new object that appears on [`finish`](Self::finish).
pub struct ObjectWriter {
    sink: Sink,
    pending: BytesMut,
    /// Bytes that are hashed and sent at once.
    part: usize,
    path: String,
    uri: String,
    bytes: u64,
    hasher: blake3::Hasher,
    /// The hashes of the blocks, where they are asked for.
    blocks: Option<Blocks>,
}

/// Parts are whole blocks, so that each is hashed while it is at hand.
const _: () = assert!(BLOCK == Blocks::SIZE && PART.is_multiple_of(Blocks::SIZE));

enum Sink {
    Disk(NewFile),
    Bucket { client: Client, writer: Writer },
    Finished,
}

impl ObjectWriter {
    pub(crate) fn open(place: &Place, path: &str, uri: String) -> Result<Self> {
        let (sink, part) = match place {
            Place::Disk(disk) => {
                let file = disk.create(path).map_err(|e| disk::write_error(&e, &uri))?;
                (Sink::Disk(file), BLOCK)
            }
            Place::Bucket { client, prefix } => {
                let full = format!("{prefix}{path}");
                let writer = client.wait(async {
                    let writer = client.operator.writer_with(&full);
                    match client.is_remote() {
                        true => writer.concurrent(PARTS_IN_FLIGHT).await,
                        false => writer.await,
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

    /// Hashes the blocks of the object too, so that its parts can be checked.
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

    /// Makes the object appear, and says what was written.
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
                        // The answer to an earlier try was lost, or somebody cleaned up: the upload is gone.
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
        // Parts are of one size to the byte: some stores insist.
        let taken = buffer.len().min(self.part - self.pending.len());
        if self.pending.is_empty() {
            // A part that grew bit by bit would leave holes of all sizes in the heap.
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
            // Parts of an object that was never to appear would be kept, and paid for.
            if let Err(e) = client.abort(writer) {
                let what = crate::client::words(&e);
                tracing::warn!(object = self.uri, "an unfinished upload may remain: {what}");
            }
        }
    }
}
