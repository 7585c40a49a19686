//! Parquet tables of users.
//!
//! Every needed column chunk is one stream. The memory is limited to a page of each column, and not
//! to a row group, which may be the whole file.

use std::io::{self, Read};
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, MutexGuard};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::DecodeResult;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData, ParquetMetaDataPushDecoder,
};
use parquet::file::reader::{ChunkReader, Length};
use sluice_manifest::{Error, Result};
use sluice_store::ObjectReader;

use crate::object::UserObject;

/// The number of bytes at the object's end that the first request for the footer fetches.
const FOOTER: u64 = 64 << 10;
/// The approximate size of a batch in bytes.
const BATCH_BYTES: u64 = 8 << 20;
/// The maximum number of rows in a batch.
const BATCH_ROWS: u64 = 4096;

/// An open Parquet table.
#[derive(Clone)]
pub struct ParquetTable {
    /// The object of the table.
    pub object: UserObject,
    metadata: ArrowReaderMetadata,
}

impl ParquetTable {
    /// Reads the footer.
    ///
    /// # Errors
    ///
    /// Returns a data error if the object is not a Parquet file, and otherwise a storage error.
    pub fn open(object: UserObject) -> Result<Self> {
        let footer = read_footer(&object)?;
        let metadata = ArrowReaderMetadata::try_new(footer.into(), ArrowReaderOptions::new());
        let metadata = metadata.map_err(|e| not_parquet(&object, e))?;
        Ok(Self { object, metadata })
    }

    /// Returns the schema of the table.
    pub fn schema(&self) -> &SchemaRef {
        self.metadata.schema()
    }

    /// Returns the error for a table with unusable content.
    pub fn unusable(&self, why: impl std::fmt::Display) -> Error {
        self.object
            .unreadable(format!("not a usable Parquet file: {why}"))
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> u64 {
        let groups = self.metadata.metadata().row_groups().iter();
        groups.map(|group| group.num_rows().unsigned_abs()).sum()
    }

    /// Returns the row numbers of each row group.
    pub fn groups(&self) -> impl Iterator<Item = Range<u64>> {
        let groups = self.metadata.metadata().row_groups().iter();
        groups.scan(0, |next, group| {
            let first = *next;
            *next += group.num_rows().unsigned_abs();
            Some(first..*next)
        })
    }

    /// Reads some columns, given by their indices in the schema.
    ///
    /// # Errors
    ///
    /// Returns a data error if the file is damaged, and otherwise a storage error.
    pub fn batches(&self, roots: &[usize]) -> Result<Batches> {
        self.groups_batches(roots, 0..self.metadata.metadata().num_row_groups())
    }

    /// Reads some columns of a row group. The batches have the same rows for any choice of columns,
    /// so that all readers get the same rows before a damaged one.
    ///
    /// # Errors
    ///
    /// Returns a data error if the row group is damaged, and otherwise a storage error.
    pub fn group_batches(&self, roots: &[usize], group: usize) -> Result<Batches> {
        self.groups_batches(roots, group..group + 1)
    }

    fn groups_batches(&self, roots: &[usize], groups: Range<usize>) -> Result<Batches> {
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), roots.iter().copied());
        let chunks = ColumnChunks(Arc::new(SharedFile {
            object: self.object.clone(),
            chunks: self.chunks(&mask, groups.clone())?,
            open: Mutex::default(),
            failure: Mutex::default(),
        }));
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(
            chunks.clone(),
            self.metadata.clone(),
        );
        let builder = builder
            .with_batch_size(self.batch_rows())
            .with_projection(mask)
            .with_row_groups(groups.collect());
        let reader = unpanicked(|| builder.build()).map_err(|e| chunks.0.error(e))?;
        Ok(Batches { chunks, reader })
    }

    /// Returns the number of rows with about [`BATCH_BYTES`] in the row group with the longest
    /// rows.
    fn batch_rows(&self) -> usize {
        let groups = self.metadata.metadata().row_groups().iter();
        let row_bytes = groups.map(|group| {
            let columns = group.columns().iter();
            let bytes = columns.map(|column| column.uncompressed_size().unsigned_abs());
            let bytes = bytes.fold(0, u64::saturating_add);
            bytes / group.num_rows().unsigned_abs().max(1)
        });
        let longest = row_bytes.max().unwrap_or(0).max(1);
        (BATCH_BYTES / longest).clamp(1, BATCH_ROWS) as usize
    }

    /// Returns the byte ranges of the chosen column chunks. The ranges in a damaged footer may be
    /// arbitrary.
    fn chunks(&self, mask: &ProjectionMask, groups: Range<usize>) -> Result<Vec<Range<u64>>> {
        let groups = self.metadata.metadata().row_groups()[groups].iter();
        let columns = groups.flat_map(|group| group.columns().iter().enumerate());
        let columns = columns.filter(|(leaf, _)| mask.leaf_included(*leaf));
        let ranges = columns.map(|(_, column)| {
            let range = chunk_range(column).filter(|range| range.end <= self.object.bytes);
            range.ok_or_else(|| {
                self.object
                    .unreadable("a column chunk is outside of the file")
            })
        });
        ranges.collect()
    }
}

/// Some columns of a table, in batches of rows.
pub struct Batches {
    chunks: ColumnChunks,
    reader: ParquetRecordBatchReader,
}

impl Iterator for Batches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = unpanicked(|| self.reader.next().transpose());
        batch.map_err(|e| self.chunks.0.error(e)).transpose()
    }
}

fn chunk_range(column: &ColumnChunkMetaData) -> Option<Range<u64>> {
    let dictionary = column.dictionary_page_offset();
    let start = u64::try_from(dictionary.unwrap_or_else(|| column.data_page_offset())).ok()?;
    let length = u64::try_from(column.compressed_size()).ok()?;
    Some(start..start.checked_add(length)?)
}

fn read_footer(object: &UserObject) -> Result<ParquetMetaData> {
    let wrong = |e| not_parquet(object, e);
    let decoder = ParquetMetaDataPushDecoder::try_new(object.bytes).map_err(wrong)?;
    let mut decoder = decoder.with_page_index_policy(PageIndexPolicy::Skip);
    let last = object.bytes.saturating_sub(FOOTER)..object.bytes;
    let mut needed = vec![last];
    loop {
        let bytes = needed.iter().map(|range| object.range(range.clone()));
        let bytes = bytes.collect::<Result<Vec<_>>>()?;
        decoder.push_ranges(needed, bytes).map_err(wrong)?;
        needed = match decoder.try_decode().map_err(wrong)? {
            DecodeResult::NeedsData(ranges) => ranges,
            DecodeResult::Data(metadata) => return Ok(metadata),
            DecodeResult::Finished => {
                return Err(Error::bug(format!("{}: footer read twice", object.uri)));
            }
        }
    }
}

fn not_parquet(object: &UserObject, e: ParquetError) -> Error {
    object.unreadable(format!("not a usable Parquet file: {e}"))
}

/// Converts a panic to an error, because the decoder panics on some damaged files.
fn unpanicked<T, E: Into<ParquetError>>(
    decode: impl FnOnce() -> Result<T, E>,
) -> Result<T, ParquetError> {
    match panic::catch_unwind(AssertUnwindSafe(decode)) {
        Ok(decoded) => decoded.map_err(E::into),
        Err(_) => Err(ParquetError::General("its content is damaged".to_owned())),
    }
}

/// The column chunks that are read. The decoder requests one page after another, alternating
/// between columns.
#[derive(Clone)]
struct ColumnChunks(Arc<SharedFile>);

struct SharedFile {
    object: UserObject,
    chunks: Vec<Range<u64>>,
    /// The open column chunks.
    open: Mutex<Vec<OpenChunk>>,
    /// The first error. The decoder's own errors contain its text but not its class.
    failure: Mutex<Option<Error>>,
}

struct OpenChunk {
    /// The bytes that have not been read yet.
    left: Range<u64>,
    reader: ObjectReader,
}

impl SharedFile {
    fn error(&self, e: ParquetError) -> Error {
        let failure = lock(&self.failure).take();
        failure.unwrap_or_else(|| not_parquet(&self.object, e))
    }

    /// Reads bytes from a position, limited by the buffer and the chunk.
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.try_read_at(position, buffer).map_err(|e| {
            let text = e.to_string();
            lock(&self.failure).get_or_insert(e);
            io::Error::other(text)
        })
    }

    fn try_read_at(&self, position: u64, buffer: &mut [u8]) -> Result<usize> {
        let mut open = lock(&self.open);
        let index = match open.iter().position(|chunk| chunk.left.contains(&position)) {
            Some(index) => index,
            None => {
                open.push(self.open_chunk(position)?);
                open.len() - 1
            }
        };
        let OpenChunk { left, reader } = &mut open[index];
        reader.skip_to(position)?;
        let length = buffer.len().min((left.end - position) as usize);
        let read = reader.read(&mut buffer[..length]);
        let read = read.map_err(|e| self.object.of_io(e))?;
        left.start = position + read as u64;
        if left.is_empty() {
            open.swap_remove(index);
        }
        Ok(read)
    }

    fn open_chunk(&self, position: u64) -> Result<OpenChunk> {
        let mut chunks = self.chunks.iter();
        let Some(chunk) = chunks.find(|chunk| chunk.contains(&position)) else {
            return Err(self
                .object
                .unreadable("a page is outside of its column chunk"));
        };
        let left = position..chunk.end;
        let reader = self.object.stream(left.clone())?;
        Ok(OpenChunk { left, reader })
    }
}

impl Length for ColumnChunks {
    fn len(&self) -> u64 {
        self.0.object.bytes
    }
}

impl ChunkReader for ColumnChunks {
    type T = ChunkStream;

    fn get_read(&self, start: u64) -> parquet::errors::Result<ChunkStream> {
        Ok(ChunkStream {
            chunks: self.clone(),
            position: start,
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let mut bytes = Vec::new();
        let stream = self.get_read(start)?;
        if stream.take(length as u64).read_to_end(&mut bytes)? != length {
            return Err(ParquetError::EOF(format!("{length} bytes at byte {start}")));
        }
        Ok(bytes.into())
    }
}

/// The bytes from a position to the end of a chunk.
struct ChunkStream {
    chunks: ColumnChunks,
    position: u64,
}

impl Read for ChunkStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.chunks.0.read_at(self.position, buffer)?;
        self.position += read as u64;
        Ok(read)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use parquet::arrow::ArrowWriter;
    use parquet::file::metadata::KeyValue;
    use parquet::file::properties::WriterProperties;
    use sluice_store::{Location, Storage};

    use super::*;

    #[test]
    fn footers_of_any_length_are_read() {
        let location = Location::parse("memory://long-footers").unwrap();
        let store = Storage::default().create(&location).unwrap();
        for length in [0, FOOTER as usize - 300, FOOTER as usize, 1 << 20] {
            let note = KeyValue::new("note".to_owned(), "x".repeat(length));
            let properties = WriterProperties::builder().set_key_value_metadata(Some(vec![note]));
            let rows: Arc<Int64Array> = Arc::new((0..100).collect());
            let batch = RecordBatch::try_from_iter([("n", rows as _)]).unwrap();
            let mut file = Vec::new();
            let mut writer =
                ArrowWriter::try_new(&mut file, batch.schema(), Some(properties.build())).unwrap();
            writer.write(&batch).unwrap();
            writer.close().unwrap();
            store.put("a.parquet", file).unwrap();
            let table = ParquetTable::open(UserObject::open(&store, "a.parquet").unwrap()).unwrap();
            let batches = table.batches(&[0]).unwrap();
            let read: usize = batches.map(|batch| batch.unwrap().num_rows()).sum();
            assert_eq!((table.rows(), read), (100, 100), "{length}");
        }
    }
}
