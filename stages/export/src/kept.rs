//! The kept samples of a stretch of a partition, with what the stages said about them.
//!
//! The decisions are walked from the partition's first sample, for the weights before the stretch
//! tell where it begins; they are narrow. The wide manifests, samples and embeddings, are opened at
//! the stretch's first row. Scores and embeddings have no row for samples that were dropped before
//! them, but keep the order, so each follows along.

use arrow::array::{Array, StringArray};
use arrow::datatypes::DataType;
use sluice_harness::Context;
use sluice_manifest::rows::{
    DIMENSION_KEY, DecisionRow, EMBEDDINGS, EmbeddedRow, MODEL_KEY, MODEL_SHA256_KEY,
    OutputPlanRow, SampleRow, ScoreRow,
};
use sluice_manifest::{Error, Filter, ImageId, Result, Unit, layout};
use sluice_store::{RowReader, Store, Table, vectors};

use crate::pack::Weight;

/// A sample of the curated dataset.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptSample {
    /// What `read` found.
    pub sample: SampleRow,
    /// Its aesthetic score, where that filter counted.
    pub aesthetic: Option<f32>,
    /// Its nsfw score, where that filter counted.
    pub nsfw: Option<f32>,
    /// Its embedding, where it is asked for and there is one.
    pub embedding: Option<Vec<f32>>,
}

/// Reads the kept samples that start in a stretch.
pub struct Kept {
    run: Store,
    unit: Unit,
    row: OutputPlanRow,
    weight: Weight,
    decisions: RowReader<DecisionRow>,
    samples: Option<RowReader<SampleRow>>,
    aesthetic: Option<RowReader<ScoreRow>>,
    nsfw: Option<RowReader<ScoreRow>>,
    embeddings: Option<Embeddings>,
    /// Number of decisions walked.
    walked: u64,
    /// Where the next kept sample starts on the partition's line.
    position: u64,
}

impl Kept {
    /// Opens the manifests of the stretch's partition.
    pub fn open(
        context: &Context,
        row: &OutputPlanRow,
        weight: Weight,
        filters: &[Filter],
        embeddings: bool,
    ) -> Result<Self> {
        let run = &context.run;
        let unit = Unit::from(row.partition);
        let scores = |filter: Filter, stage: &str| {
            let path = layout::manifest(stage, "scores", &unit);
            let counts = filters.contains(&filter);
            counts.then(|| run.rows::<ScoreRow>(&path)).transpose()
        };
        let embeddings = match embeddings {
            true => Some(Embeddings::open(run, &unit)?),
            false => None,
        };
        Ok(Self {
            decisions: run.rows(&layout::manifest("export", "decisions", &unit))?,
            samples: None,
            aesthetic: scores(Filter::Aesthetic, "aesthetic")?,
            nsfw: scores(Filter::Nsfw, "nsfw")?,
            embeddings,
            run: run.clone(),
            unit,
            row: row.clone(),
            weight,
            walked: 0,
            position: 0,
        })
    }

    /// The next kept sample of the stretch.
    fn step(&mut self) -> Result<Option<KeptSample>> {
        while self.position < self.row.to {
            let Some(decision) = self.decisions.next().transpose()? else {
                break;
            };
            let start = self.position;
            if decision.keep {
                self.position += self.weight.of(decision.bytes);
            }
            let wanted = decision.keep && start >= self.row.from;
            let kept = self.follow(&decision.image_id, wanted)?;
            self.walked += 1;
            if kept.is_some() {
                return Ok(kept);
            }
        }
        Ok(None)
    }

    /// Moves all manifests past a sample, and joins its rows where it is wanted.
    fn follow(&mut self, id: &ImageId, wanted: bool) -> Result<Option<KeptSample>> {
        let aesthetic = score_of(&mut self.aesthetic, id)?;
        let nsfw = score_of(&mut self.nsfw, id)?;
        let embedding = match &mut self.embeddings {
            Some(embeddings) => embeddings.take(id, wanted)?,
            None => None,
        };
        if wanted && self.samples.is_none() {
            let path = layout::manifest("read", "images", &self.unit);
            self.samples = Some(self.run.rows(&path)?.from_row(self.walked)?);
        }
        let Some(samples) = &mut self.samples else {
            return Ok(None);
        };
        let sample = samples.next().transpose()?;
        let Some(sample) = sample.filter(|sample| sample.image_id == *id) else {
            return Err(Error::data(format!(
                "{}: the decisions have {id} as row {}, read/images has another sample there",
                self.unit, self.walked
            ))
            .hint("run sluice-export decide again"));
        };
        Ok(wanted.then_some(KeptSample {
            sample,
            aesthetic,
            nsfw,
            embedding,
        }))
    }
}

impl Iterator for Kept {
    type Item = Result<KeptSample>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

fn score_of(scores: &mut Option<RowReader<ScoreRow>>, id: &ImageId) -> Result<Option<f32>> {
    let Some(scores) = scores else {
        return Ok(None);
    };
    let row = scores.next_if(|row| row.image_id == *id)?;
    Ok(row.map(|row| row.score))
}

/// Whose vectors they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Embedder {
    /// The model's name.
    pub model: String,
    /// Its content hash.
    pub sha256: String,
    /// Values in a vector.
    pub dimension: usize,
}

impl Embedder {
    /// The embedder of a partition.
    pub fn of(run: &Store, unit: &Unit) -> Result<Self> {
        let path = layout::manifest("embed", "embeddings", unit);
        let table = run.table(&path, EMBEDDINGS, &["image_id", "embedding"])?;
        let column = table.schema().field_with_name("embedding");
        let dimension = match column.map(|field| field.data_type()) {
            Ok(DataType::FixedSizeList(_, length)) => usize::try_from(*length).ok(),
            _ => None,
        };
        let dimension = dimension.ok_or_else(|| {
            let uri = run.uri(&path);
            Error::data(format!("{uri}: column \"embedding\" is no list of vectors"))
        })?;
        Ok(Self {
            model: table.required(MODEL_KEY)?.to_owned(),
            sha256: table.required(MODEL_SHA256_KEY)?.to_owned(),
            dimension,
        })
    }

    /// The same as metadata of a Parquet file.
    pub fn metadata(&self) -> [(&'static str, String); 3] {
        [
            (MODEL_KEY, self.model.clone()),
            (MODEL_SHA256_KEY, self.sha256.clone()),
            (DIMENSION_KEY, self.dimension.to_string()),
        ]
    }
}

/// The embeddings of a partition: names alone up to the first that is wanted, vectors from there.
struct Embeddings {
    run: Store,
    path: String,
    names: RowReader<EmbeddedRow>,
    passed: u64,
    vectors: Option<Vectors>,
}

impl Embeddings {
    fn open(run: &Store, unit: &Unit) -> Result<Self> {
        let path = layout::manifest("embed", "embeddings", unit);
        Ok(Self {
            names: run.rows(&path)?,
            run: run.clone(),
            path,
            passed: 0,
            vectors: None,
        })
    }

    fn take(&mut self, id: &ImageId, wanted: bool) -> Result<Option<Vec<f32>>> {
        if wanted && self.vectors.is_none() {
            let table = self
                .run
                .table(&self.path, EMBEDDINGS, &["image_id", "embedding"])?;
            self.vectors = Some(Vectors {
                table: table.from_row(self.passed)?,
                ids: None,
                values: Vec::new(),
                next: 0,
            });
        }
        if let Some(vectors) = &mut self.vectors {
            return vectors.next_if(id);
        }
        if self.names.next_if(|row| row.image_id == *id)?.is_some() {
            self.passed += 1;
        }
        Ok(None)
    }
}

/// Vectors with their names, a batch at a time.
struct Vectors {
    table: Table,
    ids: Option<StringArray>,
    values: Vec<f32>,
    next: usize,
}

impl Vectors {
    fn next_if(&mut self, id: &ImageId) -> Result<Option<Vec<f32>>> {
        while self.ids.as_ref().is_none_or(|ids| self.next >= ids.len()) {
            let Some(batch) = self.table.next().transpose()? else {
                return Ok(None);
            };
            let column = batch.column_by_name("image_id");
            let ids = column.and_then(|column| column.as_any().downcast_ref::<StringArray>());
            let ids = ids.ok_or_else(|| Error::data("column \"image_id\" is no text"))?;
            self.ids = Some(ids.clone());
            self.values = vectors(&batch, "embedding")?.to_vec();
            self.next = 0;
        }
        let Some(ids) = &self.ids else {
            return Ok(None);
        };
        if ids.value(self.next) != id.as_str() {
            return Ok(None);
        }
        let dimension = self.values.len() / ids.len();
        let at = self.next * dimension;
        self.next += 1;
        Ok(Some(self.values[at..at + dimension].to_vec()))
    }
}
