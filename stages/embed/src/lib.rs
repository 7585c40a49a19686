//! `sluice-embed`: decodes, preprocesses, and runs an image encoder.
//!
//! Every image that `read` found sound gets an L2-normalised embedding, in the order of
//! `read/images`. Pixels become the model's input exactly as the model's own processor does it, on
//! the upright image; decoding runs a batch ahead of inference.

use std::sync::{Arc, Mutex};

use anyhow::Result;
use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use clap::Parser;
use serde_json::json;
use sluice_harness::{Common, Context, Plan, Program, Work};
use sluice_inference::{Feed, ModelArgs, each_batch};
use sluice_manifest::rows::{DIMENSION_KEY, EMBEDDINGS, MODEL_KEY, MODEL_SHA256_KEY, embeddings};
use sluice_manifest::{Counts, Error, ImageId, Reason, Unit, dag};
use sluice_model::{Kind, Model, Precision, Session};
use sluice_pixels::Preprocess;
use sluice_store::{Store, TableWriter};

/// Partitions at once: one reads and decodes its first batch while another is in inference.
const IN_FLIGHT: usize = 2;

/// Embed the images with an image encoder
///
/// Example: sluice-embed --run runs/a --model clip-vit-l14 --partitions 3
#[derive(Debug, Parser)]
#[command(name = "sluice-embed", version)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,

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

impl Program for Args {
    const NAME: &'static str = "sluice-embed";

    fn common(&self) -> &Common {
        &self.common
    }

    fn run(&self, context: &Context) -> Result<()> {
        let model = self.models.find_at(&self.model, self.precision)?;
        model.require(&[Kind::Embedder], "--model")?;
        let plan = context.plan()?;
        let embedder = Embedder {
            preprocess: model
                .spec
                .preprocess
                .clone()
                .ok_or_else(|| Error::bug("an embedder without preprocessing"))?,
            model,
            feed: self.models.feed(),
            loaded: Mutex::new(None),
        };
        let input = plan.input()?;
        context.each_unit(&dag::EMBED, plan.units(), IN_FLIGHT, |unit| {
            embed_partition(&embedder, context, &plan, &input, unit)
        })
    }
}

/// The encoder, loaded when the first partition has work to do.
struct Embedder {
    model: Model,
    preprocess: Preprocess,
    feed: Feed,
    loaded: Mutex<Option<Session>>,
}

fn embed_partition(
    embedder: &Embedder,
    context: &Context,
    plan: &Plan,
    input: &Store,
    unit: &Unit,
) -> Result<()> {
    let work = Work {
        step: &dag::EMBED,
        version: 1,
        unit,
        units: plan.partitions.len(),
        settings: json!({
            "model": embedder.model.settings(),
            "decoding": embedder.feed.fidelity,
        }),
        basis: None,
        inputs: vec![context.input(&dag::READ, unit)?],
    };
    let Some(mut task) = context.begin(work)? else {
        return Ok(());
    };
    let dimension = embedder.dimension(context)?;
    let metadata = [
        (MODEL_KEY, embedder.model.spec.name.clone()),
        (MODEL_SHA256_KEY, embedder.model.sha256.clone()),
        (DIMENSION_KEY, dimension.to_string()),
    ];
    let path = task.path("embeddings");
    let mut writer =
        context
            .run
            .write_table(&path, EMBEDDINGS, embeddings(dimension), &metadata)?;
    let mut counts = Counts::default();
    each_batch(
        context,
        input,
        plan.partition(unit)?,
        &embedder.preprocess,
        embedder.feed,
        |batch| {
            let values = embedder.run(context, &batch.shape, &batch.tensor)?;
            task.advance(batch.ids.len())?;
            if values.len() != batch.ids.len() * dimension {
                let width = values.len() / batch.ids.len().max(1);
                return Err(Error::usage(format!(
                    "model {:?} gives embeddings of {width} values, its spec says {dimension}",
                    embedder.model.spec.name
                )));
            }
            for _ in 0..batch.failed {
                counts.add(Some(Reason::NotEmbedded));
            }
            write_batch(
                &mut writer,
                std::mem::take(&mut batch.ids),
                values,
                &mut counts,
            )
        },
    )?;
    task.wrote(writer.finish()?);
    Ok(task.commit(counts)?)
}

impl Embedder {
    fn run(
        &self,
        context: &Context,
        shape: &[usize],
        values: &[f32],
    ) -> sluice_manifest::Result<Vec<f32>> {
        let mut loaded = self.loaded.lock().unwrap_or_else(|e| e.into_inner());
        let session = match &mut *loaded {
            Some(session) => session,
            none => none.insert(self.model.session(context.jobs)?),
        };
        session.run(shape, values)
    }

    /// Length of the embeddings: what the spec says, or what a run on zeros gives.
    fn dimension(&self, context: &Context) -> sluice_manifest::Result<usize> {
        if let Some(dimension) = self.model.spec.dimension {
            return Ok(dimension);
        }
        let zeros = vec![0.0; self.preprocess.tensor_len()];
        Ok(self
            .run(context, &self.preprocess.tensor_shape(1), &zeros)?
            .len())
    }
}

/// Normalises the embeddings of a batch and writes those that are finite.
fn write_batch(
    writer: &mut TableWriter,
    ids: Vec<ImageId>,
    values: Vec<f32>,
    counts: &mut Counts,
) -> sluice_manifest::Result<()> {
    let dimension = values.len() / ids.len().max(1);
    let mut kept_ids = Vec::with_capacity(ids.len());
    let mut kept = Vec::with_capacity(values.len());
    for (id, vector) in ids.into_iter().zip(values.chunks_exact(dimension.max(1))) {
        let length = vector
            .iter()
            .map(|&x| f64::from(x) * f64::from(x))
            .sum::<f64>()
            .sqrt();
        if !(length.is_finite() && length > 0.0) {
            tracing::warn!(image_id = id.as_str(), "the embedding has length {length}");
            counts.add(Some(Reason::NotEmbedded));
            continue;
        }
        counts.add(None);
        kept.extend(vector.iter().map(|&x| (f64::from(x) / length) as f32));
        kept_ids.push(id);
    }
    let schema = writer.schema().clone();
    let DataType::FixedSizeList(item, length) = schema.field(1).data_type().clone() else {
        return Err(Error::bug("the embedding column is no fixed-size list"));
    };
    let ids = StringArray::from_iter_values(kept_ids.iter().map(ImageId::as_str));
    let vectors =
        FixedSizeListArray::try_new(item, length, Arc::new(Float32Array::from(kept)), None);
    let columns: Result<[ArrayRef; 2], _> =
        vectors.map(|vectors| [Arc::new(ids) as ArrayRef, Arc::new(vectors)]);
    let batch = columns.and_then(|columns| RecordBatch::try_new(schema, columns.into()));
    writer
        .write(&batch.map_err(|e| Error::bug(format!("embeddings do not fit their schema: {e}")))?)
}
