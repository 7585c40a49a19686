//! Images with equal content.
//!
//! One pass over the rows with a hash map from content digest to the best
//! member seen so far, one pass to name it: linear time, whatever the order of
//! the rows, and 40-odd bytes for each distinct digest.

use std::collections::HashMap;
use std::hash::Hash;

use crate::ranking::{Candidate, best_first};

/// For each row, the index of the image that stays in its place, or `None` for
/// the rows that stay themselves.
///
/// Rows come as (content digest, candidate) in any order; the digest may be
/// `[u8; 32]`, a hexadecimal `&str`, or anything else that is equal exactly
/// for equal content. In each group the first by [`best_first`] stays.
pub fn duplicates<D: Eq + Hash>(rows: &[(D, Candidate)]) -> Vec<Option<usize>> {
    let mut best: HashMap<&D, usize> = HashMap::with_capacity(rows.len());
    for (index, (digest, candidate)) in rows.iter().enumerate() {
        best.entry(digest)
            .and_modify(|kept| {
                if best_first(candidate, &rows[*kept].1).is_lt() {
                    *kept = index;
                }
            })
            .or_insert(index);
    }
    rows.iter()
        .enumerate()
        .map(|(index, (digest, _))| Some(best[digest]).filter(|&kept| kept != index))
        .collect()
}
