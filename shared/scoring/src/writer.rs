//! Writes a unit's scores: the manifest, and their histograms in the receipt.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, RecordBatch, StringArray};
use sluice_harness::{Context, OpenUnit};
use sluice_manifest::layout::SCORES;
use sluice_manifest::{Counts, Error, Histogram, ImageId, Result, ScoreColumn, ScoreSummary, rows};
use sluice_store::TableWriter;

/// Rows that wait to be written, at most.
const BATCH: usize = 1024;

/// Writes the scores of a unit in the order of `read`.
pub struct ScoreWriter {
    table: TableWriter,
    summaries: Vec<ScoreSummary>,
    ids: Vec<String>,
    values: Vec<Vec<Option<f32>>>,
    rows: u64,
}

impl ScoreWriter {
    /// Begins the manifest.
    ///
    /// # Errors
    /// Storage errors only.
    pub fn open(
        context: &Context,
        open_unit: &OpenUnit<'_>,
        columns: &[ScoreColumn],
        metadata: &[(&str, String)],
    ) -> Result<Self> {
        let schema = rows::scores(columns.iter().map(|column| column.name.as_str()));
        let path = open_unit.path(&SCORES);
        Ok(Self {
            table: context
                .run
                .write_table(&path, rows::SCORES, schema, metadata)?,
            summaries: columns
                .iter()
                .map(|column| ScoreSummary {
                    column: column.clone(),
                    histogram: Histogram::default(),
                })
                .collect(),
            ids: Vec::new(),
            values: vec![Vec::new(); columns.len()],
            rows: 0,
        })
    }

    /// Adds an image's scores, one for each column. A score that is not finite is missing; an image
    /// without any score gets no row.
    ///
    /// # Errors
    /// Storage errors only.
    pub fn push(&mut self, id: ImageId, scores: &[f32]) -> Result<()> {
        if !scores.iter().any(|score| score.is_finite()) {
            return Ok(());
        }
        for (column, &score) in scores.iter().enumerate() {
            self.values[column].push(score.is_finite().then_some(score));
            self.summaries[column].histogram.add(score);
        }
        self.ids.push(id.as_str().to_owned());
        self.rows += 1;
        if self.ids.len() == BATCH {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let ids: ArrayRef = Arc::new(StringArray::from(std::mem::take(&mut self.ids)));
        let scores = self.values.iter_mut().map(|values| {
            let scores: ArrayRef = Arc::new(Float32Array::from(std::mem::take(values)));
            scores
        });
        let columns = std::iter::once(ids).chain(scores).collect();
        let batch = RecordBatch::try_new(self.table.schema().clone(), columns)
            .map_err(|e| Error::bug(format!("scores do not fit their schema: {e}")))?;
        self.table.write(&batch)
    }

    /// Makes the manifest appear and commits the unit. `samples` is the number of
    /// survivors; a scorer keeps all samples.
    ///
    /// # Errors
    /// A bug, when there are more rows than samples; of storage.
    pub fn commit(mut self, mut open_unit: OpenUnit<'_>, samples: u64, reused: u64) -> Result<()> {
        let Some(unscored) = samples.checked_sub(self.rows) else {
            let rows = self.rows;
            return Err(Error::bug(format!("{rows} scores for {samples} samples")));
        };
        if !self.ids.is_empty() {
            self.flush()?;
        }
        let Self {
            table, summaries, ..
        } = self;
        open_unit.publish(|| table.finish())?;
        open_unit.scores(summaries);
        open_unit.sums.unscored = unscored;
        open_unit.sums.reused = reused;
        open_unit.commit(Counts::all_kept(samples))
    }
}
