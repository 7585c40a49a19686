//! The vectors of a group of clusters, compared with those of reference sets.
//!
//! Every product of a reference vector with a vector of the group counts, whatever the clusters: the
//! result is that of brute force. As in `matching.rs` all products are estimated, first by a quarter of
//! their values, and those that may reach the threshold are computed in `f64`. The vectors of the group
//! stay in memory in the form that the estimates need, those of the reference sets pass by.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use sluice_manifest::Result;

use crate::Check;
use crate::bytes::RIGHT;
use crate::estimates::{COLUMNS, Estimates, Estimator, Prepared, Right};
use crate::matching::HEADS_PAY;
use crate::products::{at_least, dot};

/// Vectors to find in reference sets.
pub struct Targets<'a> {
    estimator: Estimator,
    right: Right,
    rows: Vec<&'a [f32]>,
    /// For each vector its highest similarity so far.
    best: Vec<f32>,
    floor: f32,
    /// Whether estimates from heads pay. They decide nothing, so threads may see a change at any time.
    heads: AtomicBool,
}

/// A vector that a reference vector is more similar to than all before, and at least the threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Nearer {
    /// The vector, in the order in which they were added.
    pub target: usize,
    /// The reference vector, among those compared.
    pub reference: usize,
    /// Their cosine similarity.
    pub similarity: f32,
}

impl<'a> Targets<'a> {
    /// Returns a set without vectors, of `dim` values each. Similarities below `floor` do not count.
    pub fn new(dim: usize, floor: f32) -> Self {
        let estimator = Estimator::new(vec![0.0; dim]);
        Self {
            heads: AtomicBool::new(estimator.has_heads()),
            estimator,
            right: Right::default(),
            rows: Vec::new(),
            best: Vec::new(),
            floor,
        }
    }

    /// Adds vectors, one after the other.
    pub fn add(&mut self, vectors: &'a [f32]) {
        let prepared = self.estimator.prepare(vectors);
        let rows = vectors.chunks_exact(self.estimator.dim());
        for (index, row) in rows.enumerate() {
            self.estimator.push(&mut self.right, &prepared, index, 0.0);
            self.rows.push(row);
            self.best.push(f32::NEG_INFINITY);
        }
    }

    /// Compares with reference vectors. Of equally similar ones the first counts.
    ///
    /// # Errors
    /// Of `check`.
    pub fn compare(&mut self, references: &[f32], check: Check<'_>) -> Result<Vec<Nearer>> {
        let prepared = self.estimator.prepare(references);
        let share = self.rows.len().div_ceil(rayon::current_num_threads());
        let columns = share.next_multiple_of(RIGHT).clamp(RIGHT, COLUMNS);
        let mut best = std::mem::take(&mut self.best);
        let nearer = best
            .par_chunks_mut(columns)
            .enumerate()
            .map_init(Estimates::default, |estimates, (number, best)| {
                let first = number * columns;
                let part = first..first + best.len();
                self.compare_part(estimates, &prepared, part, best, check)
            })
            .collect::<Result<Vec<_>>>();
        self.best = best;
        Ok(nearer?.concat())
    }

    fn compare_part(
        &self,
        estimates: &mut Estimates,
        references: &Prepared<'_>,
        part: Range<usize>,
        best: &mut [f32],
        check: Check<'_>,
    ) -> Result<Vec<Nearer>> {
        let dim = self.estimator.dim();
        let count = references.vectors.len() / dim;
        let mut from = vec![None; best.len()];
        let mut open = Vec::new();
        for first in (0..count).step_by(self.estimator.rows()) {
            check()?;
            let block = first..count.min(first + self.estimator.rows());
            let margin = self.estimate(estimates, references, &block, &part);
            for (i, reference) in block.enumerate() {
                let margin = margin(&self.estimator, estimates, i, &self.right);
                let row = estimates.row(i);
                open.clear();
                at_least(row, self.floor - margin, &mut open);
                for &column in &open {
                    if row[column] + margin < best[column] {
                        continue;
                    }
                    let vector = &references.vectors[reference * dim..][..dim];
                    let similarity = dot(self.rows[part.start + column], vector) as f32;
                    if similarity >= self.floor && similarity > best[column] {
                        best[column] = similarity;
                        from[column] = Some(reference);
                    }
                }
            }
        }
        let nearer = from.into_iter().enumerate();
        let nearer = nearer.filter_map(|(column, reference)| {
            Some(Nearer {
                target: part.start + column,
                reference: reference?,
                similarity: best[column],
            })
        });
        Ok(nearer.collect())
    }

    /// Estimates the products of a block of reference vectors with a part of the vectors, and returns
    /// the function that computes the margin of the estimates.
    fn estimate(
        &self,
        estimates: &mut Estimates,
        references: &Prepared<'_>,
        block: &Range<usize>,
        part: &Range<usize>,
    ) -> fn(&Estimator, &Estimates, usize, &Right) -> f32 {
        self.estimator.load(estimates, references, block.clone());
        if self.heads.load(Ordering::Relaxed) {
            self.estimator
                .estimate_heads(estimates, &self.right, part.clone());
            let mut open = Vec::new();
            for i in 0..block.len() {
                let margin = self.estimator.heads_margin(estimates, i, &self.right);
                at_least(estimates.row(i), self.floor - margin, &mut open);
            }
            if open.len() * HEADS_PAY <= block.len() * part.len() {
                return Estimator::heads_margin;
            }
            self.heads.store(false, Ordering::Relaxed);
        }
        self.estimator
            .estimate(estimates, &self.right, part.clone());
        Estimator::margin
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unit(values: [f32; 5]) -> Vec<f32> {
        let length = dot(&values, &values).sqrt().max(1e-9) as f32;
        values.iter().map(|value| value / length).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// For reference vectors in parts of any size.
        #[test]
        fn it_is_brute_force(
            own in prop::collection::vec(prop::array::uniform5(-1.0_f32..1.0), 1..90),
            others in prop::collection::vec(prop::array::uniform5(-1.0_f32..1.0), 1..150),
            floor in 0.5_f32..1.0,
            size in 1..160_usize,
        ) {
            let own: Vec<Vec<f32>> = own.into_iter().map(unit).collect();
            let others: Vec<Vec<f32>> = others.into_iter().map(unit).collect();
            let (first, second) = own.split_at(own.len() / 2);
            let (first, second) = (first.concat(), second.concat());
            let mut targets = Targets::new(5, floor);
            targets.add(&first);
            targets.add(&second);
            let mut found = vec![None; own.len()];
            for (number, part) in others.chunks(size).enumerate() {
                for nearer in targets.compare(&part.concat(), &|| Ok(())).unwrap() {
                    let reference = number * size + nearer.reference;
                    found[nearer.target] = Some((reference, nearer.similarity));
                }
            }
            for (vector, found) in own.iter().zip(found) {
                let mut best: Option<(usize, f32)> = None;
                for (place, other) in others.iter().enumerate() {
                    let similarity = dot(vector, other) as f32;
                    if similarity >= floor && best.is_none_or(|best| similarity > best.1) {
                        best = Some((place, similarity));
                    }
                }
                prop_assert_eq!(found, best);
            }
        }
    }
}
