//! Semantic duplicates: `match`, group of clusters by group of clusters.
//!
//! # Memory
//! That of the vectors of a group, and of those of [`CLUSTERS_AT_ONCE`] clusters again. A cluster far
//! larger than the others (a million near-identical images) is read in parts of 256 MiB, in rank order: in
//! memory are one part, the vectors that stay, and 130 bytes and the name of each member. By `best` that
//! is little where nearly all are duplicates, and the result is the same.

use std::ops::Range;

use anyhow::Result;
use rayon::prelude::*;
use sluice_harness::{Context, Work};
use sluice_knn::matching::{self, RemovalRule, matches, matches_in_parts};
use sluice_knn::targets::Targets;
use sluice_manifest::rows::{ASSIGNMENTS, DuplicateRow, Method};
use sluice_manifest::{ABOUT_EPS, Counts, Error, Input, Receipt, StepName, Unit, UnitKind, layout};
use sluice_run::Plan;

use crate::arguments::{Eps, Match};
use crate::clusters::{Cluster, read_clusters};
use crate::distance::distance;
use crate::embeddings::Encoder;
use crate::hashes::{duplicate, in_reference, publish_duplicates};
use crate::index::open::{Comparison, Known, References};
use crate::ranking::{Candidate, KeepRule, rank_among};
use crate::semantic::IMAGES_PER_GROUP;
use crate::settings::{AssignSettings, MatchSettings};
use crate::survivors::{check_same_step, made_by};

/// Clusters that are compared between two checks whether to stop.
const CLUSTERS_AT_ONCE: usize = 16;

/// Refuses partitions that were assigned with different `--probes`.
fn refuse_mixed_probes(step: &StepName, assigned: &[Receipt]) -> Result<()> {
    let mut probes = None;
    for receipt in assigned {
        let settings: AssignSettings = receipt.settings()?;
        let first = *probes.get_or_insert(settings.probes);
        if settings.probes != first {
            let (unit, other) = (receipt.unit, settings.probes);
            return Err(Error::data(format!(
                "{step}: {unit} was assigned with --probes {other}, others with {first}"
            ))
            .hint(format!(
                "run sluice-dedup assign --step {step} for all partitions with the same --probes"
            ))
            .into());
        }
    }
    Ok(())
}

/// Compares the embeddings inside the clusters, one group of clusters after the other.
///
/// # Errors
/// Data, when `fit` or `assign` has not been run, or for other survivors; of storage.
pub(crate) fn match_groups(args: &Match, context: &Context) -> Result<()> {
    let methods = args.stage.methods();
    let comparison = Comparison::Semantic;
    let references = References::open(&context.storage, &args.references, &methods, comparison)?;
    references.report(context);
    let plan = context.plan()?;
    let step = context.step();
    let fitted = context.required_receipt(step, Unit::once(UnitKind::Fit));
    let fitted = made_by("fit", context, fitted)?;
    let clusters = fitted.sums.clusters;
    let chosen = distance(args.eps, context, &fitted)?;
    let assigned = context.required_receipts(step, &plan.units());
    let assigned = made_by("assign", context, assigned)?;
    let mut images = 0;
    refuse_mixed_probes(step, &assigned)?;
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
    let mut inputs = vec![Input::units(step, UnitKind::Partition, fingerprints)];
    inputs.extend(references.inputs());
    if references.are_compared() {
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
                seed: (args.keep == KeepRule::Random).then_some(args.seed),
                groups,
                against: references.names(),
            },
            inputs: inputs.clone(),
        };
        let state = |receipt: &mut Receipt| receipt.set_about(ABOUT_EPS, &chosen.because);
        let Some(mut open_unit) = context.begin_described(work, state)? else {
            return Ok(());
        };
        let range = bound(unit.index)..bound(unit.index + 1);
        let mut clusters = read_clusters(context, &plan, range)?;
        let mut rows = remove_known(chosen.eps, context, &plan, &references, &mut clusters)?;
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
                .map(|cluster| match_cluster(args, chosen.eps, context, &plan, cluster))
                .collect::<Result<Vec<_>>>()?;
            for (of_cluster, removed) in found {
                counts.merge(&of_cluster);
                rows.extend(removed);
            }
            open_unit.advance(images)?;
        }
        open_unit.decides(&methods.deciding_kinds());
        publish_duplicates(context, &mut open_unit, rows)?;
        Ok(open_unit.commit(counts)?)
    })
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
    plan: &Plan,
    references: &References,
    clusters: &mut [Cluster],
) -> Result<Vec<DuplicateRow>> {
    if clusters.is_empty() || !references.are_compared() {
        return Ok(Vec::new());
    }
    let whole = clusters
        .iter()
        .filter_map(|cluster| cluster.vectors.as_ref());
    let whole: Vec<&[f32]> = whole.map(Vec::as_slice).collect();
    let mut known =
        find_known(eps, clusters[0].dimension, context, references, &whole)?.into_iter();
    let mut rows = Vec::new();
    for cluster in clusters {
        match cluster.vectors {
            Some(_) => rows.extend(take_known(cluster, &mut known)),
            None => {
                let mut known = Vec::with_capacity(cluster.members.len());
                let all: Vec<usize> = (0..cluster.members.len()).collect();
                for members in all.chunks(cluster.rows_at_once()) {
                    let vectors = cluster.read(context, plan, members)?;
                    let (vectors, dimension) = (&[vectors.as_slice()], cluster.dimension);
                    known.extend(find_known(eps, dimension, context, references, vectors)?);
                }
                rows.extend(take_known(cluster, &mut known.into_iter()));
            }
        }
    }
    Ok(rows)
}

/// Returns, for each vector, the most similar image of the reference sets.
fn find_known(
    eps: Eps,
    dimension: usize,
    context: &Context,
    references: &References,
    vectors: &[&[f32]],
) -> Result<Vec<Option<Known>>> {
    let mut targets = Targets::new(dimension, eps.threshold());
    vectors.iter().for_each(|vectors| targets.add(vectors));
    let count: usize = vectors
        .iter()
        .map(|vectors| vectors.len() / dimension)
        .sum();
    let mut known: Vec<Option<Known>> = vec![None; count];
    let check = || context.check_stop();
    references.each_embedded(&check, &mut |embedded| {
        for nearer in targets.compare(embedded.vectors, &check)? {
            known[nearer.target] = Some(embedded.known(nearer.reference, nearer.similarity));
        }
        Ok(())
    })?;
    Ok(known)
}

/// Takes the members out of a cluster that are known, and returns their rows. `known` has one entry for
/// each.
fn take_known(
    cluster: &mut Cluster,
    known: &mut impl Iterator<Item = Option<Known>>,
) -> Vec<DuplicateRow> {
    let dimension = cluster.dimension;
    let members = std::mem::take(&mut cluster.members);
    let mut stay = Vec::with_capacity(members.len());
    let mut rows = Vec::new();
    for (member, known) in members.into_iter().zip(known) {
        stay.push(known.is_none());
        match known {
            Some(known) if member.home == cluster.number => {
                let (partition, id) = (member.partition, &member.image_id);
                rows.push(in_reference(partition, id, known, Method::Semantic));
            }
            // Its own cluster has its row.
            Some(_) => {}
            None => cluster.members.push(member),
        }
    }
    if let Some(vectors) = &mut cluster.vectors {
        let own = stay.into_iter().zip(vectors.chunks_exact(dimension));
        let left = own.filter_map(|(stays, vector)| stays.then_some(vector));
        *vectors = left.flatten().copied().collect();
    }
    rows
}

/// Ranks a cluster and finds its duplicates.
fn match_cluster(
    args: &Match,
    eps: Eps,
    context: &Context,
    plan: &Plan,
    cluster: Cluster,
) -> Result<(Counts, Vec<DuplicateRow>)> {
    let candidates = cluster.members.iter().map(|member| Candidate {
        image_id: member.image_id.as_str(),
        score: member.score,
        pixels: member.pixels,
        texts: 0,
        distance: member.distance,
    });
    let candidates: Vec<Candidate<'_>> = candidates.collect();
    let homes: Vec<u32> = cluster.members.iter().map(|member| member.home).collect();
    let order = rank_among(&candidates, &homes, args.keep, args.seed);
    let found = find_matches(args.keep, eps, context, plan, &cluster, &order)?;
    let (mut counts, mut rows) = (Counts::default(), Vec::new());
    for (place, found) in found.into_iter().enumerate() {
        let member = &cluster.members[order[place]];
        if member.home != cluster.number {
            continue;
        }
        let row = found.map(|found| {
            let kept = cluster.members[order[found.of]].image_id.clone();
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

/// Returns the match of each member, in rank order.
fn find_matches(
    keep: KeepRule,
    eps: Eps,
    context: &Context,
    plan: &Plan,
    cluster: &Cluster,
    order: &[usize],
) -> Result<Vec<Option<matching::Match>>> {
    let (dimension, threshold) = (cluster.dimension, eps.threshold());
    let check = || context.check_stop();
    let rule = match keep {
        KeepRule::Best => RemovalRule::KeptOnly,
        KeepRule::Hard | KeepRule::Easy | KeepRule::Random => RemovalRule::AnyEarlier,
    };
    let vectors = match (&cluster.vectors, rule) {
        (None, RemovalRule::KeptOnly) => {
            let read = |part: Range<usize>| cluster.read(context, plan, &order[part]);
            let at_once = cluster.rows_at_once();
            let rows = order.len();
            let found = matches_in_parts(rows, at_once, read, dimension, threshold, &check)?;
            return Ok(found);
        }
        // By NeMo's rules all rows count, so they have to be in memory.
        (None, RemovalRule::AnyEarlier) => cluster.read(context, plan, order)?,
        (Some(vectors), _) => in_order(vectors, dimension, order),
    };
    Ok(matches(&vectors, dimension, threshold, rule, &check)?)
}

/// Returns the rows `order` of vectors.
fn in_order(vectors: &[f32], dimension: usize, order: &[usize]) -> Vec<f32> {
    let rows = order.iter();
    let rows = rows.flat_map(|row| &vectors[row * dimension..][..dimension]);
    rows.copied().collect()
}
