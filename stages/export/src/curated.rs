//! The Parquet file of an output shard: a row for each of its samples, in its order.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, FixedSizeListArray, Float32Array, RecordBatch};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use sluice_manifest::rows::{CuratedRow, Row};
use sluice_manifest::{Error, Output, Result};
use sluice_store::{GroupSize, Store, TableWriter};

use crate::kept::EmbeddingsOf;
use crate::scores::CuratedScore;

/// Name of the column of vectors.
pub const EMBEDDING: &str = "embedding";

/// Writes curated rows, with their scores and, where there are some, their embeddings.
pub struct CuratedWriter {
    table: TableWriter,
    fields: Vec<FieldRef>,
    rows: Vec<CuratedRow>,
    size: GroupSize,
    scores: Vec<Vec<Option<f32>>>,
    vectors: Option<VectorColumn>,
}

impl CuratedWriter {
    /// Starts the file.
    ///
    /// # Errors
    /// Storage errors only.
    pub fn open(
        output: &Store,
        path: &str,
        scores: &[CuratedScore],
        embeddings: Option<&EmbeddingsOf>,
    ) -> Result<Self> {
        let fields: Vec<FieldRef> = CuratedRow::fields().into_iter().map(Arc::new).collect();
        let vectors = embeddings.map(|embeddings| VectorColumn::new(embeddings.dimension));
        let mut columns = fields.clone();
        columns.extend(scores.iter().map(|score| {
            let field = Field::new(&score.column, DataType::Float32, true);
            Arc::new(field)
        }));
        columns.extend(vectors.as_ref().map(VectorColumn::field));
        let metadata = embeddings.map(EmbeddingsOf::metadata);
        let metadata = metadata.as_ref().map_or(&[][..], |pairs| pairs.as_slice());
        Ok(Self {
            table: output.write_table(path, CuratedRow::SCHEMA, Schema::new(columns), metadata)?,
            fields,
            rows: Vec::new(),
            size: GroupSize::default(),
            scores: vec![Vec::new(); scores.len()],
            vectors,
        })
    }

    /// Adds a sample; `scores` has one value for each column of scores.
    ///
    /// # Errors
    /// Storage errors only.
    pub fn push(
        &mut self,
        row: CuratedRow,
        scores: &[Option<f32>],
        embedding: Option<&[f32]>,
    ) -> Result<()> {
        for (column, &score) in self.scores.iter_mut().zip(scores) {
            column.push(score);
        }
        if let Some(vectors) = &mut self.vectors {
            vectors.push(embedding);
        }
        let is_full = self.size.add(row.text_bytes());
        self.rows.push(row);
        if is_full { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let wrong = |e: &dyn std::fmt::Display| {
            Error::bug(format!("curated rows do not fit their schema: {e}"))
        };
        let rows = serde_arrow::to_record_batch(&self.fields, &self.rows).map_err(|e| wrong(&e))?;
        self.rows.clear();
        self.size.reset();
        let mut columns = rows.columns().to_vec();
        for scores in &mut self.scores {
            let scores = Float32Array::from(std::mem::take(scores));
            columns.push(Arc::new(scores));
        }
        if let Some(vectors) = &mut self.vectors {
            columns.push(vectors.finish()?);
        }
        let batch = RecordBatch::try_new(self.table.schema().clone(), columns);
        self.table.write_group(&batch.map_err(|e| wrong(&e))?)
    }

    /// Makes the file appear.
    ///
    /// # Errors
    /// Storage errors only.
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
