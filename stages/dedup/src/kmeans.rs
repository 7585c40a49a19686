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
//! so the nearest centroid is the one with the greatest x · c - |c|² / 2, and
//! nearly all the work is one matrix product per block of vectors and block of
//! centroids. Nothing of size vectors x centroids ever exists: each thread holds
//! one block of [`ROWS`] x [`COLUMNS`] products.
//!
//! - *Means*: the vectors are sorted by cluster and each cluster sums its own in
//!   `f64` in row order, so the result does not depend on the number of threads.
//! - *Empty clusters* take over the vectors that lie farthest from their own
//!   centroids, one each (as scikit-learn does).
//! - *Stopping*: when an iteration lowers the inertia (the sum of squared
//!   distances) by less than `tolerance` of it, the rule that cuML's k-means
//!   offers as its inertia check. scikit-learn's rule, on the centroids' shift
//!   relative to the variance per dimension, spends most of its iterations on
//!   changes that no duplicate search would notice.

use rayon::prelude::*;

use crate::products::{dot, dot_products, first_maximum, squared_norm};
use crate::seeding::plus_plus;

/// NeMo Curator's bound on the iterations. Few data sets need more than 30
/// before [`DEFAULT_TOLERANCE`] stops them.
pub const DEFAULT_MAX_ITERATIONS: usize = 300;

/// NeMo Curator's tolerance.
pub const DEFAULT_TOLERANCE: f64 = 1e-4;

/// Vectors in one matrix product.
const ROWS: usize = 512;

/// Centroids in one matrix product.
const COLUMNS: usize = 1024;

/// What [`fit`] does. Everything here shapes the result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Clusters wanted.
    pub clusters: usize,
    /// Lloyd iterations, at most.
    pub max_iterations: usize,
    /// Stop when an iteration lowers the inertia by less than this share.
    pub tolerance: f64,
    /// Draws the starting centroids.
    pub seed: u64,
}

impl Settings {
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

    fn rows(&self) -> impl Iterator<Item = &[f32]> {
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
/// There are `settings.clusters` of them, or fewer when fewer vectors differ.
///
/// # Panics
/// When `vectors` does not hold whole rows of `dim` values, or `dim` is 0.
pub fn fit(vectors: &[f32], dim: usize, settings: &Settings) -> Centroids {
    let start = start(vectors, dim, settings);
    refine(vectors, start, settings)
}

/// The centroids from which [`fit`] starts: rows of `vectors`, drawn by
/// k-means++.
pub fn start(vectors: &[f32], dim: usize, settings: &Settings) -> Centroids {
    check(vectors, dim);
    let data = plus_plus(vectors, dim, settings.clusters, settings.seed)
        .into_iter()
        .flat_map(|row| &vectors[row * dim..][..dim])
        .copied()
        .collect();
    Centroids { dim, data }
}

/// Lloyd iterations from given centroids. Of `settings`, only `max_iterations`
/// and `tolerance` count.
pub fn refine(vectors: &[f32], start: Centroids, settings: &Settings) -> Centroids {
    check(vectors, start.dim);
    let mut centroids = start;
    if centroids.is_empty() || vectors.is_empty() {
        return centroids;
    }
    let norms: Vec<f32> = vectors
        .par_chunks(centroids.dim)
        .map(|vector| squared_norm(vector) as f32)
        .collect();
    let mut before: Option<f64> = None;
    for _ in 0..settings.max_iterations {
        let mut nearest = nearest(vectors, &norms, &centroids);
        let inertia: f64 = nearest.iter().map(|n| f64::from(n.squared)).sum();
        if before.is_some_and(|before| before - inertia <= settings.tolerance * before) {
            break;
        }
        before = Some(inertia);
        fill_empty_clusters(&mut nearest, centroids.len());
        move_to_means(vectors, &nearest, &mut centroids);
    }
    centroids
}

/// The nearest centroid of each of `vectors` (n x `centroids.dim`,
/// L2-normalised).
///
/// # Panics
/// When `vectors` does not hold whole rows, or there is no centroid.
pub fn assign(vectors: &[f32], centroids: &Centroids) -> Vec<Assignment> {
    let dim = centroids.dim;
    check(vectors, dim);
    assert!(
        vectors.is_empty() || !centroids.is_empty(),
        "at least one centroid to assign to"
    );
    let lengths: Vec<f64> = centroids.rows().map(|c| squared_norm(c).sqrt()).collect();
    let norms = vec![0.0; vectors.len() / dim]; // the distances are not looked at
    nearest(vectors, &norms, centroids)
        .par_iter()
        .zip(vectors.par_chunks(dim))
        .map(|(nearest, vector)| {
            let cluster = nearest.cluster as usize;
            let product = dot(vector, &centroids.data[cluster * dim..][..dim]);
            let cosine = if lengths[cluster] > 0.0 {
                product / lengths[cluster]
            } else {
                0.0
            };
            Assignment {
                cluster: nearest.cluster,
                distance: (1.0 - cosine) as f32,
            }
        })
        .collect()
}

/// Sum of the squared distances of `vectors` to their nearest centroids: what
/// k-means minimises.
pub fn inertia(vectors: &[f32], centroids: &Centroids) -> f64 {
    let dim = centroids.dim;
    assign(vectors, centroids)
        .iter()
        .zip(vectors.chunks_exact(dim))
        .map(|(assignment, vector)| {
            let centroid = &centroids.data[assignment.cluster as usize * dim..][..dim];
            squared_norm(vector) + squared_norm(centroid) - 2.0 * dot(vector, centroid)
        })
        .sum()
}

fn check(vectors: &[f32], dim: usize) {
    assert!(dim > 0, "vectors have at least one dimension");
    assert!(vectors.len().is_multiple_of(dim), "vectors hold whole rows");
}

/// A vector's nearest centroid.
#[derive(Clone, Copy)]
struct Nearest {
    cluster: u32,
    /// Squared distance, within the rounding of `f32` products.
    squared: f32,
}

/// The nearest centroid of each vector, given the squared norms of the vectors.
fn nearest(vectors: &[f32], norms: &[f32], centroids: &Centroids) -> Vec<Nearest> {
    let dim = centroids.dim;
    let half_norms: Vec<f32> = centroids
        .rows()
        .map(|centroid| (squared_norm(centroid) / 2.0) as f32)
        .collect();
    let mut result = vec![
        Nearest {
            cluster: 0,
            squared: 0.0
        };
        norms.len()
    ];
    result
        .par_chunks_mut(ROWS)
        .zip(vectors.par_chunks(ROWS * dim))
        .zip(norms.par_chunks(ROWS))
        .for_each_init(Vec::new, |products, ((result, vectors), norms)| {
            // Best x · c - |c|² / 2 so far, and whose it is.
            let mut best = [(f32::NEG_INFINITY, 0_usize); ROWS];
            for first in (0..half_norms.len()).step_by(COLUMNS) {
                let half_norms = &half_norms[first..half_norms.len().min(first + COLUMNS)];
                let block = &centroids.data[first * dim..][..half_norms.len() * dim];
                products.resize(norms.len() * half_norms.len(), 0.0);
                dot_products(vectors, block, dim, products);
                let rows = products.chunks_exact_mut(half_norms.len());
                for (best, scores) in best.iter_mut().zip(rows) {
                    for (score, half_norm) in scores.iter_mut().zip(half_norms) {
                        *score -= half_norm;
                    }
                    if let Some((i, score)) = first_maximum(scores).filter(|&(_, s)| s > best.0) {
                        *best = (score, first + i);
                    }
                }
            }
            for ((result, norm), (score, cluster)) in result.iter_mut().zip(norms).zip(best) {
                *result = Nearest {
                    cluster: cluster as u32,
                    squared: (norm - 2.0 * score).max(0.0),
                };
            }
        });
    result
}

/// Gives each cluster without members the vector that lies farthest from its
/// centroid, the first of equally far. A cluster's last member is never taken,
/// nor a vector that lies on its centroid.
fn fill_empty_clusters(nearest: &mut [Nearest], clusters: usize) {
    let mut members = vec![0_usize; clusters];
    nearest
        .iter()
        .for_each(|n| members[n.cluster as usize] += 1);
    let empty: Vec<usize> = (0..clusters).filter(|&c| members[c] == 0).collect();
    if empty.is_empty() {
        return;
    }
    let mut farthest: Vec<usize> = (0..nearest.len())
        .filter(|&row| nearest[row].squared > 0.0)
        .collect();
    farthest.sort_by(|&a, &b| nearest[b].squared.total_cmp(&nearest[a].squared));
    let mut farthest = farthest.into_iter();
    for cluster in empty {
        let Some(row) = farthest.find(|&row| members[nearest[row].cluster as usize] > 1) else {
            return;
        };
        members[nearest[row].cluster as usize] -= 1;
        members[cluster] = 1;
        nearest[row].cluster = cluster as u32;
    }
}

/// Moves each centroid to the mean of its members; one without stays.
fn move_to_means(vectors: &[f32], nearest: &[Nearest], centroids: &mut Centroids) {
    let dim = centroids.dim;
    // Counting sort of the rows by cluster: members of c are ends[c]..ends[c+1].
    let mut ends = vec![0_usize; centroids.len() + 1];
    for n in nearest {
        ends[n.cluster as usize + 1] += 1;
    }
    for c in 1..ends.len() {
        ends[c] += ends[c - 1];
    }
    let mut free = ends.clone();
    let mut members = vec![0_usize; nearest.len()];
    for (row, n) in nearest.iter().enumerate() {
        let place = &mut free[n.cluster as usize];
        members[*place] = row;
        *place += 1;
    }
    centroids
        .data
        .par_chunks_mut(dim)
        .enumerate()
        .for_each(|(cluster, centroid)| {
            let members = &members[ends[cluster]..ends[cluster + 1]];
            if members.is_empty() {
                return;
            }
            let mut sums = vec![0.0_f64; dim];
            for &row in members {
                for (sum, &value) in sums.iter_mut().zip(&vectors[row * dim..][..dim]) {
                    *sum += f64::from(value);
                }
            }
            for (value, sum) in centroid.iter_mut().zip(sums) {
                *value = (sum / members.len() as f64) as f32;
            }
        });
}
