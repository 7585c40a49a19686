//! What clusters do to the result and to the time, measured on made-up unit vectors.
//!
//! ```text
//! cargo run --release -p sluice-knn --example clusters -- recall ROWS DIMENSION CLUSTERS EPS PROBES[,PROBES…]
//! cargo run --release -p sluice-knn --example clusters -- skew ROWS DIMENSION CLUSTERS EPS
//! ```
//!
//! `recall`: what clusters and probes find of the duplicates among all pairs. A fifth of the vectors is one clump of near-copies, a tenth are near-copies of others, a tenth chains in
//! which each is like the one before, the rest are of many topics. The order of the rows is the rank. Brute
//! force is one cluster of all. Prints a JSON object for each number of probes: `recall` and `precision` of
//! the removed rows against brute force by the same rule, `cpu` of assigning and matching, `peak_mb`.
//!
//! `skew`: near-copies of one vector, all in one cluster or spread evenly over the clusters, by our default
//! rule. Prints a JSON object for each: `seconds`, `cpu`, `peak_mb`, `removed`.

#[expect(dead_code, reason = "these vectors come from no file")]
mod common;

use std::time::Instant;

use anyhow::Result;
use rayon::prelude::*;
use sluice_knn::kmeans::{self, Centroids, KMeansSettings};
use sluice_knn::matching::{RemovalRule, matches};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["recall", rows, dim, clusters, eps, probes] => recall(
            made(rows.parse()?, dim.parse()?),
            dim.parse()?,
            clusters.parse()?,
            eps.parse()?,
            probes,
        ),
        ["skew", rows, dim, clusters, eps] => {
            skew(rows.parse()?, dim.parse()?, clusters.parse()?, eps.parse()?)
        }
        _ => anyhow::bail!("usage: clusters recall|skew ROWS DIMENSION CLUSTERS EPS [PROBES]"),
    }
}

#[expect(clippy::print_stdout, reason = "a program of its own")]
fn recall(vectors: Vec<f32>, dim: usize, clusters: usize, eps: f32, probes: &str) -> Result<()> {
    let sample = &vectors[..vectors.len().min(64_000 * dim)];
    let settings = KMeansSettings {
        max_iterations: 10,
        ..KMeansSettings::new(clusters, 42)
    };
    let centroids = kmeans::fit(sample, dim, &settings, &|| Ok(()))?;
    for (name, rule) in [
        ("best", RemovalRule::KeptOnly),
        ("nemo", RemovalRule::AnyEarlier),
    ] {
        let before = common::cpu_seconds();
        let all = matches(&vectors, dim, 1.0 - eps, rule, &|| Ok(()))?;
        let brute: Vec<bool> = all.iter().map(Option::is_some).collect();
        let (removed, cpu) = (count(&brute), common::cpu_seconds() - before);
        println!(r#"{{"rule": "{name}", "probes": "all", "removed": {removed}, "cpu": {cpu:.1}}}"#);
        for probes in probes.split(',') {
            let before = common::cpu_seconds();
            let removed = probed(&vectors, &centroids, probes.parse()?, 1.0 - eps, rule)?;
            let cpu = common::cpu_seconds() - before;
            let pairs = removed.iter().zip(&brute);
            let both = pairs.filter(|(a, b)| **a && **b).count() as f64;
            let recall = both / count(&brute).max(1) as f64;
            let precision = both / count(&removed).max(1) as f64;
            let (removed, peak_mb) = (count(&removed), common::peak_mb());
            println!(
                r#"{{"rule": "{name}", "probes": {probes}, "removed": {removed}, "recall": {recall:.5}, "precision": {precision:.5}, "cpu": {cpu:.1}, "peak_mb": {peak_mb:.0}}}"#
            );
        }
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a program of its own")]
fn skew(rows: usize, dim: usize, clusters: usize, eps: f32) -> Result<()> {
    let mut random = Random(7);
    let centre = unit(random.normals(dim));
    let mut vectors = Vec::with_capacity(rows * dim);
    for _ in 0..rows {
        vectors.extend(random.near(&centre, 0.05));
    }
    for (name, size) in [("even", rows.div_ceil(clusters)), ("one", rows)] {
        let (began, before) = (Instant::now(), common::cpu_seconds());
        let found = vectors.par_chunks(size * dim).map(|cluster| {
            matches(cluster, dim, 1.0 - eps, RemovalRule::KeptOnly, &|| Ok(()))
                .map(|found| found.iter().flatten().count())
        });
        let removed: usize = found
            .collect::<sluice_manifest::Result<Vec<_>>>()?
            .iter()
            .sum();
        let (seconds, cpu) = (
            began.elapsed().as_secs_f64(),
            common::cpu_seconds() - before,
        );
        let peak_mb = common::peak_mb();
        println!(
            r#"{{"clusters": "{name}", "seconds": {seconds:.2}, "cpu": {cpu:.2}, "peak_mb": {peak_mb:.0}, "removed": {removed}}}"#
        );
    }
    Ok(())
}

fn count(rows: &[bool]) -> usize {
    rows.iter().filter(|row| **row).count()
}

/// Which rows are removed where each is also compared in its next clusters, as `assign` and `match` do.
fn probed(
    vectors: &[f32],
    centroids: &Centroids,
    probes: usize,
    threshold: f32,
    rule: RemovalRule,
) -> Result<Vec<bool>> {
    let dim = centroids.dim;
    let nearest = kmeans::nearest_clusters(vectors, centroids, probes, &|| Ok(()))?;
    let mut clusters: Vec<Vec<(usize, bool)>> = vec![Vec::new(); centroids.len()];
    for (row, nearest) in nearest.iter().enumerate() {
        for (place, &cluster) in nearest.iter().enumerate() {
            clusters[cluster as usize].push((row, place == 0));
        }
    }
    let found = clusters.par_iter().map(|members| -> Result<Vec<usize>> {
        let mut own = Vec::with_capacity(members.len() * dim);
        for (row, _) in members {
            own.extend_from_slice(&vectors[row * dim..][..dim]);
        }
        let found = matches(&own, dim, threshold, rule, &|| Ok(()))?;
        let of_members = members.iter().zip(found);
        let removed = of_members.filter(|((_, is_home), found)| *is_home && found.is_some());
        Ok(removed.map(|((row, _), _)| *row).collect())
    });
    let mut removed = vec![false; vectors.len() / dim];
    for row in found.collect::<Result<Vec<_>>>()?.into_iter().flatten() {
        removed[row] = true;
    }
    Ok(removed)
}

/// Returns the vectors in random order.
fn made(rows: usize, dim: usize) -> Vec<f32> {
    let mut random = Random(7);
    let mut values: Vec<Vec<f32>> = Vec::with_capacity(rows);
    let clump = unit(random.normals(dim));
    let topics: Vec<Vec<f32>> = (0..rows.div_ceil(50))
        .map(|_| random.normals(dim))
        .collect();
    for row in 0..rows {
        let before = random.below(row.max(1));
        let vector = match random.below(10) {
            0 | 1 => random.near(&clump, 0.05),
            2 if row > 0 => random.near(&values[before].clone(), 0.08),
            // A step from the vector before is within 0.01, two steps are not.
            3 if row > 0 => random.near(&values[row - 1].clone(), 0.13),
            _ => {
                let topic = topics[random.below(topics.len())].clone();
                random.near(&unit(topic), 1.2)
            }
        };
        values.push(vector);
    }
    let mut order: Vec<usize> = (0..rows).collect();
    for place in (1..rows).rev() {
        order.swap(place, random.below(place + 1));
    }
    order
        .into_iter()
        .flat_map(|row| std::mem::take(&mut values[row]))
        .collect()
}

fn unit(vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    vector.into_iter().map(|value| value / length).collect()
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// About normal: the sum of four uniform numbers.
    fn normals(&mut self, count: usize) -> Vec<f32> {
        let part = |bits: u64, shift: u32| ((bits >> shift) & 0xffff) as f32 / 65536.0;
        let normal = |bits: u64| (0..4).map(|i| part(bits, 16 * i)).sum::<f32>() - 2.0;
        (0..count).map(|_| normal(self.next()) * 1.732).collect()
    }

    /// A unit vector near another: noise of this length is added.
    fn near(&mut self, vector: &[f32], length: f32) -> Vec<f32> {
        let noise = unit(self.normals(vector.len()));
        let sum = vector
            .iter()
            .zip(noise)
            .map(|(value, noise)| value + length * noise);
        unit(sum.collect())
    }
}
