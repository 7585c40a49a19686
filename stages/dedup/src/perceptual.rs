//! Images whose 64-bit perceptual hashes differ in few bits.
//!
//! # Definition
//! Walk the hashes in rank order, best first. An image is removed when an image
//! *kept* earlier lies within `max_distance` bits (Hamming distance); it
//! duplicates the nearest of those, the earliest at equal distance. All others
//! are kept. So every removed image is near an image that is still there, and
//! no two kept images are near each other.
//!
//! # Algorithm
//! Multi-index hashing (Norouzi, Punjani, Fleet, "Fast Search in Hamming Space
//! with Multi-Index Hashing", CVPR 2012 and TPAMI 2014): cut each hash into
//! bands, file each kept hash under the value of each of its bands, and look
//! only at hashes that share, or nearly share, a band value with the query.
//! The textbook form has `d + 1` bands, one of which must be equal when at most
//! `d` bits differ. We keep four bands of 16 bits and hand out *shells* (the
//! values that differ from the query's band in exactly 0, 1, 2, ... bits)
//! instead, as in Qin et al., "GPH: Similarity Search in Hamming Space", ICDE
//! 2018. When the innermost `s[b]` shells of band `b` are searched and the
//! `s[b]` sum up to `d + 1`, nothing is missed: a hash that lies in no searched
//! shell differs in at least `s[b]` bits in each band, and in at least `d + 1`
//! altogether.
//!
//! Which bands get the shells is free, so each query buys the cheapest ones,
//! counting the buckets before it opens them. For a million random hashes and
//! `d = 4` that is about 20 buckets of 15 hashes.
//!
//! # Why it stays fast on bad data
//! - *Equal hashes* (blank images, re-uploads): only kept hashes are filed, so
//!   copies never lengthen a bucket. A map from hash to its answer finds copies
//!   of a kept hash at once. A copy of a *removed* hash has the same answer
//!   unless something nearer was kept since, so only what was kept since is
//!   looked at.
//! - *A band value shared by nearly all images* (flat skies, line drawings,
//!   half of the hash constant): that band's innermost shell is as long as the
//!   data, so no query buys it; the other bands give their second or third
//!   shell instead. What is left needs bits that vary: kept hashes are more
//!   than `d` bits apart from each other, so a million of them cannot share
//!   most of their bits in all bands.
//! - *Few hashes, or a large `d`*: when opening the buckets would cost more
//!   than comparing with every kept hash, that is done instead.
//!
//! Memory: about 80 bytes for each kept hash, and 6 MB for the empty buckets.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use rayon::prelude::*;
use sluice_manifest::Result;

use crate::Check;

/// Hashes between two checks. One takes a millisecond where all are compared with a million others.
const CHECK_EVERY: usize = 256;

const BANDS: usize = 4;
const BAND_BITS: u32 = 16;
const BAND_VALUES: usize = 1 << BAND_BITS;

/// What became of the first image with some hash.
enum Answer {
    /// It was kept: this is its row.
    Kept(usize),
    /// It was removed, in favour of a hash among the first `seen` kept ones.
    Removed { found: Found, seen: usize },
}

/// The nearest kept hash. Ordered: nearest first, then earliest kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    distance: u32,
    /// Position among the kept hashes.
    position: usize,
}

/// For each hash the row that it duplicates and the distance in bits, or `None`
/// for those that are kept. `hashes` come in rank order, best first.
///
/// # Errors
/// Of `check`.
pub fn duplicates(
    hashes: &[u64],
    max_distance: u32,
    check: Check<'_>,
) -> Result<Vec<Option<(usize, u32)>>> {
    let mut kept = KeptHashes::new();
    let mut kept_rows: Vec<usize> = Vec::new();
    let mut answers: HashMap<u64, Answer> = HashMap::new();
    let mut result = Vec::with_capacity(hashes.len());
    for (row, &hash) in hashes.iter().enumerate() {
        if row.is_multiple_of(CHECK_EVERY) {
            check()?;
        }
        let (earlier, seen) = match answers.entry(hash) {
            Entry::Occupied(entry) => match *entry.get() {
                Answer::Kept(kept_row) => {
                    result.push(Some((kept_row, 0)));
                    continue;
                }
                Answer::Removed { found, seen } => (Some(found), seen),
            },
            Entry::Vacant(_) => (None, 0),
        };
        let found = match (earlier, kept.nearest(hash, max_distance, seen)) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        match found {
            Some(found) => {
                let seen = kept.len();
                answers.insert(hash, Answer::Removed { found, seen });
                result.push(Some((kept_rows[found.position], found.distance)));
            }
            None => {
                answers.insert(hash, Answer::Kept(row));
                kept.push(hash);
                kept_rows.push(row);
                result.push(None);
            }
        }
    }
    Ok(result)
}

/// Whether a perceptual hash tells pictures apart. All flat pictures have one hash, whatever their
/// colour: no bit but the mean's. They are not compared, or they would all be duplicates.
pub(crate) fn is_informative(phash: u64) -> bool {
    phash.count_ones() > 1
}

/// For each hash the nearest of `others` within `max_distance` bits: its index, the first of equally
/// near ones, and the distance. `others` should differ from each other.
///
/// # Errors
/// Of `check`.
pub(crate) fn nearest(
    hashes: &[u64],
    others: &[u64],
    max_distance: u32,
    check: Check<'_>,
) -> Result<Vec<Option<(usize, u32)>>> {
    if others.is_empty() {
        return Ok(vec![None; hashes.len()]);
    }
    let mut filed = KeptHashes::new();
    for (number, &other) in others.iter().enumerate() {
        if number.is_multiple_of(CHECK_EVERY) {
            check()?;
        }
        filed.push(other);
    }
    let of = |hash: &u64| {
        let found = filed.nearest(*hash, max_distance, 0);
        found.map(|found| (found.position, found.distance))
    };
    let parts = hashes.par_chunks(CHECK_EVERY).map(|hashes| {
        check()?;
        Ok(hashes.iter().map(of).collect())
    });
    let parts: Vec<Vec<_>> = parts.collect::<Result<_>>()?;
    Ok(parts.concat())
}

/// A hash filed in a bucket.
struct Filed {
    hash: u64,
    /// Position among the kept hashes, ascending within a bucket.
    position: u32,
}

/// The kept hashes, in rank order, and the multi-index over them.
struct KeptHashes {
    hashes: Vec<u64>,
    /// Indexed by band, then by value.
    buckets: Vec<Vec<Filed>>,
    /// All 16-bit values with 0, 1, 2, ... 16 bits set.
    shells: Vec<Vec<u16>>,
}

impl KeptHashes {
    fn new() -> Self {
        let mut shells = vec![Vec::new(); BAND_BITS as usize + 1];
        for value in 0..=u16::MAX {
            shells[value.count_ones() as usize].push(value);
        }
        Self {
            hashes: Vec::new(),
            buckets: std::iter::repeat_with(Vec::new)
                .take(BANDS * BAND_VALUES)
                .collect(),
            shells,
        }
    }

    fn len(&self) -> usize {
        self.hashes.len()
    }

    fn push(&mut self, hash: u64) {
        let position = u32::try_from(self.hashes.len()).expect("fewer than 2^32 kept hashes");
        self.hashes.push(hash);
        for band in 0..BANDS {
            self.buckets[bucket(hash, band, 0)].push(Filed { hash, position });
        }
    }

    /// The nearest kept hash within `max_distance`, among those at positions
    /// from `since` on.
    fn nearest(&self, hash: u64, max_distance: u32, since: usize) -> Option<Found> {
        let mut nearest: Option<Found> = None;
        let mut look = |other: u64, position: usize| {
            let distance = (hash ^ other).count_ones();
            let found = Found { distance, position };
            if distance <= max_distance && nearest.is_none_or(|nearest| found < nearest) {
                nearest = Some(found);
            }
        };
        match self.plan(hash, max_distance, self.len() - since) {
            None => {
                for (offset, &other) in self.hashes[since..].iter().enumerate() {
                    look(other, since + offset);
                }
            }
            Some(searched) => {
                for (band, &count) in searched.iter().enumerate() {
                    for &flips in self.shells.iter().take(count).flatten() {
                        self.buckets[bucket(hash, band, flips)]
                            .iter()
                            .rev()
                            .take_while(|filed| filed.position as usize >= since)
                            .for_each(|filed| look(filed.hash, filed.position as usize));
                    }
                }
            }
        }
        nearest
    }

    /// How many shells to search in each band, `max_distance + 1` in total:
    /// always the cheapest next one. `None` when that would cost more than
    /// looking at `limit` hashes.
    fn plan(&self, hash: u64, max_distance: u32, limit: usize) -> Option<[usize; BANDS]> {
        // A bucket costs one step to open, and one for each hash in it. The
        // shell beyond the last is empty and free: the band is exhausted.
        let shell = |shell: usize| self.shells.get(shell).map_or(&[][..], Vec::as_slice);
        let hashes_in = |band: usize, flips: &u16| self.buckets[bucket(hash, band, *flips)].len();
        let mut counts = [0; BANDS];
        // The cost of the next shell of each band, and whether its hashes have
        // been counted; until it might be the cheapest, opening is enough.
        let mut next = [(1, false); BANDS];
        let mut total = 0;
        let mut missing = max_distance.min(u64::BITS) + 1;
        while missing > 0 {
            let (band, _) = next.iter().enumerate().min_by_key(|(_, next)| next.0)?;
            let flips = shell(counts[band]);
            if total + flips.len() >= limit {
                return None;
            }
            if !next[band].1 {
                let hashes: usize = flips.iter().map(|flips| hashes_in(band, flips)).sum();
                next[band] = (flips.len() + hashes, true);
                continue;
            }
            total += next[band].0;
            if total >= limit {
                return None;
            }
            counts[band] += 1;
            missing -= 1;
            next[band] = (shell(counts[band]).len(), false);
        }
        Some(counts)
    }
}

/// Index of the bucket of `hash` in `band`, with the bits of `flips` flipped.
fn bucket(hash: u64, band: usize, flips: u16) -> usize {
    let value = (hash >> (band as u32 * BAND_BITS)) as u16 ^ flips;
    band * BAND_VALUES + value as usize
}
