//! The bytes of a manifest: whole, out of a file, or in ranges of an object.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;

use bytes::Bytes;
use opendal::Reader;
use parquet::DecodeResult;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataPushDecoder};
use sluice_manifest::{Error, Result};

use crate::client::Client;
use crate::disk;
use crate::store::{Place, Store};
use crate::table::broken;

/// A manifest of an object store that is no larger is fetched whole: one request in place of three.
const WHOLE: u64 = 256 << 10;
/// The footer is fetched with so much of what lies before it.
const FOOTER: u64 = 64 << 10;

/// An object that a Parquet decoder asks for ranges of.
pub(crate) struct Source {
    pub uri: String,
    bytes: u64,
    place: Bytewise,
}

enum Bytewise {
    Whole(Bytes),
    File(File),
    Object { client: Client, reader: Reader },
}

impl Source {
    pub fn open(store: &Store, path: &str, bytes: u64) -> Result<Self> {
        let uri = store.uri(path);
        let place = match store.place() {
            Place::Disk(disk) => {
                let file = disk.open(path).map_err(|e| disk::error(&e, &uri))?;
                Bytewise::File(file)
            }
            Place::Bucket { client, .. } if client.is_remote() && bytes <= WHOLE => {
                Bytewise::Whole(store.get(path)?)
            }
            Place::Bucket { client, prefix } => {
                let full = format!("{prefix}{path}");
                let reader = client.wait(client.operator.reader(&full));
                Bytewise::Object {
                    reader: reader.map_err(|e| client.error(&e, &uri))?,
                    client: client.clone(),
                }
            }
        };
        Ok(Self { uri, bytes, place })
    }

    /// What Parquet's footer tells.
    pub fn metadata(&self) -> Result<ParquetMetaData> {
        let wrong = |e| broken(&self.uri, e);
        let decoder = ParquetMetaDataPushDecoder::try_new(self.bytes).map_err(wrong)?;
        let mut decoder = decoder.with_page_index_policy(PageIndexPolicy::Skip);
        let last = self.bytes.saturating_sub(FOOTER)..self.bytes;
        let mut wanted = vec![last];
        loop {
            let found = self.ranges(wanted.clone())?;
            decoder.push_ranges(wanted, found).map_err(wrong)?;
            wanted = match decoder.try_decode().map_err(wrong)? {
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

    /// The bytes of each range.
    pub fn ranges(&self, ranges: Vec<Range<u64>>) -> Result<Vec<Bytes>> {
        // What a damaged footer says must not become an allocation.
        let inside = |range: &Range<u64>| range.start <= range.end && range.end <= self.bytes;
        if !ranges.iter().all(inside) {
            let end = parquet::errors::ParquetError::EOF("it is shorter than it says".to_owned());
            return Err(broken(&self.uri, end));
        }
        match &self.place {
            Bytewise::Whole(content) => {
                let slice =
                    |range: Range<u64>| content.slice(range.start as usize..range.end as usize);
                Ok(ranges.into_iter().map(slice).collect())
            }
            Bytewise::File(file) => {
                let read = |range| read(file, range).map_err(|e| disk::error(&e, &self.uri));
                ranges.into_iter().map(read).collect()
            }
            Bytewise::Object { client, reader } => {
                let fetched = client.wait(reader.fetch(ranges));
                let fetched = fetched.map_err(|e| client.error(&e, &self.uri))?;
                Ok(fetched.iter().map(|buffer| buffer.to_bytes()).collect())
            }
        }
    }
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
