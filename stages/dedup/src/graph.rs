//! Perceptual duplicates, decided from the pairs of near hashes.

use rayon::prelude::*;

use crate::bands::Pair;

/// Decides which images stay, from all pairs: what `perceptual::duplicates` decides from the hashes.
///
/// `ranked` are the images to decide about, best first. For each one the place of the one that it
/// duplicates and their distance, or `None` where it stays. Images of no pair, and pairs with images
/// that are not ranked, do not count.
pub fn decide(pairs: &[Pair], ranked: &[u64]) -> Vec<Option<(usize, u32)>> {
    let graph = Graph::new(pairs);
    // Of images with equal hashes at most one is kept: the place of the one of each hash.
    let mut kept: Vec<Option<usize>> = vec![None; graph.images.len()];
    let mut result = Vec::with_capacity(ranked.len());
    for (place, image) in ranked.iter().enumerate() {
        let Ok(image) = graph.images.binary_search(image) else {
            result.push(None);
            continue;
        };
        let own = graph.first[image];
        let near = graph
            .near(own)
            .iter()
            .map(|near| (near.distance, near.other));
        let near = std::iter::once((0, own)).chain(near);
        let nearest = near.filter_map(|(distance, other)| Some((distance, kept[other as usize]?)));
        match nearest.min() {
            Some((distance, place)) => result.push(Some((place, distance))),
            None => {
                kept[own as usize] = Some(place);
                result.push(None);
            }
        }
    }
    result
}

/// The images of pairs, and which hashes are near each other.
struct Graph {
    /// Ascending.
    images: Vec<u64>,
    /// For each image the one that stands for its hash.
    first: Vec<u32>,
    /// Sorted by `one`.
    near: Vec<Near>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Near {
    one: u32,
    distance: u32,
    other: u32,
}

impl Graph {
    fn new(pairs: &[Pair]) -> Self {
        let images = pairs.iter().flat_map(|pair| [pair.one, pair.other]);
        let mut images: Vec<u64> = images.collect();
        images.par_sort_unstable();
        images.dedup();
        let place = |image: u64| images.partition_point(|other| *other < image) as u32;
        let mut first: Vec<u32> = (0..images.len() as u32).collect();
        let mut near = Vec::with_capacity(2 * pairs.len());
        for pair in pairs {
            let (one, other, distance) = (place(pair.one), place(pair.other), pair.distance);
            if distance == 0 {
                first[other as usize] = one;
            } else {
                near.extend([(one, other), (other, one)].map(|(one, other)| Near {
                    one,
                    distance,
                    other,
                }));
            }
        }
        near.par_sort_unstable();
        Self {
            images,
            first,
            near,
        }
    }

    fn near(&self, one: u32) -> &[Near] {
        let from = self.near.partition_point(|near| near.one < one);
        let count = self.near[from..].partition_point(|near| near.one == one);
        &self.near[from..from + count]
    }
}
