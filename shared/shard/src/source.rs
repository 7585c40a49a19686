//! The decompressed bytes of a shard. Separates two failures that `io::Error` does not distinguish:
//! the underlying reader failed (storage, network: a retry may help), or the data is damaged (a
//! retry never helps).
//!
//! Decoders pass on errors of the underlying reader, wrapped or not. So that reader is wrapped: its
//! error is recorded, and an error from a decoder without a recorded one is damage.

use std::io::{self, BufReader, Chain, Cursor, Read};
use std::sync::{Arc, Mutex, PoisonError};

use crate::event::{Compression, Damage, DamageKind, ShardLimits};
use crate::header::{self, BLOCK};
use crate::inflate::{EarlyEnd, Inflated};

const BUFFER: usize = 64 << 10;

/// Why reading ended.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The underlying reader failed.
    Io(io::Error),
    /// The data is damaged.
    Damage(Damage),
}

/// The recorded error of the underlying reader.
type Watch = Arc<Mutex<Option<io::Error>>>;

#[derive(Debug)]
struct Watched<R> {
    inner: R,
    watch: Watch,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.inner.read(buf) {
                Ok(n) => return Ok(n),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let kind = error.kind();
                    *self.watch.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    return Err(kind.into());
                }
            }
        }
    }
}

type Buffered<R> = BufReader<Chain<Cursor<Vec<u8>>, Watched<R>>>;

enum Stream<R: Read> {
    Plain(Buffered<R>),
    Packed(Box<Inflated<Buffered<R>>>),
}

/// The decompressed bytes of a shard, read sequentially, counted and limited.
pub(crate) struct TarStream<R: Read> {
    stream: Stream<R>,
    watch: Watch,
    position: u64,
    compression: Compression,
}

impl<R: Read> TarStream<R> {
    /// Detects the compression from the first block. A valid tar header is a tar, whatever bytes
    /// its name starts with.
    pub(crate) fn new(reader: R, limits: &ShardLimits) -> io::Result<Self> {
        let watch = Watch::default();
        let mut watched = Watched {
            inner: reader,
            watch: Arc::clone(&watch),
        };
        let mut head = Vec::with_capacity(BLOCK);
        if let Err(error) = (&mut watched).take(BLOCK as u64).read_to_end(&mut head) {
            return Err(taken(&watch).unwrap_or(error));
        }
        let compression = detect(&head);
        let buffered = BufReader::with_capacity(BUFFER, Cursor::new(head).chain(watched));
        let stream = match compression {
            Compression::None => Stream::Plain(buffered),
            Compression::Gzip => Stream::Packed(Box::new(Inflated::gzip(buffered, limits))),
            Compression::Zstd => Stream::Packed(Box::new(Inflated::zstd(buffered, limits)?)),
        };
        Ok(Self {
            stream,
            watch,
            position: 0,
            compression,
        })
    }

    pub(crate) fn compression(&self) -> Compression {
        self.compression
    }

    /// Returns the number of decompressed bytes read so far.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Returns whether bytes after the gzip stream are not gzip.
    pub(crate) fn compressed_garbage(&self) -> bool {
        matches!(&self.stream, Stream::Packed(packed) if packed.has_garbage())
    }

    /// Reads until `buf` is full or the shard ends. Returns the number of bytes read.
    pub(crate) fn fill(&mut self, buf: &mut [u8]) -> Result<usize, Fault> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.read(&mut buf[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        Ok(filled)
    }

    /// Reads the next bytes. Damage is returned after all bytes before it, whatever the size of
    /// `buf`.
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, Fault> {
        let outcome = match &mut self.stream {
            Stream::Plain(reader) => reader.read(buf).map_err(EarlyEnd::Failed),
            Stream::Packed(packed) => packed.read(buf),
        };
        let count = outcome.map_err(|stop| match stop {
            EarlyEnd::Failed(error) => self.fault(&error),
            EarlyEnd::TooMuch {
                compressed,
                allowed,
            } => self.inflates_too_much(compressed, allowed),
        })?;
        self.position += count as u64;
        Ok(count)
    }

    fn inflates_too_much(&self, compressed: u64, allowed: u64) -> Fault {
        Fault::Damage(Damage {
            offset: self.position,
            kind: DamageKind::InflatesTooMuch,
            detail: format!(
                "{compressed} bytes of {} inflate to more than {allowed}",
                self.compression.as_str()
            ),
        })
    }

    fn fault(&self, error: &io::Error) -> Fault {
        if let Some(failure) = taken(&self.watch) {
            return Fault::Io(failure);
        }
        let name = self.compression.as_str();
        let (kind, what) = match error.kind() {
            io::ErrorKind::UnexpectedEof => (DamageKind::CompressedTruncated, "ends too early"),
            _ => (DamageKind::CompressedCorrupt, "is broken"),
        };
        Fault::Damage(Damage {
            offset: self.position,
            kind,
            detail: format!("the {name} stream {what}: {error}"),
        })
    }
}

/// The bytes of a shard as a plain tar, whatever its compression. A [`Member`]'s offset is a
/// position in them. Forward only.
///
/// [`Member`]: crate::Member
pub struct TarBytes<R: Read>(TarStream<R>);

impl<R: Read> TarBytes<R> {
    /// Starts at the shard's first byte.
    ///
    /// # Errors
    ///
    /// Returns the error of `reader` if the first block cannot be read, and zstd's error if its
    /// decoder cannot be created.
    pub fn new(reader: R, limits: &ShardLimits) -> io::Result<Self> {
        TarStream::new(reader, limits).map(Self)
    }

    /// Returns the number of bytes read so far.
    pub fn position(&self) -> u64 {
        self.0.position()
    }
}

impl<R: Read> Read for TarBytes<R> {
    /// Fails with the underlying reader's errors, and with `InvalidData` if the shard is damaged,
    /// once all bytes before the damage were read.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf).map_err(|fault| match fault {
            Fault::Io(error) => error,
            Fault::Damage(damage) => io::Error::new(io::ErrorKind::InvalidData, damage.to_string()),
        })
    }
}

fn taken(watch: &Watch) -> Option<io::Error> {
    watch.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn detect(head: &[u8]) -> Compression {
    if head.len() == BLOCK && header::checksum_holds(head) {
        return Compression::None;
    }
    match head {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        // A frame, or a skippable frame, which some tools put first.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        _ => Compression::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compression_is_told_by_content() {
        assert_eq!(detect(b""), Compression::None);
        assert_eq!(detect(&[0x1f, 0x8b, 8]), Compression::Gzip);
        assert_eq!(detect(&[0x28, 0xb5, 0x2f, 0xfd]), Compression::Zstd);
        assert_eq!(detect(&[0x51, 0x2a, 0x4d, 0x18]), Compression::Zstd);
        assert_eq!(detect(b"a text"), Compression::None);
    }

    #[test]
    fn tar_bytes_are_inflated_up_to_the_damage() {
        let content: Vec<u8> = (0..200_000_u64).map(|i| (i * i / 128) as u8).collect();
        let packed = zstd::encode_all(content.as_slice(), 3).unwrap();
        let mut whole = TarBytes::new(packed.as_slice(), &ShardLimits::default()).unwrap();
        let mut inflated = Vec::new();
        whole.read_to_end(&mut inflated).unwrap();
        assert!(inflated == content && whole.position() == 200_000);
        let cut = &packed[..packed.len() / 2];
        let mut cut = TarBytes::new(cut, &ShardLimits::default()).unwrap();
        let error = cut.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
