//! The Parquet file beside an output shard: a row for each of its samples, in its order.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, FixedSizeListArray, Float32Array, RecordBatch};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use sluice_manifest::rows::{CuratedRow, Row};
use sluice_manifest::{Error, Output, Result};
use sluice_store::{Store, TableWriter};

use crate::kept::Embedder;

/// Rows that wait to be written, at most.
const BATCH: usize = 1024;

/// Name of the column of vectors.
pub const EMBEDDING: &str = "embedding";

/// Writes curated rows, with their embeddings where an embedder is given.
pub struct CuratedWriter {
    table: TableWriter,
    fields: Vec<FieldRef>,
    rows: Vec<CuratedRow>,
    vectors: Option<VectorColumn>,
}

impl CuratedWriter {
    /// Starts the file.
    pub fn open(output: &Store, path: &str, embedder: Option<&Embedder>) -> Result<Self> {
        let fields: Vec<FieldRef> = CuratedRow::fields().into_iter().map(Arc::new).collect();
        let vectors = embedder.map(|embedder| VectorColumn::new(embedder.dimension));
        let mut columns = fields.clone();
        columns.extend(vectors.as_ref().map(VectorColumn::field));
        let metadata = embedder.map(Embedder::metadata);
        let metadata = metadata.as_ref().map_or(&[][..], |pairs| pairs.as_slice());
        Ok(Self {
            table: output.write_table(path, CuratedRow::SCHEMA, Schema::new(columns), metadata)?,
            fields,
            rows: Vec::new(),
            vectors,
        })
    }

    /// Adds a sample.
    pub fn push(&mut self, row: CuratedRow, embedding: Option<&[f32]>) -> Result<()> {
        if let Some(vectors) = &mut self.vectors {
            vectors.push(embedding);
        }
        self.rows.push(row);
        if self.rows.len() == BATCH {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let wrong = |e: &dyn std::fmt::Display| {
            Error::bug(format!("curated rows do not fit their schema: {e}"))
        };
        let rows = serde_arrow::to_record_batch(&self.fields, &self.rows).map_err(|e| wrong(&e))?;
        self.rows.clear();
        let mut columns = rows.columns().to_vec();
        if let Some(vectors) = &mut self.vectors {
            columns.push(vectors.finish()?);
        }
        let batch = RecordBatch::try_new(self.table.schema().clone(), columns);
        self.table.write(&batch.map_err(|e| wrong(&e))?)
    }

    /// Makes the file appear.
    pub fn finish(mut self) -> Result<Output> {
        if !self.rows.is_empty() {
            self.flush()?;
        }
        self.table.finish()
    }
}

/// Vectors of one dimension, or null for samples that have none.
struct VectorColumn {
    dimension: usize,
    values: Vec<f32>,
    present: Vec<bool>,
}

impl VectorColumn {
    fn new(dimension: usize) -> Self {
        Self {
            dimension,
            values: Vec::new(),
            present: Vec::new(),
        }
    }

    fn field(&self) -> FieldRef {
        let vector = sluice_manifest::rows::vector(EMBEDDING, self.dimension);
        Arc::new(vector.with_nullable(true))
    }

    fn push(&mut self, vector: Option<&[f32]>) {
        self.present.push(vector.is_some());
        match vector {
            Some(vector) => self.values.extend_from_slice(vector),
            None => self.values.resize(self.values.len() + self.dimension, 0.0),
        }
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        let wrong = |e: &dyn std::fmt::Display| Error::data(format!("embeddings: {e}"));
        let length = i32::try_from(self.dimension).map_err(|e| wrong(&e))?;
        let item = Arc::new(Field::new("item", DataType::Float32, false));
        let values: Arc<dyn Array> = Arc::new(Float32Array::from(std::mem::take(&mut self.values)));
        let present = BooleanBuffer::from(std::mem::take(&mut self.present));
        let nulls = Some(NullBuffer::new(present)).filter(|nulls| nulls.null_count() > 0);
        let list = FixedSizeListArray::try_new(item, length, values, nulls);
        Ok(Arc::new(list.map_err(|e| wrong(&e))?))
    }
}
