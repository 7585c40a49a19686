//! Reads the images in an output's Parquet file, in order.

use std::collections::VecDeque;

use arrow::array::{Array, AsArray};
use sluice_export::columns::IMAGE_COLUMN;
use sluice_manifest::rows::{CuratedRow, Row};
use sluice_manifest::{Error, Result};
use sluice_store::{Store, Table};

/// A reader of the images in a Parquet file, one row group at a time.
pub(super) struct TableImages {
    table: Table,
    uri: String,
    read: VecDeque<Vec<u8>>,
}

impl TableImages {
    /// Opens the file.
    ///
    /// # Errors
    /// Data, when the file has no images.
    pub(super) fn open(store: &Store, path: &str) -> Result<Self> {
        Ok(Self {
            table: store.table(path, CuratedRow::SCHEMA, &[IMAGE_COLUMN.0])?,
            uri: store.uri(path),
            read: VecDeque::new(),
        })
    }

    /// Returns the image of the next row.
    ///
    /// # Errors
    /// Data, when the row has no image.
    pub(super) fn take(&mut self) -> Result<Vec<u8>> {
        while self.read.is_empty() {
            let missing = || Error::data(format!("{}: a row has no image", self.uri));
            let batch = self.table.next().transpose()?.ok_or_else(missing)?;
            let column = batch.column_by_name(IMAGE_COLUMN.0);
            let images = column.and_then(|column| column.as_struct_opt());
            let bytes = images.and_then(|images| images.column_by_name("bytes"));
            let bytes = bytes.and_then(|bytes| bytes.as_binary_opt::<i32>());
            let bytes = bytes.filter(|bytes| bytes.null_count() == 0);
            let bytes = bytes.ok_or_else(missing)?;
            let values = (0..bytes.len()).map(|row| bytes.value(row).to_vec());
            self.read.extend(values);
        }
        Ok(self.read.pop_front().unwrap_or_default())
    }
}
