//! The bytes of a source shard's members, at the offsets that `read` wrote down.
//!
//! A plain shard is read in stretches: members that are [wanted](SourceShard::want) and lie close
//! together come in one request, several requests ahead, and nothing else is fetched. A compressed
//! shard is inflated from its start, for offsets count in the inflated tar. Members are asked for
//! in shard order either way.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;

use sluice_harness::{Run, check_unchanged, open_shard};
use sluice_manifest::rows::{PlanRow, ShardRow};
use sluice_manifest::{Error, Result, ShardPath, StepName, Unit, layout};
use sluice_shard::{Compression, Limits, TarBytes};
use sluice_store::{ObjectReader, Store};

/// Inflated bytes that are there at once.
const BUFFER: usize = 64 << 10;

/// How the shards of a partition are packed, by path.
pub fn packing(run: &Run, unit: Unit) -> Result<HashMap<ShardPath, String>> {
    let path = layout::SHARDS.path(&StepName::read(), unit);
    let rows = run.rows::<ShardRow>(&path)?;
    let pairs = rows.map(|row| row.map(|row| (row.shard, row.compression)));
    pairs.collect()
}

/// A source shard open for reading.
pub struct SourceShard {
    uri: String,
    bytes: Bytes,
}

enum Bytes {
    Plain(Box<ObjectReader>),
    Inflated(Box<BufReader<TarBytes<ObjectReader>>>),
}

impl SourceShard {
    /// Opens a shard that [`packing`] knows. Fails when it is not the object that the plan was made
    /// from.
    pub fn open(
        input: &Store,
        planned: &PlanRow,
        packing: &HashMap<ShardPath, String>,
    ) -> Result<Self> {
        let path = planned.shard.as_str();
        let uri = input.uri(path);
        let Some(compression) = packing.get(&planned.shard) else {
            return Err(
                Error::data(format!("{uri}: not among the shards that were read"))
                    .hint("run sluice-read again"),
            );
        };
        let bytes = if compression == Compression::None.as_str() {
            check_unchanged(input, planned)?;
            Bytes::Plain(Box::new(input.stretches(path, planned.bytes)))
        } else {
            let inflated = TarBytes::new(open_shard(input, planned)?, &Limits::default());
            let inflated = inflated.map_err(|e| Error::of_io(e, &uri))?;
            Bytes::Inflated(Box::new(BufReader::with_capacity(BUFFER, inflated)))
        };
        Ok(Self { uri, bytes })
    }

    /// Says that the bytes of this range are going to be read.
    pub fn want(&mut self, range: Range<u64>) {
        if let Bytes::Plain(reader) = &mut self.bytes {
            reader.want(range);
        }
    }

    /// Whether enough is wanted to read ahead; naming more only takes memory.
    pub fn is_busy(&self) -> bool {
        match &self.bytes {
            Bytes::Plain(reader) => reader.is_busy(),
            Bytes::Inflated(_) => true,
        }
    }

    /// A member's bytes.
    pub fn member(&mut self, offset: u64, size: u64) -> Result<io::Take<&mut Self>> {
        match &mut self.bytes {
            Bytes::Plain(reader) => reader.skip_to(offset)?,
            Bytes::Inflated(inflated) => {
                let position = inflated.get_ref().position() - inflated.buffer().len() as u64;
                let Some(skip) = offset.checked_sub(position) else {
                    return Err(Error::bug(format!(
                        "{}: byte {offset} is asked for after byte {position}",
                        self.uri
                    )));
                };
                let skipped = io::copy(&mut inflated.take(skip), &mut io::sink());
                if skipped.map_err(|e| Error::of_io(e, &self.uri))? < skip {
                    return Err(self.too_short());
                }
            }
        }
        Ok(self.take(size))
    }

    /// A member's bytes in memory.
    pub fn read_member(&mut self, offset: u64, size: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(size as usize);
        let read = self.member(offset, size)?.read_to_end(&mut bytes);
        match read.map_err(|e| Error::of_io(e, &self.uri))? {
            length if length as u64 == size => Ok(bytes),
            _ => Err(self.too_short()),
        }
    }

    /// The shard's URI.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    fn too_short(&self) -> Error {
        Error::data(format!("{}: ends before it should", self.uri))
            .hint("it may have changed: run sluice-partition and the steps after it")
    }
}

impl Read for SourceShard {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.bytes {
            Bytes::Plain(reader) => reader.read(buffer),
            Bytes::Inflated(inflated) => inflated.read(buffer),
        }
    }
}

impl BufRead for SourceShard {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match &mut self.bytes {
            Bytes::Plain(reader) => reader.fill_buf(),
            Bytes::Inflated(inflated) => inflated.fill_buf(),
        }
    }

    fn consume(&mut self, count: usize) {
        match &mut self.bytes {
            Bytes::Plain(reader) => reader.consume(count),
            Bytes::Inflated(inflated) => inflated.consume(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use sluice_manifest::Partition;
    use sluice_store::{Location, Storage};

    use super::*;

    #[test]
    fn members_come_out_of_stretches_and_of_compressed_shards() {
        let location = Location::parse("memory://source-members").unwrap();
        let store = Storage::default().create(&location).unwrap();
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
        let members = [
            (0, 10),
            (10, 300_000),
            (400_000, 5),
            (400_010, 1_000_000),
            (2_900_000, size - 2_900_000),
        ];
        // As if it were packed otherwise, it is read from its start.
        for compression in ["none", "gzip"] {
            let packing = HashMap::from([(planned.shard.clone(), compression.to_owned())]);
            let mut source = SourceShard::open(&store, &planned, &packing).unwrap();
            for (offset, length) in members {
                source.want(offset..offset + length);
            }
            for (offset, length) in members {
                let got = source.read_member(offset, length).unwrap();
                assert_eq!(got, content[offset as usize..(offset + length) as usize]);
            }
            assert!(source.read_member(size, 1).is_err());
        }
        let unknown = SourceShard::open(&store, &planned, &HashMap::new());
        assert!(unknown.err().unwrap().to_string().contains("a.tar"));
    }
}
