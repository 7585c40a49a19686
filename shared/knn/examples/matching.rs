//! Duplicates inside given clusters as `match` finds them, measured, one cluster at a time for each thread.
//!
//! ```text
//! cargo run --release -p sluice-knn --example matching -- FILE.npy LABELS.npy EPS any-earlier|kept-only
//! ```
//!
//! Prints a JSON object: `seconds` and `cpu` (with reading the vectors), `peak_mb`, `removed` rows.

mod common;

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;
use sluice_knn::matching::{RemovalRule, matches};

#[expect(clippy::print_stdout, reason = "a program of its own")]
fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, labels, eps, rule] = &args[..] else {
        anyhow::bail!("usage: matching FILE.npy LABELS.npy EPS any-earlier|kept-only");
    };
    let eps: f32 = eps.parse().context("EPS")?;
    let rule = match rule.as_str() {
        "kept-only" => RemovalRule::KeptOnly,
        _ => RemovalRule::AnyEarlier,
    };
    let rows = common::Rows::open(path)?;
    let labels_file = common::Rows::open(labels)?;
    ensure!(labels_file.len == rows.len, "a label for each vector");
    let mut labels = Vec::with_capacity(rows.len);
    labels_file.read(0, rows.len, &mut labels, u32::from_le_bytes)?;
    let mut clusters = vec![Vec::new(); labels.iter().max().map_or(0, |&last| last as usize + 1)];
    for (row, &label) in labels.iter().enumerate() {
        clusters[label as usize].push(row);
    }

    let (began, before) = (Instant::now(), common::cpu_seconds());
    let removed = clusters
        .par_iter()
        .map(|members| -> Result<usize> {
            let mut vectors = Vec::with_capacity(members.len() * rows.dim);
            for &row in members {
                rows.read(row, 1, &mut vectors, f32::from_le_bytes)?;
            }
            let found = matches(&vectors, rows.dim, 1.0 - eps, rule, &|| Ok(()))?;
            Ok(found.iter().flatten().count())
        })
        .try_reduce(|| 0, |a, b| Ok(a + b))?;
    let (seconds, cpu) = (
        began.elapsed().as_secs_f64(),
        common::cpu_seconds() - before,
    );
    let peak_mb = common::peak_mb();
    println!(
        r#"{{"seconds": {seconds:.3}, "cpu": {cpu:.2}, "peak_mb": {peak_mb:.0}, "removed": {removed}}}"#
    );
    Ok(())
}
