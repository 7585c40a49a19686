//! The vectors of each cluster of k-means, and their sums.

use rayon::prelude::*;

use crate::kmeans::Centroids;
use crate::products::{add_to, dot, squared_norm};

/// No cluster yet.
const NONE: usize = usize::MAX;

pub(crate) struct ClusterMembers<'a> {
    vectors: &'a [f32],
    dim: usize,
    /// Sum of the squared lengths of all vectors.
    squares: f64,
    /// For each vector its cluster.
    cluster: Vec<usize>,
    /// For each cluster how many vectors it has, and their sum.
    counts: Vec<usize>,
    sums: Vec<f64>,
}

/// A vector that leaves a cluster or joins it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Change {
    cluster: usize,
    row: usize,
    joins: bool,
}

impl<'a> ClusterMembers<'a> {
    /// No vector in any of `clusters`.
    pub(crate) fn new(vectors: &'a [f32], dim: usize, clusters: usize) -> Self {
        let squares: Vec<f64> = vectors.par_chunks(dim).map(squared_norm).collect();
        Self {
            vectors,
            dim,
            squares: squares.iter().sum(),
            cluster: vec![NONE; vectors.len() / dim],
            counts: vec![0; clusters],
            sums: vec![0.0; clusters * dim],
        }
    }

    /// Puts each vector into its cluster of `clusters`.
    pub(crate) fn regroup(&mut self, clusters: Vec<usize>) {
        let mut changes = Vec::new();
        for (row, (&before, &cluster)) in self.cluster.iter().zip(&clusters).enumerate() {
            if before != cluster {
                if before != NONE {
                    changes.push(Change {
                        cluster: before,
                        row,
                        joins: false,
                    });
                }
                changes.push(Change {
                    cluster,
                    row,
                    joins: true,
                });
            }
        }
        self.cluster = clusters;
        changes.par_sort_unstable();
        let (vectors, dim) = (self.vectors, self.dim);
        let clusters = self.sums.par_chunks_mut(dim).zip(&mut self.counts);
        clusters.enumerate().for_each(|(cluster, (sums, count))| {
            let first = changes.partition_point(|change| change.cluster < cluster);
            let own = changes[first..].iter();
            for change in own.take_while(|change| change.cluster == cluster) {
                let vector = &vectors[change.row * dim..][..dim];
                add_to(sums, vector, if change.joins { 1.0 } else { -1.0 });
                if change.joins {
                    *count += 1;
                } else {
                    *count -= 1;
                }
            }
        });
    }

    /// Sum of the squared distances of all vectors to the centroids of their
    /// clusters.
    pub(crate) fn inertia(&self, centroids: &Centroids) -> f64 {
        let clusters = self.sums.chunks_exact(self.dim).zip(&self.counts);
        let parts = centroids
            .rows()
            .zip(clusters)
            .map(|(centroid, (sums, &count))| {
                let product: f64 = centroid
                    .iter()
                    .zip(sums)
                    .map(|(c, sum)| f64::from(*c) * sum)
                    .sum();
                count as f64 * squared_norm(centroid) - 2.0 * product
            });
        self.squares + parts.sum::<f64>()
    }

    /// Gives each cluster without members the vector that is farthest from its
    /// centroid, the first of equally far. A cluster's last member is never
    /// taken, nor a vector that equals its centroid.
    pub(crate) fn fill_empty(&mut self, centroids: &Centroids) {
        let empty: Vec<usize> = (0..self.counts.len())
            .filter(|&c| self.counts[c] == 0)
            .collect();
        if empty.is_empty() {
            return;
        }
        let mut farthest: Vec<(f32, usize)> = self
            .vectors
            .par_chunks(self.dim)
            .zip(&self.cluster)
            .enumerate()
            .map(|(row, (vector, &cluster))| {
                let centroid = centroids.row(cluster);
                let squared =
                    squared_norm(vector) + squared_norm(centroid) - 2.0 * dot(vector, centroid);
                (squared as f32, row)
            })
            .filter(|&(squared, _)| squared > 0.0)
            .collect();
        farthest.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut farthest = farthest.into_iter();
        let (mut clusters, mut counts) = (self.cluster.clone(), self.counts.clone());
        for cluster in empty {
            let Some((_, row)) = farthest.find(|&(_, row)| counts[clusters[row]] > 1) else {
                break;
            };
            counts[clusters[row]] -= 1;
            counts[cluster] = 1;
            clusters[row] = cluster;
        }
        self.regroup(clusters);
    }

    /// Moves each centroid to the mean of its members. One without members stays.
    /// Returns which have moved.
    pub(crate) fn move_to_means(&self, centroids: &mut Centroids) -> Vec<bool> {
        let clusters = self.sums.par_chunks(self.dim).zip(&self.counts);
        let centroids = centroids.data.par_chunks_mut(self.dim);
        let moved = centroids.zip(clusters).map(|(centroid, (sums, &count))| {
            let mut moved = false;
            if count > 0 {
                for (value, sum) in centroid.iter_mut().zip(sums) {
                    let mean = (sum / count as f64) as f32;
                    moved |= *value != mean;
                    *value = mean;
                }
            }
            moved
        });
        moved.collect()
    }
}
