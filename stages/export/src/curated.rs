//! Writes the Parquet file of an output shard: a row for each of its samples, in its order, with
//! the image if there is no tar.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, FixedSizeListArray, Float32Array, RecordBatch, StringArray,
    StructArray,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};
use sluice_manifest::rows::{CuratedRow, Row};
use sluice_manifest::{Error, Output, Result};
use sluice_store::{GroupSize, Store, TableWriter};

use crate::columns::IMAGE_COLUMN;
use crate::format::OutputFormat;
use crate::kept::EmbeddingsInfo;
use crate::scores::CuratedScore;

/// The name of the embedding column.
pub const EMBEDDING: &str = "embedding";

/// Hugging Face's metadata key, and its value for files with images. `datasets` and the Hub's
/// viewer decode the column because of it.
const HUGGING_FACE: (&str, &str) = (
    "huggingface",
    r#"{"info": {"features": {"image": {"_type": "Image"}}}}"#,
);

/// An image in a row.
pub struct Image {
    /// The bytes of the image member.
    pub bytes: Vec<u8>,
    /// The member's name.
    pub path: String,
}

/// Writes curated rows, with scores and optionally embeddings.
pub struct CuratedWriter {
    table: TableWriter,
    fields: Vec<FieldRef>,
    rows: Vec<CuratedRow>,
    size: GroupSize,
    scores: Vec<Vec<Option<f32>>>,
    vectors: Option<EmbeddingColumn>,
    /// For files with images.
    images: Option<Vec<Option<Image>>>,
}

impl CuratedWriter {
    /// Starts the file.
    ///
    /// # Errors
    ///
    /// Returns a storage error if the file cannot be created, and a bug error if Parquet cannot
    /// represent the schema.
    pub fn open(
        output: &Store,
        path: &str,
        scores: &[CuratedScore],
        embeddings: Option<&EmbeddingsInfo>,
        format: OutputFormat,
    ) -> Result<Self> {
        let fields: Vec<FieldRef> = CuratedRow::fields().into_iter().map(Arc::new).collect();
        let vectors = embeddings.map(|embeddings| EmbeddingColumn::new(embeddings.dimension));
        let images = (format == OutputFormat::Parquet).then(Vec::new);
        let mut columns: Vec<FieldRef> = images.iter().map(|_| Arc::new(image_field())).collect();
        columns.extend(fields.iter().cloned());
        columns.extend(scores.iter().map(|score| {
            let field = Field::new(&score.column, DataType::Float32, true);
            Arc::new(field)
        }));
        columns.extend(vectors.as_ref().map(EmbeddingColumn::field));
        let metadata = embeddings.into_iter().flat_map(EmbeddingsInfo::metadata);
        let (key, value) = HUGGING_FACE;
        let metadata = metadata.chain(images.iter().map(|_| (key, value.to_owned())));
        let metadata: Vec<_> = metadata.collect();
        // If the schema has its own metadata, pyarrow reads that instead of the file's.
        let features = images.iter().map(|_| (key.to_owned(), value.to_owned()));
        let features: HashMap<String, String> = features.collect();
        let schema = Schema::new(columns).with_metadata(features);
        Ok(Self {
            table: output.write_table(path, CuratedRow::SCHEMA, schema, &metadata)?,
            fields,
            rows: Vec::new(),
            size: GroupSize::default(),
            scores: vec![Vec::new(); scores.len()],
            vectors,
            images,
        })
    }

    /// Adds a sample. `scores` has one value for each score column. `image` is ignored if the file
    /// has no images.
    ///
    /// # Errors
    ///
    /// Returns a storage error if a full row group cannot be written, and a bug error if the row
    /// does not match the schema.
    pub fn push(
        &mut self,
        row: CuratedRow,
        scores: &[Option<f32>],
        embedding: Option<&[f32]>,
        image: Option<Image>,
    ) -> Result<()> {
        for (column, &score) in self.scores.iter_mut().zip(scores) {
            column.push(score);
        }
        if let Some(vectors) = &mut self.vectors {
            vectors.push(embedding);
        }
        let mut bytes = row.text_bytes();
        if let Some(images) = &mut self.images {
            bytes += image.as_ref().map_or(0, |image| image.bytes.len());
            images.push(image);
        }
        let is_full = self.size.add(bytes);
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
        let images = self.images.as_mut().map(std::mem::take);
        let images = images.map(|images| image_column(&images));
        let mut columns: Vec<ArrayRef> = images.into_iter().collect();
        columns.extend(rows.columns().iter().cloned());
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

    /// Writes the remaining rows and makes the file visible. Returns its path, size and hashes.
    ///
    /// # Errors
    ///
    /// Fails like [`push`](Self::push), and with a storage error if the file cannot be completed.
    pub fn finish(mut self) -> Result<Output> {
        if !self.rows.is_empty() {
            self.flush()?;
        }
        self.table.finish()
    }
}

/// Returns the fields of Hugging Face's Image feature.
fn image_fields() -> Fields {
    let field = |name, kind| Field::new(name, kind, true);
    Fields::from(vec![
        field("bytes", DataType::Binary),
        field("path", DataType::Utf8),
    ])
}

fn image_field() -> Field {
    Field::new(IMAGE_COLUMN.0, DataType::Struct(image_fields()), true)
}

fn image_column(images: &[Option<Image>]) -> ArrayRef {
    let bytes = images
        .iter()
        .map(|image| Some(image.as_ref()?.bytes.as_slice()));
    let paths = images
        .iter()
        .map(|image| Some(image.as_ref()?.path.as_str()));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(bytes.collect::<BinaryArray>()),
        Arc::new(paths.collect::<StringArray>()),
    ];
    let present = images.iter().map(Option::is_some).collect::<Vec<bool>>();
    let nulls = Some(NullBuffer::from(present)).filter(|nulls| nulls.null_count() > 0);
    Arc::new(StructArray::new(image_fields(), columns, nulls))
}

/// Vectors of one dimension, or null for samples without one.
struct EmbeddingColumn {
    dimension: usize,
    values: Vec<f32>,
    present: Vec<bool>,
}

impl EmbeddingColumn {
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
