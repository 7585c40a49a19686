//! The bytes of a source shard, at the offsets that `read` wrote down.
//!
//! A plain shard is read in ranges: a sample at a time where few are kept, and further and further
//! ahead where the kept samples lie close together. A compressed shard is inflated from its start,
//! for offsets count in the inflated tar. Samples are asked for in shard order either way.

use std::io::{self, Read};
use std::ops::Range;

use sluice_manifest::rows::PlanRow;
use sluice_manifest::{Error, Result};
use sluice_shard::{Compression, Limits, TarBytes};
use sluice_store::{ObjectReader, Store};

/// The first read-ahead and the largest. A gap of up to the first between two kept samples is read
/// through.
const AHEAD: Range<u64> = 128 << 10..1 << 20;

/// A source shard open for reading.
pub struct SourceShard {
    uri: String,
    bytes: Bytes,
}

enum Bytes {
    Ranges(Box<Ranges>),
    Inflated(Box<TarBytes<ObjectReader>>),
}

impl SourceShard {
    /// Opens a shard. Fails when it is not the one that the plan was made from.
    pub fn open(input: &Store, planned: &PlanRow, compression: &str) -> Result<Self> {
        sluice_harness::check_unchanged(input, planned)?;
        let path = planned.shard.as_str();
        let uri = input.uri(path);
        let bytes = if compression == Compression::None.as_str() {
            Bytes::Ranges(Box::new(Ranges::new(input, planned)))
        } else {
            let inflated = TarBytes::new(input.reader(path)?, &Limits::default());
            Bytes::Inflated(Box::new(inflated.map_err(|e| classify(e, &uri))?))
        };
        Ok(Self { uri, bytes })
    }

    /// Says that the next members lie in this range.
    pub fn expect(&mut self, range: Range<u64>) {
        if let Bytes::Ranges(ranges) = &mut self.bytes {
            ranges.expected = range.end;
        }
    }

    /// A member's bytes. Members are read in the order of their offsets.
    pub fn member(&mut self, offset: u64, size: u64) -> Result<io::Take<&mut Self>> {
        match &mut self.bytes {
            Bytes::Ranges(ranges) => ranges.position = offset,
            Bytes::Inflated(inflated) => {
                let Some(skip) = offset.checked_sub(inflated.position()) else {
                    return Err(Error::bug(format!(
                        "{}: byte {offset} is asked for after byte {}",
                        self.uri,
                        inflated.position()
                    )));
                };
                let skipped = io::copy(&mut inflated.take(skip), &mut io::sink())
                    .map_err(|e| classify(e, &self.uri))?;
                if skipped < skip {
                    return Err(Error::data(format!(
                        "{}: ends before byte {offset}",
                        self.uri
                    )));
                }
            }
        }
        Ok(self.take(size))
    }

    /// What a caller can do about an error that came out of a member's bytes, or out of the object
    /// they were copied into.
    pub fn classify(&self, e: io::Error) -> Error {
        classify(e, &self.uri)
    }
}

impl Read for SourceShard {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.bytes {
            Bytes::Ranges(ranges) => ranges.read(buffer),
            Bytes::Inflated(inflated) => inflated.read(buffer),
        }
    }
}

fn classify(e: io::Error, uri: &str) -> Error {
    match e.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            Error::data(format!("{uri}: {e}"))
                .hint("the shard may have changed: run sluice-partition and the steps after it")
        }
        _ => e
            .downcast::<Error>()
            .unwrap_or_else(|e| Error::transient(format!("{uri}: {e}"))),
    }
}

/// A plain shard, a window of it in memory.
struct Ranges {
    input: Store,
    path: String,
    size: u64,
    position: u64,
    /// Up to here the bytes are known to be wanted.
    expected: u64,
    window: bytes::Bytes,
    begin: u64,
    ahead: u64,
}

impl Ranges {
    fn new(input: &Store, planned: &PlanRow) -> Self {
        Self {
            input: input.clone(),
            path: planned.shard.as_str().to_owned(),
            size: planned.bytes,
            position: 0,
            expected: 0,
            window: bytes::Bytes::new(),
            begin: 0,
            ahead: 0,
        }
    }

    fn end(&self) -> u64 {
        self.begin + self.window.len() as u64
    }

    fn fetch(&mut self) -> Result<()> {
        let near = (self.end()..=self.end() + AHEAD.start).contains(&self.position);
        self.ahead = match near {
            true => (self.ahead * 2).clamp(AHEAD.start, AHEAD.end),
            false => 0,
        };
        let range = reach(self.position, self.expected, self.ahead, self.size);
        // Or else two windows would be in memory at once.
        self.window = bytes::Bytes::new();
        self.window = self.input.get_range(&self.path, range.clone())?;
        self.begin = range.start;
        Ok(())
    }
}

/// What to fetch: what is wanted, what lies ahead, at most the largest read-ahead, and at least one
/// byte unless the object ends here.
fn reach(position: u64, expected: u64, ahead: u64, size: u64) -> Range<u64> {
    let wanted = expected.min(position + AHEAD.end);
    let end = wanted.max(position + ahead).max(position + 1);
    position..end.min(size).max(position)
}

impl Read for Ranges {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !(self.begin..self.end()).contains(&self.position) {
            self.fetch().map_err(io::Error::other)?;
        }
        let from = (self.position - self.begin) as usize;
        let rest = self.window.get(from..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.position += length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use sluice_manifest::{Partition, ShardPath};
    use sluice_store::Location;

    use super::*;

    #[test]
    fn ranges_reach_as_far_as_is_wanted() {
        let (least, most) = (AHEAD.start, AHEAD.end);
        assert_eq!(reach(10, 50, 0, 1000), 10..50);
        assert_eq!(reach(10, 50, least, u64::MAX), 10..10 + least);
        assert_eq!(reach(0, 3 * most, 0, u64::MAX), 0..most);
        assert_eq!(reach(10, 0, 0, 1000), 10..11);
        assert_eq!(reach(990, 0, least, 1000), 990..1000);
        assert_eq!(reach(1000, 2000, least, 1000), 1000..1000);
    }

    #[test]
    fn members_come_out_of_windows_of_any_size() {
        let location = Location::parse("memory://export-source").unwrap();
        let store = Store::create(&location).unwrap();
        let size = 3_u64 << 20;
        let content: Vec<u8> = (0..size).map(|i| (i * 31 % 251) as u8).collect();
        store.put("a.tar", content.clone()).unwrap();
        let info = store.stat("a.tar").unwrap().unwrap();
        let planned = PlanRow {
            partition: Partition(0),
            shard: ShardPath::new("a.tar"),
            bytes: info.bytes,
            etag: info.etag,
            modified: info.modified,
        };
        let mut source = SourceShard::open(&store, &planned, "none").unwrap();
        let members = [
            (0, 10),
            (10, 300_000),
            (400_000, 5),
            (400_010, 1_000_000),
            (2_900_000, size - 2_900_000),
        ];
        for (offset, length) in members {
            source.expect(offset..offset + length);
            let mut got = Vec::new();
            source
                .member(offset, length)
                .unwrap()
                .read_to_end(&mut got)
                .unwrap();
            assert_eq!(got, content[offset as usize..(offset + length) as usize]);
        }
        let mut got = Vec::new();
        let behind = source.member(size, 1).unwrap().read_to_end(&mut got);
        assert_eq!(behind.unwrap(), 0);
    }
}
