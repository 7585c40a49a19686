//! Reads a column of vectors by copying its pages.
//!
//! In Parquet a vector is a list, with two levels for each value, and the general list reader
//! examines each level. If all vectors are present and of the same length, the levels repeat and
//! are stored as runs. Once the runs are verified, the values can be copied, which is five times as
//! fast.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, RecordBatch};
use arrow::buffer::{Buffer, MutableBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, FieldRef, Schema};
use arrow::error::ArrowError;
use bytes::{Buf, Bytes};
use parquet::basic::{Compression, Encoding, Type};
use parquet::column::page::{Page, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::serialized_reader::SerializedPageReader;

/// A column of `float32[dimension]` without nulls.
pub(crate) struct VectorColumn {
    /// The index of the column among Parquet's leaf columns.
    pub leaf: usize,
    field: FieldRef,
    item: FieldRef,
    dimension: usize,
    /// The index of the column among the columns that are read.
    place: usize,
}

impl VectorColumn {
    /// Returns the first column of vectors among `columns` whose pages can be copied.
    pub(crate) fn of(
        metadata: &ParquetMetaData,
        schema: &Schema,
        columns: &[&str],
    ) -> Option<Self> {
        let fields = schema.fields().iter();
        let chosen = fields.filter(|field| columns.contains(&field.name().as_str()));
        let (place, field) = chosen.enumerate().find(|(_, field)| {
            let list = matches!(field.data_type(), DataType::FixedSizeList(..));
            list && !field.is_nullable()
        })?;
        let DataType::FixedSizeList(item, length) = field.data_type() else {
            return None;
        };
        let dimension = usize::try_from(*length).ok().filter(|&length| length > 0)?;
        if *item.data_type() != DataType::Float32 || item.is_nullable() {
            return None;
        }
        let leaves = metadata.file_metadata().schema_descr().columns().iter();
        let leaf = leaves.enumerate().find_map(|(leaf, column)| {
            let this = column.path().parts().first() == Some(field.name());
            let levels = (column.max_def_level(), column.max_rep_level());
            (this && column.physical_type() == Type::FLOAT && levels == (1, 1)).then_some(leaf)
        })?;
        let plain = |group: &RowGroupMetaData| {
            let column = group.column(leaf);
            let mut encodings = column.encodings();
            column.compression() == Compression::UNCOMPRESSED
                && encodings.all(|encoding| matches!(encoding, Encoding::PLAIN | Encoding::RLE))
        };
        metadata.row_groups().iter().all(plain).then(|| Self {
            leaf,
            field: field.clone(),
            item: item.clone(),
            dimension,
            place,
        })
    }

    /// Returns the byte range of a row group's vectors in the file.
    pub(crate) fn range(&self, group: &RowGroupMetaData) -> Range<u64> {
        let (start, length) = group.column(self.leaf).byte_range();
        start..start.saturating_add(length)
    }

    /// Decodes the vectors of a row group, except the first `skip`, from the bytes of
    /// [`Self::range`].
    pub(crate) fn read(
        &self,
        group: &RowGroupMetaData,
        chunk: Bytes,
        skip: usize,
    ) -> Result<Vectors> {
        let rows = group.num_rows().unsigned_abs() as usize;
        let total = rows
            .checked_mul(self.dimension)
            .filter(|&values| values <= chunk.len() / size_of::<f32>())
            .ok_or_else(|| wrong("there are fewer values than rows of vectors"))?;
        let mut values = MutableBuffer::with_capacity(total * size_of::<f32>());
        let column = group.column(self.leaf).clone().into_builder();
        let column = column
            .set_dictionary_page_offset(None)
            .set_data_page_offset(0);
        let mut pages = SerializedPageReader::new(Arc::new(chunk), &column.build()?, rows, None)?;
        while let Some(page) = pages.get_next_page()? {
            self.read_page(page, &mut values)?;
        }
        if values.len() != total * size_of::<f32>() {
            return Err(wrong("the vectors are not of one length"));
        }
        Ok(Vectors {
            next: (skip * self.dimension).min(total),
            values: Buffer::from(values).into(),
        })
    }

    fn read_page(&self, page: Page, values: &mut MutableBuffer) -> Result<()> {
        let encoding = page.encoding();
        let before = values.len() / size_of::<f32>();
        let here = before..before + page.num_values() as usize;
        let (mut bytes, repetitions, definitions) = match page {
            Page::DataPage { mut buf, .. } => {
                let repetitions = prefixed(&mut buf)?;
                let definitions = prefixed(&mut buf)?;
                (buf, repetitions, definitions)
            }
            Page::DataPageV2 {
                mut buf,
                rep_levels_byte_len,
                def_levels_byte_len,
                ..
            } => {
                let repetitions = first(&mut buf, rep_levels_byte_len as usize)?;
                let definitions = first(&mut buf, def_levels_byte_len as usize)?;
                (buf, repetitions, definitions)
            }
            Page::DictionaryPage { .. } => return Err(wrong("there is a dictionary")),
        };
        if encoding != Encoding::PLAIN {
            return Err(wrong("values are not plain"));
        }
        // The repetition level is 0 at the start of a vector and 1 within it. The definition level
        // of a value that is present is 1.
        let begun = |end: usize| end.div_ceil(self.dimension);
        levels(repetitions, here.clone(), |run| {
            begun(run.end) - begun(run.start)
        })?;
        levels(definitions, here.clone(), |_| 0)?;
        // Plain values are little-endian, as are all machines that Arrow supports.
        values.extend_from_slice(&first(&mut bytes, here.len() * size_of::<f32>())?);
        Ok(())
    }

    /// Inserts the column into a batch of the other columns.
    pub(crate) fn join(&self, others: &RecordBatch, vectors: &mut Vectors) -> Result<RecordBatch> {
        let rows = others.num_rows();
        let values = vectors.take(rows * self.dimension)?;
        let (item, length) = (self.item.clone(), self.dimension as i32);
        let joined = || {
            let values = Arc::new(Float32Array::new(values, None));
            let list = FixedSizeListArray::try_new(item, length, values, None)?;
            let mut fields = others.schema().fields().to_vec();
            let mut columns: Vec<ArrayRef> = others.columns().to_vec();
            fields.insert(self.place, self.field.clone());
            columns.insert(self.place, Arc::new(list));
            RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
        };
        joined().map_err(|e: ArrowError| e.into())
    }
}

/// The vectors of a row group, concatenated.
pub(crate) struct Vectors {
    values: ScalarBuffer<f32>,
    next: usize,
}

impl Vectors {
    fn take(&mut self, count: usize) -> Result<ScalarBuffer<f32>> {
        if self.values.len() - self.next < count {
            return Err(wrong("there are fewer vectors than rows"));
        }
        self.next += count;
        Ok(self.values.slice(self.next - count, count))
    }
}

/// Verifies the levels of the values in `range`: runs alternating with bit-packed groups, as in
/// Parquet's [hybrid
/// encoding](https://parquet.apache.org/docs/file-format/data-pages/encodings/#RLE). Each level
/// must be 1, except for the number of zeros that `zeros` returns for a run.
fn levels(
    mut bytes: Bytes,
    range: Range<usize>,
    zeros: impl Fn(Range<usize>) -> usize,
) -> Result<()> {
    let check = |run: Range<usize>, level: u8| {
        let expected = if level == 0 { run.len() } else { 0 };
        if zeros(run) == expected && level <= 1 {
            Ok(())
        } else {
            Err(wrong("a vector is missing, or not of the others' length"))
        }
    };
    let mut at = range.start;
    while at < range.end {
        let left = range.end - at;
        let header = varint(&mut bytes)?;
        let length = header >> 1;
        if header & 1 == 0 {
            let run = left.min(length as usize);
            check(at..at + run, first(&mut bytes, 1)?[0])?;
            at += run;
        } else {
            let packed = first(&mut bytes, length as usize)?;
            let run = left.min(packed.len() * 8);
            for index in 0..run {
                check(
                    at + index..at + index + 1,
                    packed[index / 8] >> (index % 8) & 1,
                )?;
            }
            at += run;
        }
    }
    Ok(())
}

/// Decodes an unsigned LEB128 number.
fn varint(bytes: &mut Bytes) -> Result<u32> {
    let mut number = 0;
    for shift in (0..u32::BITS).step_by(7) {
        let byte = first(bytes, 1)?[0];
        number |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(wrong("a run of levels is too long"))
}

/// Splits off levels that are prefixed by their length.
fn prefixed(bytes: &mut Bytes) -> Result<Bytes> {
    let length = bytes.try_get_u32_le();
    first(
        bytes,
        length.map_err(|_| wrong("a page ends too early"))? as usize,
    )
}

/// Splits off the first bytes.
fn first(bytes: &mut Bytes, count: usize) -> Result<Bytes> {
    if bytes.len() < count {
        return Err(wrong("a page ends too early"));
    }
    Ok(bytes.split_to(count))
}

fn wrong(what: &str) -> ParquetError {
    ParquetError::General(format!("a column of vectors: {what}"))
}

#[cfg(test)]
mod tests {
    use arrow::array::{ListArray, StringArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::Field;
    use parquet::arrow::{ArrowWriter, add_encoded_arrow_schema_to_metadata};
    use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder, WriterVersion};
    use sluice_manifest::rows::{SCHEMA_KEY, VERSION_KEY, embeddings};

    use super::*;
    use crate::{Location, Storage, Store, vectors};

    const COLUMNS: [&str; 2] = ["image_id", "embedding"];

    fn store() -> Store {
        Storage::default()
            .create(&Location::parse("memory://vector-tests").unwrap())
            .unwrap()
    }

    fn batch(rows: usize, dimension: usize) -> RecordBatch {
        let schema = Arc::new(embeddings(dimension));
        let DataType::FixedSizeList(item, length) = schema.field(1).data_type().clone() else {
            panic!("embeddings are lists");
        };
        let ids = StringArray::from_iter_values((0..rows).map(|row| format!("s/{row}")));
        let values = (0..rows * dimension).map(|value| value as f32);
        let values = Arc::new(Float32Array::from_iter_values(values));
        let list = FixedSizeListArray::try_new(item, length, values, None).unwrap();
        RecordBatch::try_new(schema, vec![Arc::new(ids), Arc::new(list)]).unwrap()
    }

    fn write(store: &Store, path: &str, batch: &RecordBatch, properties: WriterPropertiesBuilder) {
        write_as(store, path, batch, &batch.schema(), properties);
    }

    /// Writes a batch whose footer claims another schema.
    fn write_as(
        store: &Store,
        path: &str,
        batch: &RecordBatch,
        schema: &Schema,
        properties: WriterPropertiesBuilder,
    ) {
        let pairs = [(SCHEMA_KEY, "embed/embeddings"), (VERSION_KEY, "1")];
        let pairs = pairs.map(|(key, value)| {
            parquet::file::metadata::KeyValue::new(key.to_owned(), value.to_owned())
        });
        let mut properties = properties
            .set_dictionary_enabled(false)
            .set_key_value_metadata(Some(pairs.to_vec()))
            .build();
        add_encoded_arrow_schema_to_metadata(schema, &mut properties);
        let options = parquet::arrow::arrow_writer::ArrowWriterOptions::new()
            .with_properties(properties)
            .with_skip_arrow_metadata(true);
        let mut file = Vec::new();
        let mut writer =
            ArrowWriter::try_new_with_options(&mut file, batch.schema(), options).unwrap();
        writer.write(batch).unwrap();
        writer.close().unwrap();
        store.put(path, file).unwrap();
    }

    fn values(table: crate::Table) -> Vec<f32> {
        let batches = table.map(|batch| vectors(&batch.unwrap(), "embedding").unwrap().to_vec());
        batches.collect::<Vec<_>>().concat()
    }

    #[test]
    fn copied_pages_are_what_the_reader_of_lists_finds() {
        let store = store();
        let properties = WriterProperties::builder;
        for (name, properties) in [
            ("one page", properties()),
            ("pages", properties().set_data_page_row_count_limit(7)),
            (
                "groups",
                properties().set_max_row_group_row_count(Some(100)),
            ),
            (
                "v2",
                properties().set_writer_version(WriterVersion::PARQUET_2_0),
            ),
        ] {
            for dimension in [1, 3, 8, 50] {
                let properties = properties.clone().set_write_batch_size(16);
                write(&store, name, &batch(300, dimension), properties);
                let table = || store.table(name, "embed/embeddings", &COLUMNS).unwrap();
                assert_eq!(table().column.is_some(), name != "compressed", "{name}");
                let expected = values(store.any_table(name).unwrap());
                assert_eq!(values(table()), expected, "{name}, {dimension} values");
                for row in [0, 1, 99, 100, 250, 300] {
                    let rest = values(table().from_row(row).unwrap());
                    assert_eq!(
                        rest,
                        expected[row as usize * dimension..],
                        "{name} from {row}"
                    );
                }
                let last = values(table().groups(|groups| vec![groups - 1]).unwrap());
                assert!(!last.is_empty() && expected.ends_with(&last), "{name}");
                let alone = store.table(name, "embed/embeddings", &["embedding"]);
                assert_eq!(values(alone.unwrap()), expected, "{name} without names");
            }
        }
    }

    #[test]
    fn vectors_of_other_lengths_are_refused() {
        let store = store();
        let item = Arc::new(Field::new("item", DataType::Float32, false));
        let field = Field::new("embedding", DataType::List(item.clone()), false);
        for lengths in [[3, 2, 4], [3, 3, 2], [3, 0, 6]] {
            let values: usize = lengths.iter().sum();
            let values = Arc::new(Float32Array::from(vec![0.5; values]));
            let offsets = OffsetBuffer::from_lengths(lengths);
            let list = ListArray::new(item.clone(), offsets, values, None);
            let ids = StringArray::from_iter_values(["a", "b", "c"]);
            let schema = Schema::new(vec![embeddings(3).field(0).clone(), field.clone()]);
            let columns: Vec<ArrayRef> = vec![Arc::new(ids), Arc::new(list)];
            let batch = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
            let properties = WriterProperties::builder();
            write_as(&store, "uneven", &batch, &embeddings(3), properties);
            let mut table = store.table("uneven", "embed/embeddings", &COLUMNS).unwrap();
            assert!(table.column.is_some());
            let error = table.next().unwrap().unwrap_err().to_string();
            assert!(error.contains("vector"), "{lengths:?}: {error}");
        }
    }

    #[test]
    fn levels_are_runs_or_packed_bits() {
        let begun = |run: Range<usize>| run.end.div_ceil(4) - run.start.div_ceil(4);
        let check = |bytes: &'static [u8], range| levels(Bytes::from_static(bytes), range, begun);
        // 0 1 1 1 0 1 1 1, packed; then the same with three ones of the next vector after its 0, as
        // runs.
        assert!(check(&[0b11, 0b1110_1110], 0..8).is_ok());
        assert!(check(&[0b11, 0b1110_1110, 2, 0, 6, 1], 0..12).is_ok());
        assert!(check(&[6, 1, 2, 0], 1..5).is_ok());
        assert!(check(&[0b11, 0b1110_1110], 1..9).is_err());
        assert!(check(&[4, 0], 0..2).is_err());
        assert!(check(&[2, 2], 0..1).is_err());
        for cut in [&[][..], &[0b11], &[2], &[0x80; 5]] {
            assert!(check(cut, 0..8).is_err(), "{cut:?}");
        }
    }
}
