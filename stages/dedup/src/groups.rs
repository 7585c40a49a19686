//! Semantic duplicates: `match`, group of clusters by group of clusters.

use std::collections::BTreeMap;

use anyhow::Result;
use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float32Type, UInt32Type, UInt64Type};
use rayon::prelude::*;
use sluice_harness::{Context, Plan, Work, reason_of};
use sluice_manifest::rows::{ASSIGNMENTS, DuplicateRow, Method};
use sluice_manifest::{Counts, ImageId, Input, Partition, Reason, Unit, UnitKind, layout};
use sluice_store::vectors;

use crate::arguments::Match;
use crate::embeddings::Encoder;
use crate::hashes::publish_duplicates;
use crate::matching::{Rule, matches};
use crate::ranking::{Candidate, Keep, rank};
use crate::semantic::IMAGES_PER_GROUP;
use crate::settings::MatchSettings;
use crate::survivors::check_same_step;

/// Clusters that are compared between two checks whether to stop.
const CLUSTERS_AT_ONCE: usize = 16;

/// Compares the embeddings inside the clusters, one group of clusters after the other.
///
/// # Errors
/// Data, when `fit` or `assign` has not been run, or for other survivors; of storage.
pub fn match_groups(args: &Match, context: &Context) -> Result<()> {
    let methods = args.stage.methods();
    let plan = context.plan()?;
    let step = context.step();
    let fitted = context.required_receipt(step, Unit::once(UnitKind::Fit))?;
    let clusters = fitted.sums.clusters;
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
    let input = Input::units(step, UnitKind::Part, fingerprints);
    let bound = |index: u32| (clusters * u64::from(index) / u64::from(groups)) as u32;
    context.each_unit(Unit::all(UnitKind::Group, groups), 1, |unit| {
        let work = Work {
            unit,
            units: groups as usize,
            settings: MatchSettings {
                methods: methods.clone(),
                eps: args.eps,
                keep: args.keep,
                seed: (args.keep == Keep::Random).then_some(args.seed),
                groups,
            },
            inputs: vec![input.clone()],
        };
        let Some(mut task) = context.begin(work)? else {
            return Ok(());
        };
        let mut counts = Counts::default();
        let mut rows = Vec::new();
        let range = bound(unit.index)..bound(unit.index + 1);
        let mut clusters = read_clusters(context, &plan, range)?;
        while !clusters.is_empty() {
            let some = clusters.drain(..clusters.len().min(CLUSTERS_AT_ONCE));
            let some: Vec<Cluster> = some.collect();
            let images = some.iter().map(|cluster| cluster.members.len()).sum();
            let found = some
                .into_par_iter()
                .map(|cluster| match_cluster(args, context, &cluster))
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

/// Ranks a cluster and finds its duplicates.
fn match_cluster(
    args: &Match,
    context: &Context,
    cluster: &Cluster,
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
    let order = rank(&candidates, args.keep, args.seed, cluster.number);
    let mut ranked = Vec::with_capacity(cluster.vectors.len());
    for &member in &order {
        ranked.extend_from_slice(&cluster.vectors[member * dimension..][..dimension]);
    }
    let rule = match args.keep {
        Keep::Best => Rule::KeptOnly,
        Keep::Hard | Keep::Easy | Keep::Random => Rule::AnyEarlier,
    };
    let reason = Reason::from(reason_of(Method::Semantic));
    let (mut counts, mut rows) = (Counts::default(), Vec::new());
    let check = || context.check_stop();
    let found = matches(&ranked, dimension, args.eps.threshold(), rule, &check)?;
    for (place, found) in found.into_iter().enumerate() {
        counts.add(context.step(), found.as_ref().map(|_| &reason));
        if let Some(found) = found {
            let member = &members[order[place]];
            rows.push(DuplicateRow {
                partition: member.partition,
                image_id: member.image_id.clone(),
                duplicate_of: members[order[found.of]].image_id.clone(),
                similarity: found.similarity,
                method: Method::Semantic,
            });
        }
    }
    Ok((counts, rows))
}
