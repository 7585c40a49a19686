//! The order in which the members of a duplicate group are preferred.
//!
//! Whoever ranks first is kept, so the ranking decides which image of a group
//! survives:
//!
//! - `best` (ours): highest score of `--rank-by`, then most pixels, then one
//!   with a caption, with metadata, then the smallest `image_id`. A function
//!   of the sample alone. Semantic duplicates are ranked without looking at
//!   captions and metadata.
//! - `hard`, `easy` (NeMo Curator's `which_to_keep`): farthest from, or nearest
//!   to, the cluster's centroid first. Ties go by `image_id` in the *same*
//!   direction, as NeMo sorts both columns with one `ascending` flag.
//! - `random`: NeMo shuffles the rows of a cluster with a seed, so its result
//!   depends on the order in which the rows were read. Ours sorts by
//!   SHA-256(seed, cluster, `image_id`): as arbitrary, but a function of the
//!   set of images alone, and easy to restate in any language.

use std::cmp::Ordering;

use sha2::{Digest, Sha256};

/// Which image of a duplicate group stays.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum KeepRule {
    /// Highest score of `--rank-by`, then most pixels, then with a caption, then smallest image id.
    #[default]
    Best,
    /// Farthest from the centroid of its cluster (NeMo Curator's `hard`).
    Hard,
    /// Nearest to the centroid of its cluster (NeMo Curator's `easy`).
    Easy,
    /// An order drawn from the seed.
    Random,
}

/// What the rankings need to know about an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate<'a> {
    /// Unique in the run.
    pub image_id: &'a str,
    /// The score of `--rank-by`, where there is one.
    pub score: Option<f32>,
    /// Width times height.
    pub pixels: u64,
    /// 2 for a caption, 1 for metadata, their sum for both.
    pub texts: u8,
    /// Cosine distance to the centroid of its cluster: 1 minus the dot product
    /// with the normalised centroid. Unused by `best` and `random`.
    pub distance: f32,
}

/// The order of [`KeepRule::Best`]: whoever compares as less is preferred.
///
/// Highest score (none, or not a number, last), then most pixels, then most
/// texts, then the smallest `image_id`. A total order, since ids are unique.
pub fn best_first(a: &Candidate, b: &Candidate) -> Ordering {
    // None < Some(_), so the descending order puts images without a score last.
    let score = |c: &Candidate| c.score.filter(|score| !score.is_nan());
    score(b)
        .partial_cmp(&score(a))
        .unwrap_or(Ordering::Equal)
        .then_with(|| b.pixels.cmp(&a.pixels))
        .then_with(|| b.texts.cmp(&a.texts))
        .then_with(|| a.image_id.cmp(b.image_id))
}

/// Indices of `candidates`, most preferred first.
///
/// `seed` and `cluster` only matter to [`KeepRule::Random`]. The result does not
/// depend on the order of `candidates`.
pub fn rank(candidates: &[Candidate], keep: KeepRule, seed: u64, cluster: u32) -> Vec<usize> {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    match keep {
        KeepRule::Best => order.sort_by(|&a, &b| best_first(&candidates[a], &candidates[b])),
        KeepRule::Easy => order.sort_by(|&a, &b| nearest_first(&candidates[a], &candidates[b])),
        KeepRule::Hard => order.sort_by(|&a, &b| nearest_first(&candidates[b], &candidates[a])),
        KeepRule::Random => {
            let homes = vec![cluster; candidates.len()];
            return rank_among(candidates, &homes, keep, seed);
        }
    }
    order
}

/// Like [`rank`], for images that are compared in a cluster other than their own. `homes` are their own
/// clusters. Two images have one order wherever they are compared.
pub fn rank_among(
    candidates: &[Candidate],
    homes: &[u32],
    keep: KeepRule,
    seed: u64,
) -> Vec<usize> {
    if keep != KeepRule::Random {
        return rank(candidates, keep, seed, 0);
    }
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by_cached_key(|&i| {
        let id = candidates[i].image_id;
        (random_key(seed, homes[i], id), id)
    });
    order
}

/// Ascending distance to the centroid, then ascending id.
fn nearest_first(a: &Candidate, b: &Candidate) -> Ordering {
    a.distance
        .total_cmp(&b.distance)
        .then_with(|| a.image_id.cmp(b.image_id))
}

/// SHA-256 of the seed (8 bytes, little-endian), the cluster (4 bytes,
/// little-endian) and the id (UTF-8).
fn random_key(seed: u64, cluster: u32, image_id: &str) -> [u8; 32] {
    Sha256::new()
        .chain_update(seed.to_le_bytes())
        .chain_update(cluster.to_le_bytes())
        .chain_update(image_id)
        .finalize()
        .into()
}
