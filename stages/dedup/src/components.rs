//! Perceptual duplicates, decided component by component.
//!
//! A component is a set of images that pairs connect, directly or through others. An image is removed
//! because of a near one, and near images are in one component, so each component is decided by
//! itself, as `perceptual::duplicates` decides all. Images of no pair stay.
//!
//! Memory: 16 bytes for each pair while the components are made, 12 bytes for each image of a pair,
//! and 24 for each image to decide about.

use rayon::prelude::*;
use sluice_manifest::Result;

use crate::Check;
use crate::bands::Pair;
use crate::hash::{Forms, Hash};
use crate::perceptual;

/// Trees that grow together: union-find by halving of paths (Tarjan, van Leeuwen, "Worst-case Analysis
/// of Set Union Algorithms", J. ACM 1984).
pub(crate) struct Trees {
    parents: Vec<u32>,
    /// The number of trees.
    pub count: usize,
}

impl Trees {
    /// Returns a tree for each of so many places.
    pub(crate) fn new(places: usize) -> Self {
        Self {
            parents: (0..places as u32).collect(),
            count: places,
        }
    }

    /// Returns the place that represents a place's tree.
    pub(crate) fn root(&mut self, place: usize) -> usize {
        let mut place = place as u32;
        loop {
            let parent = self.parents[place as usize];
            if parent == place {
                return place as usize;
            }
            let above = self.parents[parent as usize];
            self.parents[place as usize] = above;
            place = above;
        }
    }

    /// Whether two places are in one tree.
    pub(crate) fn are_joined(&mut self, one: usize, other: usize) -> bool {
        self.root(one) == self.root(other)
    }

    /// Makes the trees of two places one. Returns false if they are one already.
    pub(crate) fn join(&mut self, one: usize, other: usize) -> bool {
        let [one, other] = [one, other].map(|place| self.root(place));
        let [first, last] = [one.min(other), one.max(other)];
        self.parents[last] = first as u32;
        self.count -= usize::from(first != last);
        first != last
    }
}

/// The images of pairs, and the component of each.
pub struct Components {
    /// Ascending.
    images: Vec<u64>,
    /// For each image, the place of the first one of its component.
    of: Vec<u32>,
}

impl Components {
    /// Returns the components that these pairs make.
    pub fn new(pairs: &[Pair]) -> Self {
        let images = pairs.iter().flat_map(|pair| [pair.one, pair.other]);
        let mut images: Vec<u64> = images.collect();
        images.par_sort_unstable();
        images.dedup();
        let place = |image: u64| images.partition_point(|other| *other < image);
        let mut trees = Trees::new(images.len());
        for pair in pairs {
            trees.join(place(pair.one), place(pair.other));
        }
        let of = (0..images.len()).map(|place| trees.root(place) as u32);
        Self {
            of: of.collect(),
            images,
        }
    }

    /// Whether an image is in a pair.
    pub fn contain(&self, image: u64) -> bool {
        self.component(image).is_some()
    }

    fn component(&self, image: u64) -> Option<u32> {
        let place = self.images.binary_search(&image).ok()?;
        Some(self.of[place])
    }
}

/// Decides which images stay. `ranked` are numbers and hashes of images, best first. Returns for each
/// one the place of the image that it duplicates and their distance, or `None` if it stays.
///
/// # Errors
/// Of `check`.
pub fn decide<const W: usize>(
    components: &Components,
    ranked: &[(u64, Hash<W>)],
    max_distance: u32,
    check: Check<'_>,
) -> Result<Vec<Option<(usize, u32)>>> {
    let places = ranked.iter().enumerate();
    let mut members: Vec<(u32, usize)> = places
        .filter_map(|(place, (image, _))| Some((components.component(*image)?, place)))
        .collect();
    members.par_sort_unstable();
    let together: Vec<&[(u32, usize)]> = members.chunk_by(|a, b| a.0 == b.0).collect();
    let found = together.par_iter().map(|members| {
        let hashes = members.iter().map(|(_, place)| ranked[*place].1.into());
        let hashes: Vec<Forms<W>> = hashes.collect();
        perceptual::duplicates(&hashes, max_distance, check)
    });
    let found: Vec<Vec<Option<(usize, u32)>>> = found.collect::<Result<_>>()?;
    let mut decided = vec![None; ranked.len()];
    for (members, found) in together.iter().zip(found) {
        for ((_, place), found) in members.iter().zip(found) {
            decided[*place] = found.map(|(kept, distance)| (members[kept].1, distance));
        }
    }
    Ok(decided)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_of_pairs_are_one_component() {
        let pairs = [(7, 3), (3, 90), (5, 6)].map(|(one, other)| Pair { one, other });
        let components = Components::new(&pairs);
        assert_eq!(components.images, [3, 5, 6, 7, 90]);
        assert_eq!(components.of, [0, 1, 1, 0, 0]);
        assert!(!components.contain(4));
    }

    #[test]
    fn images_of_no_pair_stay() {
        let components = Components::new(&[Pair { one: 1, other: 2 }]);
        let ranked = [(2, Hash([7])), (3, Hash([7])), (1, Hash([6]))];
        let decided = decide(&components, &ranked, 4, &|| Ok(())).unwrap();
        assert_eq!(decided, [None, None, Some((0, 1))]);
    }
}
