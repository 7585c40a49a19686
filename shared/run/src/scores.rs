//! Reads the numbers of a partition's images (scores or embeddings) in the order of `read`.

use arrow::array::{Array, AsArray, Float32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Float32Type};
use sluice_manifest::layout::SCORES;
use sluice_manifest::{Error, Result, ScoreColumn, ScoreName, StepName, Unit, rows};
use sluice_store::{Table, vectors};

use crate::Run;

/// Rows of numbers by image, read in batches.
pub struct ScoreReader {
    table: Table,
    columns: Vec<String>,
    batch: Option<(StringArray, Vec<Numbers>)>,
    next: usize,
}

/// One column of a batch.
enum Numbers {
    Scores(Float32Array),
    Vectors { values: Vec<f32>, width: usize },
}

impl ScoreReader {
    /// Opens columns of a scorer's scores for a partition.
    ///
    /// # Errors
    ///
    /// Returns a data error if the manifest or a column is missing, and otherwise a storage error.
    pub fn open(run: &Run, step: &StepName, unit: Unit, columns: &[&str]) -> Result<Self> {
        Self::open_path(run, &SCORES.path(step, unit), rows::SCORES, columns)
    }

    /// Opens one score of a partition.
    ///
    /// # Errors
    ///
    /// Returns a data error if the step has not scored the partition, a usage error if the step has
    /// no such output, and otherwise a storage error.
    pub fn open_one(run: &Run, score: &ScoreName, unit: Unit) -> Result<Self> {
        let columns = run.score_columns(&score.step)?;
        let position = ScoreColumn::position(&columns, score)?;
        Self::open(run, &score.step, unit, &[&columns[position].name])
    }

    /// Opens columns of a manifest with an `image_id`. The columns contain float32 values or lists
    /// of float32 values.
    ///
    /// # Errors
    ///
    /// Returns a data error if the manifest or a column is missing, and otherwise a storage error.
    pub fn open_path(run: &Run, path: &str, schema: &str, columns: &[&str]) -> Result<Self> {
        let names = [&["image_id"], columns].concat();
        Ok(Self {
            table: run.table(path, schema, &names)?,
            columns: columns.iter().map(|&name| name.to_owned()).collect(),
            batch: None,
            next: 0,
        })
    }

    /// Returns the numbers of the next row if it belongs to this image. Otherwise returns `None`
    /// and does not advance. A missing score is NaN.
    ///
    /// # Errors
    ///
    /// Returns a data error if the manifest is damaged, and otherwise a storage error.
    pub fn next_if(&mut self, image_id: &str) -> Result<Option<Vec<f32>>> {
        self.fill()?;
        let Some((ids, columns)) = &self.batch else {
            return Ok(None);
        };
        let row = self.next;
        if row >= ids.len() || ids.value(row) != image_id {
            return Ok(None);
        }
        self.next += 1;
        let mut numbers = Vec::new();
        columns
            .iter()
            .for_each(|column| column.push(row, &mut numbers));
        Ok(Some(numbers))
    }

    /// Reads the next batch if the current one is used up.
    fn fill(&mut self) -> Result<()> {
        while self
            .batch
            .as_ref()
            .is_none_or(|(ids, _)| self.next >= ids.len())
        {
            let Some(batch) = self.table.next().transpose()? else {
                return Ok(());
            };
            let ids = batch.column_by_name("image_id");
            let ids = ids.and_then(|ids| ids.as_string_opt::<i32>().cloned());
            let ids = ids.ok_or_else(|| Error::data("column \"image_id\" is not text"))?;
            let columns = self.columns.iter().map(|name| Numbers::of(&batch, name));
            self.batch = Some((ids, columns.collect::<Result<_>>()?));
            self.next = 0;
        }
        Ok(())
    }
}

impl Numbers {
    fn of(batch: &RecordBatch, name: &str) -> Result<Self> {
        let wrong = || Error::data(format!("column {name:?} has no float32 numbers"));
        let column = batch.column_by_name(name).ok_or_else(wrong)?;
        if let DataType::FixedSizeList(_, width) = column.data_type() {
            return Ok(Self::Vectors {
                values: vectors(batch, name)?.to_vec(),
                width: *width as usize,
            });
        }
        let scores = column.as_primitive_opt::<Float32Type>().ok_or_else(wrong)?;
        Ok(Self::Scores(scores.clone()))
    }

    fn push(&self, row: usize, numbers: &mut Vec<f32>) {
        match self {
            Self::Vectors { values, width } => {
                numbers.extend_from_slice(&values[row * width..][..*width]);
            }
            Self::Scores(scores) if scores.is_valid(row) => numbers.push(scores.value(row)),
            Self::Scores(_) => numbers.push(f32::NAN),
        }
    }
}
