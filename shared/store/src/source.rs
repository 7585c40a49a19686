//! The bytes of a manifest: whole, out of a file, or in ranges of an object.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use opendal::Reader;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use sluice_manifest::{Error, Result};

use crate::client::Client;
use crate::disk;
use crate::store::{Place, Store};

/// A manifest of an object store that is no larger is fetched whole: one request in place of three.
const WHOLE: u64 = 256 << 10;
/// The footer is fetched with so much of what lies before it.
const FOOTER: usize = 64 << 10;

/// An object as parquet's asynchronous reader wants it.
pub(crate) enum Source {
    Whole(Bytes),
    File {
        file: File,
        uri: String,
        bytes: u64,
    },
    Ranges {
        client: Client,
        reader: Reader,
        uri: String,
        bytes: u64,
    },
}

impl Source {
    pub fn open(store: &Store, path: &str, bytes: u64) -> Result<Self> {
        let uri = store.uri(path);
        match store.place() {
            Place::Disk(disk) => match disk.open(path) {
                Ok(file) => Ok(Self::File { file, uri, bytes }),
                Err(e) => Err(disk::error(&e, &uri)),
            },
            Place::Bucket { client, .. } if client.is_remote() && bytes <= WHOLE => {
                Ok(Self::Whole(store.get(path)?))
            }
            Place::Bucket { client, prefix } => {
                let full = format!("{prefix}{path}");
                let reader = client.wait(client.operator.reader(&full));
                Ok(Self::Ranges {
                    reader: reader.map_err(|e| client.error(&e, &uri))?,
                    client: client.clone(),
                    uri,
                    bytes,
                })
            }
        }
    }

    fn len(&self) -> u64 {
        match self {
            Self::Whole(content) => content.len() as u64,
            Self::File { bytes, .. } | Self::Ranges { bytes, .. } => *bytes,
        }
    }
}

fn external(e: Error) -> ParquetError {
    ParquetError::External(Box::new(e))
}

impl AsyncFileReader for Source {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        async move {
            let mut found = self.get_byte_ranges(vec![range]).await?;
            Ok(found.swap_remove(0))
        }
        .boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        async move {
            // What a damaged footer says must not become an allocation.
            let bytes = self.len();
            let inside = |range: &Range<u64>| range.start <= range.end && range.end <= bytes;
            if !ranges.iter().all(inside) {
                return Err(ParquetError::EOF(
                    "the manifest is shorter than it says".to_owned(),
                ));
            }
            match self {
                Self::Whole(content) => {
                    let slice = |range: Range<u64>| {
                        Ok(content.slice(range.start as usize..range.end as usize))
                    };
                    ranges.into_iter().map(slice).collect()
                }
                Self::File { file, uri, .. } => {
                    let read = |range: Range<u64>| {
                        let mut bytes = vec![0; (range.end - range.start) as usize];
                        let read = file.read_exact_at(&mut bytes, range.start);
                        read.map_err(|e| external(disk::error(&e, uri)))?;
                        Ok(Bytes::from(bytes))
                    };
                    ranges.into_iter().map(read).collect()
                }
                Self::Ranges {
                    client,
                    reader,
                    uri,
                    ..
                } => {
                    let fetched = client.patiently(reader.fetch(ranges)).await;
                    let fetched = fetched.map_err(|e| external(client.error(&e, uri)))?;
                    Ok(fetched.iter().map(|buffer| buffer.to_bytes()).collect())
                }
            }
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        async move {
            let bytes = self.len();
            let reader = ParquetMetaDataReader::new().with_prefetch_hint(Some(FOOTER));
            Ok(Arc::new(reader.load_and_finish(self, bytes).await?))
        }
        .boxed()
    }
}
