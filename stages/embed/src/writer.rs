//! Writes embeddings.

use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use sluice_manifest::rows::{EMBEDDINGS, embeddings};
use sluice_manifest::{Error, ImageId, Output, Result};
use sluice_store::{Store, TableWriter};

/// Rows that wait to be written, at most.
const BATCH: usize = 1024;

/// Writes the embeddings of a partition.
pub(crate) struct EmbeddingWriter {
    table: TableWriter,
    ids: Vec<String>,
    values: Vec<f32>,
    rows: u64,
}

impl EmbeddingWriter {
    /// Begins the manifest.
    ///
    /// # Errors
    /// Storage errors only.
    pub(crate) fn open(
        run: &Store,
        path: &str,
        dimension: usize,
        metadata: &[(&str, String)],
    ) -> Result<Self> {
        Ok(Self {
            table: run.write_table(path, EMBEDDINGS, embeddings(dimension), metadata)?,
            ids: Vec::new(),
            values: Vec::new(),
            rows: 0,
        })
    }

    /// Adds an embedding of length 1; one that is not finite is left out.
    ///
    /// # Errors
    /// Storage errors only.
    pub(crate) fn push(&mut self, id: ImageId, vector: &[f32]) -> Result<()> {
        if !vector.iter().all(|value| value.is_finite()) {
            tracing::warn!(
                image_id = id.as_str(),
                "the embedding is not finite, or zero"
            );
            return Ok(());
        }
        self.values.extend_from_slice(vector);
        self.ids.push(id.as_str().to_owned());
        self.rows += 1;
        if self.ids.len() == BATCH {
            self.flush()?;
        }
        Ok(())
    }

    /// Returns the number of rows so far.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    fn flush(&mut self) -> Result<()> {
        let schema = self.table.schema().clone();
        let DataType::FixedSizeList(item, length) = schema.field(1).data_type().clone() else {
            return Err(Error::bug("the embedding column is not a fixed-size list"));
        };
        let ids: ArrayRef = Arc::new(StringArray::from(std::mem::take(&mut self.ids)));
        let values = Arc::new(Float32Array::from(std::mem::take(&mut self.values)));
        let vectors = FixedSizeListArray::try_new(item, length, values, None);
        let batch = vectors.and_then(|vectors| {
            RecordBatch::try_new(schema, vec![ids, Arc::new(vectors) as ArrayRef])
        });
        let wrong = |e| Error::bug(format!("embeddings do not fit their schema: {e}"));
        self.table.write(&batch.map_err(wrong)?)
    }

    /// Makes the manifest appear.
    ///
    /// # Errors
    /// Storage errors only.
    pub(crate) fn finish(mut self) -> Result<Output> {
        if !self.ids.is_empty() {
            self.flush()?;
        }
        self.table.finish()
    }
}

/// Divides a vector by its length. One without a finite length above 0 becomes NaN.
pub(crate) fn normalize(vector: &mut [f32]) {
    let squares = vector.iter().map(|&x| f64::from(x) * f64::from(x));
    let length = squares.sum::<f64>().sqrt();
    let is_valid = length.is_finite() && length > 0.0;
    for value in vector {
        *value = if is_valid {
            (f64::from(*value) / length) as f32
        } else {
            f32::NAN
        };
    }
}

#[cfg(test)]
mod tests {
    use sluice_store::{Location, Storage};

    use super::*;

    #[test]
    fn vectors_get_length_one_or_no_number() {
        let cases: [(&[f32], &[f32]); 3] = [
            (&[3.0, 4.0], &[0.6, 0.8]),
            (&[-2.0], &[-1.0]),
            // Squares that a float32 cannot hold.
            (&[3e30, 4e30], &[0.6, 0.8]),
        ];
        for (given, expected) in cases {
            let mut vector = given.to_vec();
            normalize(&mut vector);
            let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-6;
            assert!(vector.iter().zip(expected).all(near), "{given:?}");
        }
        for given in [[0.0, 0.0], [f32::NAN, 1.0], [f32::INFINITY, 1.0]] {
            let mut vector = given;
            normalize(&mut vector);
            assert!(vector.iter().all(|value| value.is_nan()), "{given:?}");
        }
    }

    #[test]
    fn vectors_without_a_length_are_left_out_and_the_rest_is_written() {
        let location = Location::parse("memory://embedding-writer").unwrap();
        let store = Storage::default().create(&location).unwrap();
        let mut writer = EmbeddingWriter::open(&store, "x.parquet", 2, &[]).unwrap();
        for number in 0..BATCH + 7 {
            let value = match number % 2 {
                0 => 1.0,
                _ => f32::NAN,
            };
            let id = ImageId::from_text(format!("a/{number:05}"));
            writer.push(id, &[value, 0.0]).unwrap();
        }
        let expected = (BATCH + 7).div_ceil(2) as u64;
        assert_eq!(writer.rows(), expected);
        writer.finish().unwrap();
        let table = store.table("x.parquet", EMBEDDINGS, &["image_id"]).unwrap();
        assert_eq!(table.len(), expected);
    }
}
