//! Groups embeddings into clusters, so that only images of one cluster have to
//! be compared.
//!
//! # Definition
//! As in NeMo Curator: k-means by Euclidean distance on L2-normalised vectors.
//! An image belongs to the nearest *raw* centroid (a mean of unit vectors,
//! itself shorter than 1); its `distance` is the cosine distance to that
//! centroid *normalised*.
//!
//! # Algorithm
//! k-means++ starts (see `seeding.rs`), then Lloyd iterations (Lloyd, "Least
//! Squares Quantization in PCM", 1982). |x - c|² = |x|² - 2 (x · c - |c|² / 2),
//! so the nearest centroid is the one with the greatest x · c - |c|² / 2. All
//! of these scores are estimated (see `estimates.rs`), a block of vectors with a
//! block of centroids at a time, so nothing of size vectors x centroids ever
//! exists. Where the margin of the estimates leaves several centroids, their
//! scores are computed in `f64`. So every assignment is the exact one, on every
//! processor and with any number of threads.
//!
//! - *Skipping*: a vector whose centroid has not moved since the last iteration
//!   is compared with those that have alone, for its score is as it was, and no
//!   other that stayed was better. After ten iterations most stay. (Bounds by
//!   the triangle inequality, as in Hamerly, "Making k-means Even Faster", SDM
//!   2010, or Ding et al., "Yinyang K-Means", ICML 2015, would skip little more:
//!   in hundreds of dimensions the nearest centroids are about equally far.)
//! - *Means*: each cluster keeps the sum of its vectors in `f64`, which those
//!   that leave and join change, in row order. From the sums follow the means,
//!   and the inertia without another pass: |x - c|² summed over a cluster is
//!   the sum of |x|², less 2 c · (sum of x), plus |c|² for each.
//! - *Empty clusters* take over the vectors that are farthest from their own
//!   centroids, one each (as scikit-learn does).
//! - *Stopping*: when an iteration lowers the inertia (the sum of squared
//!   distances) by less than the share `tolerance`, the rule that cuML's k-means
//!   offers as its inertia check. scikit-learn's rule, on the centroids' shift
//!   relative to the variance per dimension, spends most of its iterations on
//!   changes that no duplicate search would notice.

use rayon::prelude::*;
use sluice_manifest::Result;

use crate::Check;
use crate::points::Points;
use crate::products::{dot, mean, squared_norm};

/// NeMo Curator's bound on the iterations. Few data sets need more than 30
/// before [`DEFAULT_TOLERANCE`] stops them.
pub const DEFAULT_MAX_ITERATIONS: usize = 300;

/// NeMo Curator's tolerance.
pub const DEFAULT_TOLERANCE: f64 = 1e-4;

/// What [`fit`] does. Everything here shapes the result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KMeansSettings {
    /// The number of clusters.
    pub clusters: usize,
    /// Lloyd iterations, at most.
    pub max_iterations: usize,
    /// Stop when an iteration lowers the inertia by less than this share.
    pub tolerance: f64,
    /// Draws the starting centroids.
    pub seed: u64,
}

impl KMeansSettings {
    /// NeMo Curator's iterations and tolerance.
    pub fn new(clusters: usize, seed: u64) -> Self {
        Self {
            clusters,
            max_iterations: DEFAULT_MAX_ITERATIONS,
            tolerance: DEFAULT_TOLERANCE,
            seed,
        }
    }
}

/// Cluster centres: means of vectors, not normalised.
#[derive(Clone, Debug, PartialEq)]
pub struct Centroids {
    /// Dimensions of each centroid.
    pub dim: usize,
    /// One centroid after the other, `dim` values each.
    pub data: Vec<f32>,
}

impl Centroids {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.data.len() / self.dim
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    pub(crate) fn row(&self, index: usize) -> &[f32] {
        &self.data[index * self.dim..][..self.dim]
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.data.chunks_exact(self.dim)
    }
}

/// Where a vector belongs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Assignment {
    /// The nearest centroid by Euclidean distance; the first of equally near.
    pub cluster: u32,
    /// Cosine distance to that centroid: 1 - dot with the normalised centroid,
    /// for a vector of length 1. 1 for a centroid of length 0.
    pub distance: f32,
}

/// Finds centroids for `vectors` (n x `dim`, L2-normalised, finite).
///
/// There are `settings.clusters`, or fewer if fewer vectors differ.
///
/// # Errors
/// Of `check`.
///
/// # Panics
/// When `vectors` does not hold whole rows of `dim` values, or `dim` is 0.
pub fn fit(
    vectors: &[f32],
    dim: usize,
    settings: &KMeansSettings,
    check: Check<'_>,
) -> Result<Centroids> {
    let points = Points::new(vectors, dim, check);
    let start = points.start(settings)?;
    points.refine(start, settings)
}

/// The centroids from which [`fit`] starts: rows of `vectors`, drawn by
/// k-means++.
///
/// # Errors
/// Of `check`.
pub fn start(
    vectors: &[f32],
    dim: usize,
    settings: &KMeansSettings,
    check: Check<'_>,
) -> Result<Centroids> {
    Points::new(vectors, dim, check).start(settings)
}

/// Lloyd iterations from given centroids. Of `settings`, only `max_iterations`
/// and `tolerance` count.
///
/// # Errors
/// Of `check`.
pub fn refine(
    vectors: &[f32],
    start: Centroids,
    settings: &KMeansSettings,
    check: Check<'_>,
) -> Result<Centroids> {
    Points::new(vectors, start.dim, check).refine(start, settings)
}

/// The nearest centroid of each of `vectors` (n x `centroids.dim`,
/// L2-normalised).
///
/// # Errors
/// Of `check`.
///
/// # Panics
/// When `vectors` does not hold whole rows, or there is no centroid.
pub fn assign(vectors: &[f32], centroids: &Centroids, check: Check<'_>) -> Result<Vec<Assignment>> {
    let dim = centroids.dim;
    assert!(
        vectors.is_empty() || !centroids.is_empty(),
        "at least one centroid to assign to"
    );
    let lengths: Vec<f64> = centroids.rows().map(|c| squared_norm(c).sqrt()).collect();
    let places = Points::around(vectors, mean(&centroids.data, dim), check).places(centroids)?;
    let assignments = places
        .par_iter()
        .zip(vectors.par_chunks(dim))
        .map(|(place, vector)| {
            let cluster = place.cluster;
            let length = lengths[cluster];
            let cosine = if length > 0.0 {
                dot(vector, centroids.row(cluster)) / length
            } else {
                0.0
            };
            Assignment {
                cluster: cluster as u32,
                distance: (1.0 - cosine) as f32,
            }
        })
        .collect();
    Ok(assignments)
}

/// The `count` nearest centroids of each of `vectors`, the nearest first; of equally near ones the first.
/// The nearest is that of [`assign`]. None of vectors that are not finite.
///
/// # Errors
/// Of `check`.
///
/// # Panics
/// When `vectors` does not hold whole rows.
pub fn nearest_clusters(
    vectors: &[f32],
    centroids: &Centroids,
    count: usize,
    check: Check<'_>,
) -> Result<Vec<Vec<u32>>> {
    Points::around(vectors, mean(&centroids.data, centroids.dim), check).ranked(centroids, count)
}

/// Sum of the squared distances of `vectors` to their nearest centroids: what
/// k-means minimises.
pub fn inertia(vectors: &[f32], centroids: &Centroids) -> f64 {
    let dim = centroids.dim;
    // Unwrap safety: the check does not fail.
    let assignments = assign(vectors, centroids, &|| Ok(())).unwrap();
    assignments
        .iter()
        .zip(vectors.chunks_exact(dim))
        .map(|(assignment, vector)| {
            squared_distance(vector, centroids.row(assignment.cluster as usize))
        })
        .sum()
}

fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    squared_norm(a) + squared_norm(b) - 2.0 * dot(a, b)
}
