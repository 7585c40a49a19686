//! `sluice-embed`: decodes, preprocesses, and runs an image encoder.
//!
//! Every survivor gets an L2-normalised embedding, in the order of `read/images`. Pixels become the
//! model's input exactly as the model's own processor does it, on the upright image; decoding runs a
//! batch ahead of inference. An image that cannot be embedded has no row, and the receipt counts it.
//! When only the survivors of a unit changed, the rows that are there already are taken over.

mod writer;

use anyhow::Result;
use clap::Parser;
use sluice_harness::{Common, Context, OpenUnit, Program, StepArgs};
use sluice_inference::Runner;
use sluice_manifest::layout;
use sluice_manifest::rows::{DIMENSION_KEY, EMBEDDINGS, MODEL_KEY, MODEL_SHA256_KEY};
use sluice_manifest::{
    ABOUT_EPS, Counts, Error, ImageId, Operation, Receipt, Resources, Role, UnitKind,
};
use sluice_model::{Kind, Model, Precision};
use sluice_pixels::Fidelity;
use sluice_run::{Embedder, StepOutputs, Upstream};
use sluice_scoring::{ImageProgram, ImageStep, Join, ModelArgs, Previous, StepWriter, run_images};
use sluice_store::Storage;

use crate::writer::{EmbeddingWriter, normalize};

/// Embed the images with an image encoder
///
/// Example: sluice-embed --run runs/a --model clip-vit-l14 --partitions 3
#[derive(Debug, Parser)]
#[command(name = "sluice-embed", version)]
pub struct Args {
    /// The arguments of every step after `read`.
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

    /// The folder of models, and how a model runs.
    #[command(flatten)]
    pub models: ModelArgs,
}

impl Args {
    fn encoder(&self, storage: &Storage) -> Result<Encoder, Error> {
        let model = self.models.find_at(storage, &self.model, self.precision)?;
        model.require(&[Kind::Embedder], "--model")?;
        Ok(Encoder {
            model,
            fidelity: self.models.fidelity(),
        })
    }
}

impl Program for Args {
    const NAME: &'static str = "sluice-embed";
    const ROLE: Role = Role::Encoder;
    const OPERATIONS: &'static [Operation] = &[Operation {
        subcommand: None,
        unit: UnitKind::Partition,
        resources: Resources::Model,
        after: &[],
        revision: 2,
    }];

    fn common(&self) -> &Common {
        &self.step.common
    }

    fn step_args(&self) -> Option<&StepArgs> {
        Some(&self.step)
    }

    fn check(&self, upstream: &Upstream) -> Result<StepOutputs> {
        let Encoder { model, .. } = self.encoder(&upstream.storage)?;
        model.check()?;
        Ok(StepOutputs {
            embedder: Some(Embedder {
                model: model.spec.name.clone(),
                dimension: model.spec.dimension,
            }),
            ..StepOutputs::default()
        })
    }

    fn run(&self, context: &Context) -> Result<()> {
        let encoder = self.encoder(&context.storage)?;
        Ok(run_images(&[(context, &encoder)])?)
    }
}

impl ImageProgram for Args {
    fn image_step(&self, storage: &Storage) -> Result<Option<Box<dyn ImageStep>>, Error> {
        Ok(Some(Box::new(self.encoder(storage)?)))
    }
}

/// An image encoder.
struct Encoder {
    model: Model,
    fidelity: Fidelity,
}

impl Encoder {
    /// Returns the length of the embeddings: from the spec, or from a run on zeros.
    fn dimension(&self, runner: &Runner<'_>) -> Result<usize, Error> {
        if let Some(dimension) = self.model.spec.dimension {
            return Ok(dimension);
        }
        let preprocess = self.model.spec.preprocess.as_ref();
        let preprocess =
            preprocess.ok_or_else(|| Error::bug("an embedder without preprocessing"))?;
        let zeros = vec![0.0_f32; preprocess.tensor_len()];
        let output = runner.run(&preprocess.tensor_shape(1), &zeros)?;
        Ok(output.len())
    }
}

impl ImageStep for Encoder {
    fn model(&self) -> &Model {
        &self.model
    }

    fn fidelity(&self) -> Fidelity {
        self.fidelity
    }

    fn state(&self, receipt: &mut Receipt) {
        let spec = &self.model.spec;
        let eps = spec.eps.map(|eps| eps.to_string()).unwrap_or_default();
        receipt.set_about("licence", &spec.licence);
        receipt.set_about("origin", &spec.origin);
        receipt.set_about(ABOUT_EPS, &eps);
    }

    fn previous(&self, open_unit: &OpenUnit<'_>) -> Result<Option<Previous>, Error> {
        Previous::of(open_unit, &layout::EMBEDDINGS, EMBEDDINGS, &["embedding"])
    }

    fn open(
        &self,
        context: &Context,
        open_unit: &OpenUnit<'_>,
        runner: &Runner<'_>,
    ) -> Result<Box<dyn StepWriter + '_>, Error> {
        let dimension = self.dimension(runner)?;
        let metadata = [
            (MODEL_KEY, self.model.spec.name.clone()),
            (MODEL_SHA256_KEY, self.model.sha256.clone()),
            (DIMENSION_KEY, dimension.to_string()),
        ];
        let path = open_unit.path(&layout::EMBEDDINGS);
        let writer = EmbeddingWriter::open(&context.run, &path, dimension, &metadata)?;
        Ok(Box::new(Embeddings {
            model: &self.model.spec.name,
            dimension,
            writer,
        }))
    }
}

/// The embeddings of a unit in the making.
struct Embeddings<'a> {
    model: &'a str,
    dimension: usize,
    writer: EmbeddingWriter,
}

impl StepWriter for Embeddings<'_> {
    fn rows(&self, mut vectors: Vec<f32>, images: usize) -> Result<Vec<f32>, Error> {
        let width = (vectors.len() / images.max(1)).max(1);
        vectors.chunks_mut(width).for_each(normalize);
        Ok(vectors)
    }

    fn push(&mut self, id: ImageId, vector: &[f32]) -> Result<(), Error> {
        if vector.len() == self.dimension {
            return self.writer.push(id, vector);
        }
        Err(Error::usage(format!(
            "model {:?} gives embeddings of {} values, its spec says {}",
            self.model,
            vector.len(),
            self.dimension
        )))
    }

    fn commit(self: Box<Self>, mut open_unit: OpenUnit<'_>, join: &Join) -> Result<(), Error> {
        let rows = self.writer.rows();
        open_unit.publish(|| self.writer.finish())?;
        open_unit.sums.unscored = join.survivors - rows;
        open_unit.sums.reused = join.reused;
        open_unit.commit(Counts::all_kept(join.survivors))
    }
}
