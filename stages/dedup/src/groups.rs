//! Semantic duplicates: `match`, group of clusters by group of clusters.

use std::collections::BTreeMap;

use anyhow::Result;
use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float32Type, UInt32Type, UInt64Type};
use rayon::prelude::*;
use serde_json::json;
use sluice_harness::{Context, Plan, Work};
use sluice_manifest::rows::{ASSIGNMENTS, DuplicateRow, Method};
use sluice_manifest::{Counts, Error, ImageId, Partition, Reason, Unit, dag, layout};
use sluice_store::vectors;

use crate::arguments::Match;
use crate::matching::{Rule, matches};
use crate::ranking::{Candidate, Keep, rank};
use crate::semantic::{Embedder, IMAGES_PER_GROUP};
use crate::write_duplicates;

/// Clusters that are compared between two looks at whether to stop.
const CLUSTERS_AT_ONCE: usize = 16;
/// Exact copies have a cosine of 1 within this rounding.
const LEAST_EPS: f32 = 1e-6;

/// Compares the embeddings inside the clusters, a group of clusters after the other.
pub fn match_groups(args: &Match, context: &Context) -> Result<()> {
    if !(0.0..=2.0).contains(&args.eps) {
        return Err(Error::usage(format!("--eps {}: outside 0 to 2", args.eps)).into());
    }
    let plan = context.plan()?;
    let fitted = context.required_receipt(&dag::DEDUP_FIT, &Unit::once("fit"))?;
    let clusters = fitted.sums.get("clusters").copied().unwrap_or(0);
    let assigned = context.required_receipts(&dag::DEDUP_ASSIGN, &plan.units())?;
    let images: u64 = assigned.iter().map(|receipt| receipt.counts.kept).sum();
    let auto = images.div_ceil(IMAGES_PER_GROUP);
    let groups = args
        .groups
        .map_or(auto, u64::from)
        .clamp(1, clusters.max(1));
    let units: Vec<Unit> = (0..groups as u32)
        .map(|index| Unit::numbered("group", index))
        .collect();
    context.remove_stale(&dag::DEDUP_MATCH, "group", &units)?;
    let bound = |index: usize| (clusters * index as u64 / groups) as u32;
    context.each_unit(&dag::DEDUP_MATCH, units.clone(), 1, |unit| {
        let index = units.iter().position(|other| other == unit).unwrap_or_default();
        let work = Work {
            step: &dag::DEDUP_MATCH,
            version: 1,
            unit,
            units: units.len(),
            settings: json!({ "eps": args.eps, "keep": args.keep, "seed": args.seed, "groups": groups }),
            basis: None,
            inputs: vec![context.combined_input(&dag::DEDUP_ASSIGN, &plan.units())?],
        };
        let Some(mut task) = context.begin(work)? else {
            return Ok(());
        };
        let mut counts = Counts::default();
        let mut rows = Vec::new();
        let mut clusters = read_clusters(context, &plan, bound(index)..bound(index + 1))?;
        while !clusters.is_empty() {
            let some: Vec<Cluster> = clusters.drain(..clusters.len().min(CLUSTERS_AT_ONCE)).collect();
            let images = some.iter().map(|cluster| cluster.members.len()).sum();
            let found: Vec<_> = some.into_par_iter().map(|cluster| match_cluster(args, &cluster)).collect();
            for (of_cluster, removed) in found {
                counts.merge(&of_cluster);
                rows.extend(removed);
            }
            task.advance(images)?;
        }
        task.wrote(write_duplicates(context, &task.path("duplicates"), rows)?);
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

/// The images of a range of clusters, from all partitions. Ascending; none without images.
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
        let path = layout::manifest("dedup", "assignments", &unit);
        let table = context.run.table(&path, ASSIGNMENTS, &columns)?;
        let dimension = Embedder::of(&table)?.dimension;
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
fn match_cluster(args: &Match, cluster: &Cluster) -> (Counts, Vec<DuplicateRow>) {
    let (members, dimension) = (&cluster.members, cluster.dimension);
    let candidates: Vec<Candidate<'_>> = members
        .iter()
        .map(|member| Candidate {
            image_id: member.image_id.as_str(),
            score: member.score,
            pixels: member.pixels,
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
    let threshold = 1.0 - args.eps.max(LEAST_EPS);
    let (mut counts, mut rows) = (Counts::default(), Vec::new());
    let found = matches(&ranked, dimension, threshold, rule);
    for (place, found) in found.into_iter().enumerate() {
        counts.add(found.as_ref().map(|_| Reason::SemanticDuplicate));
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
    (counts, rows)
}
