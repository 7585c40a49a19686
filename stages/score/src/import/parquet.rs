//! A Parquet table of scores.

use arrow::array::{Array, Float32Array, RecordBatch};
use arrow::error::ArrowError;
use sluice_manifest::{Error, Result};
use sluice_table::UserObject;

use super::table::{Column, Numbers, Selection, TakeRow};
use crate::columns::{is_number, is_text, scores, texts};

/// An open Parquet table.
pub(super) struct ParquetTable {
    pub columns: Vec<Column>,
    table: sluice_table::ParquetTable,
}

impl ParquetTable {
    pub(super) fn open(object: UserObject) -> Result<Self> {
        let table = sluice_table::ParquetTable::open(object)?;
        if table.rows() == 0 {
            return Err(Error::data(format!("{}: has no rows", table.object.uri)));
        }
        let fields = table.schema().fields().iter();
        let columns = fields.map(|field| {
            let kind = field.data_type();
            Column {
                name: field.name().clone(),
                kind: kind.to_string(),
                numbers: if is_number(kind) {
                    Numbers::All
                } else {
                    Numbers::None
                },
                key: is_text(kind) || kind.is_integer(),
            }
        });
        Ok(Self {
            columns: columns.collect(),
            table,
        })
    }

    pub(super) fn uri(&self) -> &str {
        &self.table.object.uri
    }

    pub(super) fn read(self, selection: &Selection, take: TakeRow<'_>) -> Result<()> {
        let mut roots = selection.values.clone();
        roots.push(selection.key);
        roots.sort_unstable();
        roots.dedup();
        let at = |root: &usize| roots.partition_point(|other| other < root);
        let values: Vec<_> = selection.values.iter().map(at).collect();
        for batch in self.table.batches(&roots)? {
            let taken = take_batch(&batch?, at(&selection.key), &values, take);
            taken.map_err(|e| self.table.unusable(e))??;
        }
        Ok(())
    }
}

/// The outer error is a column that cannot be converted, the inner one is `take`'s.
fn take_batch(
    batch: &RecordBatch,
    key: usize,
    values: &[usize],
    take: TakeRow<'_>,
) -> Result<Result<()>, ArrowError> {
    let keys = texts(batch.column(key))?;
    let columns = values.iter().map(|&index| scores(batch.column(index)));
    let columns: Vec<Float32Array> = columns.collect::<Result<_, _>>()?;
    let mut row = vec![0.0; columns.len()];
    for index in 0..batch.num_rows() {
        for (value, column) in row.iter_mut().zip(&columns) {
            *value = column.value(index);
        }
        let key = keys.is_valid(index).then(|| keys.value(index).as_bytes());
        if let Err(e) = take(key, &row) {
            return Ok(Err(e));
        }
    }
    Ok(Ok(()))
}
