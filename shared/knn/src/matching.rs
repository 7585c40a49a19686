//! Images of one cluster whose embeddings are nearly the same.
//!
//! # Definition
//! The vectors come in rank order, most preferred first. A row is removed when
//! its highest cosine similarity with an earlier row is at least the threshold
//! (`1 - eps`). Which earlier rows count is the [`RemovalRule`]:
//!
//! - [`RemovalRule::AnyEarlier`] is NeMo Curator's: all, also those that are removed
//!   themselves. In a chain A, B, C where B is near A and C is near B
//!   but far from A, both B and C go, and nothing like C is left.
//! - [`RemovalRule::KeptOnly`] is ours: only rows that stay. In the same chain C stays,
//!   since the one image that resembles it is gone. Every removed row is within
//!   the threshold of a row that is still there.
//!
//! # Algorithm
//! A row block at a time, in rank order. Its products with all earlier rows that
//! count are estimated (`estimates.rs`), and those with its own rows. Then the
//! block is walked row by row, because under `KeptOnly` the fate of a row decides
//! whether it counts for the next. The rows that count are kept in the form that
//! the estimates need: as bytes, a quarter of the size of the vectors. Each thread
//! has a block of estimates as well.
//!
//! The estimates only nominate: each product that, within its margin, may reach
//! the threshold and be the row's highest, is computed in `f64`, and those values
//! are what is compared, returned and held against the threshold. So results
//! depend neither on the processor nor on the number of threads, and of equally
//! similar rows the earliest is named.
//!
//! For most pairs a quarter of the values shows that they are far from the
//! threshold: coarser estimates from those come first (heads, `codes.rs`).

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use sluice_manifest::Result;

use crate::Check;
use crate::estimates::{Estimates, Estimator, Right};
use crate::products::{at_least, dot, maximum};

/// Blocks of earlier rows that are worth more than one thread.
const PARALLEL: usize = 8;

/// Estimates from heads pay where they leave open less than one product of so
/// many; where they do not, the cluster goes on without.
pub(crate) const HEADS_PAY: usize = 64;

/// Which earlier rows can remove a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RemovalRule {
    /// Those that are kept (ours).
    #[default]
    KeptOnly,
    /// All earlier ones (NeMo Curator's).
    AnyEarlier,
}

/// The earlier row most similar to some row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Match {
    /// That earlier row; the earliest of equally similar ones.
    pub of: usize,
    /// Cosine similarity with it. May exceed 1 by the rounding of the vectors.
    pub similarity: f32,
}

/// For each row of `vectors` (n x `dim`, L2-normalised, in rank order) the
/// earlier row that it duplicates: `Some` means removed.
///
/// # Errors
/// Of `check`.
///
/// # Panics
/// When `vectors` does not hold whole rows of `dim` values, or `dim` is 0.
pub fn matches(
    vectors: &[f32],
    dim: usize,
    threshold: f32,
    rule: RemovalRule,
    check: Check<'_>,
) -> Result<Vec<Option<Match>>> {
    assert!(dim > 0, "vectors have at least one dimension");
    let estimator = Estimator::new(vec![0.0; dim]);
    matches_by(&estimator, &[], vectors, threshold, rule, check)
}

/// Like [`matches`] by [`RemovalRule::KeptOnly`], for vectors that do not fit into memory together. `read` returns
/// the vectors of a range of rows, `at_once` at most. Memory is that of one range and of the rows that stay.
///
/// # Errors
/// Of `read` and `check`.
///
/// # Panics
/// Like [`matches`]. Panics if `at_once` is 0.
pub fn matches_in_parts(
    rows: usize,
    at_once: usize,
    mut read: impl FnMut(Range<usize>) -> Result<Vec<f32>>,
    dim: usize,
    threshold: f32,
    check: Check<'_>,
) -> Result<Vec<Option<Match>>> {
    assert!(dim > 0, "vectors have at least one dimension");
    let estimator = Estimator::new(vec![0.0; dim]);
    let mut matches: Vec<Option<Match>> = Vec::with_capacity(rows);
    let (mut kept, mut kept_rows) = (Vec::new(), Vec::new());
    for first in (0..rows).step_by(at_once) {
        let vectors = read(first..rows.min(first + at_once))?;
        let before = kept_rows.len();
        let found = matches_by(
            &estimator,
            &kept,
            &vectors,
            threshold,
            RemovalRule::KeptOnly,
            check,
        )?;
        for (index, (found, vector)) in found.into_iter().zip(vectors.chunks_exact(dim)).enumerate()
        {
            matches.push(found.map(|found| Match {
                of: match found.of.checked_sub(before) {
                    None => kept_rows[found.of],
                    Some(own) => first + own,
                },
                ..found
            }));
            if found.is_none() {
                kept.extend_from_slice(vector);
                kept_rows.push(first + index);
            }
        }
    }
    Ok(matches)
}

/// Like [`matches`], after the rows `before`, which stay. The rows that a match names count from the first
/// of these.
fn matches_by(
    estimator: &Estimator,
    before: &[f32],
    vectors: &[f32],
    threshold: f32,
    rule: RemovalRule,
    check: Check<'_>,
) -> Result<Vec<Option<Match>>> {
    let mut matches = Vec::with_capacity(vectors.len() / estimator.dim());
    walk(estimator, before, vectors, threshold, check, |best| {
        let found = best.filter(|best| best.similarity >= threshold);
        matches.push(found);
        found.is_none() || rule == RemovalRule::AnyEarlier
    })?;
    Ok(matches)
}

/// For each row its most similar earlier row, whatever the similarity; `None`
/// for the first.
///
/// This is what NeMo Curator's pairwise stage writes (`max_id`,
/// `cosine_sim_score`), except that NeMo gives the first row itself, with a
/// similarity of 0.
pub fn nearest(vectors: &[f32], dim: usize) -> Vec<Option<Match>> {
    assert!(dim > 0, "vectors have at least one dimension");
    let mut matches = Vec::with_capacity(vectors.len() / dim);
    let estimator = Estimator::new(vec![0.0; dim]);
    let walked = walk(
        &estimator,
        &[],
        vectors,
        f32::NEG_INFINITY,
        &|| Ok(()),
        |best| {
            matches.push(best);
            true
        },
    );
    // Unwrap safety: the check does not fail.
    walked.unwrap();
    matches
}

/// Calls `decide` for each row of `vectors`, in order, with the best match among
/// the rows `before` and the earlier rows for which `decide` returned true. Rows
/// count from the first of `before`. Similarities below `floor` may be left out.
/// Fails when `check` does.
fn walk(
    estimator: &Estimator,
    before: &[f32],
    vectors: &[f32],
    floor: f32,
    check: Check<'_>,
    mut decide: impl FnMut(Option<Match>) -> bool,
) -> Result<()> {
    let dim = estimator.dim();
    assert!(vectors.len().is_multiple_of(dim), "vectors hold whole rows");
    let count = before.len() / dim;
    let row = |index: usize| match index.checked_sub(count) {
        None => &before[index * dim..][..dim],
        Some(own) => &vectors[own * dim..][..dim],
    };

    let mut counting: Vec<usize> = (0..count).collect(); // earlier rows that count
    let mut counting_right = Right::default();
    for rows in before.chunks(estimator.rows() * dim) {
        let prepared = estimator.prepare(rows);
        let indices = 0..rows.len() / dim;
        indices.for_each(|i| estimator.push(&mut counting_right, &prepared, i, 0.0));
    }
    let mut own = Estimates::default();
    // Estimates from heads decide nothing, so threads may see this change at any time.
    let heads = AtomicBool::new(estimator.has_heads() && floor > f32::NEG_INFINITY);
    for (block, queries) in vectors.chunks(estimator.rows() * dim).enumerate() {
        check()?;
        let first = count + block * estimator.rows();
        let prepared = estimator.prepare(queries);
        let height = queries.len() / dim;

        // The best of each row among a part of the earlier blocks' rows.
        let among = |estimates: &mut Estimates, part: Range<usize>| -> Result<Vec<Option<Match>>> {
            check()?;
            let columns = &counting[part.clone()];
            let search =
                |estimates: &Estimates,
                 margin: fn(&Estimator, &Estimates, usize, &Right) -> f32| {
                    let search = |i: usize| {
                        let margin = margin(estimator, estimates, i, &counting_right);
                        let exact = |column: usize| dot(row(first + i), row(columns[column]));
                        Search { floor, margin }.best(None, estimates.row(i), columns, exact)
                    };
                    (0..height).map(search).collect()
                };
            estimator.load(estimates, &prepared, 0..height);
            if heads.load(Ordering::Relaxed) {
                estimator.estimate_heads(estimates, &counting_right, part.clone());
                let mut open = Vec::new();
                for i in 0..height {
                    let margin = estimator.heads_margin(estimates, i, &counting_right);
                    at_least(estimates.row(i), floor - margin, &mut open);
                }
                if open.len() * HEADS_PAY <= height * columns.len() {
                    return Ok(search(estimates, Estimator::heads_margin));
                }
                heads.store(false, Ordering::Relaxed);
            }
            estimator.estimate(estimates, &counting_right, part);
            Ok(search(estimates, Estimator::margin))
        };
        let parts: Vec<Range<usize>> = counting_right.parts().collect();
        let found: Vec<Vec<Option<Match>>> = if parts.len() < PARALLEL {
            let found = parts.into_iter().map(|part| among(&mut own, part));
            found.collect::<Result<_>>()?
        } else {
            let found = parts.into_par_iter().map_init(Estimates::default, &among);
            found.collect::<Result<_>>()?
        };

        let all: Vec<usize> = (first..first + height).collect();
        let own_right = estimator.right(&prepared, (0..height).map(|i| (i, 0.0)));
        estimator.load(&mut own, &prepared, 0..height);
        estimator.estimate(&mut own, &own_right, 0..height);
        let mut counts = vec![false; height]; // rows of this block that count
        for i in 0..height {
            let earlier = found
                .iter()
                .fold(None, |best, found| better(best, found[i]));
            let mut estimates = own.row(i)[..i].to_vec();
            for (estimate, counts) in estimates.iter_mut().zip(&counts) {
                if !counts {
                    *estimate = f32::NAN; // never a candidate
                }
            }
            let margin = estimator.margin(&own, i, &own_right);
            let exact = |j: usize| dot(row(first + i), row(first + j));
            counts[i] = decide(Search { floor, margin }.best(earlier, &estimates, &all, exact));
        }
        for i in (0..height).filter(|&i| counts[i]) {
            estimator.push(&mut counting_right, &prepared, i, 0.0);
            counting.push(first + i);
        }
    }
    Ok(())
}

/// The search for the earlier row that is most similar to one row.
struct Search {
    floor: f32,
    margin: f32,
}

impl Search {
    /// The better of `best` and the best of the later rows `rows`, given their
    /// estimated similarities.
    fn best(
        &self,
        mut best: Option<Match>,
        estimates: &[f32],
        rows: &[usize],
        exact: impl Fn(usize) -> f64,
    ) -> Option<Match> {
        // What is highest here is at least this similar, so what is below does not matter.
        let highest = maximum(estimates);
        let floor = best.map_or(self.floor, |best| best.similarity);
        let bound = floor.max(highest - self.margin) - self.margin;
        let mut nominated = Vec::new();
        if highest >= bound {
            at_least(estimates, bound, &mut nominated);
        }
        for column in nominated {
            let most = estimates[column] + self.margin;
            if best.is_none_or(|best| most >= best.similarity) {
                let (of, similarity) = (rows[column], exact(column) as f32);
                best = better(best, Some(Match { of, similarity }));
            }
        }
        best
    }
}

/// The more similar of two matches, of which the second is the later row.
fn better(earlier: Option<Match>, later: Option<Match>) -> Option<Match> {
    match (earlier, later) {
        (Some(earlier), Some(later)) if later.similarity > earlier.similarity => Some(later),
        (None, later) => later,
        (earlier, _) => earlier,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codes::Coder;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// To the last bit: estimates decide nothing.
        #[test]
        fn matches_do_not_depend_on_how_products_are_estimated(
            rows in prop::collection::vec((0..9_usize, prop::array::uniform7(-0.2_f32..0.2)), 0..300),
            threshold in -1.0_f32..1.0,
        ) {
            let dim = 7;
            let vectors: Vec<f32> = rows
                .iter()
                .flat_map(|(topic, noise)| {
                    let value = |i: usize| noise[i] + if topic % dim == i { 1.0 } else { 0.0 };
                    let vector: Vec<f32> = (0..dim).map(value).collect();
                    let length = dot(&vector, &vector).sqrt() as f32;
                    vector.into_iter().map(move |value| value / length)
                })
                .collect();
            let bytes = Estimator::Bytes(Coder::new(vec![0.0; dim]));
            let floats = Estimator::Floats { dim };
            for rule in [RemovalRule::KeptOnly, RemovalRule::AnyEarlier] {
                let by = |estimator| {
                    matches_by(estimator, &[], &vectors, threshold, rule, &|| Ok(())).unwrap()
                };
                prop_assert_eq!(by(&bytes), by(&floats));
            }
        }
    }
}
