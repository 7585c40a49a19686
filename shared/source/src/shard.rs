//! Reads the bytes of a shard's members at the positions that `read` recorded.
//!
//! A plain tar is read in byte ranges: members passed to [`prefetch`](SourceShard::prefetch) are
//! fetched by several requests in flight, adjacent ones in one request, and nothing else is
//! fetched. A compressed tar is decompressed from its start, because offsets are positions in the
//! decompressed tar. Files are prefetched, and a Parquet file is read from the first row group with
//! a requested row. All variants require members in shard order.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Cursor, Read};

use bytes::Bytes as Value;
use sluice_manifest::rows::{MemberRow, PlanRow, ShardKind, ShardRow};
use sluice_manifest::{Error, Result, ShardPath, StepName, Unit, layout};
use sluice_run::Run;
use sluice_shard::{Compression, ShardLimits, TarBytes};
use sluice_store::ObjectReader;

use crate::files::RequestedFiles;
use crate::images::ImageBytes;
use crate::linked::LinkedMembers;
use crate::planned::{check_unchanged, open_shard};
use crate::reader::InputReader;

/// The size of the buffer for decompressed bytes.
const BUFFER: usize = 64 << 10;

/// Returns the compression of the shards of a partition, by path.
///
/// # Errors
///
/// Returns a data error if `read` did not process the partition, and otherwise a storage error.
pub fn compressions(run: &Run, unit: Unit) -> Result<HashMap<ShardPath, String>> {
    let path = layout::SHARDS.path(&StepName::read(), unit);
    let rows = run.rows::<ShardRow>(&path)?;
    let pairs = rows.map(|row| row.map(|row| (row.shard, row.compression)));
    pairs.collect()
}

/// A source shard open for reading.
pub struct SourceShard {
    uri: String,
    bytes: Bytes,
    linked: LinkedMembers,
    /// The bytes of a hard link while they are read.
    aside: Option<Cursor<Vec<u8>>>,
    /// The end of the last member passed to `prefetch`.
    announced: u64,
}

enum Bytes {
    Plain(Box<ObjectReader>),
    Inflated(Box<BufReader<TarBytes<ObjectReader>>>),
    Files(Box<RequestedFiles>, Option<Box<ObjectReader>>),
    Parquet(Box<ImageBytes>, Cursor<Value>),
}

impl SourceShard {
    /// Opens a shard. Fails if it is not in `compressions`, or is not the object that the plan was
    /// made from.
    pub(crate) fn open(
        input: &InputReader,
        planned: &PlanRow,
        compressions: &HashMap<ShardPath, String>,
    ) -> Result<Self> {
        let uri = input.uri(planned);
        let Some(compression) = compressions.get(&planned.shard) else {
            return Err(
                Error::data(format!("{uri}: not among the shards that were read"))
                    .hint("run sluice-read again"),
            );
        };
        let bytes = match planned.kind {
            ShardKind::Tar if compression == Compression::None.as_str() => {
                check_unchanged(&input.input, planned)?;
                let object = input
                    .input
                    .read_ranges(planned.shard.as_str(), planned.bytes);
                Bytes::Plain(Box::new(object))
            }
            ShardKind::Tar => {
                let object = open_shard(&input.input, planned)?;
                let inflated = TarBytes::new(object, &ShardLimits::default());
                let inflated = inflated.map_err(|e| Error::of_io(e, &uri))?;
                Bytes::Inflated(Box::new(BufReader::with_capacity(BUFFER, inflated)))
            }
            ShardKind::Files => Bytes::Files(Box::new(RequestedFiles::open(input, planned)?), None),
            ShardKind::Parquet => {
                check_unchanged(&input.input, planned)?;
                let images = ImageBytes::open(input, planned)?;
                Bytes::Parquet(Box::new(images), Cursor::default())
            }
        };
        Ok(Self {
            uri,
            bytes,
            linked: LinkedMembers::new(input, planned),
            aside: None,
            announced: 0,
        })
    }

    /// Announces members of one sample that will be read, so that they are fetched ahead.
    ///
    /// # Errors
    ///
    /// Returns a data error if a file changed since the plan was made, and otherwise a storage
    /// error.
    pub fn prefetch<'m>(&mut self, members: impl IntoIterator<Item = &'m MemberRow>) -> Result<()> {
        let members = members.into_iter().filter(|member| !member.is_in_row());
        match &mut self.bytes {
            Bytes::Plain(reader) => {
                let ranges = members.map(|member| member.offset..member.offset + member.size);
                // A member before the others is a hard link.
                let ranges = ranges.filter(|range| range.start >= self.announced);
                let all = ranges.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end));
                if let Some(all) = all {
                    self.announced = all.end;
                    reader.prefetch(all);
                }
            }
            Bytes::Files(files, _) => {
                for member in members {
                    files.prefetch(member.offset)?;
                }
            }
            Bytes::Inflated(_) | Bytes::Parquet(..) => {}
        }
        Ok(())
    }

    /// Returns whether enough members are announced to read ahead. Announcing more only takes
    /// memory.
    pub fn is_prefetch_full(&self) -> bool {
        match &self.bytes {
            Bytes::Plain(reader) => reader.is_prefetch_full(),
            Bytes::Files(files, _) => files.is_prefetch_full(),
            Bytes::Inflated(_) | Bytes::Parquet(..) => true,
        }
    }

    /// Returns a reader of a member's bytes. The member must not be one that is stored in the
    /// sample's row.
    ///
    /// # Errors
    ///
    /// Returns a data error if the shard is shorter than when it was read, and otherwise a storage
    /// error.
    pub fn member(&mut self, member: &MemberRow) -> Result<io::Take<&mut Self>> {
        let offset = member.offset;
        self.aside = None;
        if let Some(compression) = self.is_behind(offset) {
            let bytes = self.linked.read(offset, member.size, compression)?;
            self.aside = Some(Cursor::new(bytes));
            return Ok(self.take(member.size));
        }
        match &mut self.bytes {
            Bytes::Plain(reader) => reader.skip_to(offset)?,
            Bytes::Inflated(inflated) => {
                let skip = offset - inflated_position(inflated);
                let skipped = io::copy(&mut inflated.take(skip), &mut io::sink());
                if skipped.map_err(|e| Error::of_io(e, &self.uri))? < skip {
                    return Err(self.too_short());
                }
            }
            Bytes::Files(files, current) => *current = files.take(offset)?.map(Box::new),
            Bytes::Parquet(images, current) => {
                *current = Cursor::new(images.get(offset)?.unwrap_or_default());
            }
        }
        Ok(self.take(member.size))
    }

    /// Returns the tar's compression if an offset is before the current position, which happens for
    /// a hard link's target.
    fn is_behind(&self, offset: u64) -> Option<Compression> {
        match &self.bytes {
            Bytes::Plain(reader) if offset < reader.position() => Some(Compression::None),
            // The actual compression is detected when the shard is opened again.
            Bytes::Inflated(inflated) if offset < inflated_position(inflated) => {
                Some(Compression::Gzip)
            }
            _ => None,
        }
    }

    /// Reads a member's bytes into memory.
    ///
    /// # Errors
    ///
    /// Fails like [`member`](Self::member), and with a data error if the member is incomplete.
    pub fn read_member(&mut self, member: &MemberRow) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(member.size as usize);
        let read = self.member(member)?.read_to_end(&mut bytes);
        match read.map_err(|e| Error::of_io(e, &self.uri))? {
            length if length as u64 == member.size => Ok(bytes),
            _ => Err(self.too_short()),
        }
    }

    /// Returns the URI of the shard's object.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    fn too_short(&self) -> Error {
        Error::data(format!("{}: ends before it should", self.uri))
            .hint("it may have changed: run sluice-partition and the steps after it")
    }
}

fn inflated_position(inflated: &BufReader<TarBytes<ObjectReader>>) -> u64 {
    inflated.get_ref().position() - inflated.buffer().len() as u64
}

impl Read for SourceShard {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(aside) = &mut self.aside {
            return aside.read(buffer);
        }
        match &mut self.bytes {
            Bytes::Plain(reader) => reader.read(buffer),
            Bytes::Inflated(inflated) => inflated.read(buffer),
            Bytes::Files(_, current) => current.as_mut().map_or(Ok(0), |file| file.read(buffer)),
            Bytes::Parquet(_, current) => current.read(buffer),
        }
    }
}

impl BufRead for SourceShard {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if let Some(aside) = &mut self.aside {
            return aside.fill_buf();
        }
        match &mut self.bytes {
            Bytes::Plain(reader) => reader.fill_buf(),
            Bytes::Inflated(inflated) => inflated.fill_buf(),
            Bytes::Files(_, current) => match current {
                Some(file) => file.fill_buf(),
                None => Ok(&[]),
            },
            Bytes::Parquet(_, current) => current.fill_buf(),
        }
    }

    fn consume(&mut self, count: usize) {
        if let Some(aside) = &mut self.aside {
            return aside.consume(count);
        }
        match &mut self.bytes {
            Bytes::Plain(reader) => reader.consume(count),
            Bytes::Inflated(inflated) => inflated.consume(count),
            Bytes::Files(_, current) => {
                if let Some(file) = current {
                    file.consume(count);
                }
            }
            Bytes::Parquet(_, current) => current.consume(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use sluice_manifest::Partition;
    use sluice_store::{Location, Storage};

    use super::*;

    fn at(offset: u64, size: u64) -> MemberRow {
        MemberRow {
            extension: "jpg".to_owned(),
            offset,
            size,
        }
    }

    #[test]
    fn members_come_out_of_stretches_and_of_compressed_shards() {
        let location = Location::parse("memory://source-members").unwrap();
        let storage = Storage::default();
        let store = storage.create(&location).unwrap();
        let run = Run::open_read_only(&storage, "memory://source-members").unwrap();
        let input = InputReader::new(&run, &store, &storage);
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
            ..PlanRow::default()
        };
        let members = [
            (0, 10),
            (10, 300_000),
            (400_000, 5),
            (400_010, 1_000_000),
            (2_900_000, size - 2_900_000),
        ];
        // With another recorded compression, the shard is read from its start.
        for compression in ["none", "gzip"] {
            let compressions = HashMap::from([(planned.shard.clone(), compression.to_owned())]);
            let mut source = input.shard(&planned, &compressions).unwrap();
            for (offset, length) in members {
                source.prefetch([&at(offset, length)]).unwrap();
            }
            for (offset, length) in members {
                let got = source.read_member(&at(offset, length)).unwrap();
                assert_eq!(got, content[offset as usize..(offset + length) as usize]);
            }
            assert!(source.read_member(&at(size, 1)).is_err());
        }
        let unknown = input.shard(&planned, &HashMap::new());
        assert!(unknown.err().unwrap().to_string().contains("a.tar"));
    }
}
