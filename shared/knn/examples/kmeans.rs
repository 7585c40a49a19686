//! k-means as `fit` does it, measured: a fixed number of Lloyd iterations on the vectors of a NumPy file.
//!
//! ```text
//! cargo run --release -p sluice-knn --example kmeans -- FILE.npy CLUSTERS ITERATIONS random|plus-plus
//! ```
//!
//! Prints a JSON object: `seconds` and `cpu` of seeding and iterations (not of reading the file), `peak_mb`, `inertia`.

mod common;

use std::time::Instant;

use anyhow::{Context, Result};
use sluice_knn::kmeans::{Centroids, KMeansSettings, inertia, refine, start};

#[expect(clippy::print_stdout, reason = "a program of its own")]
fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, clusters, iterations, seeding] = &args[..] else {
        anyhow::bail!("usage: kmeans FILE.npy CLUSTERS ITERATIONS random|plus-plus");
    };
    let rows = common::Rows::open(path)?;
    let mut vectors = Vec::with_capacity(rows.len * rows.dim);
    rows.read(0, rows.len, &mut vectors, f32::from_le_bytes)?;
    let settings = KMeansSettings {
        clusters: clusters.parse().context("CLUSTERS")?,
        max_iterations: iterations.parse().context("ITERATIONS")?,
        tolerance: f64::NEG_INFINITY, // never stop early
        seed: 42,
    };

    let (began, before) = (Instant::now(), common::cpu_seconds());
    let start = match seeding.as_str() {
        "random" => random(&vectors, rows.dim, settings.clusters),
        _ => start(&vectors, rows.dim, &settings, &|| Ok(()))?,
    };
    let seeding_cpu = common::cpu_seconds() - before;
    let centroids = refine(&vectors, start, &settings, &|| Ok(()))?;
    let (seconds, cpu) = (
        began.elapsed().as_secs_f64(),
        common::cpu_seconds() - before,
    );
    let peak_mb = common::peak_mb();
    let inertia = inertia(&vectors, &centroids);
    println!(
        r#"{{"seconds": {seconds:.3}, "cpu": {cpu:.2}, "seeding_cpu": {seeding_cpu:.2}, "peak_mb": {peak_mb:.0}, "inertia": {inertia:.1}}}"#
    );
    Ok(())
}

/// Rows spread over the data by a multiplicative hash: as good as drawn if the data is in random order.
fn random(vectors: &[f32], dim: usize, clusters: usize) -> Centroids {
    let n = vectors.len() / dim;
    let data = (0..clusters as u64)
        .map(|i| ((i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize * n) >> 32)
        .flat_map(|row| &vectors[row * dim..][..dim])
        .copied()
        .collect();
    Centroids { dim, data }
}
