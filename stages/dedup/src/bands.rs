//! All pairs of hashes within a Hamming distance, found part by part. Hashes have any number of words
//! of 64 bits.
//!
//! # Tables
//! The bits are cut into `d + 2` bands. There is a table for each two bands, and the key of a hash in
//! a table are its bits in those two: the tables of Manku, Jain, Das Sarma, "Detecting Near-Duplicates
//! for Web Crawling", WWW 2007. Two hashes are compared where a table has one key for both.
//!
//! # Every pair is found
//! Each bit that differs spoils the band that it is in. So `d` bits spoil at most `d` bands, and at
//! least two of the `d + 2` are equal: in the table of these two, both hashes have the same key. A
//! pair may meet in several tables. It is reported in the first of them, which the two hashes alone
//! determine, so every pair is reported exactly once, whatever the parts are.
//!
//! # Parts
//! All tables together are one line of keys, each key spread by a hash function, and the line is cut
//! into equally long parts. A part holds the hashes whose keys fall into it: with `n` hashes, `t`
//! tables and `p` parts about `n * t / p` entries of 16 bytes. For `d = 4` there are 15 tables with keys
//! of 21 bits.
//!
//! # Equal keys
//! The entries of a table are sorted, so equal keys are neighbours. Few hashes of one key are all
//! compared with each other; many (pictures whose hashes differ in some bits only) are searched by
//! their other bits, with the index of `perceptual.rs`.
//!
//! Of equal hashes the first one stands for all. The others have one pair each, with the first.

use rayon::prelude::*;
use sluice_manifest::Result;

use crate::Check;
use crate::hash::{Hash, scaled};
use crate::perceptual::KeptHashes;

/// Different hashes of one key that are compared with each other. Above, an index pays.
const DIRECT: usize = 2048;

/// Keys between two checks.
const CHECK_EVERY: usize = 4096;

/// Two images with near hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// One of them.
    pub one: u64,
    /// The other one.
    pub other: u64,
    /// Bits in which their hashes differ.
    pub distance: u32,
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

    /// Returns the pairs that this part reports, in an order that the hashes and numbers determine.
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
                    self.compare(table, entries, check, &mut found)?;
                }
                Ok(found)
            });
            let parts: Vec<Vec<Pair>> = parts.collect::<Result<_>>()?;
            found.extend(parts.into_iter().flatten());
        }
        Ok(found)
    }

    /// Compares the hashes that have one key.
    fn compare(
        &self,
        table: usize,
        entries: &[Entry<W>],
        check: Check<'_>,
        found: &mut Vec<Pair>,
    ) -> Result<()> {
        let mut firsts: Vec<Entry<W>> = Vec::new();
        for &entry in entries {
            match firsts.last() {
                Some(first) if first.hash == entry.hash => {
                    if table == 0 {
                        found.push(pair(*first, entry));
                    }
                }
                _ => firsts.push(entry),
            }
        }
        let reported = |one: Entry<W>, other: Entry<W>| {
            let is_first = self.tables.first_equal(one.hash, other.hash) == Some(table);
            is_first.then(|| pair(one, other))
        };
        if firsts.len() <= DIRECT {
            let words: Vec<u64> = firsts.iter().flat_map(|entry| entry.hash.0).collect();
            let mut near = Vec::new();
            for (place, &one) in firsts.iter().enumerate() {
                let later = place + 1;
                near.clear();
                within(
                    &one.hash.0,
                    &words[later * W..],
                    self.max_distance,
                    &mut near,
                );
                let others = near.iter().map(|near| firsts[later + near]);
                found.extend(others.filter_map(|other| reported(one, other)));
            }
            return Ok(());
        }
        let mut filed = KeptHashes::new();
        for (place, &one) in firsts.iter().enumerate() {
            if place.is_multiple_of(CHECK_EVERY / 16) {
                check()?;
            }
            let near = filed.within(one.hash, self.max_distance);
            found.extend(
                near.into_iter()
                    .filter_map(|other| reported(firsts[other], one)),
            );
            filed.push(one.hash);
        }
        Ok(())
    }
}

fn pair<const W: usize>(one: Entry<W>, other: Entry<W>) -> Pair {
    Pair {
        one: one.image,
        other: other.image,
        distance: one.hash.distance(other.hash),
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
    use crate::graph::decide;
    use crate::hash::Forms;
    use crate::perceptual;

    /// All pairs that `parts` parts find.
    fn found(hashes: &[u64], max_distance: u32, parts: u32) -> Vec<Pair> {
        let hashes: Vec<_> = hashes.iter().map(|hash| Hash([*hash])).collect();
        found_of(&hashes, max_distance, parts)
    }

    fn found_of<const W: usize>(hashes: &[Hash<W>], max_distance: u32, parts: u32) -> Vec<Pair> {
        let of = |part: u32| {
            let mut part = Part::new(max_distance, part, parts);
            let numbered = hashes.iter().enumerate();
            numbered.for_each(|(number, hash)| part.add(number as u64, *hash));
            part.pairs(&|| Ok(())).unwrap()
        };
        let mut found: Vec<Pair> = (0..parts).flat_map(of).collect();
        found.sort();
        found
    }

    /// The definition, word for word.
    fn brute_force(hashes: &[u64], max_distance: u32) -> Vec<Pair> {
        let firsts = hashes
            .iter()
            .map(|hash| hashes.iter().position(|other| other == hash));
        let firsts: Vec<usize> = firsts.map(Option::unwrap).collect();
        let mut pairs = Vec::new();
        for (other, hash) in hashes.iter().enumerate() {
            if firsts[other] < other {
                let one = firsts[other] as u64;
                let other = other as u64;
                pairs.push((one, other, 0));
                continue;
            }
            for (one, earlier) in hashes[..other].iter().enumerate() {
                let distance = (hash ^ earlier).count_ones();
                if firsts[one] == one && distance <= max_distance {
                    pairs.push((one as u64, other as u64, distance));
                }
            }
        }
        let ordered = pairs.into_iter().map(|(a, b, distance)| Pair {
            one: a.min(b),
            other: a.max(b),
            distance,
        });
        let mut pairs: Vec<Pair> = ordered.collect();
        pairs.sort();
        pairs
    }

    fn unordered(pairs: Vec<Pair>) -> Vec<Pair> {
        let ordered = pairs.into_iter().map(|pair| Pair {
            one: pair.one.min(pair.other),
            other: pair.one.max(pair.other),
            distance: pair.distance,
        });
        let mut pairs: Vec<Pair> = ordered.collect();
        pairs.sort();
        pairs
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_pair_is_found_once(hashes in hashes(), max_distance in 0..17_u32, parts in 1..40_u32) {
            let found = found(&hashes, max_distance, parts);
            prop_assert_eq!(unordered(found), brute_force(&hashes, max_distance));
        }

        /// As the 64 bits alone, where those of other words are equal.
        #[test]
        fn hashes_may_have_more_words(hashes in hashes(), max_distance in 0..32_u32, word in 0..4_usize) {
            let long = |hash: &u64| Hash(std::array::from_fn(|i| if i == word { *hash } else { 5 }));
            let long: Vec<Hash<4>> = hashes.iter().map(long).collect();
            let found = found_of(&long, max_distance, 5);
            prop_assert_eq!(unordered(found), brute_force(&hashes, max_distance));
        }

        #[test]
        fn pairs_decide_what_hashes_decide(hashes in hashes(), max_distance in 0..17_u32) {
            let ranked: Vec<u64> = (0..hashes.len() as u64).collect();
            // Which of equal hashes comes first is not the ranking's order.
            let reversed: Vec<u64> = hashes.iter().rev().copied().collect();
            let last = hashes.len().saturating_sub(1) as u64;
            let pairs = found(&reversed, max_distance, 3).into_iter().map(|pair| Pair {
                one: last - pair.one,
                other: last - pair.other,
                distance: pair.distance,
            });
            let decided = decide(&pairs.collect::<Vec<_>>(), &ranked);
            let forms: Vec<Forms<1>> = hashes.iter().map(|hash| Hash([*hash]).into()).collect();
            let expected = perceptual::duplicates(&forms, max_distance, &|| Ok(())).unwrap();
            prop_assert_eq!(decided, expected);
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
        let hashes: Vec<u64> = (0..DIRECT as u64 + 500).map(varying).collect();
        let found = unordered(found(&hashes, 4, 7));
        assert!(found.len() > 100, "{}", found.len());
        assert_eq!(found, brute_force(&hashes, 4));
    }

    /// Copies of one picture have one pair each.
    #[test]
    fn equal_hashes_stay_linear() {
        assert_eq!(found(&[7; 100_000], 4, 2).len(), 99_999);
    }
}
