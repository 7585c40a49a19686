//! Semantic duplicates: `match`, group of clusters by group of clusters.

use std::collections::BTreeMap;

use anyhow::Result;
use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float32Type, UInt32Type, UInt64Type};
use rayon::prelude::*;
use sluice_harness::{Context, Plan, Work};
use sluice_manifest::rows::{ASSIGNMENTS, DuplicateRow, Method};
use sluice_manifest::{
    ABOUT_EPS, Counts, Error, ImageId, Input, Partition, Receipt, Unit, UnitKind, layout,
};
use sluice_store::vectors;

use crate::arguments::{Eps, Match};
use crate::distance::distance;
use crate::embeddings::Encoder;
use crate::hashes::{duplicate, in_reference, publish_duplicates};
use crate::index::open::{Known, References};
use crate::ranking::{Candidate, Keep, rank_among};
use crate::semantic::IMAGES_PER_GROUP;
use crate::settings::MatchSettings;
use crate::survivors::check_same_step;
use sluice_knn::matching::{Rule, matches};
use sluice_knn::targets::Targets;

/// Clusters that are compared between two checks whether to stop.
const CLUSTERS_AT_ONCE: usize = 16;

/// Compares the embeddings inside the clusters, one group of clusters after the other.
///
/// # Errors
/// Data, when `fit` or `assign` has not been run, or for other survivors; of storage.
pub fn match_groups(args: &Match, context: &Context) -> Result<()> {
    let methods = args.stage.methods();
    let references = References::open(&context.storage, &args.references.against)?;
    let plan = context.plan()?;
    let step = context.step();
    let fitted = context.required_receipt(step, Unit::once(UnitKind::Fit))?;
    let clusters = fitted.sums.clusters;
    let chosen = distance(args.eps, context, &fitted)?;
    let assigned = context.required_receipts(step, &plan.units())?;
    let mut images = 0;
    for receipt in &assigned {
        check_same_step(context, &methods, receipt)?;
        images += receipt
            .counts
            .kept
            .saturating_sub(receipt.sums.not_embedded);
    }
    let auto = images.div_ceil(IMAGES_PER_GROUP);
    let groups = args.groups.map_or(auto, u64::from);
    let groups = groups.clamp(1, clusters.max(1)) as u32;
    context.remove_stale(step, UnitKind::Group, groups)?;
    let fingerprints = assigned.iter().map(|receipt| &receipt.fingerprint);
    let mut inputs = vec![Input::units(step, UnitKind::Part, fingerprints)];
    inputs.extend(references.inputs());
    if !references.are_none() {
        references.check_encoder(&read_encoder(context, &plan)?)?;
    }
    let bound = |index: u32| (clusters * u64::from(index) / u64::from(groups)) as u32;
    context.each_unit(Unit::all(UnitKind::Group, groups), 1, |unit| {
        let work = Work {
            unit,
            units: groups as usize,
            settings: MatchSettings {
                methods: methods.clone(),
                eps: chosen.eps,
                keep: args.keep,
                seed: (args.keep == Keep::Random).then_some(args.seed),
                groups,
                against: references.names(),
            },
            inputs: inputs.clone(),
        };
        let state = |receipt: &mut Receipt| receipt.set_about(ABOUT_EPS, &chosen.because);
        let Some(mut task) = context.begin_stating(work, state)? else {
            return Ok(());
        };
        let range = bound(unit.index)..bound(unit.index + 1);
        let mut clusters = read_clusters(context, &plan, range)?;
        let mut rows = remove_known(chosen.eps, context, &references, &mut clusters)?;
        let mut counts = Counts::default();
        for row in &rows {
            counts.add(step, Some(&row.reason()));
        }
        while !clusters.is_empty() {
            let some = clusters.drain(..clusters.len().min(CLUSTERS_AT_ONCE));
            let some: Vec<Cluster> = some.collect();
            let images = some.iter().map(Cluster::own).sum();
            let found = some
                .into_par_iter()
                .map(|cluster| match_cluster(args, chosen.eps, context, cluster))
                .collect::<Result<Vec<_>>>()?;
            for (of_cluster, removed) in found {
                counts.merge(&of_cluster);
                rows.extend(removed);
            }
            task.advance(images)?;
        }
        task.decides(&methods.deciding_kinds());
        publish_duplicates(context, &mut task, rows)?;
        Ok(task.commit(counts)?)
    })
}

/// The images of a cluster.
struct Cluster {
    number: u32,
    members: Vec<Member>,
    dimension: usize,
    /// One after the other, as the members are.
    vectors: Vec<f32>,
}

/// An image of a cluster.
struct Member {
    /// Its own cluster. In another one it removes others and is not decided on.
    home: u32,
    partition: Partition,
    image_id: ImageId,
    distance: f32,
    score: Option<f32>,
    pixels: u64,
}

/// Returns the clusters of a range that have images, with their images of all partitions, ascending.
fn read_clusters(
    context: &Context,
    plan: &Plan,
    range: std::ops::Range<u32>,
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
    for unit in plan.units() {
        context.check_stop()?;
        let path = layout::ASSIGNMENTS.path(context.step(), unit);
        let table = context.run.table(&path, ASSIGNMENTS, &columns)?;
        let dimension = Encoder::of(&table)?.dimension;
        for batch in table.within("cluster", range.clone())? {
            let batch = batch?;
            let clusters = batch["cluster"].as_primitive::<UInt32Type>();
            let homes = batch["home"].as_primitive::<UInt32Type>();
            let partitions = batch["partition"].as_primitive::<UInt32Type>();
            let ids = batch["image_id"].as_string::<i32>();
            let distances = batch["distance"].as_primitive::<Float32Type>();
            let scores = batch["score"].as_primitive::<Float32Type>();
            let pixels = batch["pixels"].as_primitive::<UInt64Type>();
            let all = vectors(&batch, "embedding")?;
            for row in 0..batch.num_rows() {
                let number = clusters.value(row);
                if !range.contains(&number) {
                    continue;
                }
                let cluster = found.entry(number).or_insert_with(|| Cluster {
                    number,
                    members: Vec::new(),
                    dimension,
                    vectors: Vec::new(),
                });
                cluster.members.push(Member {
                    home: homes.value(row),
                    partition: Partition(partitions.value(row)),
                    image_id: ImageId::from_text(ids.value(row)),
                    distance: distances.value(row),
                    score: scores.is_valid(row).then(|| scores.value(row)),
                    pixels: pixels.value(row),
                });
                let vector = &all[row * dimension..][..dimension];
                cluster.vectors.extend_from_slice(vector);
            }
        }
    }
    Ok(found.into_values().collect())
}

/// Returns the encoder of the assignments.
fn read_encoder(context: &Context, plan: &Plan) -> Result<Encoder> {
    let unit = plan.units().first().copied();
    let unit = unit.ok_or_else(|| Error::data("the run has no partitions"))?;
    let path = layout::ASSIGNMENTS.path(context.step(), unit);
    let table = context.run.table(&path, ASSIGNMENTS, &["embedding"])?;
    Ok(Encoder::of(&table)?)
}

/// Takes the images out of the clusters that a reference set has, and returns their rows.
fn remove_known(
    eps: Eps,
    context: &Context,
    references: &References,
    clusters: &mut [Cluster],
) -> Result<Vec<DuplicateRow>> {
    let Some(first) = clusters.first().filter(|_| references.are_embedded()) else {
        return Ok(Vec::new());
    };
    let mut targets = Targets::new(first.dimension, eps.threshold());
    clusters
        .iter()
        .for_each(|cluster| targets.add(&cluster.vectors));
    let images = clusters.iter().map(|cluster| cluster.members.len()).sum();
    let mut known: Vec<Option<Known>> = vec![None; images];
    let check = || context.check_stop();
    references.each_embedded(&check, &mut |embedded| {
        for nearer in targets.compare(embedded.vectors, &check)? {
            known[nearer.target] = Some(embedded.known(nearer.reference, nearer.similarity));
        }
        Ok(())
    })?;
    drop(targets);
    let mut known = known.into_iter();
    let removed = clusters
        .iter_mut()
        .flat_map(|cluster| cluster.take_known(&mut known));
    Ok(removed.collect())
}

impl Cluster {
    /// Returns the number of images whose own cluster it is.
    fn own(&self) -> usize {
        let members = self.members.iter();
        members.filter(|member| member.home == self.number).count()
    }

    /// Takes the members out that are known, and returns their rows. `known` has one entry for each.
    fn take_known(&mut self, known: &mut impl Iterator<Item = Option<Known>>) -> Vec<DuplicateRow> {
        let dimension = self.dimension;
        let members = std::mem::take(&mut self.members);
        let vectors = std::mem::take(&mut self.vectors);
        let mut rows = Vec::new();
        let of_members = members.into_iter().zip(vectors.chunks_exact(dimension));
        for ((member, vector), known) in of_members.zip(known) {
            match known {
                Some(known) if member.home == self.number => {
                    let (partition, id) = (member.partition, &member.image_id);
                    rows.push(in_reference(partition, id, known, Method::Semantic));
                }
                // Its own cluster has its row.
                Some(_) => {}
                None => {
                    self.vectors.extend_from_slice(vector);
                    self.members.push(member);
                }
            }
        }
        rows
    }
}

/// Ranks a cluster and finds its duplicates.
fn match_cluster(
    args: &Match,
    eps: Eps,
    context: &Context,
    mut cluster: Cluster,
) -> Result<(Counts, Vec<DuplicateRow>)> {
    let (members, dimension) = (&cluster.members, cluster.dimension);
    let candidates: Vec<Candidate<'_>> = members
        .iter()
        .map(|member| Candidate {
            image_id: member.image_id.as_str(),
            score: member.score,
            pixels: member.pixels,
            texts: 0,
            distance: member.distance,
        })
        .collect();
    let homes: Vec<u32> = members.iter().map(|member| member.home).collect();
    let order = rank_among(&candidates, &homes, args.keep, args.seed);
    reorder(&mut cluster.vectors, dimension, &order);
    let rule = match args.keep {
        Keep::Best => Rule::KeptOnly,
        Keep::Hard | Keep::Easy | Keep::Random => Rule::AnyEarlier,
    };
    let (mut counts, mut rows) = (Counts::default(), Vec::new());
    let check = || context.check_stop();
    let found = matches(&cluster.vectors, dimension, eps.threshold(), rule, &check)?;
    for (place, found) in found.into_iter().enumerate() {
        let member = &members[order[place]];
        if member.home != cluster.number {
            continue;
        }
        let row = found.map(|found| {
            let kept = members[order[found.of]].image_id.clone();
            let (partition, id) = (member.partition, &member.image_id);
            duplicate(partition, id, kept, found.similarity, Method::Semantic)
        });
        counts.add(
            context.step(),
            row.as_ref().map(DuplicateRow::reason).as_ref(),
        );
        rows.extend(row);
    }
    Ok((counts, rows))
}

/// Puts rows into an order, in place: what was row `order[i]` becomes row `i`.
fn reorder(vectors: &mut [f32], dimension: usize, order: &[usize]) {
    let mut is_done = vec![false; order.len()];
    let mut first = vec![0.0; dimension];
    for start in 0..order.len() {
        let mut row = start;
        first.copy_from_slice(&vectors[row * dimension..][..dimension]);
        while !is_done[row] {
            is_done[row] = true;
            let from = order[row];
            if from == start {
                vectors[row * dimension..][..dimension].copy_from_slice(&first);
            } else {
                vectors.copy_within(from * dimension..(from + 1) * dimension, row * dimension);
            }
            row = from;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_put_into_any_order() {
        for order in [
            vec![0, 1, 2, 3],
            vec![3, 2, 1, 0],
            vec![1, 2, 0, 3],
            vec![2, 0, 3, 1],
        ] {
            let mut vectors = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5];
            reorder(&mut vectors, 2, &order);
            let rows: Vec<usize> = vectors.chunks(2).map(|row| row[0] as usize).collect();
            assert_eq!(rows, order);
        }
    }
}
