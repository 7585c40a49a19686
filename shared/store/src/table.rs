//! Manifests: Parquet objects as Arrow batches, one row group at a time.
//!
//! Reading fetches the footer, then only the requested columns of each row group. Writing buffers
//! one row group. A row group ends after a number of rows or a number of bytes, whichever comes
//! first, and is read in batches limited in the same way. So memory use depends neither on the
//! length of a manifest nor on the length of its texts.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, FixedSizeListArray, Float32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use parquet::DecodeResult;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use parquet::arrow::push_decoder::{ParquetPushDecoder, ParquetPushDecoderBuilder};
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, ParquetMetaData};
use parquet::file::properties::WriterProperties;
use parquet::file::statistics::Statistics;
use parquet::schema::types::ColumnPath;
use sluice_manifest::rows::{SCHEMA_KEY, VERSION_KEY, version_of};
use sluice_manifest::{Error, Output, Result};

use crate::object::ObjectWriter;
use crate::source::{Checked, ManifestBytes};
use crate::store::Store;
use crate::vectors::{VectorColumn, Vectors};

/// The number of rows in a row group. Narrow rows take about 1 MB, embeddings of 1280 values 5 MB.
pub(crate) const GROUP_ROWS: usize = 1024;
/// The number of bytes of text at which a row group is full.
pub(crate) const GROUP_BYTES: usize = 8 << 20;
/// The approximate size of a batch when reading.
const BATCH_BYTES: u64 = 4 << 20;

impl Store {
    /// Opens a manifest to read some of its columns as Arrow batches.
    ///
    /// # Errors
    ///
    /// Returns a data error if there is no such manifest, its schema or version differs, or a
    /// column is missing; otherwise a storage error.
    pub fn table(&self, path: &str, schema: &str, columns: &[&str]) -> Result<Table> {
        let source = ManifestBytes::open(self, path)?;
        Table::open(source, schema, version_of(schema), columns)
    }

    /// Opens a manifest like [`table`](Self::table), and verifies the checksum of each block read.
    ///
    /// # Errors
    ///
    /// Fails like [`table`](Self::table), and with [`Checked::damaged`] if bytes differ from those
    /// written.
    pub fn checked_table(&self, checked: Checked, schema: &str, columns: &[&str]) -> Result<Table> {
        let source = ManifestBytes::open_checked(self, checked)?;
        Table::open(source, schema, version_of(schema), columns)
    }

    /// Opens a Parquet object of any schema with all its columns.
    ///
    /// # Errors
    ///
    /// Returns a data error if there is no such object or it is not Parquet; otherwise a storage
    /// error.
    pub fn any_table(&self, path: &str) -> Result<Table> {
        Table::open_any(ManifestBytes::open(self, path)?)
    }

    /// Starts a manifest of Arrow batches, with `metadata` in its footer.
    ///
    /// # Errors
    ///
    /// Returns a storage error if the object cannot be created, and a bug error if Parquet cannot
    /// represent the schema.
    pub fn write_table(
        &self,
        path: &str,
        name: &str,
        schema: Schema,
        metadata: &[(&str, String)],
    ) -> Result<TableWriter> {
        TableWriter::open(
            self.writer(path)?.with_blocks(),
            self.uri(path),
            name,
            version_of(name),
            schema,
            metadata,
        )
    }
}

/// A manifest open for reading. Iterates over its batches.
pub struct Table {
    source: ManifestBytes,
    pub(crate) footer: Arc<ParquetMetaData>,
    metadata: HashMap<String, String>,
    schema: SchemaRef,
    rows: u64,
    /// The vector column that is read without the general decoder.
    pub(crate) column: Option<VectorColumn>,
    /// Taken when the first row is read.
    builder: Option<ParquetPushDecoderBuilder>,
    /// The number of rows to skip in the first row group.
    skip: usize,
    decoder: Option<ParquetPushDecoder>,
    group: Option<RowGroup>,
}

/// The row group being read.
struct RowGroup {
    reader: ParquetRecordBatchReader,
    vectors: Option<Vectors>,
}

impl Table {
    pub(crate) fn open(
        source: ManifestBytes,
        schema: &str,
        version: u32,
        columns: &[&str],
    ) -> Result<Self> {
        let mut table = Self::open_any(source)?;
        let (uri, metadata) = (table.uri(), &table.metadata);
        let found = metadata.get(SCHEMA_KEY).map_or("none", String::as_str);
        if found != schema {
            return Err(Error::data(format!(
                "{uri}: schema {found:?}, expected {schema:?}"
            )));
        }
        let found = metadata.get(VERSION_KEY).map_or("none", String::as_str);
        if found != version.to_string() {
            return Err(Error::data(format!(
                "{uri}: version {found} of schema {schema:?}, this program reads version {version}"
            ))
            .hint("run the stage that wrote it again with this version of Sluice"));
        }
        for column in columns {
            if table.schema.field_with_name(column).is_err() {
                return Err(Error::data(format!("{uri}: column {column:?} is missing")));
            }
        }
        table.column = VectorColumn::of(&table.footer, &table.schema, columns);
        let beside = table.column.as_ref().map(|column| column.leaf);
        let leaves = table.footer.file_metadata().schema_descr().columns();
        let leaves = leaves.iter().enumerate().filter_map(|(leaf, column)| {
            let chosen = columns.contains(&column.path().parts()[0].as_str());
            (chosen && Some(leaf) != beside).then_some(leaf)
        });
        let mask = ProjectionMask::leaves(table.footer.file_metadata().schema_descr(), leaves);
        let rows = batch_rows(&table.footer, |leaf| mask.leaf_included(leaf));
        table.builder = table
            .builder
            .map(|builder| builder.with_projection(mask).with_batch_size(rows));
        Ok(table)
    }

    fn open_any(source: ManifestBytes) -> Result<Self> {
        let footer = Arc::new(source.metadata()?);
        let builder = ParquetPushDecoderBuilder::try_new_decoder(footer.clone());
        let builder = builder.map_err(|e| broken(&source.uri, e))?;
        let pairs = footer.file_metadata().key_value_metadata();
        let metadata = pairs
            .into_iter()
            .flatten()
            .filter_map(|pair| Some((pair.key.clone(), pair.value.clone()?)))
            .collect();
        Ok(Self {
            rows: footer.file_metadata().num_rows().unsigned_abs(),
            schema: builder.schema().clone(),
            builder: Some(builder.with_batch_size(batch_rows(&footer, |_| true))),
            column: None,
            skip: 0,
            decoder: None,
            group: None,
            metadata,
            footer,
            source,
        })
    }

    /// Returns the object's URI.
    pub(crate) fn uri(&self) -> &str {
        &self.source.uri
    }

    /// Returns a value of the file's key-value metadata.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// Returns the file's key-value metadata, sorted by key.
    pub fn all_metadata(&self) -> BTreeMap<&str, &str> {
        let pairs = self.metadata.iter();
        pairs.map(|(key, value)| (&**key, &**value)).collect()
    }

    /// Returns a value of the file's key-value metadata.
    ///
    /// # Errors
    ///
    /// Returns a data error if the key is missing.
    pub fn required(&self, key: &str) -> Result<&str> {
        self.metadata(key)
            .ok_or_else(|| Error::data(format!("{}: metadata {key:?} is missing", self.uri())))
    }

    /// Returns the number of rows in the file.
    pub fn len(&self) -> u64 {
        self.rows
    }

    /// Returns whether the file has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Returns the columns of the file.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Returns the reader's configuration. Fails once a row was read.
    fn unread(&mut self, what: &str) -> Result<ParquetPushDecoderBuilder> {
        let builder = self.builder.take();
        builder.ok_or_else(|| Error::bug(format!("{}: {what} after its first row", self.uri())))
    }

    /// Restricts reading to row groups in which `column` (UInt32) may have a value in `range`. Rows
    /// outside the range are returned if their row group has others inside.
    ///
    /// # Errors
    ///
    /// Returns a data error if the column is missing, and a bug error once a row was read.
    pub fn within(mut self, column: &str, range: Range<u32>) -> Result<Self> {
        let builder = self.unread("filtered")?;
        let index = builder
            .parquet_schema()
            .columns()
            .iter()
            .position(|c| c.name() == column);
        let Some(index) = index else {
            return Err(Error::data(format!(
                "{}: column {column:?} is missing",
                self.uri()
            )));
        };
        let groups = builder.metadata().row_groups().iter().enumerate();
        let groups = groups.filter_map(|(number, group)| {
            let Some(Statistics::Int32(statistics)) = group.column(index).statistics() else {
                return Some(number);
            };
            let (Some(&low), Some(&high)) = (statistics.min_opt(), statistics.max_opt()) else {
                return Some(number);
            };
            // The values are unsigned; Parquet stores their bits as an `i32`.
            let overlaps = low.cast_unsigned() < range.end && high.cast_unsigned() >= range.start;
            overlaps.then_some(number)
        });
        let groups = groups.collect();
        self.builder = Some(builder.with_row_groups(groups));
        Ok(self)
    }

    /// Restricts reading to the row groups that `choose` returns, given the number of row groups.
    ///
    /// # Errors
    ///
    /// Returns a bug error once a row was read.
    pub fn groups(mut self, choose: impl FnOnce(usize) -> Vec<usize>) -> Result<Self> {
        let builder = self.unread("filtered")?;
        let chosen = choose(builder.metadata().num_row_groups());
        self.builder = Some(builder.with_row_groups(chosen));
        Ok(self)
    }

    /// Starts at this row. Earlier row groups are not read.
    ///
    /// # Errors
    ///
    /// Returns a bug error once a row was read.
    pub fn from_row(mut self, row: u64) -> Result<Self> {
        let builder = self.unread("moved")?;
        let mut skip = row;
        let groups = self.footer.row_groups();
        let first = groups.iter().take_while(|group| {
            let rows = group.num_rows().unsigned_abs();
            let before = skip >= rows;
            skip -= if before { rows } else { 0 };
            before
        });
        let first = first.count();
        self.skip = skip as usize;
        let builder = builder.with_row_groups((first..groups.len()).collect());
        self.builder = Some(builder.with_offset(self.skip));
        Ok(self)
    }

    pub(crate) fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.group.as_mut().and_then(|group| group.reader.next()) {
                return self.joined(batch).map(Some);
            }
            self.group = self.next_group()?;
            if self.group.is_none() {
                return Ok(None);
            }
        }
    }

    fn joined(&mut self, batch: Result<RecordBatch, ArrowError>) -> Result<RecordBatch> {
        let vectors = self.group.as_mut().and_then(|group| group.vectors.as_mut());
        let batch = batch.map_err(ParquetError::from);
        let joined = match self.column.as_ref().zip(vectors) {
            Some((column, vectors)) => batch.and_then(|batch| column.join(&batch, vectors)),
            None => batch,
        };
        joined.map_err(|e| broken(self.uri(), e))
    }

    /// Fetches the required columns of the next row group. Adjacent columns share a request.
    fn next_group(&mut self) -> Result<Option<RowGroup>> {
        let wrong = |e| broken(&self.source.uri, e);
        if let Some(builder) = self.builder.take() {
            self.decoder = Some(builder.build().map_err(wrong)?);
        }
        let Some(decoder) = &mut self.decoder else {
            return Ok(None);
        };
        let number = decoder.peek_next_row_group().map_err(wrong)?;
        let group = number.map(|number| self.footer.row_group(number));
        let beside = self.column.as_ref().zip(group);
        let mut chunk = None;
        loop {
            match decoder.try_next_reader().map_err(wrong)? {
                DecodeResult::NeedsData(mut ranges) => {
                    let asked = ranges.len();
                    ranges.extend(beside.map(|(column, group)| column.range(group)));
                    let mut bytes = self.source.ranges(ranges.clone())?;
                    chunk = bytes.drain(asked..).next();
                    ranges.truncate(asked);
                    decoder.push_ranges(ranges, bytes).map_err(wrong)?;
                }
                DecodeResult::Data(reader) => {
                    let mut vectors = None;
                    if let Some((column, group)) = beside {
                        let chunk = match chunk {
                            Some(chunk) => chunk,
                            None => self.source.ranges(vec![column.range(group)])?.remove(0),
                        };
                        let skip = std::mem::take(&mut self.skip);
                        vectors = Some(column.read(group, chunk, skip).map_err(wrong)?);
                    }
                    return Ok(Some(RowGroup { reader, vectors }));
                }
                DecodeResult::Finished => return Ok(None),
            }
        }
    }
}

impl Iterator for Table {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().transpose()
    }
}

/// Returns how many rows of the chosen columns take about [`BATCH_BYTES`], in the row group with
/// the longest rows.
fn batch_rows(footer: &ParquetMetaData, is_chosen: impl Fn(usize) -> bool) -> usize {
    let row_bytes = footer.row_groups().iter().map(|group| {
        let columns = group.columns().iter().enumerate();
        let chosen = columns.filter(|(leaf, _)| is_chosen(*leaf));
        // A dictionary entry is stored once and decoded for every use.
        let bytes = chosen.map(|(_, column)| {
            let text = column.unencoded_byte_array_data_bytes().unwrap_or(0);
            column.uncompressed_size().max(text).unsigned_abs()
        });
        bytes.sum::<u64>() / group.num_rows().unsigned_abs().max(1)
    });
    let longest = row_bytes.max().unwrap_or(0).max(1);
    ((BATCH_BYTES / longest) as usize).clamp(1, GROUP_ROWS)
}

/// Returns the values of a fixed-size list column, concatenated: `rows * dimension` values.
///
/// # Errors
///
/// Returns a data error if the column is missing, has another type or contains nulls.
pub fn vectors<'a>(batch: &'a RecordBatch, column: &str) -> Result<&'a [f32]> {
    let wrong = || {
        Error::data(format!(
            "column {column:?} is not a list of float32 vectors"
        ))
    };
    let list = batch.column_by_name(column).ok_or_else(wrong)?;
    let list = list
        .as_any()
        .downcast_ref::<FixedSizeListArray>()
        .ok_or_else(wrong)?;
    let length = list.value_length() as usize;
    let values = list
        .values()
        .as_any()
        .downcast_ref::<Float32Array>()
        .ok_or_else(wrong)?;
    if list.null_count() > 0 || values.null_count() > 0 {
        return Err(Error::data(format!("column {column:?} contains nulls")));
    }
    Ok(&values.values()[..list.len() * length])
}

/// Writes Arrow batches to a new manifest.
pub struct TableWriter {
    pub(crate) uri: String,
    schema: SchemaRef,
    writer: ArrowWriter<ObjectWriter>,
}

impl TableWriter {
    pub(crate) fn open(
        object: ObjectWriter,
        uri: String,
        name: &str,
        version: u32,
        schema: Schema,
        metadata: &[(&str, String)],
    ) -> Result<Self> {
        let mut pairs = vec![
            KeyValue::new(SCHEMA_KEY.to_owned(), name.to_owned()),
            KeyValue::new(VERSION_KEY.to_owned(), version.to_string()),
        ];
        pairs.extend(
            metadata
                .iter()
                .map(|(key, value)| KeyValue::new((*key).to_owned(), value.clone())),
        );
        let mut properties = WriterProperties::builder()
            .set_created_by(format!("sluice {}", env!("CARGO_PKG_VERSION")))
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_key_value_metadata(Some(pairs));
        for column in schema.fields().iter().flat_map(|f| incompressible(f)) {
            properties = properties
                .set_column_compression(column.clone(), Compression::UNCOMPRESSED)
                .set_column_dictionary_enabled(column, false);
        }
        let schema = Arc::new(schema);
        let writer = ArrowWriter::try_new(object, schema.clone(), Some(properties.build()))
            .map_err(|e| unwritable(&uri, e))?;
        Ok(Self {
            uri,
            schema,
            writer,
        })
    }

    /// Returns the schema of the written table.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Adds rows.
    ///
    /// # Errors
    ///
    /// Returns a storage error if a full row group cannot be written, and a bug error if the batch
    /// does not match the schema.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer
            .write(batch)
            .map_err(|e| unwritable(&self.uri, e))
    }

    /// Adds rows and ends the row group. Callers pass [`GROUP_ROWS`] rows, or fewer long ones.
    ///
    /// # Errors
    ///
    /// Fails like [`write`](Self::write).
    pub fn write_group(&mut self, batch: &RecordBatch) -> Result<()> {
        self.write(batch)?;
        self.writer.flush().map_err(|e| unwritable(&self.uri, e))
    }

    /// Writes the footer and makes the manifest visible. Returns its path, size and hashes.
    ///
    /// # Errors
    ///
    /// Returns a storage error if the object cannot be completed.
    pub fn finish(self) -> Result<Output> {
        let object = self
            .writer
            .into_inner()
            .map_err(|e| unwritable(&self.uri, e))?;
        object.finish()
    }
}

/// Returns the columns of a field that do not compress: vectors and images. Trying to compress them
/// costs more than writing them.
fn incompressible(field: &Field) -> Vec<ColumnPath> {
    let name = || field.name().clone();
    match field.data_type() {
        DataType::FixedSizeList(..) => {
            vec![ColumnPath::from(vec![name(), "list".into(), "item".into()])]
        }
        DataType::Struct(fields) => {
            let binary = fields.iter().filter(|f| f.data_type() == &DataType::Binary);
            let paths = binary.map(|f| ColumnPath::from(vec![name(), f.name().clone()]));
            paths.collect()
        }
        _ => Vec::new(),
    }
}

/// Counts the rows and bytes buffered for the next row group.
#[derive(Debug, Default)]
pub struct GroupSize {
    rows: usize,
    bytes: usize,
}

impl GroupSize {
    /// Counts a row with this many bytes of text. Returns whether the row group is full.
    #[must_use]
    pub fn add(&mut self, bytes: usize) -> bool {
        self.rows += 1;
        self.bytes += bytes;
        self.rows >= GROUP_ROWS || self.bytes >= GROUP_BYTES
    }

    /// Resets the counts for the next row group.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

pub(crate) fn broken(uri: &str, e: ParquetError) -> Error {
    Error::data(format!("{uri}: not a readable manifest: {e}"))
        .hint("run the stage that wrote it again with --force")
}

fn unwritable(uri: &str, e: ParquetError) -> Error {
    match e {
        ParquetError::External(source) => match source.downcast::<std::io::Error>() {
            Ok(e) => Error::of_io(*e, uri),
            Err(e) => Error::transient(format!("{uri}: cannot write it: {e}")),
        },
        e => Error::bug(format!("{uri}: cannot write it: {e}")),
    }
}
