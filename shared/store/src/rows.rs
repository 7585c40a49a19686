//! Manifests as typed rows.

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema};
use sluice_manifest::rows::Row;
use sluice_manifest::{Error, Output, Result};

use crate::source::{Checked, ManifestBytes};
use crate::store::Store;
use crate::table::{GroupSize, Table, TableWriter};

impl Store {
    /// Reads a manifest's rows.
    ///
    /// # Errors
    ///
    /// Returns a data error if there is no such manifest, its schema or version differs, or a
    /// column is missing or has another type; otherwise a storage error.
    pub fn rows<R: Row>(&self, path: &str) -> Result<RowReader<R>> {
        RowReader::open(ManifestBytes::open(self, path)?)
    }

    /// Reads a manifest's rows and verifies the checksum of each block read.
    ///
    /// # Errors
    ///
    /// Fails like [`rows`](Self::rows), and with [`Checked::damaged`] if bytes differ from those
    /// written.
    pub fn checked_rows<R: Row>(&self, checked: Checked) -> Result<RowReader<R>> {
        RowReader::open(ManifestBytes::open_checked(self, checked)?)
    }

    /// Starts a manifest of rows, with `metadata` in its footer.
    ///
    /// # Errors
    ///
    /// Returns a storage error if the object cannot be created.
    pub fn write_rows<R: Row>(
        &self,
        path: &str,
        metadata: &[(&str, String)],
    ) -> Result<RowWriter<R>> {
        let schema = Schema::new(R::fields());
        let table = TableWriter::open(
            self.writer(path)?.with_blocks(),
            self.uri(path),
            R::SCHEMA,
            R::VERSION,
            schema,
            metadata,
        )?;
        Ok(RowWriter {
            fields: R::fields().into_iter().map(Arc::new).collect(),
            table,
            rows: Vec::new(),
            size: GroupSize::default(),
        })
    }
}

/// Iterates over the rows of a manifest. Reads one row group at a time.
pub struct RowReader<R> {
    table: Table,
    rows: std::vec::IntoIter<R>,
}

impl<R: Row> RowReader<R> {
    fn open(source: ManifestBytes) -> Result<Self> {
        let fields = R::fields();
        let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
        let table = Table::open(source, R::SCHEMA, R::VERSION, &names)?;
        check(&table, &fields)?;
        Ok(Self {
            table,
            rows: Vec::new().into_iter(),
        })
    }

    /// Returns the underlying table. Its rows must not be read through it.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Restricts reading to row groups by a column's range. See [`Table::within`].
    ///
    /// # Errors
    ///
    /// Fails like [`Table::within`].
    pub fn within(mut self, column: &str, range: Range<u32>) -> Result<Self> {
        self.table = self.table.within(column, range)?;
        Ok(self)
    }

    /// Starts at a row. See [`Table::from_row`].
    ///
    /// # Errors
    ///
    /// Fails like [`Table::from_row`].
    pub fn from_row(mut self, row: u64) -> Result<Self> {
        self.table = self.table.from_row(row)?;
        Ok(self)
    }

    /// Returns the next row if `wanted` accepts it; otherwise leaves it in place. Used to join
    /// manifests with the same row order.
    ///
    /// # Errors
    ///
    /// Returns a data error if a row group is damaged or a row cannot be decoded; otherwise a
    /// storage error.
    pub fn next_if(&mut self, wanted: impl FnOnce(&R) -> bool) -> Result<Option<R>> {
        self.fill()?;
        let next = self.rows.as_slice().first();
        Ok(if next.is_some_and(wanted) {
            self.rows.next()
        } else {
            None
        })
    }

    fn fill(&mut self) -> Result<()> {
        while self.rows.as_slice().is_empty() {
            let Some(batch) = self.table.next_batch()? else {
                return Ok(());
            };
            let rows: Vec<R> = serde_arrow::from_record_batch(&batch).map_err(|e| {
                Error::data(format!("{}: cannot decode a row: {e}", self.table.uri()))
            })?;
            self.rows = rows.into_iter();
        }
        Ok(())
    }
}

impl<R: Row> Iterator for RowReader<R> {
    type Item = Result<R>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.fill() {
            Ok(()) => self.rows.next().map(Ok),
            Err(e) => Some(Err(e)),
        }
    }
}

fn check(table: &Table, fields: &[Field]) -> Result<()> {
    for field in fields {
        let found = table
            .schema()
            .field_with_name(field.name())
            .map_err(|e| Error::bug(e.to_string()))?;
        if found.data_type() != field.data_type() {
            return Err(Error::data(format!(
                "{}: column {:?} is {}, expected {}",
                table.uri(),
                field.name(),
                found.data_type(),
                field.data_type()
            )));
        }
    }
    Ok(())
}

/// Writes rows to a new manifest.
pub struct RowWriter<R> {
    fields: Vec<FieldRef>,
    table: TableWriter,
    rows: Vec<R>,
    size: GroupSize,
}

impl<R: Row> RowWriter<R> {
    /// Adds a row.
    ///
    /// # Errors
    ///
    /// Returns a storage error if a full row group cannot be written, and a bug error if the rows
    /// do not match their schema.
    pub fn push(&mut self, row: R) -> Result<()> {
        let is_full = self.size.add(row.text_bytes());
        self.rows.push(row);
        if is_full { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let batch = serde_arrow::to_record_batch(&self.fields, &self.rows).map_err(|e| {
            Error::bug(format!(
                "{}: rows do not fit their schema: {e}",
                self.table.uri
            ))
        })?;
        self.rows.clear();
        self.size.reset();
        self.table.write_group(&batch)
    }

    /// Writes the remaining rows and makes the manifest visible. Returns its path, size and hashes.
    ///
    /// # Errors
    ///
    /// Fails like [`push`](Self::push) and [`ObjectWriter::finish`](crate::ObjectWriter::finish).
    pub fn finish(mut self) -> Result<Output> {
        if !self.rows.is_empty() {
            self.flush()?;
        }
        self.table.finish()
    }
}

#[cfg(test)]
mod tests {
    use sluice_manifest::Partition;
    use sluice_manifest::rows::{FilterRow, PlanRow};
    use sluice_manifest::{ImageId, ShardPath};

    use super::*;
    use crate::{Location, Storage};

    fn store() -> Store {
        Storage::default()
            .create(&Location::parse("memory://table-tests").unwrap())
            .unwrap()
    }

    fn plan(partition: u32) -> PlanRow {
        PlanRow {
            partition: Partition(partition),
            shard: ShardPath::new(format!("{partition}.tar")),
            bytes: 7,
            etag: None,
            modified: Some("2026".into()),
            ..PlanRow::default()
        }
    }

    fn write(store: &Store, path: &str, count: u32) -> Output {
        let mut writer = store
            .write_rows::<PlanRow>(path, &[("k", "v".into())])
            .unwrap();
        for partition in 0..count {
            writer.push(plan(partition)).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn rows_come_back_and_files_are_reproducible() {
        let store = store();
        let first = write(&store, "a", 3000);
        let second = write(&store, "b", 3000);
        assert_eq!(first.blake3, second.blake3);
        let reader = store.rows::<PlanRow>("a").unwrap();
        assert_eq!(
            (reader.table().len(), reader.table().metadata("k")),
            (3000, Some("v"))
        );
        let rows: Result<Vec<_>> = reader.collect();
        assert_eq!(rows.unwrap(), (0..3000).map(plan).collect::<Vec<_>>());
    }

    #[test]
    fn row_groups_and_batches_are_bounded_in_bytes() {
        let store = store();
        let mut writer = store.write_rows::<FilterRow>("long", &[]).unwrap();
        let row = |number: usize| FilterRow {
            image_id: ImageId::from_text(format!("s/{number}")),
            keep: false,
            reason: None,
            // Equal texts: dictionary encoding and compression reduce them to almost nothing.
            detail: Some(if number < 100 {
                "x".repeat(1 << 20)
            } else {
                "short".into()
            }),
        };
        for number in 0..3000 {
            writer.push(row(number)).unwrap();
        }
        writer.finish().unwrap();
        let table = store.any_table("long").unwrap();
        let groups = table.footer.row_groups().iter();
        let rows: Vec<i64> = groups.map(|group| group.num_rows()).collect();
        assert_eq!(rows[..13], [[8; 12].as_slice(), &[1024]].concat());
        let batches = table.map(|batch| batch.unwrap().num_rows());
        assert!(batches.take(20).all(|rows| rows <= 8));
        let whole = store.rows::<FilterRow>("long").unwrap();
        for (number, found) in whole.enumerate() {
            assert!(found.unwrap() == row(number), "{number}");
        }
    }

    #[test]
    fn a_range_reads_its_row_groups_alone() {
        let store = store();
        write(&store, "c", 5000);
        let rows = store
            .rows::<PlanRow>("c")
            .unwrap()
            .within("partition", 2000..2001)
            .unwrap();
        let rows: Vec<_> = rows.map(|row| row.unwrap().partition.0).collect();
        assert_eq!((rows[0], rows.len()), (1024, 1024));
    }

    #[test]
    fn reading_starts_at_any_row() {
        let store = store();
        write(&store, "i", 3000);
        for start in [0, 1, 1023, 1024, 2500, 2999, 3000] {
            let rows = store.rows::<PlanRow>("i").unwrap().from_row(start).unwrap();
            let rows: Vec<_> = rows
                .map(|row| u64::from(row.unwrap().partition.0))
                .collect();
            assert_eq!(rows, (start..3000).collect::<Vec<_>>());
        }
    }

    #[test]
    fn wrong_manifests_are_refused_by_name() {
        let store = store();
        write(&store, "d", 1);
        let error = store.rows::<FilterRow>("d").err().unwrap().to_string();
        assert!(
            error.contains("partition/plan") && error.contains("filter/decisions"),
            "{error}"
        );
        store.put("e", "no parquet").unwrap();
        let error = store.rows::<FilterRow>("e").err().unwrap().to_string();
        assert!(error.contains("memory://table-tests/e"), "{error}");
        assert!(store.rows::<FilterRow>("f").is_err());
    }

    #[test]
    fn empty_manifests_are_manifests() {
        let store = store();
        write(&store, "g", 0);
        assert_eq!(store.rows::<PlanRow>("g").unwrap().count(), 0);
    }

    #[test]
    fn ordered_manifests_join() {
        let store = store();
        let mut writer = store.write_rows::<FilterRow>("h", &[]).unwrap();
        for id in ["b", "d"] {
            let image_id = ImageId::new(&ShardPath::new("s.tar"), id, 0);
            writer
                .push(FilterRow {
                    image_id,
                    keep: true,
                    reason: None,
                    detail: None,
                })
                .unwrap();
        }
        writer.finish().unwrap();
        let mut scores = store.rows::<FilterRow>("h").unwrap();
        let found = ["a", "b", "c", "d"].map(|id| {
            let wanted = format!("s/{id}");
            scores
                .next_if(|row| row.image_id.as_str() == wanted)
                .unwrap()
                .is_some()
        });
        assert_eq!(found, [false, true, false, true]);
    }
}
