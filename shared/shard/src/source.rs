//! The decompressed bytes of a shard, with two things told apart that `io::Error` mixes up:
//! the reader below failed (storage, network: worth another try) or the data is broken (never is).
//!
//! Decoders pass errors of the reader below on, wrapped or not. So the reader below is watched:
//! what it fails with is laid aside, and an error that comes out of a decoder while nothing was
//! laid aside is the data's fault.

use std::io::{self, BufReader, Chain, Cursor, Read};
use std::sync::{Arc, Mutex, PoisonError};

use crate::event::{Compression, Damage, DamageKind, Limits};
use crate::header::{self, BLOCK};
use crate::inflate::{Inflated, Stop};

const BUFFER: usize = 64 << 10;

/// Why reading stopped.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The reader below failed.
    Io(io::Error),
    /// The data is broken.
    Damage(Damage),
}

/// What the watched reader failed with.
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

/// The decompressed bytes of a shard, from front to back, counted and bounded.
pub(crate) struct Source<R: Read> {
    stream: Stream<R>,
    watch: Watch,
    position: u64,
    compression: Compression,
}

impl<R: Read> Source<R> {
    /// Looks at the first block to tell the compression. A first block that is a sound tar header
    /// is a tar, whatever bytes its name begins with.
    pub(crate) fn new(reader: R, limits: &Limits) -> io::Result<Self> {
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

    /// Decompressed bytes handed out so far.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Whether bytes that are no gzip follow the gzip stream.
    pub(crate) fn compressed_garbage(&self) -> bool {
        matches!(&self.stream, Stream::Packed(packed) if packed.has_garbage())
    }

    /// Reads until `buf` is full or the shard ends; gives the bytes read.
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

    /// Reads the next bytes. Damage comes after all bytes before it, whatever the size of `buf`.
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, Fault> {
        let outcome = match &mut self.stream {
            Stream::Plain(reader) => reader.read(buf).map_err(Stop::Failed),
            Stream::Packed(packed) => packed.read(buf),
        };
        let count = outcome.map_err(|stop| match stop {
            Stop::Failed(error) => self.fault(&error),
            Stop::TooMuch {
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

/// The bytes of a shard as a plain tar, whatever its packing: those that a [`Member`]'s offset
/// counts in. Forward only.
///
/// [`Member`]: crate::Member
pub struct TarBytes<R: Read>(Source<R>);

impl<R: Read> TarBytes<R> {
    /// Begins at the shard's first byte.
    ///
    /// # Errors
    /// Those of the reader.
    pub fn new(reader: R, limits: &Limits) -> io::Result<Self> {
        Source::new(reader, limits).map(Self)
    }

    /// Bytes read so far.
    pub fn position(&self) -> u64 {
        self.0.position()
    }
}

impl<R: Read> Read for TarBytes<R> {
    /// Fails with the reader's errors, and with `InvalidData` where the shard is broken, once all bytes
    /// before the damage were read.
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
        // A frame, or a skippable frame, which tools put first for their own use.
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
        let mut whole = TarBytes::new(packed.as_slice(), &Limits::default()).unwrap();
        let mut inflated = Vec::new();
        whole.read_to_end(&mut inflated).unwrap();
        assert!(inflated == content && whole.position() == 200_000);
        let cut = &packed[..packed.len() / 2];
        let mut cut = TarBytes::new(cut, &Limits::default()).unwrap();
        let error = cut.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
