//! Reads the kept samples of a part of a partition, with their scores and embeddings.
//!
//! The decisions are read from the partition's first sample on, because the weights before the part
//! determine where it starts; their rows are small. The wide manifests, samples and embeddings, are
//! opened at the part's first row. Scores and embeddings have no row for samples that their step
//! did not process, but have the same order, so they are read in step with the decisions.

use std::collections::HashMap;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use sluice_harness::Context;
use sluice_manifest::layout::{self, DECISIONS, IMAGES};
use sluice_manifest::rows::{
    DIMENSION_KEY, DecisionRow, EMBEDDINGS, MODEL_KEY, MODEL_SHA256_KEY, OutputPlanRow, SampleRow,
};
use sluice_manifest::{Error, ImageId, Result, StepName, Unit};
use sluice_run::{Run, ScoreReader};
use sluice_store::{RowReader, Table, vectors};

use crate::captions::{self, KeepCaptions};
use crate::groups::{self, Group};
use crate::plan::PlanSettings;
use crate::scores::by_step;

/// A sample of the curated dataset.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptSample {
    /// The sample's row from `read`.
    pub sample: SampleRow,
    /// One value for each score of the plan, or `None` if the sample has no such score.
    pub scores: Vec<Option<f32>>,
    /// The sample's embedding, if the plan includes embeddings and it has one.
    pub embedding: Option<Vec<f32>>,
    /// The sample's group of duplicates.
    pub group: Group,
}

/// Reads the kept samples that start in a row of the plan.
pub struct KeptSamples<'a> {
    run: Run,
    unit: Unit,
    row: OutputPlanRow,
    settings: &'a PlanSettings,
    decisions: RowReader<DecisionRow>,
    samples: Option<RowReader<SampleRow>>,
    /// For each scorer: its scores, and their number.
    scores: Vec<(ScoreReader, usize)>,
    embeddings: Option<Embeddings>,
    /// The captions of removed duplicates.
    captions: HashMap<ImageId, Vec<String>>,
    /// The groups of the images that have duplicates.
    groups: HashMap<ImageId, Group>,
    /// The number of decisions read.
    walked: u64,
    /// The position at which the next kept sample of the partition starts.
    position: u64,
}

impl<'a> KeptSamples<'a> {
    /// Opens the manifests of the row's partition.
    ///
    /// # Errors
    ///
    /// Returns a data error if a manifest is missing or damaged, and otherwise a storage error.
    pub fn open(
        context: &Context,
        row: &OutputPlanRow,
        settings: &'a PlanSettings,
    ) -> Result<Self> {
        let run = &context.run;
        let unit = Unit::from(row.partition);
        let scores = by_step(&settings.scores).map(|(step, scores)| {
            let columns: Vec<&str> = scores.iter().map(|score| score.output.as_str()).collect();
            let reader = ScoreReader::open(context, step, unit, &columns)?;
            Ok((reader, columns.len()))
        });
        let embeddings = settings.embeddings.as_ref();
        Ok(Self {
            decisions: run.rows(&DECISIONS.path(context.step(), unit))?,
            samples: None,
            scores: scores.collect::<Result<_>>()?,
            embeddings: embeddings
                .map(|step| Embeddings::open(run, step, unit))
                .transpose()?,
            captions: match settings.keep_captions {
                KeepCaptions::Kept => HashMap::new(),
                KeepCaptions::All => captions::of_partition(run, context.step(), row.partition)?,
            },
            groups: groups::of_partition(run, context.step(), row.partition)?,
            run: run.clone(),
            unit,
            row: row.clone(),
            settings,
            walked: 0,
            position: 0,
        })
    }

    /// Returns the next kept sample.
    fn step(&mut self) -> Result<Option<KeptSample>> {
        while self.position < self.row.to {
            let Some(decision) = self.decisions.next().transpose()? else {
                break;
            };
            let start = self.position;
            let is_here =
                decision.keep && self.settings.split_of(&decision) == self.row.split.as_deref();
            if is_here {
                self.position += self.settings.weight.of(decision.bytes);
            }
            let is_needed = is_here && start >= self.row.from;
            let kept = self.follow(&decision.image_id, is_needed)?;
            self.walked += 1;
            if kept.is_some() {
                return Ok(kept);
            }
        }
        Ok(None)
    }

    /// Advances all manifests past a sample, and joins its rows if it is needed.
    fn follow(&mut self, id: &ImageId, is_needed: bool) -> Result<Option<KeptSample>> {
        let mut scores = Vec::with_capacity(self.settings.scores.len());
        for (reader, columns) in &mut self.scores {
            match reader.next_if(id.as_str())? {
                // NaN represents a missing score.
                Some(found) => scores.extend(found.iter().map(|s| (!s.is_nan()).then_some(*s))),
                None => scores.resize(scores.len() + *columns, None),
            }
        }
        let embedding = match &mut self.embeddings {
            Some(embeddings) => embeddings.next_if(id, is_needed)?,
            None => None,
        };
        if is_needed && self.samples.is_none() {
            let path = IMAGES.path(&StepName::read(), self.unit);
            self.samples = Some(self.run.rows(&path)?.from_row(self.walked)?);
        }
        let Some(samples) = &mut self.samples else {
            return Ok(None);
        };
        let sample = samples.next().transpose()?;
        let Some(mut sample) = sample.filter(|sample| sample.image_id == *id) else {
            return Err(Error::data(format!(
                "{}: the decisions have {id} as row {}, read/images has another sample there",
                self.unit, self.walked
            ))
            .hint("run sluice-export decide again"));
        };
        if let Some(captions) = self.captions.get(id).filter(|_| is_needed)
            && !captions::add(&mut sample, captions)
        {
            tracing::warn!(
                "{id}: its metadata is not a JSON object: captions of duplicates are omitted"
            );
        }
        let group = self.groups.get(id).copied();
        Ok(is_needed.then(|| KeptSample {
            group: group.unwrap_or_else(|| Group::alone(id)),
            sample,
            scores,
            embedding,
        }))
    }
}

impl Iterator for KeptSamples<'_> {
    type Item = Result<KeptSample>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

/// The model and dimension of embeddings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddingsInfo {
    /// The model's name.
    pub model: String,
    /// The hash of the model's content.
    pub sha256: String,
    /// The number of values in an embedding.
    pub dimension: usize,
}

impl EmbeddingsInfo {
    /// Returns the model and dimension of a partition's embeddings.
    ///
    /// # Errors
    ///
    /// Returns a data error if they are missing or damaged, and otherwise a storage error.
    pub fn partition(run: &Run, step: &StepName, unit: Unit) -> Result<Self> {
        let path = layout::EMBEDDINGS.path(step, unit);
        let table = run.table(&path, EMBEDDINGS, &["image_id", "embedding"])?;
        let column = table.schema().field_with_name("embedding");
        let dimension = match column.map(|field| field.data_type()) {
            Ok(DataType::FixedSizeList(_, length)) => usize::try_from(*length).ok(),
            _ => None,
        };
        let dimension = dimension.ok_or_else(|| {
            let uri = run.uri(&path);
            Error::data(format!(
                "{uri}: column \"embedding\" is not a list of vectors"
            ))
        })?;
        Ok(Self {
            model: table.required(MODEL_KEY)?.to_owned(),
            sha256: table.required(MODEL_SHA256_KEY)?.to_owned(),
            dimension,
        })
    }

    /// Returns the model and dimension as metadata of a Parquet file.
    pub fn metadata(&self) -> [(&'static str, String); 3] {
        [
            (MODEL_KEY, self.model.clone()),
            (MODEL_SHA256_KEY, self.sha256.clone()),
            (DIMENSION_KEY, self.dimension.to_string()),
        ]
    }
}

/// The embeddings of a partition. Reads only names before the first needed one, and vectors from
/// there on.
struct Embeddings {
    run: Run,
    path: String,
    table: Table,
    has_vectors: bool,
    /// The current batch, and its names.
    batch: Option<(RecordBatch, StringArray)>,
    /// The next row of the batch.
    next: usize,
    /// The number of rows read.
    passed: u64,
}

impl Embeddings {
    fn open(run: &Run, step: &StepName, unit: Unit) -> Result<Self> {
        let path = layout::EMBEDDINGS.path(step, unit);
        Ok(Self {
            table: run.table(&path, EMBEDDINGS, &["image_id"])?,
            run: run.clone(),
            path,
            has_vectors: false,
            batch: None,
            next: 0,
            passed: 0,
        })
    }

    /// Advances past the sample's row. Returns its embedding if it is needed.
    fn next_if(&mut self, id: &ImageId, is_needed: bool) -> Result<Option<Vec<f32>>> {
        if is_needed && !self.has_vectors {
            let table = self
                .run
                .table(&self.path, EMBEDDINGS, &["image_id", "embedding"])?;
            self.table = table.from_row(self.passed)?;
            self.has_vectors = true;
            self.batch = None;
        }
        if !self.fill()? {
            return Ok(None);
        }
        let (row, found) = (self.next, self.batch.as_ref());
        let Some((batch, _)) = found.filter(|(_, ids)| ids.value(row) == id.as_str()) else {
            return Ok(None);
        };
        self.next += 1;
        self.passed += 1;
        if !is_needed {
            return Ok(None);
        }
        let values = vectors(batch, "embedding")?;
        let dimension = values.len() / batch.num_rows();
        Ok(Some(values[row * dimension..][..dimension].to_vec()))
    }

    /// Reads the next batch once the current one is used up. Returns whether there is a row.
    fn fill(&mut self) -> Result<bool> {
        while self
            .batch
            .as_ref()
            .is_none_or(|(_, ids)| self.next >= ids.len())
        {
            let Some(batch) = self.table.next().transpose()? else {
                return Ok(false);
            };
            let ids = batch.column_by_name("image_id");
            let ids = ids.and_then(|ids| ids.as_string_opt::<i32>().cloned());
            let ids = ids.ok_or_else(|| Error::data("column \"image_id\" is not text"))?;
            self.batch = Some((batch, ids));
            self.next = 0;
        }
        Ok(true)
    }
}
