//! Pairs of images whose hashes are within a Hamming distance, found part by part, so that no process
//! needs all hashes. Hashes have any number of words of 64 bits.
//!
//! # Tables
//! The bits are cut into `d + 2` bands. There is a table for each two bands, and the key of a hash in
//! a table is its bits in those two: the tables of Manku, Jain, Das Sarma, "Detecting Near-Duplicates
//! for Web Crawling", WWW 2007. Two hashes are compared if a table has one key for both.
//!
//! # Every near pair is compared
//! Each bit that differs changes one band. So `d` bits change at most `d` bands, and at least two of
//! the `d + 2` are equal: in the table of these two, both hashes have the same key.
//!
//! # What is reported
//! Not all near pairs, since there may be quadratically many (frames of a video), but enough pairs
//! to connect all: two images within `d` bits are connected by a chain of reported pairs. The chains
//! make components, and no image of one component is near an image of another. So `perceptual` decides
//! component by component ([`crate::components`]), with the distances that it needs, and the result is
//! that of one process. Each key reports at most one pair fewer than it has images.
//!
//! Within a key, a pair is reported if no earlier pair of the key connects the two, and only by the
//! first table in which the two have the same key. Of equal hashes the first one represents all. The
//! others have one pair each, with the first.
//!
//! # Parts
//! All tables together are one line of keys, each key spread by a hash function, and the line is cut
//! into equally long parts. A part has the hashes whose keys fall into it: with `n` hashes, `t` tables
//! and `p` parts about `n * t / p` entries of 16 bytes (40 for 256 bits), and as many pairs of 16 bytes
//! at most. For `d = 4` there are 15 tables with keys of 21 bits.
//!
//! # Equal keys
//! The entries of a table are sorted, so equal keys are neighbours. Few hashes of one key are all
//! compared with each other. Many (pictures whose hashes differ in some bits only) are searched by
//! their other bits, with the index of `perceptual.rs`. If they have more than [`CROWDED`] neighbours
//! each, the whole key is connected without further comparisons: a component may be larger than needed.

use rayon::prelude::*;
use sluice_manifest::Result;

use crate::Check;
use crate::components::Trees;
use crate::hash::{Hash, scaled};
use crate::perceptual::KeptHashes;

/// Different hashes of one key that are compared with each other. Above, an index pays.
const DIRECT: usize = 2048;

/// Keys between two checks.
const CHECK_EVERY: usize = 4096;

/// Near hashes for each hash of a key, on average, from which on the whole key is connected.
const CROWDED: usize = 64;

/// Two images that are decided together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// The number of one image.
    pub one: u64,
    /// The number of the other image.
    pub other: u64,
}

/// The bits of each table's key.
#[derive(Debug, Clone)]
struct Tables<const W: usize>(Vec<Hash<W>>);

impl<const W: usize> Tables<W> {
    fn new(max_distance: u32) -> Self {
        let bands = (max_distance + 2).min(Hash::<W>::BITS);
        let bound = |band: u32| Hash::<W>::low(band * Hash::<W>::BITS / bands);
        let band = |band: u32| bound(band + 1).xor(bound(band));
        let tables = (0..bands).flat_map(|a| (a + 1..bands).map(move |b| band(a).xor(band(b))));
        Self(tables.collect())
    }

    /// Returns the first table in which two hashes have the same key.
    fn first_equal(&self, one: Hash<W>, other: Hash<W>) -> Option<usize> {
        let differ = one.xor(other);
        self.0.iter().position(|mask| differ.and(*mask).is_zero())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry<const W: usize> {
    hash: Hash<W>,
    image: u64,
}

/// The hashes of a part, table by table.
pub struct Part<const W: usize> {
    tables: Tables<W>,
    max_distance: u32,
    part: u32,
    parts: u32,
    entries: Vec<Vec<Entry<W>>>,
}

impl<const W: usize> Part<W> {
    /// Returns part number `part` of `parts`, without hashes.
    pub fn new(max_distance: u32, part: u32, parts: u32) -> Self {
        let tables = Tables::<W>::new(max_distance);
        Self {
            entries: vec![Vec::new(); tables.0.len()],
            tables,
            max_distance,
            part,
            parts,
        }
    }

    /// Adds an image's hash where the part has its keys. The images have numbers of their own.
    pub fn add(&mut self, image: u64, hash: Hash<W>) {
        let length = (self.tables.0.len() as u128) << 32;
        for (table, mask) in self.tables.0.iter().enumerate() {
            let place = ((table as u128) << 32) | u128::from(hash.and(*mask).spread());
            if scaled(place, length, self.parts) == self.part {
                self.entries[table].push(Entry { hash, image });
            }
        }
    }

    /// Returns pairs that connect the near hashes of this part, in an order that the hashes and numbers
    /// determine.
    ///
    /// # Errors
    /// Of `check`.
    pub fn pairs(mut self, check: Check<'_>) -> Result<Vec<Pair>> {
        let mut found = Vec::new();
        for table in 0..self.entries.len() {
            let mask = self.tables.0[table];
            let mut entries = std::mem::take(&mut self.entries[table]);
            check()?;
            entries
                .par_sort_unstable_by_key(|entry| (entry.hash.and(mask), entry.hash, entry.image));
            let keys = entries.chunk_by(|a, b| a.hash.xor(b.hash).and(mask).is_zero());
            let keys: Vec<&[Entry<W>]> = keys.filter(|entries| entries.len() > 1).collect();
            let parts = keys.par_chunks(CHECK_EVERY).map(|keys| {
                check()?;
                let mut found = Vec::new();
                for entries in keys {
                    self.connect(table, entries, check, &mut found)?;
                }
                Ok(found)
            });
            let parts: Vec<Vec<Pair>> = parts.collect::<Result<_>>()?;
            found.extend(parts.into_iter().flatten());
        }
        Ok(found)
    }

    /// Connects the near hashes of one key.
    fn connect(
        &self,
        table: usize,
        entries: &[Entry<W>],
        check: Check<'_>,
        found: &mut Vec<Pair>,
    ) -> Result<()> {
        let mut distinct: Vec<Entry<W>> = Vec::new();
        for &entry in entries {
            match distinct.last() {
                Some(first) if first.hash == entry.hash => {
                    if table == 0 {
                        found.push(pair(*first, entry));
                    }
                }
                _ => distinct.push(entry),
            }
        }
        let key = Key {
            trees: Trees::new(distinct.len()),
            distinct,
            is_first: |one, other| self.tables.first_equal(one, other) == Some(table),
            found,
        };
        if key.distinct.len() <= DIRECT {
            key.compare(self.max_distance);
            return Ok(());
        }
        key.search(self.max_distance, check)
    }
}

/// The different hashes of one key, while near ones are connected.
struct Key<'f, const W: usize, F> {
    distinct: Vec<Entry<W>>,
    trees: Trees,
    /// Whether two hashes have no key in common in an earlier table.
    is_first: F,
    found: &'f mut Vec<Pair>,
}

impl<const W: usize, F: Fn(Hash<W>, Hash<W>) -> bool> Key<'_, W, F> {
    /// Compares each hash with each, until all are connected.
    fn compare(mut self, max_distance: u32) {
        let hashes = self.distinct.iter();
        let words: Vec<u64> = hashes.flat_map(|entry| entry.hash.0).collect();
        let mut near = Vec::new();
        for place in 0..self.distinct.len() {
            if self.trees.count <= 1 {
                return;
            }
            let later = place + 1;
            near.clear();
            let (own, others) = words[place * W..].split_at(W);
            within(own, others, max_distance, &mut near);
            for &other in &near {
                self.join(place, later + other);
            }
        }
    }

    /// Searches an index for the hashes near each, unless they have too many neighbours.
    fn search(mut self, max_distance: u32, check: Check<'_>) -> Result<()> {
        let mut filed = KeptHashes::new();
        let mut neighbours = 0;
        for place in 0..self.distinct.len() {
            if place.is_multiple_of(CHECK_EVERY / 16) {
                check()?;
            }
            let hash = self.distinct[place].hash;
            let near = filed.within(hash, max_distance);
            neighbours += near.len();
            if neighbours > CROWDED * self.distinct.len() {
                (1..self.distinct.len()).for_each(|other| self.connect(0, other));
                return Ok(());
            }
            near.into_iter().for_each(|other| self.join(other, place));
            filed.push(hash);
        }
        Ok(())
    }

    /// Connects two near hashes, if it is up to this table.
    fn join(&mut self, one: usize, other: usize) {
        let [first, second] = [one, other].map(|place| self.distinct[place].hash);
        if !self.trees.are_joined(one, other) && (self.is_first)(first, second) {
            self.connect(one, other);
        }
    }

    fn connect(&mut self, one: usize, other: usize) {
        if self.trees.join(one, other) {
            self.found
                .push(pair(self.distinct[one], self.distinct[other]));
        }
    }
}

fn pair<const W: usize>(one: Entry<W>, other: Entry<W>) -> Pair {
    Pair {
        one: one.image,
        other: other.image,
    }
}

/// Adds the places of the hashes within `max_distance` bits of `hash` to `found`. All have as many
/// words.
#[multiversion::multiversion(targets("x86_64+popcnt"))]
fn within(hash: &[u64], hashes: &[u64], max_distance: u32, found: &mut Vec<usize>) {
    if let [hash] = hash {
        for (place, other) in hashes.iter().enumerate() {
            if (hash ^ other).count_ones() <= max_distance {
                found.push(place);
            }
        }
        return;
    }
    for (place, other) in hashes.chunks_exact(hash.len()).enumerate() {
        let words = hash.iter().zip(other);
        let differ: u32 = words.map(|(a, b)| (a ^ b).count_ones()).sum();
        if differ <= max_distance {
            found.push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::components::{Components, decide};
    use crate::hash::Forms;
    use crate::perceptual;

    /// All pairs that `parts` parts find.
    fn found<const W: usize>(hashes: &[Hash<W>], max_distance: u32, parts: u32) -> Vec<Pair> {
        let of = |part: u32| {
            let mut part = Part::new(max_distance, part, parts);
            let numbered = hashes.iter().enumerate();
            numbered.for_each(|(number, hash)| part.add(number as u64, *hash));
            part.pairs(&|| Ok(())).unwrap()
        };
        (0..parts).flat_map(of).collect()
    }

    /// Whether all near pairs are connected, and only images that some chain of near pairs connects.
    fn connects<const W: usize>(hashes: &[Hash<W>], max_distance: u32, pairs: &[Pair]) -> bool {
        let mut expected = Trees::new(hashes.len());
        for (other, hash) in hashes.iter().enumerate() {
            for (one, earlier) in hashes[..other].iter().enumerate() {
                if hash.distance(*earlier) <= max_distance {
                    expected.join(one, other);
                }
            }
        }
        let mut joined = Trees::new(hashes.len());
        for pair in pairs {
            joined.join(pair.one as usize, pair.other as usize);
        }
        let mut places = 0..hashes.len();
        joined.count == expected.count
            && places.all(|place| joined.are_joined(place, expected.root(place)))
    }

    /// Hashes around a few centres, so that there are neighbours at all distances.
    fn hashes() -> impl Strategy<Value = Vec<u64>> {
        let hash =
            (0..6_u64, prop::collection::vec(0..64_u32, 0..9)).prop_map(|(centre, flips)| {
                let centre = centre.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                flips.iter().fold(centre, |hash, bit| hash ^ (1 << bit))
            });
        prop::collection::vec(hash, 0..200)
    }

    fn short(hashes: &[u64]) -> Vec<Hash<1>> {
        hashes.iter().map(|hash| Hash([*hash])).collect()
    }

    /// What `decide` decides from the pairs of `parts` parts, the hashes in rank order. `number` is an
    /// image's number, by its rank.
    fn decided(hashes: &[Hash<1>], max_distance: u32, parts: u32) -> Vec<Option<(usize, u32)>> {
        // Which of equal hashes comes first is not the ranking's order.
        let reversed: Vec<Hash<1>> = hashes.iter().rev().copied().collect();
        let components = Components::new(&found(&reversed, max_distance, parts));
        let last = hashes.len().saturating_sub(1);
        let ranked = hashes.iter().enumerate();
        let ranked: Vec<(u64, Hash<1>)> = ranked
            .map(|(place, hash)| ((last - place) as u64, *hash))
            .collect();
        decide(&components, &ranked, max_distance, &|| Ok(())).unwrap()
    }

    fn by_one_process(hashes: &[Hash<1>], max_distance: u32) -> Vec<Option<(usize, u32)>> {
        let forms: Vec<Forms<1>> = hashes.iter().map(|hash| (*hash).into()).collect();
        perceptual::duplicates(&forms, max_distance, &|| Ok(())).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn near_hashes_are_connected(hashes in hashes(), max_distance in 0..17_u32, parts in 1..40_u32) {
            let hashes = short(&hashes);
            let pairs = found(&hashes, max_distance, parts);
            prop_assert!(connects(&hashes, max_distance, &pairs));
        }

        /// As the 64 bits alone, where those of other words are equal.
        #[test]
        fn hashes_may_have_more_words(hashes in hashes(), max_distance in 0..32_u32, word in 0..4_usize) {
            let long = |hash: &u64| Hash(std::array::from_fn(|i| if i == word { *hash } else { 5 }));
            let long: Vec<Hash<4>> = hashes.iter().map(long).collect();
            prop_assert!(connects(&long, max_distance, &found(&long, max_distance, 5)));
        }

        #[test]
        fn pairs_decide_what_hashes_decide(hashes in hashes(), max_distance in 0..17_u32) {
            let hashes = short(&hashes);
            prop_assert_eq!(decided(&hashes, max_distance, 3), by_one_process(&hashes, max_distance));
        }
    }

    #[test]
    fn bands_have_all_bits() {
        for max_distance in 0..=16 {
            let tables = Tables::<1>::new(max_distance).0;
            let bands = max_distance as usize + 2;
            assert_eq!(tables.len(), bands * (bands - 1) / 2);
            assert_eq!(tables.iter().fold(0, |all, mask| all | mask.0[0]), u64::MAX);
            let shortest = tables.iter().map(|mask| mask.0[0].count_ones()).min();
            assert!(shortest >= Some(2 * (64 / bands as u32)), "{max_distance}");
        }
    }

    /// More hashes of one key than are compared with each other.
    #[test]
    fn many_hashes_of_one_key_are_searched() {
        let varying = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40 << 40;
        let hashes = short(&(0..DIRECT as u64 + 500).map(varying).collect::<Vec<_>>());
        let pairs = found(&hashes, 4, 7);
        assert!(pairs.len() > 100, "{}", pairs.len());
        assert!(connects(&hashes, 4, &pairs));
    }

    /// Some 10,000 different hashes of one key, each near 2,000 others.
    #[test]
    fn crowds_report_few_pairs_and_are_decided_as_by_one_process() {
        let bits = |from: u32| (from..64).map(|bit| (bit, 1_u64 << bit));
        let pairs = bits(24).flat_map(|(a, one)| bits(a + 1).map(move |(b, two)| (b, one | two)));
        let triples = pairs.flat_map(|(b, two)| bits(b + 1).map(move |(_, three)| two | three));
        let hashes = short(&triples.collect::<Vec<_>>());
        assert_eq!(hashes.len(), 9880);
        let pairs = found(&hashes, 4, 3);
        // Each table reports a tree at most.
        assert!(pairs.len() < 15 * hashes.len(), "{}", pairs.len());
        assert_eq!(decided(&hashes, 4, 3), by_one_process(&hashes, 4));
    }

    /// Copies of one picture have one pair each.
    #[test]
    fn equal_hashes_stay_linear() {
        assert_eq!(found(&short(&[7; 100_000]), 4, 2).len(), 99_999);
    }
}
