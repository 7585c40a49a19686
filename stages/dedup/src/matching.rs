//! Images of one cluster whose embeddings are nearly the same.
//!
//! # Definition
//! The vectors come in rank order, most preferred first. A row is removed when
//! its highest cosine similarity with an earlier row is at least the threshold
//! (`1 - eps`). Which earlier rows count is the [`Rule`]:
//!
//! - [`Rule::AnyEarlier`] is NeMo Curator's: all of them, also those that are
//!   removed themselves. In a chain A, B, C where B is near A and C is near B
//!   but far from A, both B and C go, and nothing like C is left.
//! - [`Rule::KeptOnly`] is ours: only rows that stay. In the same chain C stays,
//!   since the one image that resembles it is gone. Every removed row is within
//!   the threshold of a row that is still there.
//!
//! # Algorithm
//! A row block at a time, in rank order. Its products with all earlier rows that
//! count are computed in column blocks, in parallel; of each block and row only
//! the best product is retained. Then the block is multiplied with itself and
//! walked row by row, because under `KeptOnly` the fate of a row decides whether
//! it counts for the next. Memory beside the input: two blocks per thread, and
//! for each row of the block one candidate per column block.
//!
//! The products only nominate (see `products.rs`): the best of each block whose
//! product comes near enough to the threshold to matter is computed again in
//! `f64`, and those values are what is compared, returned and held against the
//! threshold. So results do not depend on the number of threads, and of exact
//! copies the earliest is named even when they lie in different blocks. (Only
//! where two *different* rows of one block are equally similar to within the
//! rounding of `f32`, either may be nominated.)

use rayon::prelude::*;

use crate::products::{dot, dot_products, first_maximum};

/// Rows that are decided together.
const ROWS: usize = 512;

/// Earlier rows in one matrix product.
const COLUMNS: usize = 512;

/// Which earlier rows can remove a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Those that are kept (ours).
    #[default]
    KeptOnly,
    /// All of them (NeMo Curator's).
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
/// # Panics
/// When `vectors` does not hold whole rows of `dim` values, or `dim` is 0.
pub fn matches(vectors: &[f32], dim: usize, threshold: f32, rule: Rule) -> Vec<Option<Match>> {
    let mut matches = Vec::with_capacity(vectors.len() / dim.max(1));
    // Rounding moves a product of unit vectors by at most dim x 2^-24 (and by a
    // hundredth of that as a rule); be generous, it costs next to nothing.
    let slack = dim as f32 * f32::EPSILON;
    walk(vectors, dim, threshold - slack, |best| {
        let found = best.filter(|best| best.similarity >= threshold);
        matches.push(found);
        found.is_none() || rule == Rule::AnyEarlier
    });
    matches
}

/// For each row its most similar earlier row, whatever the similarity; `None`
/// for the first.
///
/// This is what NeMo Curator's pairwise stage writes (`max_id`,
/// `cosine_sim_score`), except that NeMo gives the first row itself, with a
/// similarity of 0.
pub fn nearest(vectors: &[f32], dim: usize) -> Vec<Option<Match>> {
    let mut matches = Vec::with_capacity(vectors.len() / dim.max(1));
    walk(vectors, dim, f32::NEG_INFINITY, |best| {
        matches.push(best);
        true
    });
    matches
}

/// Calls `decide` for each row, in order, with the best match among the earlier
/// rows for which `decide` returned true. Products below `floor` may be left
/// out.
fn walk(vectors: &[f32], dim: usize, floor: f32, mut decide: impl FnMut(Option<Match>) -> bool) {
    assert!(dim > 0, "vectors have at least one dimension");
    assert!(vectors.len().is_multiple_of(dim), "vectors hold whole rows");
    let row = |index: usize| &vectors[index * dim..][..dim];
    // The better of the match so far and the row `of`, which is later.
    let better = |so_far: Option<Match>, query: usize, of: usize| {
        let similarity = dot(row(query), row(of)) as f32;
        match so_far {
            Some(best) if similarity <= best.similarity => Some(best),
            _ => Some(Match { of, similarity }),
        }
    };

    let nominate = |products: &[f32]| {
        first_maximum(products)
            .filter(|&(_, product)| product >= floor)
            .map(|(i, _)| i)
    };

    let mut counting: Vec<usize> = Vec::new(); // earlier rows that count
    for (block, queries) in vectors.chunks(ROWS * dim).enumerate() {
        let first = block * ROWS;
        let height = queries.len() / dim;

        let nominated: Vec<Vec<Option<usize>>> = counting
            .par_chunks(COLUMNS)
            .map_init(
                <(Vec<f32>, Vec<f32>)>::default,
                |(packed, products), columns| {
                    let columns_data = gather(vectors, dim, columns, packed);
                    products.resize(height * columns.len(), 0.0);
                    dot_products(queries, columns_data, dim, products);
                    products
                        .chunks_exact(columns.len())
                        .map(|products| nominate(products).map(|i| columns[i]))
                        .collect()
                },
            )
            .collect();

        let mut own = vec![0.0; height * height];
        dot_products(queries, queries, dim, &mut own);
        let mut counts = [false; ROWS]; // rows of this block that count
        for i in 0..height {
            let mut best: Option<Match> = None;
            for of in nominated.iter().filter_map(|nominated| nominated[i]) {
                best = better(best, first + i, of);
            }
            let products = &mut own[i * height..][..i];
            for (product, counts) in products.iter_mut().zip(counts) {
                if !counts {
                    *product = f32::NAN; // never a maximum
                }
            }
            if let Some(j) = nominate(products) {
                best = better(best, first + i, first + j);
            }
            counts[i] = decide(best);
        }
        counting.extend((0..height).filter(|&i| counts[i]).map(|i| first + i));
    }
}

/// The rows `columns` of `vectors`, one after the other: a part of `vectors`
/// itself where they are adjacent, else copied to `packed`.
fn gather<'a>(
    vectors: &'a [f32],
    dim: usize,
    columns: &[usize],
    packed: &'a mut Vec<f32>,
) -> &'a [f32] {
    let (first, last) = (columns[0], columns[columns.len() - 1]);
    if last - first + 1 == columns.len() {
        return &vectors[first * dim..(last + 1) * dim];
    }
    packed.clear();
    for &column in columns {
        packed.extend_from_slice(&vectors[column * dim..][..dim]);
    }
    packed
}
