//! Decompression that returns every byte before damage.
//!
//! The readers of flate2 and zstd return an error in place of the bytes decoded in the same call.
//! How far a damaged stream can be read then depends on the sizes of the reads. This module decodes
//! in blocks of a fixed size, and returns an error only after all bytes before it. So every reader
//! of a stream reaches the same byte, whatever its read sizes.

use std::io::{self, BufRead, Read};

use flate2::{Crc, Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use crate::event::ShardLimits;

/// The number of bytes decoded at once. Larger than deflate's window (32 KiB), which miniz_oxide
/// fills before it returns any bytes.
const BLOCK: usize = 64 << 10;
/// The largest supported zstd window: 128 MiB, as in the `zstd` tool.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// The size of a zstd block's header.
const ZSTD_BLOCK_HEADER: usize = 3;

/// Why decompression ended early.
#[derive(Debug)]
pub(crate) enum EarlyEnd {
    /// The stream is invalid, or the underlying reader failed.
    Failed(io::Error),
    /// `compressed` bytes decompressed to more than `allowed` bytes.
    TooMuch { compressed: u64, allowed: u64 },
}

/// The number of bytes written by one step of a decoder, and whether more may follow.
type DecodeStep = (usize, io::Result<bool>);

enum Codec<B> {
    Gzip(Gzip<B>),
    Zstd(Zstd<B>),
}

/// A decompressed stream, limited by [`ShardLimits`].
pub(crate) struct Inflated<B> {
    codec: Codec<B>,
    limits: ShardLimits,
    block: Vec<u8>,
    /// The start of the unread part of the block.
    next: usize,
    length: usize,
    /// The number of bytes decoded so far.
    total: u64,
    /// The error to return after the block, if any.
    stop: Option<EarlyEnd>,
    is_ended: bool,
}

impl<B: BufRead> Inflated<B> {
    pub(crate) fn gzip(input: B, limits: &ShardLimits) -> Self {
        Self::new(Codec::Gzip(Gzip::new(input)), limits)
    }

    pub(crate) fn zstd(input: B, limits: &ShardLimits) -> io::Result<Self> {
        Ok(Self::new(Codec::Zstd(Zstd::new(input)?), limits))
    }

    fn new(codec: Codec<B>, limits: &ShardLimits) -> Self {
        Self {
            codec,
            limits: limits.clone(),
            block: vec![0; BLOCK],
            next: 0,
            length: 0,
            total: 0,
            stop: None,
            is_ended: false,
        }
    }

    /// Returns whether bytes after the gzip stream are not gzip.
    pub(crate) fn has_garbage(&self) -> bool {
        matches!(&self.codec, Codec::Gzip(gzip) if gzip.at == At::Garbage)
    }

    /// Reads the next bytes. Returns 0 at the end. An error is returned once, after all bytes
    /// before it.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> Result<usize, EarlyEnd> {
        while self.next == self.length && !self.is_ended {
            self.refill();
        }
        let count = buf.len().min(self.length - self.next);
        if count == 0 && !buf.is_empty() {
            return self.stop.take().map_or(Ok(0), Err);
        }
        buf[..count].copy_from_slice(&self.block[self.next..][..count]);
        self.next += count;
        Ok(count)
    }

    /// Decodes until the block is full or the stream ends.
    fn refill(&mut self) {
        (self.next, self.length) = (0, 0);
        while self.length < BLOCK && !self.is_ended {
            let out = &mut self.block[self.length..];
            let (written, outcome) = match &mut self.codec {
                Codec::Gzip(gzip) => gzip.step(out),
                Codec::Zstd(zstd) => zstd.step(out),
            };
            self.length += written;
            match outcome {
                Ok(more) => self.is_ended = !more,
                Err(e) => self.end(EarlyEnd::Failed(e)),
            }
        }
        self.bound();
    }

    /// Ends the stream if it exceeds the limits.
    fn bound(&mut self) {
        let compressed = match &self.codec {
            Codec::Gzip(gzip) => gzip.input.consumed,
            Codec::Zstd(zstd) => zstd.input.consumed,
        };
        let allowed = compressed
            .saturating_mul(self.limits.max_inflate_ratio)
            .max(self.limits.inflate_ratio_from)
            .min(self.limits.max_inflated_bytes);
        let room = allowed.saturating_sub(self.total);
        if self.length as u64 > room {
            self.length = room as usize;
            self.end(EarlyEnd::TooMuch {
                compressed,
                allowed,
            });
        }
        self.total += self.length as u64;
    }

    fn end(&mut self, stop: EarlyEnd) {
        self.stop = Some(stop);
        self.is_ended = true;
    }
}

/// MemberCounts the bytes that a decoder consumed.
struct CountingReader<B> {
    inner: B,
    consumed: u64,
}

impl<B> CountingReader<B> {
    fn new(inner: B) -> Self {
        Self { inner, consumed: 0 }
    }
}

impl<B: BufRead> Read for CountingReader<B> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buf)?;
        self.consumed += count as u64;
        Ok(count)
    }
}

impl<B: BufRead> BufRead for CountingReader<B> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.inner.consume(count);
        self.consumed += count as u64;
    }
}

/// The next part of a gzip stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Header,
    Data,
    Trailer,
    End,
    /// The end, followed by bytes that are not gzip.
    Garbage,
}

/// Decodes concatenated gzip members (RFC 1952). Bytes after the last member that are not gzip
/// (padding, garbage) end the stream.
struct Gzip<B> {
    input: CountingReader<B>,
    inflate: Decompress,
    crc: Crc,
    at: At,
}

impl<B: BufRead> Gzip<B> {
    fn new(input: B) -> Self {
        Self {
            input: CountingReader::new(input),
            inflate: Decompress::new(false),
            crc: Crc::new(),
            at: At::Header,
        }
    }

    fn step(&mut self, out: &mut [u8]) -> DecodeStep {
        let passed = match self.at {
            At::Data => return self.inflate(out),
            At::Header => self.header(),
            At::Trailer => self.trailer(),
            At::End | At::Garbage => return (0, Ok(false)),
        };
        (0, passed.map(|()| true))
    }

    /// Skips a member's header.
    fn header(&mut self) -> io::Result<()> {
        const HAS_CRC: u8 = 2;
        const HAS_EXTRA: u8 = 4;
        const HAS_NAME: u8 = 8;
        const HAS_COMMENT: u8 = 16;
        let mut fixed = [0; 10];
        self.input.read_exact(&mut fixed)?;
        let [0x1f, 0x8b, 8, flags, ..] = fixed else {
            return Err(invalid("invalid gzip header"));
        };
        if flags & HAS_EXTRA != 0 {
            let mut length = [0; 2];
            self.input.read_exact(&mut length)?;
            let length = u64::from(u16::from_le_bytes(length));
            io::copy(&mut (&mut self.input).take(length), &mut io::sink())?;
        }
        for text in [HAS_NAME, HAS_COMMENT] {
            if flags & text != 0 {
                self.input.skip_until(0)?;
            }
        }
        if flags & HAS_CRC != 0 {
            self.input.read_exact(&mut [0; 2])?;
        }
        self.at = At::Data;
        Ok(())
    }

    fn inflate(&mut self, out: &mut [u8]) -> DecodeStep {
        let input = match self.input.fill_buf() {
            Ok(input) => input,
            Err(e) => return (0, Err(e)),
        };
        let at_end = input.is_empty();
        let (total_in, total_out) = (self.inflate.total_in(), self.inflate.total_out());
        let outcome = self.inflate.decompress(input, out, FlushDecompress::None);
        let consumed = (self.inflate.total_in() - total_in) as usize;
        let written = (self.inflate.total_out() - total_out) as usize;
        self.input.consume(consumed);
        self.crc.update(&out[..written]);
        let more = match outcome {
            Ok(Status::StreamEnd) => {
                self.at = At::Trailer;
                Ok(true)
            }
            Ok(_) if at_end && written == 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) if consumed == 0 && written == 0 => Err(invalid("corrupt deflate stream")),
            Ok(_) => Ok(true),
            Err(_) => Err(invalid("corrupt deflate stream")),
        };
        (written, more)
    }

    /// Verifies a member's checksum and size, and checks whether another member follows.
    fn trailer(&mut self) -> io::Result<()> {
        let mut sums = [0; 8];
        self.input.read_exact(&mut sums)?;
        let found = u64::from(self.crc.sum()) | u64::from(self.crc.amount()) << 32;
        if u64::from_le_bytes(sums) != found {
            return Err(invalid(
                "corrupt gzip stream does not have a matching checksum",
            ));
        }
        self.at = match self.input.fill_buf()?.first() {
            None => At::End,
            Some(0x1f) => At::Header,
            Some(_) => At::Garbage,
        };
        self.inflate.reset(false);
        self.crc.reset();
        Ok(())
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// Decodes concatenated Zstandard frames.
///
/// When zstd fails, it does not report how much of the output buffer it filled in that call. So a
/// call gets no more input than the decoder needs for one block, and none while output is pending.
/// A call that fails then has produced no output.
struct Zstd<B> {
    input: CountingReader<B>,
    decoder: Decoder<'static>,
    /// The number of bytes that the decoder requested; 0 between frames.
    needed: usize,
    has_output: bool,
}

impl<B: BufRead> Zstd<B> {
    fn new(input: B) -> io::Result<Self> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX))?;
        Ok(Self {
            input: CountingReader::new(input),
            decoder,
            needed: 0,
            has_output: false,
        })
    }

    fn step(&mut self, out: &mut [u8]) -> DecodeStep {
        let input = match self.input.fill_buf() {
            Ok(input) => input,
            Err(e) => return (0, Err(e)),
        };
        if input.is_empty() && !self.has_output {
            return match self.needed {
                0 => (0, Ok(false)),
                _ => (0, Err(io::ErrorKind::UnexpectedEof.into())),
            };
        }
        // The requested size of a block includes the header of the next one, which may be invalid.
        let portion = match self.needed.checked_sub(ZSTD_BLOCK_HEADER) {
            Some(block) if block > 0 => block,
            _ => self.needed.max(1),
        };
        let portion = if self.has_output { 0 } else { portion };
        let mut source = InBuffer::around(&input[..portion.min(input.len())]);
        let room = out.len();
        let mut target = OutBuffer::around(out);
        let outcome = self.decoder.run(&mut source, &mut target);
        let (consumed, written) = (source.pos(), target.pos());
        self.input.consume(consumed);
        self.has_output = written == room;
        let more = outcome.map(|needed| {
            self.needed = needed;
            true
        });
        (written, more)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn content() -> Vec<u8> {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        // Half of it compresses well, the other half not at all.
        (0..300_000_usize)
            .map(|i| {
                if i % 60_000 < 30_000 {
                    (i / 700) as u8
                } else {
                    next()
                }
            })
            .collect()
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        for part in content.chunks(100_000) {
            let encoder = flate2::GzBuilder::new().filename("x").extra(vec![7; 9]);
            let mut encoder = encoder.write(&mut packed, flate2::Compression::fast());
            encoder.write_all(part).unwrap();
            encoder.finish().unwrap();
        }
        packed
    }

    fn zstd(content: &[u8]) -> Vec<u8> {
        let frames = content.chunks(200_000);
        let frames = frames.map(|part| zstd::stream::encode_all(part, 1).unwrap());
        frames.collect::<Vec<_>>().concat()
    }

    /// Reads with buffers of one size. Returns the bytes, and whether there was an error.
    fn read(packed: &[u8], is_gzip: bool, size: usize) -> (Vec<u8>, bool) {
        // The input arrives in pieces of that size, too.
        let input = io::BufReader::with_capacity(size, packed);
        let limits = ShardLimits::default();
        let mut inflated = if is_gzip {
            Inflated::gzip(input, &limits)
        } else {
            Inflated::zstd(input, &limits).unwrap()
        };
        let mut buffer = vec![0; size];
        let mut bytes = Vec::new();
        loop {
            match inflated.read(&mut buffer) {
                Ok(0) => return (bytes, false),
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
                Err(_) => return (bytes, true),
            }
        }
    }

    #[test]
    fn sound_streams_are_read_whole() {
        let content = content();
        for (packed, is_gzip) in [(gzip(&content), true), (zstd(&content), false)] {
            for size in [1000, 4097, 1 << 20] {
                assert!(read(&packed, is_gzip, size) == (content.clone(), false));
            }
        }
        let padded = [gzip(&content), vec![0; 100]].concat();
        assert!(read(&padded, true, 512) == (content, false));
    }

    #[test]
    fn damaged_streams_end_at_the_same_byte_for_every_reader() {
        let content = content();
        for (packed, is_gzip) in [(gzip(&content), true), (zstd(&content), false)] {
            let mut longest = 0;
            for at in (20..packed.len()).step_by(packed.len() / 40) {
                let cut = packed[..at].to_vec();
                let mut flipped = packed.clone();
                flipped[at] ^= 0x55;
                for damaged in [cut, flipped] {
                    let (bytes, failed) = read(&damaged, is_gzip, 1 << 20);
                    for size in [3000, 70_001] {
                        let (others, too) = read(&damaged, is_gzip, size);
                        assert_eq!((others.len(), too), (bytes.len(), failed), "{size} at {at}");
                        assert!(others == bytes);
                    }
                    longest = longest.max(bytes.len());
                }
            }
            assert!(longest > 250_000, "{longest}");
        }
    }

    #[test]
    fn a_cut_loses_less_than_a_block() {
        let content = content();
        let packed = gzip(&content);
        // Nearly all of the stream is present, so nearly all of its bytes are returned.
        let (bytes, failed) = read(&packed[..packed.len() - 9], true, 512);
        assert!(
            failed && bytes.len() + 300 > content.len(),
            "{}",
            bytes.len()
        );
        let packed = zstd(&content);
        let (bytes, failed) = read(&packed[..packed.len() - 1], false, 512);
        assert!(failed && bytes.len() >= 200_000, "{}", bytes.len());
    }
}
