//! Members at known places, read front to back in one pass over a shard.

use std::io::{self, Read};

use crate::event::Limits;
use crate::source::TarBytes;

/// Gives the bytes of members whose offsets an earlier reading told, compressed shards included.
pub struct MemberReader<R: Read> {
    tar: TarBytes<R>,
}

impl<R: Read> MemberReader<R> {
    /// Begins at the start of the shard. Err only when the reader below fails.
    pub fn new(reader: R, limits: &Limits) -> io::Result<Self> {
        let tar = TarBytes::new(reader, limits)?;
        Ok(Self { tar })
    }

    /// The `size` bytes at `offset` of the (decompressed) tar. Offsets must not decrease from call
    /// to call. A shard that ends before is [`io::ErrorKind::UnexpectedEof`], one whose compression
    /// is broken [`io::ErrorKind::InvalidData`]; other errors are the reader's below.
    pub fn read_at(&mut self, offset: u64, size: u64) -> io::Result<Vec<u8>> {
        let skip = offset.checked_sub(self.tar.position());
        let skip = skip.ok_or_else(|| io::Error::other("members are read in order"))?;
        io::copy(&mut (&mut self.tar).take(skip), &mut io::sink())?;
        let mut data = vec![0; size as usize];
        self.tar.read_exact(&mut data)?;
        Ok(data)
    }
}
