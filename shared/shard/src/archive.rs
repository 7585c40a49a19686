//! Reads a tar as a stream of entries: extended headers are resolved, data is read or skipped.
//!
//! Rules for irregular archives (the README has them as a table):
//! - Blocks of zeros are skipped. A valid header after them is read (concatenated archives). An
//!   invalid one is garbage after two zero blocks, and damage before.
//! - More zeros than end an archive are a gap (a file system's hole, a part that was never
//!   uploaded). The members after it are read, and the shard is damaged.
//! - The archive may end wherever a header could begin, and in the padding after a member. An end
//!   anywhere else is damage.
//! - Sizes in headers never cause an allocation: buffers grow with the bytes received.

use std::io::{self, Read};

use crate::event::{Compression, Damage, DamageKind, Note, NoteKind, ShardLimits};
use crate::header::{self, BLOCK, Header, Pax, Type};
use crate::source::{Fault, TarStream};

const CHUNK: usize = 64 << 10;

/// The most zero blocks that end an archive: those of two of GNU tar's records of 10 KiB, and one.
/// Python's `tarfile` writes one such record at most, other writers two blocks.
const END_BLOCKS: u64 = 41;

/// The kind of an entry, after extended headers are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    File,
    Sparse,
    Directory,
    /// A hard link to an earlier file, named by [`Entry::target`].
    HardLink,
    /// A hard link to an image, with the offset and size of that image.
    Linked,
    Link,
    Device,
    Other,
    /// A file whose long name exceeds the limit.
    NameTooLong,
    /// A file whose extended header is invalid or exceeds the limit.
    BadExtendedHeader,
}

/// One member of the tar. Its data follows and must be read or skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: EntryKind,
    /// The offset of the data.
    pub(crate) offset: u64,
    /// The size of the data in the tar.
    pub(crate) size: u64,
    /// The target of a link.
    pub(crate) target: Vec<u8>,
}

/// The extended headers that precede a member.
#[derive(Debug, Default)]
struct Extended {
    any: bool,
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    pax: Pax,
    name_too_long: bool,
    bad: bool,
}

pub(crate) struct Archive<R: Read> {
    source: TarStream<R>,
    limits: ShardLimits,
    notes: Vec<Note>,
    zero_blocks: u64,
    headers: u64,
    /// The first gap.
    gap: Option<Damage>,
    /// Whether a gap precedes the last header.
    is_after_gap: bool,
}

impl<R: Read> Archive<R> {
    pub(crate) fn new(reader: R, limits: ShardLimits) -> io::Result<Self> {
        Ok(Self {
            source: TarStream::new(reader, &limits)?,
            limits,
            notes: Vec::new(),
            zero_blocks: 0,
            headers: 0,
            gap: None,
            is_after_gap: false,
        })
    }

    pub(crate) fn compression(&self) -> Compression {
        self.source.compression()
    }

    /// Returns the notes since the last call.
    pub(crate) fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// Returns whether an end-of-archive marker precedes the current position, so that everything
    /// read is complete.
    pub(crate) fn at_archive_end(&self) -> bool {
        self.zero_blocks > 0
    }

    /// Returns whether a gap precedes the last member.
    pub(crate) fn is_after_gap(&self) -> bool {
        self.is_after_gap
    }

    /// Returns the next member, or `None` at the end of the shard.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, Fault> {
        let mut extended = Extended::default();
        let mut block = [0_u8; BLOCK];
        loop {
            let at = self.source.position();
            if !self.next_block(&mut block, &extended)? {
                return self
                    .gap
                    .take()
                    .map_or(Ok(None), |gap| Err(Fault::Damage(gap)));
            }
            let Ok(header) = header::parse(&block) else {
                return Err(damage(
                    at,
                    DamageKind::BadSize,
                    "a header gives a size that cannot be",
                ));
            };
            self.headers += 1;
            match header.kind {
                Type::LongName => {
                    match self.extended_data(header.size, self.limits.max_name_bytes)? {
                        Some(name) => extended.name = Some(header::until_nul(&name).to_vec()),
                        None => extended.name_too_long = true,
                    }
                }
                Type::Pax => {
                    let data = self.extended_data(header.size, self.limits.max_extended_bytes)?;
                    match data.as_deref().and_then(header::parse_pax) {
                        Some(pax) => extended.pax = pax,
                        None => extended.bad = true,
                    }
                }
                Type::LongLink => {
                    let target = self.extended_data(header.size, self.limits.max_name_bytes)?;
                    extended.target = target.map(|target| header::until_nul(&target).to_vec());
                    continue;
                }
                // Global pax headers are ignored: those that writers use (comments, times) change
                // neither names nor sizes.
                Type::PaxGlobal => {
                    self.extended_data(header.size, 0)?;
                    continue;
                }
                _ => return self.entry(header, extended).map(Some),
            }
            extended.any = true;
        }
    }

    /// Reads blocks up to the next header. Returns false at the end of the shard.
    fn next_block(&mut self, block: &mut [u8; BLOCK], extended: &Extended) -> Result<bool, Fault> {
        loop {
            let at = self.source.position();
            let read = self.source.fill(block)?;
            let block_read = &block[..read];
            let zeros = block_read.iter().all(|&byte| byte == 0);
            if read == 0 && at == 0 {
                return Err(damage(0, DamageKind::Empty, "the shard has 0 bytes"));
            }
            if extended.any && zeros {
                return Err(damage(
                    at,
                    DamageKind::TruncatedHeader,
                    "the archive ends between an extended header and its member",
                ));
            }
            if read == BLOCK && zeros {
                self.zero_blocks += 1;
                continue;
            }
            if read == BLOCK && header::checksum_holds(block_read) {
                self.after_zeros(at);
                return Ok(true);
            }
            let at_end = read < BLOCK && zeros;
            if at_end && self.headers + self.zero_blocks > 0 {
                if self.zero_blocks == 0 {
                    self.note(at, NoteKind::NoEndOfArchive);
                }
                if self.source.compressed_garbage() {
                    self.note(at + read as u64, NoteKind::TrailingGarbageCompressed);
                }
                return Ok(false);
            }
            if self.headers == 0 && !(read < BLOCK && header::has_magic(block_read)) {
                return Err(damage(
                    0,
                    DamageKind::NotATar,
                    header::describe_foreign(block_read),
                ));
            }
            if self.zero_blocks >= 2 {
                let rest = self.discard(u64::MAX);
                let bytes = self.source.position() - at;
                self.note(at, NoteKind::TrailingGarbage { bytes });
                rest?;
                return Ok(false);
            }
            if read < BLOCK {
                return Err(damage(
                    at + read as u64,
                    DamageKind::TruncatedHeader,
                    "the shard ends inside a header",
                ));
            }
            return Err(damage(
                at,
                DamageKind::BadHeader,
                "a header's checksum is wrong",
            ));
        }
    }

    /// Records what the zero blocks before a valid header at `at` are: a gap, or the end of an
    /// earlier archive.
    fn after_zeros(&mut self, at: u64) {
        let blocks = std::mem::take(&mut self.zero_blocks);
        let bytes = blocks * BLOCK as u64;
        self.is_after_gap = blocks > END_BLOCKS;
        if self.is_after_gap {
            self.gap.get_or_insert(Damage {
                offset: at - bytes,
                kind: DamageKind::Gap,
                detail: format!("{bytes} zero bytes between members: more may be lost"),
            });
        } else if blocks > 0 {
            self.note(at, NoteKind::AnotherArchive);
        }
    }

    /// Combines a member's header and its extended headers.
    fn entry(&mut self, header: Header, extended: Extended) -> Result<Entry, Fault> {
        if let Type::Sparse { map_goes_on: true } = header.kind {
            self.skip_sparse_map()?;
        }
        let name = extended.pax.path.or(extended.name).unwrap_or(header.name);
        let kind = match header.kind {
            // Old tars mark folders only by a trailing slash. Their data is skipped all the same.
            Type::File if name.ends_with(b"/") => EntryKind::Directory,
            Type::Directory => EntryKind::Directory,
            Type::HardLink => EntryKind::HardLink,
            Type::Link => EntryKind::Link,
            Type::Device => EntryKind::Device,
            Type::File | Type::Sparse { .. } if extended.bad => EntryKind::BadExtendedHeader,
            Type::File | Type::Sparse { .. } if extended.name_too_long => EntryKind::NameTooLong,
            Type::Sparse { .. } => EntryKind::Sparse,
            Type::File if extended.pax.sparse => EntryKind::Sparse,
            Type::File => EntryKind::File,
            _ => EntryKind::Other,
        };
        let size = if header.kind.has_data() {
            extended.pax.size.unwrap_or(header.size)
        } else {
            0
        };
        let offset = self.source.position();
        if offset.checked_add(size).is_none() {
            return Err(damage(
                offset,
                DamageKind::BadSize,
                "a header gives a size that cannot be",
            ));
        }
        let target = extended.pax.target.or(extended.target);
        Ok(Entry {
            name,
            kind,
            offset,
            size,
            target: target.unwrap_or(header.target),
        })
    }

    fn skip_sparse_map(&mut self) -> Result<(), Fault> {
        let mut block = [0_u8; BLOCK];
        loop {
            if self.source.fill(&mut block)? < BLOCK {
                return Err(self.ends_inside_header());
            }
            if !header::sparse_map_goes_on(&block) {
                return Ok(());
            }
        }
    }

    /// Reads the data of an extended header. Data over the limit is skipped, and `None` is
    /// returned.
    fn extended_data(&mut self, size: u64, limit: u64) -> Result<Option<Vec<u8>>, Fault> {
        let mut data = Vec::new();
        let kept = size <= limit;
        let whole = if kept {
            self.read_data(size, &mut data)?
        } else {
            self.skip_data(size)?
        };
        match (whole, kept) {
            (false, _) => Err(self.ends_inside_header()),
            (true, kept) => Ok(kept.then_some(data)),
        }
    }

    fn ends_inside_header(&self) -> Fault {
        damage(
            self.source.position(),
            DamageKind::TruncatedHeader,
            "the shard ends inside a header",
        )
    }

    /// Reads a member's data. Returns false if the shard ends inside it.
    pub(crate) fn read_data(&mut self, size: u64, into: &mut Vec<u8>) -> Result<bool, Fault> {
        let mut left = size;
        while left > 0 {
            let step = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK);
            let start = into.len();
            if into.capacity() < start + step {
                // Doubles the buffer, but never beyond the size in the header.
                let more = usize::try_from(left).unwrap_or(usize::MAX);
                into.reserve_exact(more.min(start.max(CHUNK)));
            }
            into.resize(start + step, 0);
            let read = self.source.fill(&mut into[start..])?;
            into.truncate(start + read);
            left -= read as u64;
            if read < step {
                return Ok(false);
            }
        }
        self.skip_padding(size)?;
        Ok(true)
    }

    /// Skips a member's data. Returns false if the shard ends inside it.
    pub(crate) fn skip_data(&mut self, size: u64) -> Result<bool, Fault> {
        if self.discard(size)? < size {
            return Ok(false);
        }
        self.skip_padding(size)?;
        Ok(true)
    }

    /// Skips the padding. A shard may end inside it: the data before it is complete.
    fn skip_padding(&mut self, size: u64) -> Result<(), Fault> {
        let block = BLOCK as u64;
        self.discard((block - size % block) % block).map(drop)
    }

    fn discard(&mut self, size: u64) -> Result<u64, Fault> {
        let mut chunk = [0_u8; 8 << 10];
        let mut done = 0;
        while done < size {
            let left = usize::try_from(size - done).unwrap_or(usize::MAX);
            let step = left.min(chunk.len());
            let read = self.source.fill(&mut chunk[..step])?;
            done += read as u64;
            if read < step {
                break;
            }
        }
        Ok(done)
    }

    /// Returns the damage of a shard that ends inside a member's data.
    pub(crate) fn ends_inside_member(&self, name: &str) -> Damage {
        Damage {
            offset: self.source.position(),
            kind: DamageKind::TruncatedMember,
            detail: format!("the shard ends inside its member {name}"),
        }
    }

    fn note(&mut self, offset: u64, kind: NoteKind) {
        self.notes.push(Note { offset, kind });
    }
}

fn damage(offset: u64, kind: DamageKind, detail: &str) -> Fault {
    Fault::Damage(Damage {
        offset,
        kind,
        detail: detail.to_owned(),
    })
}
