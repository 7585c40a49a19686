//! Semantic duplicates: `fit` and `assign`. (`match` is in `groups.rs`.)
//!
//! NeMo Curator's definition: k-means on the normalised embeddings; inside a cluster the images are
//! ranked, and one is a duplicate when its highest cosine similarity with an image ranked before it
//! is at least `1 - eps`. Duplicates in different clusters are not found.

use std::sync::Arc;

use anyhow::Result;
use arrow::array::{
    ArrayRef, AsArray, FixedSizeListArray, Float32Array, RecordBatch, StringArray, UInt32Array,
    UInt64Array,
};
use arrow::datatypes::{DataType, Field, SchemaRef};
use serde_json::json;
use sluice_harness::{Context, Plan, Verdicts, Work, filter_inputs};
use sluice_manifest::rows::{
    ASSIGNMENTS, CENTROIDS, DIMENSION_KEY, EMBEDDINGS, MODEL_KEY, MODEL_SHA256_KEY, assignments,
    centroids,
};
use sluice_manifest::{Counts, Error, Filter, Partition, Reason, Unit, dag, layout};
use sluice_store::{Table, vectors};

use crate::arguments::{Assign, Fit};
use crate::kmeans::{self, Centroids};
use crate::survivors::Survivor;

/// Images for each cluster, where `--clusters` does not say.
const IMAGES_PER_CLUSTER: u64 = 1000;
/// Embeddings that the fit reads for each cluster (what faiss trains on), and at least.
const SAMPLE_PER_CLUSTER: u64 = 256;
const LEAST_SAMPLE: u64 = 10_000;
/// Images of a unit of `match`, where `--groups` does not say: 300 MB of embeddings of 1536 values.
pub(crate) const IMAGES_PER_GROUP: u64 = 50_000;
/// Rows of a row group of `dedup/assignments`.
const GROUP_ROWS: usize = 1024;

/// Fits k-means on a sample of the embeddings, and writes the centroids.
pub fn fit(args: &Fit, context: &Context) -> Result<()> {
    let plan = context.plan()?;
    let unit = Unit::once("fit");
    context.each_unit(&dag::DEDUP_FIT, vec![unit], 1, |unit| {
        let receipts = context.required_receipts(&dag::EMBED, &plan.units())?;
        let rows: Vec<u64> = receipts.iter().map(|receipt| receipt.counts.kept).collect();
        let total: u64 = rows.iter().sum();
        let auto = total.div_ceil(IMAGES_PER_CLUSTER).max(1);
        let clusters = args.clusters.map_or(auto, u64::from);
        // Fewer images may be left by then.
        let auto = total.div_ceil(IMAGES_PER_GROUP);
        let groups = args.groups.map_or(auto, u64::from);
        context.tells(dag::FanOut::ClusterGroups, groups.clamp(1, clusters.max(1)));
        let sample = args
            .sample
            .unwrap_or((clusters * SAMPLE_PER_CLUSTER).max(LEAST_SAMPLE));
        let work = Work {
            step: &dag::DEDUP_FIT,
            version: 1,
            unit,
            units: 1,
            settings: json!({ "clusters": clusters, "sample": sample, "seed": args.seed }),
            basis: None,
            inputs: vec![context.combined_input(&dag::EMBED, &plan.units())?],
        };
        let Some(mut task) = context.begin(work)? else {
            return Ok(());
        };
        let (model, values) = sample_of(context, &plan, &rows, sample)?;
        let settings = kmeans::Settings::new(clusters as usize, args.seed);
        let fitted = kmeans::fit(&values, model.dimension, &settings);
        task.advance(values.len() / model.dimension.max(1))?;
        let path = task.path("centroids");
        let schema = centroids(model.dimension);
        let mut writer = context
            .run
            .write_table(&path, CENTROIDS, schema, &model.metadata())?;
        let schema = writer.schema().clone();
        let numbers = UInt32Array::from_iter_values(0..fitted.len() as u32);
        let vectors = fixed_size(&schema, 1, fitted.data.clone())?;
        writer.write(&RecordBatch::try_new(
            schema,
            vec![Arc::new(numbers), vectors],
        )?)?;
        task.wrote(writer.finish()?);
        task.sum("clusters", fitted.len() as u64);
        task.sum("sample", (values.len() / model.dimension.max(1)) as u64);
        Ok(task.commit(Counts::default())?)
    })
}

/// The embedder that the vectors of a manifest come from.
#[derive(Debug, PartialEq)]
pub(crate) struct Embedder {
    name: String,
    sha256: String,
    pub dimension: usize,
}

impl Embedder {
    pub fn of(table: &Table) -> sluice_manifest::Result<Self> {
        let dimension = table.required(DIMENSION_KEY)?;
        Ok(Self {
            name: table.required(MODEL_KEY)?.to_owned(),
            sha256: table.required(MODEL_SHA256_KEY)?.to_owned(),
            dimension: dimension
                .parse()
                .map_err(|_| Error::data(format!("dimension {dimension:?} is no number")))?,
        })
    }

    fn metadata(&self) -> [(&'static str, String); 3] {
        [
            (MODEL_KEY, self.name.clone()),
            (MODEL_SHA256_KEY, self.sha256.clone()),
            (DIMENSION_KEY, self.dimension.to_string()),
        ]
    }
}

fn open_embeddings(context: &Context, unit: &Unit) -> sluice_manifest::Result<Table> {
    let path = layout::manifest("embed", "embeddings", unit);
    context
        .run
        .table(&path, EMBEDDINGS, &["image_id", "embedding"])
}

/// About `sample` embeddings, spread evenly over the partitions and their row groups. `rows` are
/// the partitions' numbers of embeddings.
fn sample_of(
    context: &Context,
    plan: &Plan,
    rows: &[u64],
    sample: u64,
) -> Result<(Embedder, Vec<f32>)> {
    let total: u64 = rows.iter().sum();
    let mut embedder: Option<Embedder> = None;
    let mut values = Vec::new();
    for (unit, &rows) in plan.units().iter().zip(rows) {
        context.check_stop()?;
        let table = open_embeddings(context, unit)?;
        let found = Embedder::of(&table)?;
        if embedder.as_ref().is_some_and(|embedder| *embedder != found) {
            return Err(Error::data(format!(
                "embed/{unit}: another embedder than in the partitions before"
            ))
            .hint("run sluice-embed on all partitions with one --model")
            .into());
        }
        let dimension = embedder.get_or_insert(found).dimension;
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
    let embedder = embedder.ok_or_else(|| Error::data("the run has no partitions"))?;
    Ok((embedder, values))
}

fn read_centroids(context: &Context) -> Result<(Embedder, Centroids)> {
    let path = layout::manifest("dedup", "centroids", &Unit::once("fit"));
    let table = context.run.table(&path, CENTROIDS, &["centroid"])?;
    let embedder = Embedder::of(&table)?;
    let mut data = Vec::new();
    for batch in table {
        data.extend_from_slice(vectors(&batch?, "centroid")?);
    }
    let centroids = Centroids {
        dim: embedder.dimension,
        data,
    };
    Ok((embedder, centroids))
}

/// Puts each survivor of a partition into its cluster, sorted by cluster, for `match` to read
/// ranges of clusters.
pub fn assign(args: &Assign, context: &Context) -> Result<()> {
    let filters = Filter::parse_list(&args.filters)?;
    let plan = context.plan()?;
    context.each_unit(&dag::DEDUP_ASSIGN, plan.units(), 1, |unit| {
        let partition = plan.partition(unit)?.partition;
        let mut inputs = filter_inputs(context, partition, &filters)?;
        inputs.push(context.input(&dag::EMBED, unit)?);
        inputs.push(context.input(&dag::DEDUP_FIT, &Unit::once("fit"))?);
        let work = Work {
            step: &dag::DEDUP_ASSIGN,
            version: 1,
            unit,
            units: plan.partitions.len(),
            settings: json!({ "filters": filters }),
            basis: None,
            inputs,
        };
        let Some(mut task) = context.begin(work)? else {
            return Ok(());
        };
        let (embedder, fitted) = read_centroids(context)?;
        let mut counts = Counts::default();
        let assigned = assigned(
            context,
            partition,
            &filters,
            &embedder,
            &fitted,
            &mut counts,
        )?;
        task.advance(assigned.rows.len())?;
        let path = task.path("assignments");
        let schema = assignments(embedder.dimension);
        let mut writer =
            context
                .run
                .write_table(&path, ASSIGNMENTS, schema, &embedder.metadata())?;
        let schema = writer.schema().clone();
        for rows in assigned.rows.chunks(GROUP_ROWS) {
            let vectors = assigned.vectors_of(rows, embedder.dimension);
            writer.write(&assignment_batch(&schema, rows, vectors)?)?;
        }
        task.wrote(writer.finish()?);
        Ok(task.commit(counts)?)
    })
}

/// The survivors of a partition in their clusters.
struct Assigned {
    /// Sorted by cluster and id.
    rows: Vec<AssignedRow>,
    /// One after the other, in the order in which they were read.
    vectors: Vec<f32>,
}

/// A survivor in its cluster.
struct AssignedRow {
    cluster: u32,
    distance: f32,
    survivor: Survivor,
    /// Which of the vectors is its own.
    vector: usize,
}

impl Assigned {
    fn vectors_of(&self, rows: &[AssignedRow], dimension: usize) -> Vec<f32> {
        let mut values = Vec::with_capacity(rows.len() * dimension);
        for row in rows {
            values.extend_from_slice(&self.vectors[row.vector * dimension..][..dimension]);
        }
        values
    }
}

/// The survivors of a partition with their clusters, sorted by cluster and id.
fn assigned(
    context: &Context,
    partition: Partition,
    filters: &[Filter],
    embedder: &Embedder,
    fitted: &Centroids,
    counts: &mut Counts,
) -> Result<Assigned> {
    let mut verdicts = Verdicts::open(context, partition, filters)?;
    let table = open_embeddings(context, &partition.into())?;
    if Embedder::of(&table)? != *embedder {
        return Err(Error::data(format!(
            "embed/{partition}: another embedder than the centroids'"
        ))
        .hint("run sluice-dedup fit again")
        .into());
    }
    let mut survivors = Vec::new();
    let mut kept = Vec::new();
    for batch in table {
        let batch = batch?;
        let ids = batch["image_id"].as_string::<i32>();
        let all = vectors(&batch, "embedding")?;
        for (row, id) in ids.iter().enumerate() {
            // Both are in the order of read/images; images without an embedding come in between.
            for verdict in verdicts.by_ref() {
                let verdict = verdict?;
                let here = Some(verdict.sample.image_id.as_str()) == id;
                if let Some(survivor) = Survivor::of(verdict, partition) {
                    counts.add((!here).then_some(Reason::NotEmbedded));
                    if here {
                        kept.extend_from_slice(
                            &all[row * embedder.dimension..][..embedder.dimension],
                        );
                        survivors.push(survivor);
                    }
                }
                if here {
                    break;
                }
            }
        }
    }
    for verdict in verdicts {
        if Survivor::of(verdict?, partition).is_some() {
            counts.add(Some(Reason::NotEmbedded));
        }
    }
    let assignments = kmeans::assign(&kept, fitted);
    let places = survivors.into_iter().zip(assignments).enumerate();
    let mut rows: Vec<AssignedRow> = places
        .map(|(vector, (survivor, assignment))| AssignedRow {
            cluster: assignment.cluster,
            distance: assignment.distance,
            survivor,
            vector,
        })
        .collect();
    rows.sort_by(|a, b| (a.cluster, &a.survivor.image_id).cmp(&(b.cluster, &b.survivor.image_id)));
    Ok(Assigned {
        rows,
        vectors: kept,
    })
}

fn assignment_batch(
    schema: &SchemaRef,
    rows: &[AssignedRow],
    vectors: Vec<f32>,
) -> Result<RecordBatch> {
    let survivors = || rows.iter().map(|row| &row.survivor);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt32Array::from_iter_values(
            rows.iter().map(|row| row.cluster),
        )),
        Arc::new(UInt32Array::from_iter_values(
            survivors().map(|s| s.partition.0),
        )),
        Arc::new(StringArray::from_iter_values(
            survivors().map(|s| s.image_id.as_str()),
        )),
        Arc::new(Float32Array::from_iter_values(
            rows.iter().map(|row| row.distance),
        )),
        Arc::new(Float32Array::from_iter(survivors().map(|s| s.score))),
        Arc::new(UInt64Array::from_iter_values(survivors().map(|s| s.pixels))),
        fixed_size(schema, 6, vectors)?,
    ];
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

fn fixed_size(schema: &SchemaRef, column: usize, values: Vec<f32>) -> Result<ArrayRef> {
    let field: &Field = schema.field(column);
    let DataType::FixedSizeList(item, length) = field.data_type().clone() else {
        return Err(Error::bug(format!("column {:?} is no fixed-size list", field.name())).into());
    };
    let values = Arc::new(Float32Array::from(values));
    Ok(Arc::new(FixedSizeListArray::try_new(
        item, length, values, None,
    )?))
}
