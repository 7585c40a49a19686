//! `sluice models compare` and `quantize`: the differences between two encoders on the user's
//! images.
//!
//! Images of the first shards are read in a run in memory. Both encoders embed them, as
//! `sluice-embed` does. The comparison covers the inputs of later steps: the angle between the
//! embeddings, each image's nearest neighbour, duplicates, and the decisions of heads.

use std::collections::BTreeMap;

use anyhow::Result;
use arrow::array::AsArray;
use clap::Args;
use rayon::prelude::*;
use serde::Serialize;
use sluice_harness::{
    ProcessResources, Program, Starter, StepDone, ToolContext, open_step, run_step,
};
use sluice_inference::{BatchOptions, Images, PixelTensor, each_batch};
use sluice_knn::products::dot;
use sluice_manifest::rows::EMBEDDINGS;
use sluice_manifest::{
    Error, ImageId, Keep, Receipt, RunInfo, ScoreColumn, StepName, Unit, UnitKind, layout,
};
use sluice_model::{BatchSize, Device, Kind, Model, Precision, Ranges, Spec, cached};
use sluice_pixels::Fidelity;
use sluice_scoring::DeviceArgs;
use sluice_store::{Location, Storage, Store, vectors};

/// The `eps` of CLIP for semantic duplicates.
const EPS: f64 = 0.01;
/// The steps of the run in memory.
const STEPS: [&str; 2] = ["first", "second"];
const SAMPLE: &str = "sample";
/// The number of images on which the values of a graph are measured, at most.
const MEASURED: usize = 128;

/// The images of a comparison.
#[derive(Debug, Args)]
pub struct CompareSampling {
    /// The images to compare on: shards, folders of images, Parquet files, lists
    #[arg(long, env = "SLUICE_INPUT", value_name = "URI", num_args = 1..)]
    pub input: Vec<String>,
    /// Approximate number of images to compare on
    #[arg(long, value_name = "N", default_value_t = 1000,
        value_parser = clap::value_parser!(u64).range(2..=20_000))]
    pub images: u64,
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// An encoder: the value of `--model`, and its precision.
#[derive(Debug, Clone)]
pub(super) struct Side<'a> {
    pub model: &'a str,
    pub precision: Precision,
}

/// The differences between the first and the second encoder.
#[derive(Debug, Serialize)]
pub(super) struct EncoderChanges {
    /// Images that both encoders embedded.
    images: usize,
    /// CPU time per image in milliseconds, including reading and decoding.
    cpu_ms: [f64; 2],
    /// `None` if the embeddings differ in length.
    cosine: Option<Cosine>,
    /// Images whose nearest neighbour changed.
    nearest_changed: usize,
    /// Images with a semantic duplicate.
    duplicates: Decisions,
    /// The decisions of heads.
    heads: Vec<Decisions>,
}

#[derive(Debug, Serialize)]
struct Cosine {
    mean: f64,
    min: f64,
}

/// The decisions of one rule.
#[derive(Debug, Serialize)]
struct Decisions {
    /// The rule.
    rule: String,
    /// The number of images that meet it.
    holds: [usize; 2],
    /// Images that meet it with only one of the encoders.
    changed: usize,
}

impl Decisions {
    fn of(rule: String, first: &[bool], second: &[bool]) -> Self {
        let count = |holds: &[bool]| holds.iter().filter(|holds| **holds).count();
        let pairs = first.iter().zip(second);
        Self {
            rule,
            holds: [count(first), count(second)],
            changed: pairs.filter(|(first, second)| first != second).count(),
        }
    }
}

/// Compares two encoders.
///
/// # Errors
/// Usage, when one is not an encoder; data, when there are no images; or a storage error.
pub(super) fn compare(
    sides: [Side<'_>; 2],
    sampling: &CompareSampling,
    cache: &Location,
    tool: &ToolContext<'_>,
) -> Result<EncoderChanges> {
    // Both are checked before the images are read.
    let models = found(&sides, sampling, cache, tool)?;
    Trial::new(sampling, cache, &tool.shared)?.compare(&sides, &models)
}

/// Finds and checks two encoders.
fn found(
    sides: &[Side<'_>; 2],
    sampling: &CompareSampling,
    cache: &Location,
    tool: &ToolContext<'_>,
) -> Result<[Model; 2], Error> {
    let find = |side: &Side<'_>| -> Result<Model, Error> {
        let model = Model::find(&tool.shared.storage, side.model, cache, side.precision)?;
        model.require(&[Kind::Embedder], "compare")?;
        let model = model.place(sampling.device.device, BatchSize::Auto)?;
        model.check()?;
        Ok(model)
    };
    Ok([find(&sides[0])?, find(&sides[1])?])
}

/// A run in memory on a sample of images.
pub(super) struct Trial<'a> {
    uri: String,
    store: Store,
    shared: &'a ProcessResources,
    cache: &'a Location,
    device: Device,
    /// The number of partitions that were read.
    partitions: u32,
}

impl<'a> Trial<'a> {
    /// Reads the first partitions that have enough images, and samples these by the hash of their
    /// content.
    ///
    /// # Errors
    /// Usage, when no input is named; data, when there are no images; or a storage error.
    pub(super) fn new(
        sampling: &CompareSampling,
        cache: &'a Location,
        shared: &'a ProcessResources,
    ) -> Result<Self> {
        if sampling.input.is_empty() {
            return Err(Error::usage("--input: no images to compare on")
                .hint("name shards or folders of images: --input data/")
                .into());
        }
        let uri = "memory://sluice-models-compare/run".to_owned();
        let store = shared.storage.create(&Location::parse(&uri)?)?;
        let mut trial = Self {
            uri,
            store,
            shared,
            cache,
            device: sampling.device.device,
            partitions: 0,
        };
        let inputs = sampling.input.iter().map(String::as_str);
        let mut partition = vec!["--shards-per-partition=1", "--input"];
        partition.extend(inputs);
        trial.step::<sluice_partition::Args>("partition", &partition)?;
        let place = layout::RUN_INFO;
        let info: RunInfo = serde_json::from_slice(&trial.store.get(place)?)
            .map_err(|e| Error::bug(format!("{place}: {e}")))?;
        let mut images = 0;
        while trial.partitions < info.partitions && images < sampling.images {
            let number = format!("--partitions={}", trial.partitions);
            let done = trial.step::<sluice_read::Args>("read", &[&number])?;
            images += done.counts.kept;
            trial.partitions += 1;
        }
        if images < 2 {
            return Err(Error::data("fewer than two images that can be decoded").into());
        }
        let fraction = sampling.images as f64 / images as f64;
        let rule = format!("--rule=sampled={}", of_content(fraction));
        let step = format!("--step={SAMPLE}");
        trial.step::<sluice_filter::Args>("filter", &[&step, &rule, &trial.share()])?;
        Ok(trial)
    }

    /// Compares a model in float32 and in another precision, whose file is at `second`.
    ///
    /// # Errors
    /// Usage, when one does not run; or a storage error.
    pub(super) fn compare_precisions(
        &self,
        sides: [Side<'_>; 2],
        sampling: &CompareSampling,
        tool: &ToolContext<'_>,
    ) -> Result<EncoderChanges> {
        let models = found(&sides, sampling, self.cache, tool)?;
        self.compare(&sides, &models)
    }

    fn compare(&self, sides: &[Side<'_>; 2], models: &[Model; 2]) -> Result<EncoderChanges> {
        let (mut embedded, mut cpu_ms) = (Vec::new(), [0.0; 2]);
        for (number, side) in sides.iter().enumerate() {
            self.embed(STEPS[number], side)?;
            let (vectors, seconds) = self.embedded(STEPS[number])?;
            cpu_ms[number] = seconds * 1000.0 / vectors.len().max(1) as f64;
            embedded.push(vectors);
        }
        let [first, second] = EmbeddingMatrix::pair(&embedded)?;
        let heads = heads_of(&models[0].spec, &self.shared.storage, self.cache)?;
        Ok(EncoderChanges {
            images: first.rows,
            cpu_ms: cpu_ms.map(|ms| (ms * 100.0).round() / 100.0),
            cosine: cosine(&first, &second),
            nearest_changed: changed(&first.nearest(), &second.nearest()),
            duplicates: duplicates(models, &first, &second),
            heads: if first.width == second.width {
                decide(&heads, &first, &second)?
            } else {
                Vec::new()
            },
        })
    }

    /// Runs some images of the sample through a model, to measure how large its values become.
    ///
    /// # Errors
    /// Usage, when the model does not run; data, when a shard has changed; or a storage error.
    pub(super) fn feed(&self, model: &Model, ranges: &mut Ranges) -> Result<(), Error> {
        let run = format!("--run={}", self.uri);
        let words = [sluice_embed::Args::NAME, &run, &self.share()].map(str::to_owned);
        let (_, context) = open_step::<sluice_embed::Args>(&words, self.shared, Starter::Run)
            .map_err(|e| {
                e.downcast()
                    .unwrap_or_else(|e| Error::bug(format!("{e:#}")))
            })?;
        let plan = context.plan()?;
        let (input, sample) = (plan.input()?, StepName::new(SAMPLE)?);
        let survivors = context.survivors(Some(&sample))?;
        let feeds = [BatchOptions::of(model, Fidelity::Approximate, 0)?];
        let mut left = MEASURED;
        for number in 0..self.partitions {
            let images = Images {
                run: &context.run,
                input: &input,
                partition: plan.partition(Unit::new(UnitKind::Partition, number))?,
                survivors: &survivors,
            };
            let takes = |_: &ImageId| {
                let is_taken = left > 0;
                left -= usize::from(is_taken);
                Ok(if is_taken { vec![0] } else { Vec::new() })
            };
            each_batch(
                images,
                &context.memory,
                &feeds,
                takes,
                |_, batch| match &batch.tensor {
                    PixelTensor::Float32(numbers) => ranges.feed(&batch.shape, numbers),
                    PixelTensor::Uint8(numbers) => ranges.feed(&batch.shape, numbers),
                },
            )?;
        }
        Ok(())
    }

    fn share(&self) -> String {
        format!("--partitions=0-{}", self.partitions - 1)
    }

    fn embed(&self, step: &str, side: &Side<'_>) -> Result<()> {
        let words = [
            format!("--step={step}"),
            format!("--survivors-of={SAMPLE}"),
            format!("--model={}", side.model),
            format!("--precision={}", side.precision),
            format!("--device={}", self.device),
            format!("--models={}", self.cache),
            self.share(),
        ];
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.step::<sluice_embed::Args>("embed", &words).map(drop)
    }

    fn step<P: sluice_harness::Program>(&self, stage: &str, words: &[&str]) -> Result<StepDone> {
        let run = format!("--run={}", self.uri);
        let command = [P::NAME, &run].into_iter().chain(words.iter().copied());
        let command: Vec<String> = command.map(str::to_owned).collect();
        tracing::debug!(step = stage, "{}", command.join(" "));
        run_step::<P>(&command, self.shared)
    }

    /// Returns a step's embeddings by image, and their CPU time in seconds.
    fn embedded(&self, step: &str) -> Result<(BTreeMap<String, Vec<f32>>, f64)> {
        let step = StepName::new(step)?;
        let (mut found, mut seconds) = (BTreeMap::new(), 0.0);
        for number in 0..self.partitions {
            let unit = Unit::new(UnitKind::Partition, number);
            let path = layout::EMBEDDINGS.path(&step, unit);
            let columns = ["image_id", "embedding"];
            for batch in self.store.table(&path, EMBEDDINGS, &columns)? {
                let batch = batch?;
                let ids = batch["image_id"].as_string::<i32>();
                let all = vectors(&batch, "embedding")?;
                let width = all.len() / batch.num_rows().max(1);
                let rows = ids.iter().flatten().zip(all.chunks(width.max(1)));
                found.extend(rows.map(|(id, vector)| (id.to_owned(), vector.to_vec())));
            }
            let path = layout::receipt(&step, unit);
            let receipt = Receipt::parse(&self.store.get(&path)?, &path)?;
            seconds += receipt.times.map_or(0.0, |times| times.cpu_seconds);
        }
        Ok((found, seconds))
    }
}

/// Returns a rule that about this fraction of the images meet, by the hash of their content.
fn of_content(fraction: f64) -> String {
    const DIGITS: u32 = 1 << 24;
    match (fraction * f64::from(DIGITS)) as u32 {
        DIGITS.. => "true".to_owned(),
        bound => format!("sha256 < '{bound:06x}'"),
    }
}

/// The embeddings of images in one array.
struct EmbeddingMatrix {
    rows: usize,
    width: usize,
    values: Vec<f32>,
}

impl EmbeddingMatrix {
    /// Returns the embeddings of the images that both encoders embedded, in the same order.
    fn pair(embedded: &[BTreeMap<String, Vec<f32>>]) -> Result<[Self; 2], Error> {
        let [first, second] = embedded else {
            return Err(Error::bug("not two sides"));
        };
        let both = || first.keys().filter(|id| second.contains_key(*id));
        let of = |side: &BTreeMap<String, Vec<f32>>| {
            let values: Vec<f32> = both().flat_map(|id| side[id].iter().copied()).collect();
            let rows = both().count();
            Self {
                width: values.len() / rows.max(1),
                rows,
                values,
            }
        };
        match both().count() {
            0 | 1 => Err(Error::data("fewer than two images that both models embed")),
            _ => Ok([of(first), of(second)]),
        }
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.width..][..self.width]
    }

    /// Returns each image's nearest other image, and their cosine.
    fn nearest(&self) -> Vec<(usize, f32)> {
        let nearest = |row: usize| {
            let others = (0..self.rows).filter(|other| *other != row);
            let mut best = (row, f32::NEG_INFINITY);
            for other in others {
                let cosine = dot(self.row(row), self.row(other)) as f32;
                if cosine > best.1 {
                    best = (other, cosine);
                }
            }
            best
        };
        (0..self.rows).into_par_iter().map(nearest).collect()
    }
}

fn cosine(first: &EmbeddingMatrix, second: &EmbeddingMatrix) -> Option<Cosine> {
    let rows = (first.width == second.width).then_some(0..first.rows)?;
    let cosines: Vec<f64> = rows
        .map(|row| dot(first.row(row), second.row(row)))
        .collect();
    Some(Cosine {
        mean: cosines.iter().sum::<f64>() / cosines.len() as f64,
        min: cosines.iter().copied().fold(f64::INFINITY, f64::min),
    })
}

fn changed(first: &[(usize, f32)], second: &[(usize, f32)]) -> usize {
    let pairs = first.iter().zip(second);
    pairs.filter(|(first, second)| first.0 != second.0).count()
}

/// Returns which images have a duplicate, by each encoder's own distance.
fn duplicates(models: &[Model; 2], first: &EmbeddingMatrix, second: &EmbeddingMatrix) -> Decisions {
    let eps = [0, 1].map(|side: usize| models[side].spec.eps.unwrap_or(EPS));
    let near = |vectors: &EmbeddingMatrix, eps: f64| -> Vec<bool> {
        let nearest = vectors.nearest().into_iter();
        nearest
            .map(|(_, cosine)| f64::from(cosine) >= 1.0 - eps)
            .collect()
    };
    let rule = match eps {
        [first, second] if first == second => format!("a duplicate within eps {first}"),
        [first, second] => format!("a duplicate within eps {first} and {second}"),
    };
    Decisions::of(rule, &near(first, eps[0]), &near(second, eps[1]))
}

/// Returns the heads in the folder of models that score an encoder's embeddings.
fn heads_of(embedder: &Spec, storage: &Storage, cache: &Location) -> Result<Vec<Model>, Error> {
    let mut heads = Vec::new();
    for name in cached(storage, cache)? {
        let head = Model::find(storage, &name, cache, Precision::Float32);
        heads.extend(head.ok().filter(|head| {
            head.spec.kind == Kind::Head && head.spec.embedder.as_deref() == Some(&embedder.name)
        }));
    }
    Ok(heads)
}

/// Returns the decisions by the heads' thresholds.
fn decide(
    heads: &[Model],
    first: &EmbeddingMatrix,
    second: &EmbeddingMatrix,
) -> Result<Vec<Decisions>, Error> {
    let mut all = Vec::new();
    for head in heads {
        let mut session = head.session(1)?;
        let mut scores = |side: &EmbeddingMatrix| {
            let output = session.run(&[side.rows, side.width], &side.values)?;
            head.spec.scores(output, side.rows)
        };
        let (before, after) = (scores(first)?, scores(second)?);
        let columns = head.score_columns();
        for (number, column) in columns.iter().enumerate() {
            let kept = |scores: &[f32]| -> Vec<bool> {
                let rows = scores.chunks(columns.len());
                rows.map(|row| is_kept(row[number], column)).collect()
            };
            if let Some(threshold) = column.threshold {
                let side = match column.keep {
                    Keep::AtLeast => "at least",
                    Keep::Below => "below",
                };
                let rule = format!("{} {side} {threshold}", head.spec.name);
                all.push(Decisions::of(rule, &kept(&before), &kept(&after)));
            }
        }
    }
    Ok(all)
}

fn is_kept(score: f32, column: &ScoreColumn) -> bool {
    column.threshold.is_none_or(|threshold| match column.keep {
        Keep::AtLeast => score >= threshold,
        Keep::Below => score < threshold,
    })
}

impl EncoderChanges {
    /// Returns the differences as lines for people: a label and a value.
    pub(super) fn lines(&self) -> Vec<Vec<String>> {
        let share = |count: usize| {
            let percent = 100.0 * count as f64 / self.images as f64;
            format!("{count} of {} ({percent:.1} %)", self.images)
        };
        let cosine = match &self.cosine {
            Some(Cosine { mean, min }) => format!("mean {mean:.6}, smallest {min:.6}"),
            None => "the embeddings differ in length".to_owned(),
        };
        let [before, after] = self.cpu_ms;
        let mut lines = vec![
            ["images".to_owned(), self.images.to_string()],
            ["cosine".to_owned(), cosine],
            [
                "nearest neighbour changed".to_owned(),
                share(self.nearest_changed),
            ],
        ];
        for rule in [&self.duplicates].into_iter().chain(&self.heads) {
            let [before, after] = rule.holds;
            let text = format!("{} ({before} before, {after} after)", share(rule.changed));
            lines.push([format!("changed: {}", rule.rule), text]);
        }
        lines.push([
            "CPU ms/image".to_owned(),
            format!("{before} before, {after} after"),
        ]);
        lines.into_iter().map(Vec::from).collect()
    }
}
