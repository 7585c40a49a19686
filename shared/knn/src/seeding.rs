//! Starting centroids for k-means, and the random numbers they need.
//!
//! k-means++ (Arthur, Vassilvitskii, "k-means++: The Advantages of Careful
//! Seeding", SODA 2007) draws each next centroid from the data with a
//! probability proportional to its squared distance to the nearest centroid so
//! far. Done as written it passes over all vectors once per centroid, at the
//! speed of memory. NeMo Curator takes k-means|| instead, which needs few passes
//! but many times the products, and a second clustering of what it oversampled.
//!
//! We draw from the very distribution of k-means++, in batches, by rejection
//! sampling (the idea of Cohen-Addad et al., "Fast and Accurate k-means++ via
//! Rejection Sampling", NeurIPS 2020, without its approximate search): draw a
//! batch by the distances before it, then go through it in order
//! and accept a vector with probability (its distance now) / (its distance
//! then), where "now" counts the vectors accepted before it in the same batch.
//! The accepted vectors have exactly the distribution of k-means++, and the
//! distances of all vectors are brought up to date once per batch. Estimates
//! (`estimates.rs`) select the vectors that the batch may be nearer to; only
//! those distances are computed. The cost is about that of one Lloyd iteration
//! in all.

use rayon::prelude::*;
use sluice_manifest::Result;

use crate::estimates::Estimates;
use crate::points::Points;
use crate::products::{at_least, dot, maximum, squared_norm};

/// Vectors drawn at a time, at most. Early batches are smaller, as then each
/// new centroid changes the distances of many vectors.
const BATCH: usize = 256;

/// Squared distances below this share of the squared norms are rounding noise:
/// the vectors count as equal.
const NOISE: f32 = 1e-6;

/// Up to `count` different rows of `points`, drawn by k-means++. Fewer when
/// there are fewer that differ.
pub(crate) fn plus_plus(points: &Points<'_>, count: usize, seed: u64) -> Result<Vec<usize>> {
    let n = points.len();
    let mut chosen: Vec<usize> = Vec::with_capacity(count.min(n));
    if count == 0 || n == 0 {
        return Ok(chosen);
    }
    let mut random = Random::new(seed);
    let norms: Vec<f32> = (0..n)
        .into_par_iter()
        .map(|index| squared_norm(points.row(index)) as f32)
        .collect();
    // A vector that is not finite is never drawn.
    let unknown = |norm: &f32| if norm.is_finite() { f32::INFINITY } else { 0.0 };
    let mut distances: Vec<f32> = norms.iter().map(unknown).collect();
    chosen.push(random.below(n));
    update(&mut distances, points, &norms, &chosen)?;

    while chosen.len() < count {
        let mut total = 0.0;
        let cumulative: Vec<f64> = distances
            .iter()
            .map(|&distance| {
                total += f64::from(distance);
                total
            })
            .collect();
        if total == 0.0 {
            break;
        }
        let size = BATCH.min(chosen.len()).min(count - chosen.len());
        let batch: Vec<usize> = (0..size)
            .map(|_| {
                let at = random.unit() * total;
                // The product may round up to the total: stay within the rows
                // that have a distance.
                let drawn = cumulative.partition_point(|&sum| sum <= at);
                drawn.min(cumulative.partition_point(|&sum| sum < total))
            })
            .collect();
        let mut accepted: Vec<usize> = Vec::with_capacity(size);
        for &index in &batch {
            let now = accepted.iter().fold(distances[index], |nearest, &other| {
                let product = dot(points.row(index), points.row(other)) as f32;
                nearest.min(squared_distance(norms[index], norms[other], product))
            });
            if random.unit() * f64::from(distances[index]) < f64::from(now) {
                accepted.push(index);
            }
        }
        update(&mut distances, points, &norms, &accepted)?;
        chosen.extend(accepted);
    }
    Ok(chosen)
}

/// Lowers `distances` (squared, one for each vector) to the nearest of the
/// vectors `added`.
fn update(
    distances: &mut [f32],
    points: &Points<'_>,
    norms: &[f32],
    added: &[usize],
) -> Result<()> {
    let estimator = &points.estimator;
    let biased = added.iter().map(|&index| (index, -norms[index] / 2.0));
    let right = estimator.right(&points.prepared, biased);
    let rows = estimator.rows();
    let lower =
        |estimates: &mut Estimates, (block, distances): (usize, &mut [f32])| -> Result<()> {
            (points.check)()?;
            let first = block * rows;
            estimator.load(estimates, &points.prepared, first..first + distances.len());
            let mut nearer = Vec::new();
            for columns in right.parts() {
                estimator.estimate(estimates, &right, columns.clone());
                for (i, distance) in distances.iter_mut().enumerate() {
                    // |x - c|² < distance means x·c - |c|² / 2 > (|x|² - distance) / 2.
                    let (vector, norm) = (points.row(first + i), norms[first + i]);
                    let margin = estimator.margin(estimates, i, &right);
                    let estimates = estimates.row(i);
                    // Only the nearest counts, so what is surely not nearest is left out, too.
                    let bound = (norm - *distance) / 2.0;
                    let bound = bound.max(maximum(estimates) - margin) - margin;
                    nearer.clear();
                    at_least(estimates, bound, &mut nearer);
                    for column in &nearer {
                        let index = added[columns.start + column];
                        let product = dot(vector, points.row(index)) as f32;
                        *distance = distance.min(squared_distance(norm, norms[index], product));
                    }
                }
            }
            Ok(())
        };
    distances
        .par_chunks_mut(rows)
        .enumerate()
        .try_for_each_init(Estimates::default, lower)
}

/// |a - b|² from |a|², |b|² and a · b; 0 where it is lost in rounding.
fn squared_distance(a: f32, b: f32, product: f32) -> f32 {
    let squared = a + b - 2.0 * product;
    // Written so that not-a-number becomes 0 and is never drawn.
    if squared > NOISE * (a + b) {
        squared
    } else {
        0.0
    }
}

/// SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number
/// Generators", OOPSLA 2014). Written out here so that a seed gives the same
/// numbers with any version of any library.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1), 53 bits.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in 0..n.
    fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first outputs of the reference implementation for seed 1234567.
    #[test]
    fn random_numbers_are_splitmix64() {
        let mut random = Random::new(1_234_567);
        let numbers: Vec<u64> = (0..3).map(|_| random.next()).collect();
        assert_eq!(
            numbers,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn equal_vectors_are_drawn_once() {
        let vectors = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0];
        let points = Points::new(&vectors, 2, &|| Ok(()));
        let mut chosen = plus_plus(&points, 4, 7).unwrap();
        chosen.iter_mut().for_each(|row| *row %= 2);
        chosen.sort_unstable();
        assert_eq!(chosen, [0, 1]);
    }
}
