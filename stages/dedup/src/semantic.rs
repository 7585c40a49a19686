//! Semantic duplicates: `fit` and `assign`. (`match` is in `groups.rs`.)
//!
//! NeMo Curator's definition: k-means on the normalised embeddings; inside a cluster the images are
//! ranked, and one is a duplicate when its highest cosine similarity with an image ranked before it
//! is at least `1 - eps`. Duplicates in different clusters are not found.

use std::sync::Arc;

use anyhow::Result;
use arrow::array::{
    ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, StringArray, UInt32Array, UInt64Array,
};
use arrow::datatypes::{DataType, Field, SchemaRef};
use sluice_harness::{Context, Work};
use sluice_knn::kmeans::{self, Centroids};
use sluice_manifest::rows::{self, Method, assignments, centroids};
use sluice_manifest::{
    Class, Counts, Error, FanOut, Partition, Receipt, StepName, Unit, UnitKind, layout,
};
use sluice_run::Plan;
use sluice_store::vectors;

use crate::Check;
use crate::arguments::{Assign, Fit};
use crate::embeddings::{EmbeddingReader, Encoder, open_embeddings};
use crate::settings::{AssignSettings, FitSettings};
use crate::survivors::{Image, Remaining, again, made_by};

/// Images for each cluster, without `--clusters`.
const IMAGES_PER_CLUSTER: u64 = 1000;
/// Embeddings that the fit reads for each cluster (what faiss trains on), and at least.
const SAMPLE_PER_CLUSTER: u64 = 256;
const LEAST_SAMPLE: u64 = 10_000;
/// Images of a unit of `match`, without `--groups`: 300 MB of embeddings of 1536 values.
pub(crate) const IMAGES_PER_GROUP: u64 = 50_000;
/// Rows of a row group of `assignments`.
const GROUP_ROWS: usize = 1024;

/// Fits k-means on a sample of all embeddings and writes the centroids.
///
/// # Errors
/// Data, when the embeddings are missing or come from several encoders; of storage.
pub(crate) fn fit(args: &Fit, context: &Context) -> Result<()> {
    let plan = context.plan()?;
    let step = &args.source.embeddings;
    context.each_unit(vec![Unit::once(UnitKind::Fit)], 1, |unit| {
        let receipts = context.required_receipts(step, &plan.units());
        let receipts = receipts.map_err(|e| not_embedded(step, e))?;
        let rows: Vec<u64> = receipts.iter().map(embedded).collect();
        let total: u64 = rows.iter().sum();
        let auto = total.div_ceil(IMAGES_PER_CLUSTER).max(1);
        let clusters = args.clusters.map_or(auto, u64::from);
        // Fewer images may be left when `match` runs.
        let auto = total.div_ceil(IMAGES_PER_GROUP);
        let groups = args.groups.map_or(auto, u64::from);
        context.report_fan_out(FanOut::ClusterGroups, groups.clamp(1, clusters));
        let auto = (clusters * SAMPLE_PER_CLUSTER).max(LEAST_SAMPLE);
        let settings = FitSettings {
            clusters,
            sample: args.sample.unwrap_or(auto),
            seed: args.seed,
        };
        let work = Work {
            unit,
            units: 1,
            settings: settings.clone(),
            inputs: vec![context.combined_input(step, UnitKind::Partition)?],
        };
        let Some(mut open_unit) = context.begin(work)? else {
            return Ok(());
        };
        let (encoder, values) = sample_of(context, step, &plan, &rows, settings.sample)?;
        let sampled = values.len() / encoder.dimension.max(1);
        let settings = kmeans::KMeansSettings::new(clusters as usize, args.seed);
        let check = || context.check_stop();
        let fitted = kmeans::fit(&values, encoder.dimension, &settings, &check)?;
        open_unit.advance(sampled)?;
        let mut writer = context.run.write_table(
            &open_unit.path(&layout::CENTROIDS),
            rows::CENTROIDS,
            centroids(encoder.dimension),
            &encoder.metadata(),
        )?;
        let schema = writer.schema().clone();
        let numbers = UInt32Array::from_iter_values(0..fitted.len() as u32);
        let vectors = fixed_size(&schema, 1, fitted.data.clone())?;
        let columns: Vec<ArrayRef> = vec![Arc::new(numbers), vectors];
        writer.write(&RecordBatch::try_new(schema, columns)?)?;
        open_unit.publish(|| writer.finish())?;
        open_unit.sums.clusters = fitted.len() as u64;
        open_unit.sums.sample = sampled as u64;
        Ok(open_unit.commit(Counts::default())?)
    })
}

/// Names the flag that chooses the step in an error about its missing units.
fn not_embedded(step: &StepName, e: Error) -> Error {
    match e.class() {
        Class::Data => e.hint(format!(
            "run the step {step} first, for all of its units, or name the one that embeds: --embeddings STEP"
        )),
        _ => e,
    }
}

/// Returns the number of embeddings of a partition.
fn embedded(receipt: &Receipt) -> u64 {
    receipt.counts.kept.saturating_sub(receipt.sums.unscored)
}

/// Returns about `sample` embeddings, spread evenly over the partitions and their row groups. `rows`
/// are the partitions' numbers of embeddings.
fn sample_of(
    context: &Context,
    step: &StepName,
    plan: &Plan,
    rows: &[u64],
    sample: u64,
) -> Result<(Encoder, Vec<f32>)> {
    let total: u64 = rows.iter().sum();
    let mut encoder: Option<Encoder> = None;
    let mut values = Vec::new();
    for (unit, &rows) in plan.units().into_iter().zip(rows) {
        context.check_stop()?;
        let table = open_embeddings(context, step, unit)?;
        let found = Encoder::of(&table)?;
        if encoder.as_ref().is_some_and(|encoder| *encoder != found) {
            return Err(Error::data(format!(
                "{step}/{unit}: its encoder is not the one of the partitions before"
            ))
            .hint(format!(
                "run the step {step} on all partitions with one --model"
            ))
            .into());
        }
        let dimension = encoder.get_or_insert(found).dimension;
        let quota = if sample >= total {
            rows
        } else {
            (rows * sample).div_ceil(total)
        };
        let groups_wanted = quota.div_ceil(GROUP_ROWS as u64) as usize;
        let table = table.groups(|groups| {
            let wanted = groups_wanted.min(groups);
            (0..wanted).map(|index| index * groups / wanted).collect()
        })?;
        let mut left = quota as usize;
        for batch in table {
            let batch = batch?;
            let take = left.min(batch.num_rows());
            let all = vectors(&batch, "embedding")?;
            for index in 0..take {
                let row = index * batch.num_rows() / take;
                values.extend_from_slice(&all[row * dimension..][..dimension]);
            }
            left -= take;
        }
    }
    let encoder = encoder.ok_or_else(|| Error::data("the run has no partitions"))?;
    Ok((encoder, values))
}

fn read_centroids(context: &Context) -> Result<(Encoder, Centroids)> {
    let path = layout::CENTROIDS.path(context.step(), Unit::once(UnitKind::Fit));
    let table = context.run.table(&path, rows::CENTROIDS, &["centroid"])?;
    let encoder = Encoder::of(&table)?;
    let mut data = Vec::new();
    for batch in table {
        data.extend_from_slice(vectors(&batch?, "centroid")?);
    }
    let centroids = Centroids {
        dim: encoder.dimension,
        data,
    };
    Ok((encoder, centroids))
}

/// Assigns each survivor of a partition to its cluster. The rows are sorted by cluster, so that
/// `match` reads ranges of clusters.
///
/// # Errors
/// Data, when a step before has not been run or the centroids have another encoder; of storage.
pub(crate) fn assign(args: &Assign, context: &Context) -> Result<()> {
    let methods = args.stage.methods();
    let rank_by = args.rank.rank_by.as_ref();
    let step = &args.source.embeddings;
    let plan = context.plan()?;
    let remaining = Remaining::new(context, &methods, Method::Semantic, rank_by)?;
    context.each_unit(plan.units(), 1, |unit| {
        let partition = plan.partition(unit)?.partition;
        let mut inputs = remaining.inputs(partition)?;
        inputs.push(context.input(step, unit)?);
        let fitted = context.input(context.step(), Unit::once(UnitKind::Fit));
        inputs.push(made_by("fit", context, fitted)?);
        let work = Work {
            unit,
            units: plan.partitions.len(),
            settings: AssignSettings {
                methods: methods.clone(),
                rank_by: rank_by.cloned(),
                probes: args.probes,
            },
            inputs,
        };
        let Some(mut open_unit) = context.begin(work)? else {
            return Ok(());
        };
        let (encoder, fitted) = read_centroids(context)?;
        let table = open_embeddings(context, step, unit)?;
        if Encoder::of(&table)? != encoder {
            return Err(Error::data(format!(
                "{step}/{unit}: its encoder is not the one of the centroids"
            ))
            .hint(again(context, "fit"))
            .into());
        }
        let embedded = Embedded::read(&remaining, partition, EmbeddingReader::new(table))?;
        let not_embedded = embedded.not_embedded;
        let check = || context.check_stop();
        let assigned = Assigned::new(embedded, &fitted, args.probes, &check)?;
        let images = assigned.images.len();
        open_unit.advance(images)?;
        let mut writer = context.run.write_table(
            &open_unit.path(&layout::ASSIGNMENTS),
            rows::ASSIGNMENTS,
            assignments(encoder.dimension),
            &encoder.metadata(),
        )?;
        let schema = writer.schema().clone();
        for rows in assigned.rows.chunks(GROUP_ROWS) {
            writer.write(&assigned.batch(&schema, rows, encoder.dimension)?)?;
        }
        open_unit.publish(|| writer.finish())?;
        open_unit.sums.not_embedded = not_embedded;
        Ok(open_unit.commit(Counts::all_kept(images as u64 + not_embedded))?)
    })
}

/// The images of a partition that are left and have an embedding, in the order of `read`.
struct Embedded {
    images: Vec<Image>,
    /// One after the other, as the images are.
    vectors: Vec<f32>,
    /// How many other images are left.
    not_embedded: u64,
}

impl Embedded {
    fn read(
        remaining: &Remaining<'_>,
        partition: Partition,
        mut embeddings: EmbeddingReader,
    ) -> Result<Self> {
        let mut read = Self {
            images: Vec::new(),
            vectors: Vec::new(),
            not_embedded: 0,
        };
        for walked in remaining.walk(partition)? {
            let walked = walked?;
            // Asked for all samples, since the encoder may have seen more than are left.
            let vector = embeddings.next_if(walked.image.image_id.as_str())?;
            match vector {
                _ if !walked.is_left => {}
                Some(vector) => {
                    read.vectors.extend_from_slice(vector);
                    read.images.push(walked.image);
                }
                None => read.not_embedded += 1,
            }
        }
        embeddings.finish()?;
        Ok(read)
    }
}

/// The images of a partition in their clusters.
struct Assigned {
    images: Vec<Image>,
    /// Of the images, one after the other.
    vectors: Vec<f32>,
    /// Sorted by cluster and id.
    rows: Vec<AssignedRow>,
}

/// An image in a cluster.
struct AssignedRow {
    cluster: u32,
    /// The image's own cluster, and the distance to its centroid.
    home: u32,
    distance: f32,
    /// Which image it is.
    image: usize,
}

impl Assigned {
    fn new(embedded: Embedded, fitted: &Centroids, probes: u32, check: Check<'_>) -> Result<Self> {
        let Embedded {
            images, vectors, ..
        } = embedded;
        let mut rows = Vec::with_capacity(images.len());
        let assignments = kmeans::assign(&vectors, fitted, check)?;
        for (image, assignment) in assignments.iter().enumerate() {
            rows.push(AssignedRow {
                cluster: assignment.cluster,
                home: assignment.cluster,
                distance: assignment.distance,
                image,
            });
        }
        if probes > 1 {
            let nearest = kmeans::nearest_clusters(&vectors, fitted, probes as usize, check)?;
            for (image, clusters) in nearest.into_iter().enumerate() {
                let home = assignments[image].cluster;
                let others = clusters.into_iter().filter(|cluster| *cluster != home);
                rows.extend(others.map(|cluster| AssignedRow {
                    cluster,
                    home,
                    distance: assignments[image].distance,
                    image,
                }));
            }
        }
        let id = |row: &AssignedRow| &images[row.image].image_id;
        rows.sort_by(|a, b| (a.cluster, id(a)).cmp(&(b.cluster, id(b))));
        Ok(Self {
            images,
            vectors,
            rows,
        })
    }

    /// Returns some of the rows as they are written.
    fn batch(
        &self,
        schema: &SchemaRef,
        rows: &[AssignedRow],
        dimension: usize,
    ) -> Result<RecordBatch> {
        let images = || rows.iter().map(|row| &self.images[row.image]);
        let mut vectors = Vec::with_capacity(rows.len() * dimension);
        for row in rows {
            vectors.extend_from_slice(&self.vectors[row.image * dimension..][..dimension]);
        }
        let columns: Vec<ArrayRef> = vec![
            numbers(rows.iter().map(|row| row.cluster)),
            numbers(rows.iter().map(|row| row.home)),
            numbers(images().map(|image| image.partition.0)),
            Arc::new(StringArray::from_iter_values(
                images().map(|image| image.image_id.as_str()),
            )),
            Arc::new(Float32Array::from_iter_values(
                rows.iter().map(|row| row.distance),
            )),
            Arc::new(Float32Array::from_iter(images().map(|image| image.score))),
            Arc::new(UInt64Array::from_iter_values(
                images().map(|image| image.pixels),
            )),
            fixed_size(schema, 7, vectors)?,
        ];
        Ok(RecordBatch::try_new(schema.clone(), columns)?)
    }
}

fn numbers(values: impl Iterator<Item = u32>) -> ArrayRef {
    Arc::new(UInt32Array::from_iter_values(values))
}

fn fixed_size(schema: &SchemaRef, column: usize, values: Vec<f32>) -> Result<ArrayRef> {
    let field: &Field = schema.field(column);
    let DataType::FixedSizeList(item, length) = field.data_type().clone() else {
        return Err(Error::bug(format!(
            "column {:?} is not a fixed-size list",
            field.name()
        ))
        .into());
    };
    let values = Arc::new(Float32Array::from(values));
    Ok(Arc::new(FixedSizeListArray::try_new(
        item, length, values, None,
    )?))
}
