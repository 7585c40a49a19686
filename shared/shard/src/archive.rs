//! A tar as a stream of entries: headers with their extensions resolved, data read or passed over.
//!
//! The rules for odd archives, which the README has as a table:
//! - Zero blocks are stepped over; a sound header behind them is read (archives laid one after the
//!   other). What is no header is garbage behind two zero blocks, and damage before.
//! - The end of the data is the end of the archive wherever a header could begin, and in the
//!   padding behind a member. Anywhere else it is damage.
//! - Nothing is allocated because a header asks for it: buffers grow with the bytes that come.

use std::io::{self, Read};

use crate::event::{Compression, Damage, DamageKind, Limits, Note, NoteKind};
use crate::header::{self, BLOCK, Header, Pax, Type};
use crate::source::{Fault, Source};

const CHUNK: usize = 64 << 10;

/// What an entry is, once its extended headers are taken into account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Sparse,
    Directory,
    /// Another name of an earlier file, which is [`Entry::target`].
    HardLink,
    /// A hard link to an image, with the place of that image.
    Linked,
    Link,
    Device,
    Other,
    /// A file whose long name is beyond the limit.
    NameTooLong,
    /// A file whose extended header is broken or beyond the limit.
    BadExtendedHeader,
}

/// One member of the tar. Its data comes next and has to be read or skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: Kind,
    /// Where the data begins.
    pub(crate) offset: u64,
    /// Bytes of data in the tar.
    pub(crate) size: u64,
    /// The target of a link.
    pub(crate) target: Vec<u8>,
}

/// What extended headers said about the member that follows them.
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
    source: Source<R>,
    limits: Limits,
    notes: Vec<Note>,
    zero_blocks: u64,
    headers: u64,
}

impl<R: Read> Archive<R> {
    pub(crate) fn new(reader: R, limits: Limits) -> io::Result<Self> {
        Ok(Self {
            source: Source::new(reader, &limits)?,
            limits,
            notes: Vec::new(),
            zero_blocks: 0,
            headers: 0,
        })
    }

    pub(crate) fn compression(&self) -> Compression {
        self.source.compression()
    }

    /// Notes since the last call.
    pub(crate) fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// Whether an end of archive stands before the present position: what was read is complete.
    pub(crate) fn at_archive_end(&self) -> bool {
        self.zero_blocks > 0
    }

    /// The next member, or `None` at the end of the shard.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, Fault> {
        let mut extended = Extended::default();
        let mut block = [0_u8; BLOCK];
        loop {
            let at = self.source.position();
            if !self.next_block(&mut block, &extended)? {
                return Ok(None);
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
                // Defaults for the whole archive do not matter: none that writers use (comments,
                // times) changes a name or a size.
                Type::PaxGlobal => {
                    self.extended_data(header.size, 0)?;
                    continue;
                }
                _ => return self.entry(header, extended).map(Some),
            }
            extended.any = true;
        }
    }

    /// The next block that is a header; false at the end of the shard.
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
                if self.zero_blocks > 0 {
                    self.note(at, NoteKind::AnotherArchive);
                    self.zero_blocks = 0;
                }
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

    /// Puts a member's header and its extended headers together.
    fn entry(&mut self, header: Header, extended: Extended) -> Result<Entry, Fault> {
        if let Type::Sparse { map_goes_on: true } = header.kind {
            self.skip_sparse_map()?;
        }
        let name = extended.pax.path.or(extended.name).unwrap_or(header.name);
        let kind = match header.kind {
            // Old tars have no type for folders, only the slash. Its size counts all the same.
            Type::File if name.ends_with(b"/") => Kind::Directory,
            Type::Directory => Kind::Directory,
            Type::HardLink => Kind::HardLink,
            Type::Link => Kind::Link,
            Type::Device => Kind::Device,
            Type::File | Type::Sparse { .. } if extended.bad => Kind::BadExtendedHeader,
            Type::File | Type::Sparse { .. } if extended.name_too_long => Kind::NameTooLong,
            Type::Sparse { .. } => Kind::Sparse,
            Type::File if extended.pax.sparse => Kind::Sparse,
            Type::File => Kind::File,
            _ => Kind::Other,
        };
        let size = match header.kind.has_data() {
            true => extended.pax.size.unwrap_or(header.size),
            false => 0,
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

    /// The data of an extended header, or `None` (and passed over) when it is beyond the limit.
    fn extended_data(&mut self, size: u64, limit: u64) -> Result<Option<Vec<u8>>, Fault> {
        let mut data = Vec::new();
        let kept = size <= limit;
        let whole = match kept {
            true => self.read_data(size, &mut data)?,
            false => self.skip_data(size)?,
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

    /// Reads a member's data; false when the shard ends inside it.
    pub(crate) fn read_data(&mut self, size: u64, into: &mut Vec<u8>) -> Result<bool, Fault> {
        let mut left = size;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK);
            let start = into.len();
            if into.capacity() < start + want {
                // Doubles, but never beyond what the header says.
                let more = usize::try_from(left).unwrap_or(usize::MAX);
                into.reserve_exact(more.min(start.max(CHUNK)));
            }
            into.resize(start + want, 0);
            let read = self.source.fill(&mut into[start..])?;
            into.truncate(start + read);
            left -= read as u64;
            if read < want {
                return Ok(false);
            }
        }
        self.skip_padding(size)?;
        Ok(true)
    }

    /// Passes over a member's data; false when the shard ends inside it.
    pub(crate) fn skip_data(&mut self, size: u64) -> Result<bool, Fault> {
        if self.discard(size)? < size {
            return Ok(false);
        }
        self.skip_padding(size)?;
        Ok(true)
    }

    /// A shard may end in the padding: the data before it is whole.
    fn skip_padding(&mut self, size: u64) -> Result<(), Fault> {
        let block = BLOCK as u64;
        self.discard((block - size % block) % block).map(drop)
    }

    fn discard(&mut self, size: u64) -> Result<u64, Fault> {
        let mut chunk = [0_u8; 8 << 10];
        let mut done = 0;
        while done < size {
            let left = usize::try_from(size - done).unwrap_or(usize::MAX);
            let want = left.min(chunk.len());
            let read = self.source.fill(&mut chunk[..want])?;
            done += read as u64;
            if read < want {
                break;
            }
        }
        Ok(done)
    }

    /// The damage of a shard that ends inside a member's data.
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
