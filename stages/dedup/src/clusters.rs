//! The clusters of a group, as `assign` wrote them.
//!
//! Their vectors are in memory together, as long as these are few enough. A cluster that is far larger
//! than the others does not fit: its members are in memory, and its vectors are read in parts, in any
//! order of the rows ([`Cluster::read`]).

use std::collections::BTreeMap;
use std::ops::Range;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float32Type, UInt32Type, UInt64Type};
use sluice_harness::Context;
use sluice_manifest::rows::ASSIGNMENTS;
use sluice_manifest::{ImageId, Partition, Result, layout};
use sluice_run::Plan;
use sluice_store::vectors;

use crate::embeddings::Encoder;

/// Values of vectors that clusters have in memory, unless all are small: 256 MiB.
const MOST_VALUES: usize = 64 << 20;

/// The images of a cluster.
pub(crate) struct Cluster {
    /// Its number.
    pub number: u32,
    /// Its images.
    pub members: Vec<Member>,
    /// Values of a vector.
    pub dimension: usize,
    /// The vectors of the members, one after the other. None if they are read in parts.
    pub vectors: Option<Vec<f32>>,
    rows: usize,
}

/// An image of a cluster.
pub(crate) struct Member {
    /// Its row among those of the cluster.
    row: usize,
    /// Its own cluster. In another one it removes others and is not decided on.
    pub home: u32,
    /// Its partition.
    pub partition: Partition,
    /// Its name.
    pub image_id: ImageId,
    /// The distance to the centroid of its own cluster.
    pub distance: f32,
    /// The score that ranks, if there is one.
    pub score: Option<f32>,
    /// Width times height.
    pub pixels: u64,
}

/// Returns the clusters of a range that have images, with their images of all partitions, ascending.
///
/// # Errors
/// Data, if a manifest is missing or broken; stopped, after a signal.
pub(crate) fn read_clusters(
    context: &Context,
    plan: &Plan,
    range: Range<u32>,
) -> Result<Vec<Cluster>> {
    let columns = [
        "cluster",
        "home",
        "partition",
        "image_id",
        "distance",
        "score",
        "pixels",
        "embedding",
    ];
    let mut found: BTreeMap<u32, Cluster> = BTreeMap::new();
    let mut held = 0;
    each_batch(
        context,
        plan,
        range.clone(),
        &columns,
        |batch, dimension| {
            let clusters = batch["cluster"].as_primitive::<UInt32Type>();
            let all = vectors(batch, "embedding")?;
            for row in 0..batch.num_rows() {
                let number = clusters.value(row);
                if range.contains(&number) {
                    let vector = &all[row * dimension..][..dimension];
                    let cluster = found.entry(number);
                    let cluster = cluster.or_insert_with(|| Cluster::new(number, dimension));
                    held += cluster.push(batch, row, vector);
                }
            }
            if held > MOST_VALUES {
                held -= release_largest(&mut found);
            }
            Ok(())
        },
    )?;
    Ok(found.into_values().collect())
}

/// Calls `each` with the rows of a range of clusters, partition by partition, and the values of a vector.
/// A batch may have rows of other clusters.
fn each_batch(
    context: &Context,
    plan: &Plan,
    range: Range<u32>,
    columns: &[&str],
    mut each: impl FnMut(&RecordBatch, usize) -> Result<()>,
) -> Result<()> {
    for unit in plan.units() {
        context.check_stop()?;
        let path = layout::ASSIGNMENTS.path(context.step(), unit);
        let table = context.run.table(&path, ASSIGNMENTS, columns)?;
        let dimension = Encoder::of(&table)?.dimension;
        for batch in table.within("cluster", range.clone())? {
            each(&batch?, dimension)?;
        }
    }
    Ok(())
}

/// Frees the vectors of the largest cluster, if it has a good part of all that fit. Returns the number of
/// their values.
fn release_largest(clusters: &mut BTreeMap<u32, Cluster>) -> usize {
    let values = |cluster: &Cluster| cluster.vectors.as_ref().map_or(0, Vec::len);
    let largest = clusters.values_mut().max_by_key(|cluster| values(cluster));
    match largest {
        Some(cluster) if values(cluster) > MOST_VALUES / 4 => {
            let freed = values(cluster);
            cluster.vectors = None;
            freed
        }
        _ => 0,
    }
}

impl Cluster {
    fn new(number: u32, dimension: usize) -> Self {
        Self {
            number,
            members: Vec::new(),
            dimension,
            vectors: Some(Vec::new()),
            rows: 0,
        }
    }

    /// Adds the image of a row, and returns the number of values that are in memory now in addition.
    fn push(&mut self, batch: &RecordBatch, row: usize, vector: &[f32]) -> usize {
        let scores = batch["score"].as_primitive::<Float32Type>();
        self.members.push(Member {
            row: self.rows,
            home: batch["home"].as_primitive::<UInt32Type>().value(row),
            partition: Partition(batch["partition"].as_primitive::<UInt32Type>().value(row)),
            image_id: ImageId::from_text(batch["image_id"].as_string::<i32>().value(row)),
            distance: batch["distance"].as_primitive::<Float32Type>().value(row),
            score: scores.is_valid(row).then(|| scores.value(row)),
            pixels: batch["pixels"].as_primitive::<UInt64Type>().value(row),
        });
        self.rows += 1;
        self.vectors.as_mut().map_or(0, |vectors| {
            vectors.extend_from_slice(vector);
            vector.len()
        })
    }

    /// Returns the number of images whose own cluster it is.
    pub(crate) fn own(&self) -> usize {
        let members = self.members.iter();
        members.filter(|member| member.home == self.number).count()
    }

    /// Returns the number of vectors that are read at once.
    pub(crate) fn rows_at_once(&self) -> usize {
        (MOST_VALUES / self.dimension).max(1)
    }

    /// Reads the vectors of some members, and returns them in the order of `members`, which are places in
    /// [`Cluster::members`].
    ///
    /// # Errors
    /// Like [`read_clusters`].
    pub(crate) fn read(
        &self,
        context: &Context,
        plan: &Plan,
        members: &[usize],
    ) -> Result<Vec<f32>> {
        let dimension = self.dimension;
        let mut places: Vec<Option<u32>> = vec![None; self.rows];
        for (place, &member) in members.iter().enumerate() {
            places[self.members[member].row] = Some(place as u32);
        }
        let mut values = vec![0.0; members.len() * dimension];
        let mut places = places.into_iter();
        let range = self.number..self.number + 1;
        each_batch(
            context,
            plan,
            range,
            &["cluster", "embedding"],
            |batch, _| {
                let clusters = batch["cluster"].as_primitive::<UInt32Type>();
                let all = vectors(batch, "embedding")?;
                let own = (0..batch.num_rows()).filter(|&row| clusters.value(row) == self.number);
                for (row, place) in own.zip(&mut places) {
                    if let Some(place) = place {
                        let vector = &all[row * dimension..][..dimension];
                        values[place as usize * dimension..][..dimension].copy_from_slice(vector);
                    }
                }
                Ok(())
            },
        )?;
        Ok(values)
    }
}
