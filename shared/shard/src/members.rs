//! Members at known places, read front to back in one pass over a shard.

use std::io::{self, Read};

use crate::event::Limits;
use crate::source::{Fault, Source};

/// Gives the bytes of members whose offsets an earlier reading told, compressed shards included.
pub struct MemberReader<R: Read> {
    source: Source<R>,
}

impl<R: Read> MemberReader<R> {
    /// Begins at the start of the shard. Err only when the reader below fails.
    pub fn new(reader: R, limits: Limits) -> io::Result<Self> {
        let source = Source::new(reader, &limits)?;
        Ok(Self { source })
    }

    /// The `size` bytes at `offset` of the (decompressed) tar. Offsets must not decrease from call
    /// to call. A shard that ends before is [`io::ErrorKind::UnexpectedEof`], one whose compression
    /// is broken [`io::ErrorKind::InvalidData`]; other errors are the reader's below.
    pub fn read_at(&mut self, offset: u64, size: u64) -> io::Result<Vec<u8>> {
        let mut gap = offset.checked_sub(self.source.position()).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "members are read in order")
        })?;
        let mut scratch = [0; 16 << 10];
        while gap > 0 {
            let part = gap.min(scratch.len() as u64) as usize;
            self.fill(&mut scratch[..part])?;
            gap -= part as u64;
        }
        let mut data = vec![0; size as usize];
        self.fill(&mut data)?;
        Ok(data)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        match self.source.fill(buffer) {
            Ok(filled) if filled == buffer.len() => Ok(()),
            Ok(_) => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the shard ends inside a member",
            )),
            Err(Fault::Io(e)) => Err(e),
            Err(Fault::Damage(damage)) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                damage.to_string(),
            )),
        }
    }
}
