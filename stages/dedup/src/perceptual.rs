//! Images whose perceptual hashes differ in few bits: of 64, or of 256.
//!
//! # Definition
//! Walk the hashes in rank order, best first. An image is removed when an image
//! *kept* earlier is within `max_distance` bits (Hamming distance); it
//! duplicates the nearest of those, the earliest at equal distance. All others
//! are kept. So every removed image is near a kept image, and
//! no two kept images are near each other.
//!
//! # Algorithm
//! Multi-index hashing (Norouzi, Punjani, Fleet, "Fast Search in Hamming Space
//! with Multi-Index Hashing", CVPR 2012 and TPAMI 2014): cut each hash into
//! bands, file each kept hash under the value of each of its bands, and look
//! only at hashes that share, or nearly share, a band value with the query.
//! The textbook form has `d + 1` bands, one of which must be equal when at most
//! `d` bits differ. We keep bands of 16 bits (four for 64 bits) and search *shells* (the
//! values that differ from the query's band in exactly 0, 1, 2, ... bits)
//! instead, as in Qin et al., "GPH: Similarity Search in Hamming Space", ICDE
//! 2018. When the innermost `s[b]` shells of band `b` are searched and the
//! `s[b]` sum up to `d + 1`, nothing is missed: a hash that is in no searched
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
//!   than `d` bits apart from each other, so a million cannot share most of
//!   their bits in all bands.
//! - *Few hashes, or a large `d`*: when opening the buckets would cost more
//!   than comparing with every kept hash, that is done instead.
//!
//! # Mirrored and rotated images
//! An image may have hashes of its transformed forms ([`Forms`]). It is removed
//! when one of its hashes is near a kept image's own hash. Equal hashes then have no
//! common answer, since their other forms may differ in a bit.
//!
//! Memory: about 80 bytes for each kept hash of 64 bits and 700 for one of 256,
//! and 6 MB for the empty buckets (24 MB), which few hashes do without.

use std::collections::HashMap;

use rayon::prelude::*;
use sluice_manifest::Result;

use crate::Check;
use crate::hash::{Forms, Hash};

/// Hashes between two checks. One takes a millisecond where all are compared with a million others.
const CHECK_EVERY: usize = 256;

const BAND_BITS: u32 = 16;
/// Bands of the longest hash, of 256 bits.
const MOST_BANDS: usize = 16;
const BAND_VALUES: usize = 1 << BAND_BITS;
/// Kept hashes up to which all are compared, without an index.
const FEW: usize = 256;

/// What became of the first image with some hash.
enum Answer {
    /// It was kept: this is its row.
    Kept(usize),
    /// It was removed, in favour of a hash among the first `seen` kept ones.
    Removed { found: HashMatch, seen: usize },
}

/// The nearest kept hash. Ordered: nearest first, then earliest kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct HashMatch {
    distance: u32,
    /// Position among the kept hashes.
    position: usize,
}

/// For each image the row that it duplicates and the distance in bits, or `None`
/// for those that are kept. `images` come in rank order, best first.
///
/// # Errors
/// Of `check`.
pub fn duplicates<const W: usize>(
    images: &[Forms<W>],
    max_distance: u32,
    check: Check<'_>,
) -> Result<Vec<Option<(usize, u32)>>> {
    let mut kept = KeptHashes::new();
    let mut kept_rows: Vec<usize> = Vec::new();
    let mut answers: HashMap<Hash<W>, Answer> = HashMap::new();
    let mut result = Vec::with_capacity(images.len());
    for (row, image) in images.iter().enumerate() {
        if row.is_multiple_of(CHECK_EVERY) {
            check()?;
        }
        let found = if image.others.is_empty() {
            match answers.get(&image.own) {
                Some(Answer::Kept(kept_row)) => {
                    result.push(Some((*kept_row, 0)));
                    continue;
                }
                Some(Answer::Removed { found, seen }) => {
                    let since = kept.nearest(image.own, max_distance, *seen);
                    Some(since.map_or(*found, |since| since.min(*found)))
                }
                None => kept.nearest(image.own, max_distance, 0),
            }
        } else {
            let near = image
                .all()
                .filter_map(|hash| kept.nearest(hash, max_distance, 0));
            near.min()
        };
        match found {
            Some(found) => {
                let seen = kept.len();
                answers.insert(image.own, Answer::Removed { found, seen });
                result.push(Some((kept_rows[found.position], found.distance)));
            }
            None => {
                answers.insert(image.own, Answer::Kept(row));
                kept.push(image.own);
                kept_rows.push(row);
                result.push(None);
            }
        }
    }
    Ok(result)
}

/// For each image the nearest of `others` within `max_distance` bits: its index, the first of equally
/// near ones, and the distance. `others` should differ from each other.
///
/// # Errors
/// Of `check`.
pub(crate) fn nearest<const W: usize>(
    images: &[Forms<W>],
    others: &[Hash<W>],
    max_distance: u32,
    check: Check<'_>,
) -> Result<Vec<Option<(usize, u32)>>> {
    if others.is_empty() {
        return Ok(vec![None; images.len()]);
    }
    let mut filed = KeptHashes::new();
    for (number, &other) in others.iter().enumerate() {
        if number.is_multiple_of(CHECK_EVERY) {
            check()?;
        }
        filed.push(other);
    }
    let of = |image: &Forms<W>| {
        let hashes = image.all();
        let found = hashes.filter_map(|hash| filed.nearest(hash, max_distance, 0));
        found.min().map(|found| (found.position, found.distance))
    };
    let parts = images.par_chunks(CHECK_EVERY).map(|images| {
        check()?;
        Ok(images.iter().map(of).collect())
    });
    let parts: Vec<Vec<_>> = parts.collect::<Result<_>>()?;
    Ok(parts.concat())
}

/// A hash filed in a bucket.
struct Filed<const W: usize> {
    hash: Hash<W>,
    /// Position among the kept hashes, ascending within a bucket.
    position: u32,
}

/// The kept hashes, in rank order, and the multi-index over them.
pub(crate) struct KeptHashes<const W: usize> {
    hashes: Vec<Hash<W>>,
    /// Indexed by band, then by value. Empty while there are few hashes.
    buckets: Vec<Vec<Filed<W>>>,
    /// All 16-bit values with 0, 1, 2, ... 16 bits set.
    shells: Vec<Vec<u16>>,
}

impl<const W: usize> KeptHashes<W> {
    const BANDS: usize = W * (u64::BITS / BAND_BITS) as usize;

    pub(crate) fn new() -> Self {
        Self {
            hashes: Vec::new(),
            buckets: Vec::new(),
            shells: Vec::new(),
        }
    }

    fn len(&self) -> usize {
        self.hashes.len()
    }

    pub(crate) fn push(&mut self, hash: Hash<W>) {
        self.hashes.push(hash);
        match self.len() {
            ..=FEW => {}
            number if self.buckets.is_empty() => self.make_index(number),
            number => self.file(number - 1),
        }
    }

    /// Files the first `count` hashes.
    fn make_index(&mut self, count: usize) {
        self.shells = vec![Vec::new(); BAND_BITS as usize + 1];
        for value in 0..=u16::MAX {
            self.shells[value.count_ones() as usize].push(value);
        }
        let buckets = std::iter::repeat_with(Vec::new);
        self.buckets = buckets.take(Self::BANDS * BAND_VALUES).collect();
        (0..count).for_each(|place| self.file(place));
    }

    fn file(&mut self, place: usize) {
        // Unwrap safety: so many hashes do not fit into memory.
        let position = u32::try_from(place).expect("fewer than 2^32 kept hashes");
        let hash = self.hashes[place];
        for band in 0..Self::BANDS {
            self.buckets[bucket(hash, band, 0)].push(Filed { hash, position });
        }
    }

    /// The nearest kept hash within `max_distance`, among those at positions
    /// from `since` on.
    fn nearest(&self, hash: Hash<W>, max_distance: u32, since: usize) -> Option<HashMatch> {
        let mut nearest: Option<HashMatch> = None;
        let mut look = |other: Hash<W>, position: usize| {
            let distance = hash.distance(other);
            let found = HashMatch { distance, position };
            if distance <= max_distance && nearest.is_none_or(|nearest| found < nearest) {
                nearest = Some(found);
            }
        };
        self.each_candidate(hash, max_distance, since, &mut look);
        nearest
    }

    /// Returns the positions of all kept hashes within `max_distance`, ascending.
    pub(crate) fn within(&self, hash: Hash<W>, max_distance: u32) -> Vec<usize> {
        let mut found = Vec::new();
        self.each_candidate(hash, max_distance, 0, &mut |other, position| {
            if hash.distance(other) <= max_distance {
                found.push(position);
            }
        });
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Calls `look` with each kept hash at positions from `since` on that may be within `max_distance`,
    /// with some more than once.
    fn each_candidate(
        &self,
        hash: Hash<W>,
        max_distance: u32,
        since: usize,
        look: &mut impl FnMut(Hash<W>, usize),
    ) {
        match self.plan(hash, max_distance, self.len() - since) {
            None => {
                for (offset, &other) in self.hashes[since..].iter().enumerate() {
                    look(other, since + offset);
                }
            }
            Some(searched) => {
                for (band, &count) in searched[..Self::BANDS].iter().enumerate() {
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
    }

    /// How many shells to search in each band, `max_distance + 1` in total:
    /// always the cheapest next one. `None` when that would cost more than
    /// looking at `limit` hashes.
    fn plan(&self, hash: Hash<W>, max_distance: u32, limit: usize) -> Option<[usize; MOST_BANDS]> {
        if self.buckets.is_empty() {
            return None;
        }
        // A bucket costs one step to open, and one for each hash in it. The
        // shell beyond the last is empty and free: the band is exhausted.
        let shell = |shell: usize| self.shells.get(shell).map_or(&[][..], Vec::as_slice);
        let hashes_in = |band: usize, flips: &u16| self.buckets[bucket(hash, band, *flips)].len();
        let mut counts = [0; MOST_BANDS];
        // The cost of the next shell of each band, and whether its hashes have
        // been counted; until it might be the cheapest, opening is enough.
        let mut next = [(1, false); MOST_BANDS];
        let next = &mut next[..Self::BANDS];
        let mut total = 0;
        let mut missing = max_distance.min(Hash::<W>::BITS) + 1;
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
fn bucket<const W: usize>(hash: Hash<W>, band: usize, flips: u16) -> usize {
    let value = hash.band(band) ^ flips;
    band * BAND_VALUES + value as usize
}
