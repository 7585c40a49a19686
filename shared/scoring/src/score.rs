//! The scorer that runs a model: heads on embeddings, classifiers on images, or the measures of
//! `read`. It computes scores and makes no decisions.

use arrow::array::{AsArray, RecordBatch};
use clap::Args;
use sluice_harness::{Context, OpenUnit, StepArgs, Work};
use sluice_inference::Runner;
use sluice_manifest::layout::{self, EMBEDDINGS};
use sluice_manifest::rows::{self, DIMENSION_KEY, MODEL_KEY, MODEL_SHA256_KEY, MeasuredRow};
use sluice_manifest::{ABOUT_DEVICE, Error, ImageId, Receipt, Result, ScoreColumn, StepName, Unit};
use sluice_model::{Kind, Model, Spec, catalogue};
use sluice_pixels::{Fidelity, Quality, technical_quality};
use sluice_run::{Plan, StepOutputs, Survivors, Upstream};
use sluice_store::{Storage, vectors};

use crate::arguments::ModelArgs;
use crate::pass::{ImageStep, StepWriter, run_images};
use crate::reuse::{Join, Previous};
use crate::settings::Settings;
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

    /// The folder of models, and how they run.
    #[command(flatten)]
    pub models: ModelArgs,
}

impl ScorerArgs {
    /// Returns the steps whose manifests may be read. Models of the catalogue that are not heads need
    /// no embeddings. Whether other models do is unknown before they are found.
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

impl ModelScorer {
    /// Checks the model, and that a head fits the embeddings; returns what the step gives.
    ///
    /// # Errors
    /// Usage, when something does not fit.
    pub fn check(&self, upstream: &Upstream) -> Result<StepOutputs> {
        if self.model.spec.kind == Kind::Head {
            let embedder = upstream.embedder(&self.embeddings)?;
            self.check_embeddings(&embedder.model, embedder.dimension)?;
        }
        self.model.check()?;
        Ok(StepOutputs {
            scores: self.columns.clone(),
            ..StepOutputs::default()
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

    /// Adds to a receipt what the model's spec states: its licence, threshold and side of the threshold.
    fn state_model(&self, receipt: &mut Receipt) {
        receipt.set_about("licence", &self.model.spec.licence);
        receipt.set_about("origin", &self.model.spec.origin);
        for (summary, column) in receipt.scores.iter_mut().zip(&self.columns) {
            summary.column.threshold = column.threshold;
            summary.column.keep = column.keep;
        }
    }

    /// Returns the scorer as a step that runs a model on images; `None` for heads and measures.
    pub fn into_image_step(self) -> Option<Box<dyn ImageStep>> {
        match self.model.spec.kind {
            Kind::Classifier => Some(Box::new(self)),
            Kind::Embedder | Kind::Head | Kind::Measure => None,
        }
    }

    /// Scores the partitions that are this process's share.
    ///
    /// # Errors
    /// Usage, when the model does not fit; data, when an earlier step has not been run.
    pub fn run(&self, context: &Context) -> Result<()> {
        if self.model.spec.kind == Kind::Classifier {
            return run_images(&[(context, self)]);
        }
        let plan = context.plan()?;
        let run = Run {
            context,
            scorer: self,
            plan: &plan,
            survivors: &context.survivors(context.node().survivors_of.as_ref())?,
            runner: Runner::new(&self.model, context.jobs),
        };
        context.each_unit(plan.units(), 1, |unit| run.partition(unit))?;
        if let Some(device) = run.runner.device_use() {
            context.report_device(device);
        }
        Ok(())
    }

    fn open_writer(&self, context: &Context, open_unit: &OpenUnit<'_>) -> Result<ScoreWriter> {
        let spec = &self.model.spec;
        let metadata = [
            (MODEL_KEY, spec.name.clone()),
            (MODEL_SHA256_KEY, self.model.sha256.clone()),
        ];
        ScoreWriter::open(context, open_unit, &self.columns, &metadata)
    }
}

impl ImageStep for ModelScorer {
    fn model(&self) -> &Model {
        &self.model
    }

    fn fidelity(&self) -> Fidelity {
        self.fidelity
    }

    fn state(&self, receipt: &mut Receipt) {
        self.state_model(receipt);
    }

    fn previous(&self, open_unit: &OpenUnit<'_>) -> Result<Option<Previous>> {
        let names: Vec<&str> = self.columns.iter().map(|it| it.name.as_str()).collect();
        Previous::of(open_unit, &layout::SCORES, rows::SCORES, &names)
    }

    fn open(
        &self,
        context: &Context,
        open_unit: &OpenUnit<'_>,
        _runner: &Runner<'_>,
    ) -> Result<Box<dyn StepWriter + '_>> {
        Ok(Box::new(Scores {
            spec: &self.model.spec,
            writer: self.open_writer(context, open_unit)?,
        }))
    }
}

/// The scores of a classifier.
struct Scores<'a> {
    spec: &'a Spec,
    writer: ScoreWriter,
}

impl StepWriter for Scores<'_> {
    fn rows(&self, output: Vec<f32>, images: usize) -> Result<Vec<f32>> {
        self.spec.scores(output, images)
    }

    fn push(&mut self, id: ImageId, row: &[f32]) -> Result<()> {
        self.writer.push(id, row)
    }

    fn commit(self: Box<Self>, open_unit: OpenUnit<'_>, join: &Join) -> Result<()> {
        self.writer.commit(open_unit, join.survivors, join.reused)
    }
}

/// A run of a head or a measure.
struct Run<'a> {
    context: &'a Context,
    scorer: &'a ModelScorer,
    plan: &'a Plan,
    survivors: &'a Survivors<'a>,
    runner: Runner<'a>,
}

impl Run<'_> {
    fn partition(&self, unit: Unit) -> Result<()> {
        let (scorer, model) = (self.scorer, &self.scorer.model);
        let partition = self.plan.partition(unit)?.partition;
        let is_head = model.spec.kind == Kind::Head;
        let mut inputs = self.survivors.inputs(partition)?;
        if is_head {
            inputs.push(self.context.input(&scorer.embeddings, unit)?);
        }
        let work = Work {
            unit,
            units: self.plan.partitions.len(),
            settings: Settings {
                model: model.settings(),
                decoding: None,
            },
            inputs,
        };
        let state = |receipt: &mut Receipt| scorer.state_model(receipt);
        let Some(mut open_unit) = self.context.begin_described(work, state)? else {
            return Ok(());
        };
        let mut writer = scorer.open_writer(self.context, &open_unit)?;
        let samples = if is_head {
            self.score_embeddings(&open_unit, unit, &mut writer)?
        } else {
            self.score_measures(&open_unit, unit, &mut writer)?
        };
        if is_head {
            open_unit.about(ABOUT_DEVICE, &self.runner.describe(None, samples));
        }
        writer.commit(open_unit, samples, 0)
    }

    /// Scores the embeddings of a unit. Returns the number of samples.
    fn score_embeddings(
        &self,
        open_unit: &OpenUnit<'_>,
        unit: Unit,
        writer: &mut ScoreWriter,
    ) -> Result<u64> {
        let path = EMBEDDINGS.path(&self.scorer.embeddings, unit);
        let run = &self.context.run;
        let table = run.table(&path, rows::EMBEDDINGS, &["image_id", "embedding"])?;
        let dimension: usize = table.required(DIMENSION_KEY)?.parse().unwrap_or_default();
        let model = table.required(MODEL_KEY)?;
        self.scorer.check_embeddings(model, Some(dimension))?;
        let partition = self.plan.partition(unit)?.partition;
        // Between the rows are embeddings of dropped samples, and survivors without an embedding.
        let mut join = Join::open(self.context, self.survivors, partition, None)?;
        for batch in table {
            let batch = batch?;
            let ids = image_ids(&batch)?;
            let vectors = vectors(&batch, "embedding")?;
            let scores = self.runner.run(&[ids.len(), dimension], vectors)?;
            let scores = self.scorer.model.spec.scores(scores, ids.len())?;
            open_unit.advance(ids.len())?;
            let width = self.scorer.columns.len();
            for (id, scores) in ids.into_iter().zip(scores.chunks_exact(width)) {
                if join.advance(Some(&id), |_, _| Ok(()))? {
                    writer.push(id, scores)?;
                }
            }
        }
        join.advance(None, |_, _| Ok(()))?;
        Ok(join.survivors)
    }

    /// Scores the measures of `read`. Returns the number of samples.
    fn score_measures(
        &self,
        open_unit: &OpenUnit<'_>,
        unit: Unit,
        writer: &mut ScoreWriter,
    ) -> Result<u64> {
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
            open_unit.advance(1)?;
        }
        Ok(samples)
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
