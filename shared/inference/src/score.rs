//! A scoring stage: a score for every image, and the threshold that decides.
//!
//! Scores are facts, thresholds are policy. The manifest holds the score of every image; when the
//! threshold alone changes, the decisions are derived anew from the scores that are there.

use std::sync::Mutex;

use arrow::array::{AsArray, RecordBatch};
use serde_json::json;
use sluice_harness::{Context, Plan, Task, Work};
use sluice_manifest::dag::{self, Step};
use sluice_manifest::rows::{
    DIMENSION_KEY, EMBEDDINGS, MODEL_KEY, MODEL_SHA256_KEY, MeasuredRow, ScoreRow, Status,
};
use sluice_manifest::{Counts, Error, ImageId, Reason, Receipt, Result, Unit, layout};
use sluice_model::{Kind, Model, Session};
use sluice_pixels::{Quality, technical_quality};
use sluice_store::{RowWriter, Store, vectors};

use crate::arguments::Feed;
use crate::images::each_batch;

/// What the threshold keeps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Policy {
    /// Scores at or above it (`--min-score`).
    AtLeast(f32),
    /// Scores below it (`--max-score`).
    Below(f32),
}

impl Policy {
    /// Whether an image with this score stays.
    pub fn keeps(self, score: f32) -> bool {
        match self {
            Policy::AtLeast(least) => score >= least,
            Policy::Below(limit) => score < limit,
        }
    }

    fn setting(self) -> (&'static str, f32) {
        match self {
            Policy::AtLeast(least) => ("min_score", least),
            Policy::Below(limit) => ("max_score", limit),
        }
    }
}

/// A scoring stage's work.
pub struct Scoring {
    /// The step.
    pub step: &'static Step,
    /// Head, classifier or measure.
    pub model: Model,
    /// The threshold.
    pub policy: Policy,
    /// The reason of images without a finite score.
    pub unscored: Reason,
    /// The reason of images that the threshold refuses.
    pub refused: Reason,
    /// How a classifier is fed.
    pub feed: Feed,
}

/// Scores the partitions that are this process's share.
pub fn score(context: &Context, scoring: &Scoring) -> Result<()> {
    scoring
        .model
        .require(&[Kind::Head, Kind::Classifier, Kind::Measure], "--model")?;
    let plan = context.plan()?;
    let input = plan.input()?;
    let session = Mutex::new(None);
    let run = Run {
        context,
        scoring,
        plan: &plan,
        input: &input,
        session,
    };
    context.each_unit(scoring.step, plan.units(), 1, |unit| run.partition(unit))
}

struct Run<'a> {
    context: &'a Context,
    scoring: &'a Scoring,
    plan: &'a Plan,
    input: &'a Store,
    /// One for all units, loaded when the first one has work to do.
    session: Mutex<Option<Session>>,
}

/// Takes the scores of a partition, in order, and decides.
struct Decider<'a> {
    scoring: &'a Scoring,
    rows: RowWriter<ScoreRow>,
    counts: Counts,
}

impl Decider<'_> {
    fn add(&mut self, image_id: ImageId, score: f32) -> Result<()> {
        if !score.is_finite() {
            self.counts.add(Some(self.scoring.unscored));
            return Ok(());
        }
        let keep = self.scoring.policy.keeps(score);
        self.counts.add((!keep).then_some(self.scoring.refused));
        self.rows.push(ScoreRow {
            image_id,
            score,
            keep,
        })
    }
}

impl Run<'_> {
    fn partition(&self, unit: &Unit) -> Result<()> {
        let Scoring {
            step,
            model,
            policy,
            ..
        } = self.scoring;
        let from_embeddings = model.spec.kind == Kind::Head;
        let upstream = if from_embeddings {
            &dag::EMBED
        } else {
            &dag::READ
        };
        let (name, threshold) = policy.setting();
        let decoding = (model.spec.kind == Kind::Classifier).then_some(self.scoring.feed.fidelity);
        let work = Work {
            step,
            version: 1,
            unit,
            units: self.plan.partitions.len(),
            settings: json!({ "model": model.settings(), "decoding": decoding, name: threshold }),
            basis: Some(json!({ "model": model.settings(), "decoding": decoding })),
            inputs: vec![self.context.input(upstream, unit)?],
        };
        let Some(mut task) = self.context.begin(work)? else {
            return Ok(());
        };
        let path = task.path("scores");
        let metadata = [
            (MODEL_KEY, model.spec.name.clone()),
            (MODEL_SHA256_KEY, model.sha256.clone()),
        ];
        let mut decider = Decider {
            scoring: self.scoring,
            rows: self.context.run.write_rows(&path, &metadata)?,
            counts: Counts::default(),
        };
        if let Some(previous) = task.reusable() {
            self.decide_again(&task, previous, &path, &mut decider)?;
        } else {
            match model.spec.kind {
                Kind::Head => self.score_embeddings(&task, unit, &mut decider)?,
                Kind::Measure => self.score_measures(&task, unit, &mut decider)?,
                _ => self.score_pixels(&task, unit, &mut decider)?,
            }
        }
        task.wrote(decider.rows.finish()?);
        task.commit(decider.counts)
    }

    /// The stored scores stand; the threshold alone is new. Images without a score have no row, but
    /// the receipt counts them.
    fn decide_again(
        &self,
        task: &Task<'_>,
        previous: &Receipt,
        path: &str,
        decider: &mut Decider<'_>,
    ) -> Result<()> {
        let unscored = previous.counts.dropped.get(&self.scoring.unscored);
        for _ in 0..unscored.copied().unwrap_or(0) {
            decider.counts.add(Some(self.scoring.unscored));
        }
        for row in self.context.run.rows::<ScoreRow>(path)? {
            let row = row?;
            decider.add(row.image_id, row.score)?;
            task.advance(1)?;
        }
        Ok(())
    }

    fn score_embeddings(
        &self,
        task: &Task<'_>,
        unit: &Unit,
        decider: &mut Decider<'_>,
    ) -> Result<()> {
        let path = layout::manifest("embed", "embeddings", unit);
        let table = self
            .context
            .run
            .table(&path, EMBEDDINGS, &["image_id", "embedding"])?;
        let spec = &self.scoring.model.spec;
        let found = table.required(MODEL_KEY)?;
        let wanted = spec.embedder.as_deref().unwrap_or_default();
        if found != wanted {
            return Err(Error::usage(format!(
                "model {:?} belongs to embeddings of {wanted:?}, but these are of {found:?}",
                spec.name
            ))
            .hint(format!(
                "embed with --model {wanted}, or choose a model for {found}"
            )));
        }
        let dimension: usize = table.required(DIMENSION_KEY)?.parse().unwrap_or_default();
        if let Some(expected) = spec.dimension
            && expected != dimension
        {
            return Err(Error::usage(format!(
                "model {:?} takes embeddings of {expected} values, but these have {dimension}",
                spec.name
            )));
        }
        for batch in table {
            let batch = batch?;
            let ids = image_ids(&batch)?;
            let scores = self.run(&[ids.len(), dimension], vectors(&batch, "embedding")?)?;
            task.advance(ids.len())?;
            for (image_id, score) in ids.into_iter().zip(scores) {
                decider.add(image_id, score)?;
            }
        }
        Ok(())
    }

    fn score_pixels(&self, task: &Task<'_>, unit: &Unit, decider: &mut Decider<'_>) -> Result<()> {
        let Some(preprocess) = &self.scoring.model.spec.preprocess else {
            return Err(Error::bug(
                "a classifier without preprocessing passed the check of its spec",
            ));
        };
        let partition = self.plan.partition(unit)?;
        each_batch(
            self.context,
            self.input,
            partition,
            preprocess,
            self.scoring.feed,
            |batch| {
                let scores = self.run(&batch.shape, &batch.tensor)?;
                task.advance(batch.ids.len())?;
                for _ in 0..batch.failed {
                    decider.counts.add(Some(self.scoring.unscored));
                }
                for (image_id, score) in batch.ids.drain(..).zip(scores) {
                    decider.add(image_id, score)?;
                }
                Ok(())
            },
        )
    }

    fn score_measures(
        &self,
        task: &Task<'_>,
        unit: &Unit,
        decider: &mut Decider<'_>,
    ) -> Result<()> {
        let path = layout::manifest("read", "images", unit);
        for row in self.context.run.rows::<MeasuredRow>(&path)? {
            let row = row?;
            if row.status == Status::Rejected {
                continue;
            }
            let missing = f32::NAN;
            let quality = Quality {
                dark: row.dark.unwrap_or(missing),
                light: row.light.unwrap_or(missing),
                blurry: row.blurry.unwrap_or(missing),
                low_information: row.low_information.unwrap_or(missing),
                odd_aspect: row.odd_aspect.unwrap_or(missing),
                odd_size: row.odd_size.unwrap_or(missing),
            };
            decider.add(row.image_id, technical_quality(&quality))?;
            task.advance(1)?;
        }
        Ok(())
    }

    /// Runs the model; one score for each row.
    fn run(&self, shape: &[usize], values: &[f32]) -> Result<Vec<f32>> {
        let mut session = self.session.lock().unwrap_or_else(|e| e.into_inner());
        let session = match &mut *session {
            Some(session) => session,
            none => none.insert(self.scoring.model.session(self.context.jobs)?),
        };
        let output = session.run(shape, values)?;
        let width = output.len() / shape[0].max(1);
        let spec = &self.scoring.model.spec;
        let column = spec.score.as_ref().map_or(0, |score| score.column);
        if shape[0] > 0 && column >= width {
            return Err(Error::usage(format!(
                "model {:?} gives {width} values, its spec asks for column {column}",
                spec.name
            )));
        }
        Ok(output
            .into_iter()
            .skip(column)
            .step_by(width.max(1))
            .collect())
    }
}

fn image_ids(batch: &RecordBatch) -> Result<Vec<ImageId>> {
    let column = batch
        .column_by_name("image_id")
        .and_then(|column| column.as_string_opt::<i32>());
    let column = column.ok_or_else(|| Error::data("column \"image_id\" is no text"))?;
    Ok(column
        .iter()
        .map(|id| ImageId::from_text(id.unwrap_or_default()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_keep_what_they_say() {
        assert!(Policy::AtLeast(5.0).keeps(5.0) && !Policy::AtLeast(5.0).keeps(4.999));
        assert!(!Policy::Below(0.5).keeps(0.5) && Policy::Below(0.5).keeps(0.499));
    }
}
