//! Access to the bytes of a manifest: the whole object, a local file, or ranges of a remote object.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use opendal::Reader;
use parquet::DecodeResult;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataPushDecoder};
use sluice_manifest::{Blocks, Error, Output, Result};

use crate::client::Client;
use crate::disk;
use crate::stop::StopFlag;
use crate::store::{Backend, Store};
use crate::table::broken;

/// Remote manifests up to this size are fetched whole: one request rather than three.
const WHOLE: u64 = 256 << 10;
/// The number of bytes at the end of the file that are fetched to get the footer.
const FOOTER: u64 = 64 << 10;

/// An object whose bytes are compared with recorded checksums while they are read.
///
/// Reads whole blocks, because each has one hash. For each range that is up to two blocks more than
/// requested.
#[derive(Clone)]
pub struct Checked {
    /// The object's recorded size and hashes.
    pub output: Output,
    /// Builds the error for bytes that do not match, from a description of the mismatch.
    pub damaged: Arc<dyn Fn(&str) -> Error + Send + Sync>,
}

/// The bytes of a manifest, as a Parquet decoder requests them.
pub(crate) struct ManifestBytes {
    pub uri: String,
    bytes: u64,
    content: Content,
    stop: StopFlag,
    checked: Option<Checked>,
}

enum Content {
    Whole(Bytes),
    File(File),
    Object { client: Client, reader: Reader },
}

impl ManifestBytes {
    /// Opens an object without checksums.
    pub(crate) fn open(store: &Store, path: &str) -> Result<Self> {
        let missing = || Error::data(format!("{}: no such manifest", store.uri(path)));
        let found = store.stat(path)?.ok_or_else(missing)?;
        Self::open_at(store, path, found.bytes)
    }

    /// Opens an object whose bytes are compared with recorded checksums.
    pub(crate) fn open_checked(store: &Store, checked: Checked) -> Result<Self> {
        let (path, bytes) = (checked.output.path.as_str(), checked.output.bytes);
        let whole = if is_fetched_whole(store, bytes) {
            store.get_if_there(path)?
        } else {
            None
        };
        let found = match &whole {
            Some(whole) => Some(whole.len() as u64),
            None => store.stat(path)?.map(|found| found.bytes),
        };
        match found {
            Some(found) if found == bytes => {}
            Some(found) => {
                return Err((checked.damaged)(&format!(
                    "{found} bytes, written were {bytes}"
                )));
            }
            None => return Err((checked.damaged)("no such manifest")),
        }
        let mut source = match whole {
            Some(whole) => {
                let stop = store.backend().stop().clone();
                Self::of(store.uri(path), bytes, Content::Whole(whole), stop)
            }
            None => Self::open_at(store, path, bytes)?,
        };
        source.checked = Some(checked);
        Ok(source)
    }

    fn of(uri: String, bytes: u64, content: Content, stop: StopFlag) -> Self {
        Self {
            uri,
            bytes,
            content,
            stop,
            checked: None,
        }
    }

    fn open_at(store: &Store, path: &str, bytes: u64) -> Result<Self> {
        let uri = store.uri(path);
        let content = match store.backend() {
            Backend::Disk(disk) => {
                let file = disk.open(path).map_err(|e| disk::error(&e, &uri))?;
                Content::File(file)
            }
            Backend::Bucket { .. } if is_fetched_whole(store, bytes) => {
                Content::Whole(store.get(path)?)
            }
            Backend::Bucket { client, prefix } => {
                let full = format!("{prefix}{path}");
                let reader = client.wait(client.operator.reader(&full));
                Content::Object {
                    reader: reader.map_err(|e| client.error(&e, &uri))?,
                    client: client.clone(),
                }
            }
        };
        let stop = store.backend().stop().clone();
        Ok(Self::of(uri, bytes, content, stop))
    }

    /// Reads and decodes the Parquet footer.
    pub(crate) fn metadata(&self) -> Result<ParquetMetaData> {
        let wrong = |e| broken(&self.uri, e);
        let decoder = ParquetMetaDataPushDecoder::try_new(self.bytes).map_err(wrong)?;
        let mut decoder = decoder.with_page_index_policy(PageIndexPolicy::Skip);
        let last = self.bytes.saturating_sub(FOOTER)..self.bytes;
        let mut missing = vec![last];
        loop {
            let found = self.ranges(missing.clone())?;
            decoder.push_ranges(missing, found).map_err(wrong)?;
            missing = match decoder.try_decode().map_err(wrong)? {
                DecodeResult::NeedsData(ranges) => ranges,
                DecodeResult::Data(metadata) => return Ok(metadata),
                DecodeResult::Finished => {
                    return Err(Error::bug(format!(
                        "{}: its footer was read twice",
                        self.uri
                    )));
                }
            }
        }
    }

    /// Returns the bytes of each range.
    pub(crate) fn ranges(&self, ranges: Vec<Range<u64>>) -> Result<Vec<Bytes>> {
        self.stop.check()?;
        // A damaged footer must not cause a large allocation.
        let inside = |range: &Range<u64>| range.start <= range.end && range.end <= self.bytes;
        if !ranges.iter().all(inside) {
            let end = parquet::errors::ParquetError::EOF("it is shorter than it says".to_owned());
            return Err(broken(&self.uri, end));
        }
        let Some(checked) = &self.checked else {
            return self.fetch(ranges);
        };
        let missing = whole_blocks(&ranges, self.bytes);
        let fetched = self.fetch(missing.clone())?;
        for (at, bytes) in missing.iter().zip(&fetched) {
            check_blocks(checked, at.start, bytes)?;
        }
        let slice = |range: Range<u64>| {
            let number = missing.partition_point(|blocks| blocks.end < range.end);
            let start = missing[number].start;
            fetched[number].slice((range.start - start) as usize..(range.end - start) as usize)
        };
        Ok(ranges.into_iter().map(slice).collect())
    }

    fn fetch(&self, ranges: Vec<Range<u64>>) -> Result<Vec<Bytes>> {
        match &self.content {
            Content::Whole(content) => {
                let slice =
                    |range: Range<u64>| content.slice(range.start as usize..range.end as usize);
                Ok(ranges.into_iter().map(slice).collect())
            }
            Content::File(file) => {
                let read = |range| read(file, range).map_err(|e| disk::error(&e, &self.uri));
                ranges.into_iter().map(read).collect()
            }
            Content::Object { client, reader } => {
                let fetched = client.wait(reader.fetch(ranges));
                let fetched = fetched.map_err(|e| client.error(&e, &self.uri))?;
                Ok(fetched.iter().map(|buffer| buffer.to_bytes()).collect())
            }
        }
    }
}

/// Returns whether an object of this size is fetched in one request.
fn is_fetched_whole(store: &Store, bytes: u64) -> bool {
    let Backend::Bucket { client, .. } = store.backend() else {
        return false;
    };
    client.is_remote() && bytes <= WHOLE
}

/// Returns the blocks that the ranges touch: ascending, with adjacent ones merged.
fn whole_blocks(ranges: &[Range<u64>], bytes: u64) -> Vec<Range<u64>> {
    const SIZE: u64 = Blocks::SIZE as u64;
    let block = |range: &Range<u64>| {
        let end = range.end.next_multiple_of(SIZE).min(bytes);
        range.start / SIZE * SIZE..end
    };
    let mut touched: Vec<Range<u64>> = ranges.iter().map(block).collect();
    touched.sort_by_key(|range| (range.start, range.end));
    touched.dedup_by(|next, last| {
        let together = next.start <= last.end;
        if together {
            last.end = last.end.max(next.end);
        }
        together
    });
    touched
}

fn check_blocks(checked: &Checked, start: u64, bytes: &[u8]) -> Result<()> {
    let first = start / Blocks::SIZE as u64;
    for (number, block) in (first..).zip(bytes.chunks(Blocks::SIZE)) {
        if !checked.output.blocks.hold(number, block) {
            let at = number * Blocks::SIZE as u64;
            return Err((checked.damaged)(&format!(
                "its bytes from {at} on are not those that were written"
            )));
        }
    }
    Ok(())
}

fn read(mut file: &File, range: Range<u64>) -> std::io::Result<Bytes> {
    let length = range.end - range.start;
    let mut bytes = Vec::with_capacity(length as usize);
    file.seek(SeekFrom::Start(range.start))?;
    if file.take(length).read_to_end(&mut bytes)? as u64 != length {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes.into())
}

#[cfg(test)]
#[expect(
    clippy::single_range_in_vec_init,
    reason = "a list of one byte range is meant"
)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::{Location, Storage};

    const SIZE: u64 = Blocks::SIZE as u64;

    #[test]
    fn ranges_become_whole_blocks() {
        let bytes = 3 * SIZE + 7;
        for (ranges, expected) in [
            (vec![0..1], vec![0..SIZE]),
            (vec![0..0], vec![0..0]),
            (vec![SIZE - 1..SIZE + 1], vec![0..2 * SIZE]),
            (vec![3 * SIZE..bytes, 0..1], vec![0..SIZE, 3 * SIZE..bytes]),
            (vec![0..1, 5..9, SIZE..SIZE + 1], vec![0..2 * SIZE]),
        ] {
            assert_eq!(whole_blocks(&ranges, bytes), expected, "{ranges:?}");
        }
    }

    fn checked(output: Output) -> Checked {
        Checked {
            output,
            damaged: Arc::new(|what| Error::data(format!("damaged: {what}"))),
        }
    }

    #[test]
    fn every_flipped_bit_that_is_read_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap().to_owned();
        for uri in [path, "memory://checked".to_owned()] {
            let location = Location::parse(&uri).unwrap();
            let store = Storage::default().create(&location).unwrap();
            let content: Vec<u8> = (0..2 * SIZE + 99).map(|i| (i * 31 % 251) as u8).collect();
            let mut writer = store.writer("x").unwrap().with_blocks();
            writer.write_all(&content).unwrap();
            let output = writer.finish().unwrap();
            let read = |range: Range<u64>| {
                let source = ManifestBytes::open_checked(&store, checked(output.clone()))?;
                source.ranges(vec![range.clone(), range])
            };
            let all = 0..content.len() as u64;
            let found = read(5..SIZE + 5).unwrap();
            assert_eq!(found[0], content[5..SIZE as usize + 5]);
            assert_eq!(found[0], found[1]);
            assert_eq!(read(all.clone()).unwrap()[1], content);
            for at in [0, SIZE - 1, SIZE, 2 * SIZE, 2 * SIZE + 98] {
                let mut flipped = content.clone();
                flipped[at as usize] ^= 1;
                store.put("x", flipped).unwrap();
                assert!(read(all.clone()).is_err() && read(at..at + 1).is_err());
                let elsewhere = (at + SIZE) % (2 * SIZE);
                assert!(read(elsewhere..elsewhere + 1).is_ok(), "{at}");
            }
            store.put("x", content[1..].to_vec()).unwrap();
            let error = read(0..1).unwrap_err().to_string();
            assert!(error.contains("written were"), "{error}");
            store.delete("x").unwrap();
            assert!(read(0..1).is_err());
            // An output without block hashes cannot be verified.
            store.put("x", content).unwrap();
            let blocks = Blocks::default();
            let other = checked(Output {
                blocks,
                ..output.clone()
            });
            let source = ManifestBytes::open_checked(&store, other).unwrap();
            assert!(source.ranges(vec![0..1]).is_err());
        }
    }
}
