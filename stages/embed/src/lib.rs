//! `sluice-embed`: decodes, preprocesses, and runs an image encoder.
//!
//! Every survivor gets an L2-normalised embedding, in the order of `read/images`. Pixels become the
//! model's input exactly as the model's own processor does it, on the upright image; decoding runs a
//! batch ahead of inference. An image that cannot be embedded has no row, and the receipt counts it.
//! When only the survivors of a unit changed, the rows that are there already are taken over.

mod writer;

use anyhow::Result;
use clap::Parser;
use serde::{Deserialize, Serialize};
use sluice_harness::{
    Common, Context, Embedder, Gives, Plan, Program, StepArgs, Survivors, Upstream, Work,
};
use sluice_inference::{Images, ModelArgs, Previous, Runner, each_row};
use sluice_manifest::layout;
use sluice_manifest::rows::{DIMENSION_KEY, EMBEDDINGS, MODEL_KEY, MODEL_SHA256_KEY};
use sluice_manifest::{
    ABOUT_EPS, Counts, Error, Operation, Receipt, Resources, Role, Unit, UnitKind,
};
use sluice_model::{Kind, Model, ModelSettings, Precision};
use sluice_pixels::{Fidelity, Preprocess};
use sluice_store::{Storage, Store};

use crate::writer::{EmbeddingWriter, normalize};

/// Partitions at once on a CPU: one reads and decodes its first batch while another is in inference.
const IN_FLIGHT: usize = 2;

/// Embed the images with an image encoder
///
/// Example: sluice-embed --run runs/a --model clip-vit-l14 --partitions 3
#[derive(Debug, Parser)]
#[command(name = "sluice-embed", version)]
pub struct Args {
    #[command(flatten)]
    pub step: StepArgs,

    /// The image encoder: a model of the catalogue, or the URI of a folder with model.onnx
    #[arg(
        long,
        env = "SLUICE_EMBEDDER",
        value_name = "MODEL",
        default_value = "clip-vit-l14"
    )]
    pub model: String,

    /// What the encoder's matrix products are computed in
    #[arg(long, env = "SLUICE_PRECISION", value_enum, default_value_t)]
    pub precision: Precision,

    #[command(flatten)]
    pub models: ModelArgs,
}

impl Args {
    fn find(&self, storage: &Storage) -> Result<Model, Error> {
        let model = self.models.find_at(storage, &self.model, self.precision)?;
        model.require(&[Kind::Embedder], "--model")?;
        Ok(model)
    }
}

impl Program for Args {
    const NAME: &'static str = "sluice-embed";
    const ROLE: Role = Role::Encoder;
    const OPERATIONS: &'static [Operation] = &[Operation {
        subcommand: None,
        unit: UnitKind::Part,
        resources: Resources::Model,
        after: &[],
        version: 2,
    }];

    fn common(&self) -> &Common {
        &self.step.common
    }

    fn step_args(&self) -> Option<&StepArgs> {
        Some(&self.step)
    }

    fn check(&self, upstream: &Upstream) -> Result<Gives> {
        let model = self.find(&upstream.storage)?;
        model.check()?;
        Ok(Gives {
            scores: Vec::new(),
            embedder: Some(Embedder {
                model: model.spec.name.clone(),
                dimension: model.spec.dimension,
            }),
        })
    }

    fn run(&self, context: &Context) -> Result<()> {
        let model = self.find(&context.storage)?;
        let plan = context.plan()?;
        let encoder = Encoder {
            preprocess: model
                .spec
                .preprocess
                .clone()
                .ok_or_else(|| Error::bug("an embedder without preprocessing"))?,
            runner: Runner::new(&model, context),
            model: &model,
            fidelity: self.models.fidelity(),
            context,
            input: &plan.input()?,
            survivors: &context.survivors(self.step.survivors_of.as_ref())?,
            plan: &plan,
        };
        let in_flight = encoder.runner.in_flight(IN_FLIGHT);
        context.each_unit(plan.units(), in_flight, |unit| encoder.partition(unit))?;
        encoder.runner.report();
        Ok(())
    }
}

/// The settings that shape embeddings.
#[derive(Debug, Serialize, Deserialize)]
pub struct Settings {
    /// The encoder.
    pub model: ModelSettings,
    /// How exactly large JPEGs are decoded.
    pub decoding: Fidelity,
}

struct Encoder<'a> {
    model: &'a Model,
    runner: Runner<'a>,
    preprocess: Preprocess,
    fidelity: Fidelity,
    context: &'a Context,
    plan: &'a Plan,
    input: &'a Store,
    survivors: &'a Survivors<'a>,
}

impl Encoder<'_> {
    fn partition(&self, unit: Unit) -> Result<()> {
        let (context, model) = (self.context, self.model);
        let planned = self.plan.partition(unit)?;
        let work = Work {
            unit,
            units: self.plan.partitions.len(),
            settings: Settings {
                model: model.settings(),
                decoding: self.fidelity,
            },
            inputs: self.survivors.inputs(planned.partition)?,
        };
        let Some(mut task) = context.begin_stating(work, |receipt| self.state(receipt))? else {
            return Ok(());
        };
        let dimension = self.dimension()?;
        let metadata = [
            (MODEL_KEY, model.spec.name.clone()),
            (MODEL_SHA256_KEY, model.sha256.clone()),
            (DIMENSION_KEY, dimension.to_string()),
        ];
        let path = task.path(&layout::EMBEDDINGS);
        let mut writer = EmbeddingWriter::open(&context.run, &path, dimension, &metadata)?;
        let previous = Previous::of(&task, &layout::EMBEDDINGS, EMBEDDINGS, &["embedding"])?;
        let images = Images {
            context,
            input: self.input,
            partition: planned,
            survivors: self.survivors,
        };
        let normalized = |mut vectors: Vec<f32>, rows: usize| {
            let width = (vectors.len() / rows.max(1)).max(1);
            vectors.chunks_mut(width).for_each(normalize);
            Ok(vectors)
        };
        let join = each_row(
            images,
            &self.runner,
            self.fidelity,
            previous.as_ref(),
            &task,
            normalized,
            |id, vector| match vector.len() == dimension {
                true => writer.push(id, vector),
                false => Err(Error::usage(format!(
                    "model {:?} gives embeddings of {} values, its spec says {dimension}",
                    model.spec.name,
                    vector.len()
                ))),
            },
        )?;
        let rows = writer.rows();
        task.publish(|| writer.finish())?;
        task.sums.unscored = join.survivors - rows;
        task.sums.reused = join.reused;
        self.runner.describe(&mut task);
        Ok(task.commit(Counts::all_kept(join.survivors))?)
    }

    /// Adds what the encoder's spec says of it to a receipt.
    fn state(&self, receipt: &mut Receipt) {
        let spec = &self.model.spec;
        let eps = spec.eps.map(|eps| eps.to_string()).unwrap_or_default();
        receipt.set_about("licence", &spec.licence);
        receipt.set_about("origin", &spec.origin);
        receipt.set_about(ABOUT_EPS, &eps);
    }

    /// Returns the length of the embeddings: what the spec says, or what a run on zeros gives.
    fn dimension(&self) -> sluice_manifest::Result<usize> {
        if let Some(dimension) = self.model.spec.dimension {
            return Ok(dimension);
        }
        let zeros = vec![0.0_f32; self.preprocess.tensor_len()];
        let output = self.runner.run(&self.preprocess.tensor_shape(1), &zeros)?;
        Ok(output.len())
    }
}
