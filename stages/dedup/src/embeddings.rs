//! The embeddings of a partition, and the encoder that they come from.

use std::fmt;

use arrow::array::{AsArray, RecordBatch};
use serde::{Deserialize, Serialize};
use sluice_harness::Context;
use sluice_manifest::rows::{DIMENSION_KEY, EMBEDDINGS, MODEL_KEY, MODEL_SHA256_KEY};
use sluice_manifest::{Error, Result, StepName, Unit, layout};
use sluice_store::{Table, vectors};

/// The encoder that the vectors of a manifest come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Encoder {
    #[serde(rename = "model")]
    name: String,
    sha256: String,
    /// Values of a vector.
    pub dimension: usize,
}

impl Encoder {
    /// Returns the encoder that a manifest names.
    ///
    /// # Errors
    /// Data, when the manifest does not name one.
    pub(crate) fn of(table: &Table) -> Result<Self> {
        let dimension = table.required(DIMENSION_KEY)?;
        Ok(Self {
            name: table.required(MODEL_KEY)?.to_owned(),
            sha256: table.required(MODEL_SHA256_KEY)?.to_owned(),
            dimension: dimension.parse().map_err(|_| {
                Error::data(format!("dimension: expected a number, got {dimension:?}"))
            })?,
        })
    }

    /// Returns the model's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns what names the encoder in a manifest.
    pub(crate) fn metadata(&self) -> [(&'static str, String); 3] {
        [
            (MODEL_KEY, self.name.clone()),
            (MODEL_SHA256_KEY, self.sha256.clone()),
            (DIMENSION_KEY, self.dimension.to_string()),
        ]
    }
}

impl fmt::Display for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, dimension) = (&self.name, self.dimension);
        let hash = self.sha256.get(..12).unwrap_or(&self.sha256);
        write!(f, "{name} ({dimension} values, {hash})")
    }
}

/// Opens the embeddings of a partition.
///
/// # Errors
/// Data, when the step has not embedded the partition.
pub(crate) fn open_embeddings(context: &Context, step: &StepName, unit: Unit) -> Result<Table> {
    let path = layout::EMBEDDINGS.path(step, unit);
    context
        .run
        .table(&path, EMBEDDINGS, &["image_id", "embedding"])
}

/// Embeddings, one at a time.
pub(crate) struct EmbeddingReader {
    table: Table,
    batch: Option<RecordBatch>,
    next: usize,
}

impl EmbeddingReader {
    /// Reads from the first row of a table.
    pub(crate) fn new(table: Table) -> Self {
        Self {
            table,
            batch: None,
            next: 0,
        }
    }

    /// Returns the embedding of the next row, if it is this image's; otherwise the row stays the
    /// next one.
    ///
    /// # Errors
    /// Data, when the manifest is broken.
    pub(crate) fn next_if(&mut self, image_id: &str) -> Result<Option<&[f32]>> {
        self.fill()?;
        let Some(batch) = &self.batch else {
            return Ok(None);
        };
        if id_at(batch, self.next)? != image_id {
            return Ok(None);
        }
        let all = vectors(batch, "embedding")?;
        let dimension = all.len() / batch.num_rows();
        let vector = &all[self.next * dimension..][..dimension];
        self.next += 1;
        Ok(Some(vector))
    }

    /// Checks that all rows were read.
    ///
    /// # Errors
    /// Data, when a row belongs to none of the images that were asked for, in their order.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.fill()?;
        let Some(batch) = &self.batch else {
            return Ok(());
        };
        let id = id_at(batch, self.next)?;
        Err(Error::data(format!(
            "embeddings: {id} is not among the samples of read, in order"
        ))
        .hint("run the step that gives the embeddings again with --force"))
    }

    fn fill(&mut self) -> Result<()> {
        while self
            .batch
            .as_ref()
            .is_none_or(|batch| self.next >= batch.num_rows())
        {
            self.batch = self.table.next().transpose()?;
            self.next = 0;
            if self.batch.is_none() {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn id_at(batch: &RecordBatch, row: usize) -> Result<&str> {
    let ids = batch.column_by_name("image_id");
    let ids = ids.and_then(|ids| ids.as_string_opt::<i32>());
    let ids = ids.ok_or_else(|| Error::data("column \"image_id\" is not text"))?;
    Ok(ids.value(row))
}
