//! The scorer that runs a model: heads on embeddings, classifiers on pixels, or the measures of
//! `read`. It gives scores and decides nothing.

use arrow::array::{AsArray, RecordBatch};
use clap::Args;
use serde::{Deserialize, Serialize};
use sluice_harness::{Context, Gives, Plan, StepArgs, Survivors, Task, Upstream, Work};
use sluice_manifest::layout::{self, EMBEDDINGS};
use sluice_manifest::rows::{self, DIMENSION_KEY, MODEL_KEY, MODEL_SHA256_KEY, MeasuredRow};
use sluice_manifest::{Error, ImageId, Receipt, Result, ScoreColumn, StepName, Unit};
use sluice_model::{Input, Kind, Model, ModelSettings, catalogue};
use sluice_pixels::{Fidelity, Quality, technical_quality};
use sluice_store::{Storage, Store, vectors};

use crate::arguments::ModelArgs;
use crate::files::Images;
use crate::images::{Feed, each_batch};
use crate::reuse::{Join, Previous};
use crate::runner::Runner;
use crate::writer::ScoreWriter;

/// Arguments of the stages that score with a model, without the model itself.
#[derive(Debug, Clone, Args)]
pub struct ScorerArgs {
    /// The step.
    #[command(flatten)]
    pub step: StepArgs,

    /// The step whose embeddings a head takes (default: embed)
    #[arg(long, env = "SLUICE_EMBEDDINGS_OF", value_name = "STEP")]
    pub embeddings: Option<StepName>,

    /// Where models are and how they run.
    #[command(flatten)]
    pub models: ModelArgs,
}

impl ScorerArgs {
    /// Returns the steps whose manifests may be read. Models of the catalogue that are not heads need
    /// no embeddings; of others it is not known before they are looked at.
    pub fn needs(&self, model: &str) -> Vec<StepName> {
        let known = catalogue().iter().find(|spec| spec.name == model);
        let is_head = known.is_none_or(|spec| spec.kind == Kind::Head);
        self.embeddings
            .iter()
            .filter(|_| is_head)
            .cloned()
            .collect()
    }

    /// Returns the scorer for what `--model` names.
    ///
    /// # Errors
    /// Usage, when the model does not exist or gives no scores.
    pub fn scorer(&self, storage: &Storage, model: &str) -> Result<ModelScorer> {
        let model = self.models.find(storage, model)?;
        model.require(&[Kind::Head, Kind::Classifier, Kind::Measure], "--model")?;
        let embeddings = self.embeddings.clone();
        Ok(ModelScorer {
            embeddings: embeddings.unwrap_or_else(|| StepName::fixed("embed")),
            fidelity: self.models.fidelity(),
            columns: model.score_columns(),
            model,
        })
    }
}

/// A model that scores.
pub struct ModelScorer {
    /// Head, classifier or measure.
    pub model: Model,
    columns: Vec<ScoreColumn>,
    /// The step whose embeddings a head takes.
    embeddings: StepName,
    fidelity: Fidelity,
}

/// The settings that shape scores.
#[derive(Debug, Serialize, Deserialize)]
pub struct Settings {
    /// The model.
    pub model: ModelSettings,
    /// How exactly large JPEGs are decoded, for classifiers.
    pub decoding: Option<Fidelity>,
}

impl ModelScorer {
    /// Checks the model, and that a head fits the embeddings; returns what the step gives.
    ///
    /// # Errors
    /// Usage, when something does not fit.
    pub fn check(&self, upstream: &Upstream) -> Result<Gives> {
        if self.model.spec.kind == Kind::Head {
            let embedder = upstream.embedder(&self.embeddings)?;
            self.check_embeddings(&embedder.model, embedder.dimension)?;
        }
        self.model.check()?;
        Ok(Gives {
            scores: self.columns.clone(),
            embedder: None,
        })
    }

    fn check_embeddings(&self, model: &str, dimension: Option<usize>) -> Result<()> {
        let spec = &self.model.spec;
        let wanted = spec.embedder.as_deref().unwrap_or_default();
        if model != wanted {
            return Err(Error::usage(format!(
                "model {:?} takes embeddings of {wanted:?}, but these are of {model:?}",
                spec.name
            ))
            .hint(format!(
                "embed with --model {wanted}, or choose a model for {model}"
            )));
        }
        match (spec.dimension, dimension) {
            (Some(expected), Some(found)) if expected != found => Err(Error::usage(format!(
                "model {:?} takes embeddings of {expected} values, but these have {found}",
                spec.name
            ))),
            _ => Ok(()),
        }
    }

    /// Adds to a receipt what the model's spec says: its licence, and how its scores are judged.
    fn state(&self, receipt: &mut Receipt) {
        receipt.set_about("licence", &self.model.spec.licence);
        receipt.set_about("origin", &self.model.spec.origin);
        for (summary, column) in receipt.scores.iter_mut().zip(&self.columns) {
            summary.column.threshold = column.threshold;
            summary.column.keep = column.keep;
        }
    }

    /// Scores the partitions that are this process's share.
    ///
    /// # Errors
    /// Usage, when the model does not fit; data, when an earlier step has not been run.
    pub fn run(&self, context: &Context) -> Result<()> {
        let plan = context.plan()?;
        let run = Run {
            context,
            scorer: self,
            input: &plan.input()?,
            plan: &plan,
            survivors: &context.survivors(context.node().survivors_of.as_ref())?,
            runner: Runner::new(&self.model, context),
        };
        let in_flight = match self.model.spec.kind {
            Kind::Classifier | Kind::Embedder => run.runner.in_flight(1),
            Kind::Head | Kind::Measure => 1,
        };
        context.each_unit(plan.units(), in_flight, |unit| run.partition(unit))?;
        if self.model.spec.kind != Kind::Measure {
            run.runner.report();
        }
        Ok(())
    }
}

struct Run<'a> {
    context: &'a Context,
    scorer: &'a ModelScorer,
    plan: &'a Plan,
    input: &'a Store,
    survivors: &'a Survivors<'a>,
    runner: Runner<'a>,
}

/// How many samples there were, and how many rows were taken over.
struct Walked {
    samples: u64,
    reused: u64,
}

impl Walked {
    fn by(join: &Join) -> Self {
        Self {
            samples: join.survivors,
            reused: join.reused,
        }
    }
}

impl Run<'_> {
    fn partition(&self, unit: Unit) -> Result<()> {
        let (scorer, model) = (self.scorer, &self.scorer.model);
        let partition = self.plan.partition(unit)?.partition;
        let mut inputs = self.survivors.inputs(partition)?;
        if model.spec.kind == Kind::Head {
            inputs.push(self.context.input(&scorer.embeddings, unit)?);
        }
        let is_classifier = model.spec.kind == Kind::Classifier;
        let work = Work {
            unit,
            units: self.plan.partitions.len(),
            settings: Settings {
                model: model.settings(),
                decoding: is_classifier.then_some(scorer.fidelity),
            },
            inputs,
        };
        let state = |receipt: &mut Receipt| self.scorer.state(receipt);
        let Some(mut task) = self.context.begin_stating(work, state)? else {
            return Ok(());
        };
        let metadata = [
            (MODEL_KEY, model.spec.name.clone()),
            (MODEL_SHA256_KEY, model.sha256.clone()),
        ];
        let mut writer = ScoreWriter::open(self.context, &task, &scorer.columns, &metadata)?;
        let walked = match model.spec.kind {
            Kind::Head => self.score_embeddings(&task, unit, &mut writer)?,
            Kind::Measure => self.score_measures(&task, unit, &mut writer)?,
            Kind::Classifier | Kind::Embedder => self.score_pixels(&task, unit, &mut writer)?,
        };
        if model.spec.kind != Kind::Measure {
            self.runner.describe(&mut task);
        }
        writer.commit(task, walked.samples, walked.reused)
    }

    fn score_embeddings(
        &self,
        task: &Task<'_>,
        unit: Unit,
        writer: &mut ScoreWriter,
    ) -> Result<Walked> {
        let path = EMBEDDINGS.path(&self.scorer.embeddings, unit);
        let run = &self.context.run;
        let table = run.table(&path, rows::EMBEDDINGS, &["image_id", "embedding"])?;
        let dimension: usize = table.required(DIMENSION_KEY)?.parse().unwrap_or_default();
        let model = table.required(MODEL_KEY)?;
        self.scorer.check_embeddings(model, Some(dimension))?;
        let partition = self.plan.partition(unit)?.partition;
        // Embeddings of samples that did not survive come in between, and survivors without one.
        let mut join = Join::open(self.context, self.survivors, partition, None)?;
        for batch in table {
            let batch = batch?;
            let ids = image_ids(&batch)?;
            let vectors = vectors(&batch, "embedding")?;
            let scores = self.runner.run(&[ids.len(), dimension], vectors)?;
            let scores = self.scorer.model.spec.scores(scores, ids.len())?;
            task.advance(ids.len())?;
            let width = self.scorer.columns.len();
            for (id, scores) in ids.into_iter().zip(scores.chunks_exact(width)) {
                if join.advance(Some(&id), |_, _| Ok(()))? {
                    writer.push(id, scores)?;
                }
            }
        }
        join.advance(None, |_, _| Ok(()))?;
        Ok(Walked::by(&join))
    }

    fn score_pixels(
        &self,
        task: &Task<'_>,
        unit: Unit,
        writer: &mut ScoreWriter,
    ) -> Result<Walked> {
        let names: Vec<&str> = self
            .scorer
            .columns
            .iter()
            .map(|c| c.name.as_str())
            .collect();
        let previous = Previous::of(task, &layout::SCORES, rows::SCORES, &names)?;
        let images = Images {
            context: self.context,
            input: self.input,
            partition: self.plan.partition(unit)?,
            survivors: self.survivors,
        };
        let spec = &self.scorer.model.spec;
        let join = each_row(
            images,
            &self.runner,
            self.scorer.fidelity,
            previous.as_ref(),
            task,
            |output, rows| spec.scores(output, rows),
            |id, scores| writer.push(id, scores),
        )?;
        Ok(Walked::by(&join))
    }

    fn score_measures(
        &self,
        task: &Task<'_>,
        unit: Unit,
        writer: &mut ScoreWriter,
    ) -> Result<Walked> {
        let partition = self.plan.partition(unit)?.partition;
        let mut samples = 0;
        for row in self.survivors.samples::<MeasuredRow>(partition)? {
            let row = row?;
            let missing = f32::NAN;
            let quality = Quality {
                dark: row.dark.unwrap_or(missing),
                light: row.light.unwrap_or(missing),
                blurry: row.blurry.unwrap_or(missing),
                low_information: row.low_information.unwrap_or(missing),
                odd_aspect: row.odd_aspect.unwrap_or(missing),
                odd_size: row.odd_size.unwrap_or(missing),
            };
            samples += 1;
            writer.push(row.image_id, &[technical_quality(&quality)])?;
            task.advance(1)?;
        }
        Ok(Walked { samples, reused: 0 })
    }
}

/// Runs a model over the survivors' images, and hands out one row of numbers for each, in the order of
/// `read`. `rows_of` makes the rows of what the model gives for so many images. Rows of `previous` are
/// taken over.
///
/// # Errors
/// As `rows_of` and `row`; usage, when the model has no preprocessing, or does not run; transient, when
/// another process replaced the manifest of `previous` meanwhile, or the device fails; of storage.
pub fn each_row(
    images: Images<'_>,
    runner: &Runner<'_>,
    fidelity: Fidelity,
    previous: Option<&Previous>,
    task: &Task<'_>,
    rows_of: impl Fn(Vec<f32>, usize) -> Result<Vec<f32>>,
    row: impl FnMut(ImageId, &[f32]) -> Result<()>,
) -> Result<Join> {
    let rows = Rows {
        images,
        runner,
        fidelity,
        previous,
        task,
    };
    match runner.model.takes_bytes() {
        true => rows.each::<u8>(rows_of, row),
        false => rows.each::<f32>(rows_of, row),
    }
}

struct Rows<'a> {
    images: Images<'a>,
    runner: &'a Runner<'a>,
    fidelity: Fidelity,
    previous: Option<&'a Previous>,
    task: &'a Task<'a>,
}

impl Rows<'_> {
    fn each<N: Input>(
        self,
        rows_of: impl Fn(Vec<f32>, usize) -> Result<Vec<f32>>,
        mut row: impl FnMut(ImageId, &[f32]) -> Result<()>,
    ) -> Result<Join> {
        let (images, runner, previous) = (self.images, self.runner, self.previous);
        let Some(preprocess) = &runner.model.spec.preprocess else {
            return Err(Error::bug("a model of pixels without preprocessing"));
        };
        let feed = Feed {
            batch_size: runner.model.placement.batch_size,
            fidelity: self.fidelity,
            ahead: runner.ahead(),
        };
        let partition = images.partition.partition;
        let mut join = Join::open(images.context, images.survivors, partition, previous)?;
        let skip = Previous::has_row(previous, images.context)?;
        each_batch::<N>(images, preprocess, feed, skip, |batch| {
            let output = runner.run(&batch.shape, &batch.tensor)?;
            let numbers = rows_of(output, batch.ids.len())?;
            self.task.advance(batch.ids.len())?;
            let width = numbers.len() / batch.ids.len().max(1);
            for (id, numbers) in batch.ids.drain(..).zip(numbers.chunks(width.max(1))) {
                join.advance(Some(&id), &mut row)?;
                row(id, numbers)?;
            }
            Ok(())
        })?;
        join.advance(None, &mut row)?;
        join.check_same(previous)?;
        Ok(join)
    }
}

fn image_ids(batch: &RecordBatch) -> Result<Vec<ImageId>> {
    let column = batch
        .column_by_name("image_id")
        .and_then(|column| column.as_string_opt::<i32>());
    let column = column.ok_or_else(|| Error::data("column \"image_id\" is not text"))?;
    Ok(column
        .iter()
        .map(|id| ImageId::from_text(id.unwrap_or_default()))
        .collect())
}
