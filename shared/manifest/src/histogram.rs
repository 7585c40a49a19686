//! Histograms of scores, for any distribution.
//!
//! The float32 numbers are ordered by an integer rank: the bits of the magnitude, with the sign. A
//! bin contains the scores whose ranks differ only in the last `shift` bits, so its width is
//! proportional to the scores in it: narrow near zero, wide for outliers. Zero has its own bin, and
//! no bin contains both signs. Only non-empty bins are stored, at most [`BINS`], and `shift` is the
//! smallest value with which they suffice. The histogram therefore depends on the scores alone:
//! merging the histograms of parts, in any order, gives the histogram of the whole.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The maximum number of bins in a histogram.
const BINS: usize = 4096;
/// The shift at which all float32 numbers together have at most [`BINS`] bins.
const COARSEST: u32 = 20;
/// The rank of the largest number.
const LARGEST: i32 = f32::MAX.to_bits() as i32;

/// The number of scores in each bin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Written", try_from = "Written")]
pub struct Histogram {
    shift: u32,
    /// The number and count of each non-empty bin, in ascending order.
    bins: Vec<(i32, u64)>,
}

/// A threshold that keeps a fraction of the scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TopScores {
    /// Scores at or above this value are kept.
    pub threshold: f32,
    /// The number of scores that are kept.
    pub kept: u64,
    /// The number of scores that were requested.
    pub wanted: u64,
}

/// A bin with its lowest and highest possible score, and its count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bin {
    /// The lowest score of the bin's range.
    pub low: f32,
    /// The highest score of the bin's range.
    pub high: f32,
    /// The number of scores in the bin.
    pub count: u64,
}

impl Histogram {
    /// Counts a score. Scores that are not finite are ignored.
    pub fn add(&mut self, score: f32) {
        if !score.is_finite() {
            return;
        }
        let bin = bin_of(rank(score), self.shift);
        match self.bins.binary_search_by_key(&bin, |(bin, _)| *bin) {
            Ok(at) => self.bins[at].1 = self.bins[at].1.saturating_add(1),
            Err(at) => {
                self.bins.insert(at, (bin, 1));
                self.fit();
            }
        }
    }

    /// Adds the counts of another histogram, which may have other bins.
    pub fn merge(&mut self, other: &Self) {
        let mut other = other.clone();
        let shift = self.shift.max(other.shift);
        self.coarsen(shift - self.shift);
        other.coarsen(shift - other.shift);
        self.bins.extend(other.bins);
        self.bins.sort_unstable();
        self.join_equal();
        self.fit();
    }

    /// Widens the bins until there are at most [`BINS`].
    fn fit(&mut self) {
        while self.bins.len() > BINS {
            self.coarsen(1);
        }
    }

    fn coarsen(&mut self, bits: u32) {
        if bits == 0 {
            return;
        }
        self.shift += bits;
        for (bin, _) in &mut self.bins {
            *bin = match *bin {
                1.. => ((*bin - 1) >> bits) + 1,
                other => other >> bits,
            };
        }
        self.join_equal();
    }

    fn join_equal(&mut self) {
        self.bins.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                earlier.1 = earlier.1.saturating_add(later.1);
            }
            same
        });
    }

    /// Returns the precision of a threshold taken from the histogram: the width of a bin as a
    /// fraction of its scores. 0 means that each bin contains one value.
    pub fn resolution(&self) -> f64 {
        match self.shift {
            0 => 0.0,
            // A float32 has 23 bits after the leading one.
            shift => 2_f64.powi(shift as i32 - 23),
        }
    }

    /// Returns the number of scores.
    pub fn count(&self) -> u64 {
        let counts = self.bins.iter().map(|(_, count)| *count);
        counts.fold(0, u64::saturating_add)
    }

    /// Returns the non-empty bins in ascending order.
    pub fn bins(&self) -> impl DoubleEndedIterator<Item = Bin> {
        let shift = self.shift;
        self.bins.iter().map(move |&(bin, count)| {
            let (low, high) = ranks(bin, shift);
            let (low, high) = (number(low), number(high));
            Bin { low, high, count }
        })
    }

    /// Returns the highest lower bound of a bin such that at least this fraction of the scores is
    /// at or above it. Returns `None` if there are no scores.
    pub fn top(&self, fraction: f64) -> Option<TopScores> {
        // 7 % of 100 is 7, although the product of the float64 numbers is slightly larger.
        let wanted = (fraction * self.count() as f64 - 1e-6).ceil().max(1.0) as u64;
        let mut kept: u64 = 0;
        for bin in self.bins().rev() {
            kept = kept.saturating_add(bin.count);
            if kept >= wanted {
                let threshold = bin.low;
                return Some(TopScores {
                    threshold,
                    kept,
                    wanted,
                });
            }
        }
        None
    }
}

/// Returns the rank of a number among all float32 numbers; 0 for both zeros.
fn rank(score: f32) -> i32 {
    let magnitude = score.abs().to_bits() as i32;
    if score < 0.0 { -magnitude } else { magnitude }
}

/// Returns the number with this rank.
fn number(rank: i32) -> f32 {
    let magnitude = f32::from_bits(rank.unsigned_abs());
    if rank < 0 { -magnitude } else { magnitude }
}

/// Returns the bin of a rank. Bins of positive numbers are shifted by one, so that zero has its
/// own.
fn bin_of(rank: i32, shift: u32) -> i32 {
    match rank {
        1.. => (rank >> shift) + 1,
        rank => rank >> shift,
    }
}

/// Returns the lowest and the highest rank of a bin.
fn ranks(bin: i32, shift: u32) -> (i32, i32) {
    match bin {
        1.. => {
            let first = (bin - 1) << shift;
            let last = (i64::from(bin) << shift) - 1;
            (first.max(1), last.min(LARGEST.into()) as i32)
        }
        0 => (0, 0),
        _ => ((bin << shift).max(-LARGEST), ((bin + 1) << shift) - 1),
    }
}

/// The form of a histogram in a receipt. `bins` has one word for each bin: the distance from the
/// previous bin (for the first bin, its number), then a colon and the count unless it is 1.
#[derive(Serialize, Deserialize)]
struct Written {
    shift: u32,
    bins: String,
}

impl From<Histogram> for Written {
    fn from(histogram: Histogram) -> Self {
        let mut before = 0;
        let words = histogram.bins.iter().map(|&(bin, count)| {
            let gap = i64::from(bin) - i64::from(before);
            before = bin;
            match count {
                1 => gap.to_string(),
                _ => format!("{gap}:{count}"),
            }
        });
        Self {
            bins: words.collect::<Vec<_>>().join(" "),
            shift: histogram.shift,
        }
    }
}

impl TryFrom<Written> for Histogram {
    type Error = Error;

    fn try_from(Written { shift, bins }: Written) -> Result<Self> {
        let impossible = || Error::data("a histogram with impossible bins");
        let bins = parsed(&bins).ok_or_else(impossible)?;
        let in_range = |&(bin, count): &(i32, u64)| {
            let edge = bin_of(LARGEST, shift);
            (-edge..=edge).contains(&bin) && count > 0
        };
        let valid = shift <= COARSEST
            && bins.len() <= BINS
            && bins.iter().all(in_range)
            && bins.is_sorted_by(|a, b| a.0 < b.0);
        valid.then_some(Self { shift, bins }).ok_or_else(impossible)
    }
}

/// Parses the bins. Returns `None` if the text is malformed.
fn parsed(text: &str) -> Option<Vec<(i32, u64)>> {
    let mut bin: i64 = 0;
    let words = text.split_ascii_whitespace().map(|word| {
        let (gap, count) = word.split_once(':').unwrap_or((word, "1"));
        bin = bin.checked_add(gap.parse().ok()?)?;
        Some((i32::try_from(bin).ok()?, count.parse().ok()?))
    });
    words.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(scores: &[f32]) -> Histogram {
        let mut histogram = Histogram::default();
        scores.iter().for_each(|score| histogram.add(*score));
        histogram
    }

    /// Returns pseudo-random numbers, uniform in `0.0..1.0`.
    fn even(count: u32) -> impl Iterator<Item = f64> {
        (0..count).map(|i| {
            let mixed = u64::from(i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            (mixed >> 11) as f64 / (1_u64 << 53) as f64
        })
    }

    /// Returns approximately normally distributed numbers.
    fn normal(count: u32) -> impl Iterator<Item = f64> {
        let parts: Vec<f64> = even(12 * count).collect();
        let sums = parts.chunks(12).map(|part| part.iter().sum::<f64>() - 6.0);
        sums.collect::<Vec<_>>().into_iter()
    }

    /// Returns distributions that scores have, and some that they should not have.
    fn distributions() -> Vec<(&'static str, Vec<f32>)> {
        let count = 20_000;
        let of = |numbers: Vec<f64>| numbers.into_iter().map(|x| x as f32).collect::<Vec<_>>();
        let outlier = |far: f32| {
            let mut scores = of(even(count).collect());
            scores.extend([far, -far]);
            scores
        };
        vec![
            ("even", of(even(count).collect())),
            ("one outlier", outlier(1e6)),
            ("the furthest outliers", outlier(f32::MAX)),
            (
                "log-normal",
                of(normal(count).map(|x| (3.0 * x).exp()).collect()),
            ),
            ("tiny", of(even(count).map(|x| x * 1e-11).collect())),
            ("subnormal", of(even(count).map(|x| x * 1e-40).collect())),
            (
                "close to each other",
                of(even(count).map(|x| 5.0 + x * 1e-3).collect()),
            ),
            ("negative", of(even(count).map(|x| -1.0 - x).collect())),
            ("both signs", of(normal(count).collect())),
            ("logarithms", of(even(count).map(|x| x.ln()).collect())),
            (
                "all magnitudes",
                of(even(count).map(|x| 2_f64.powf(250.0 * x - 125.0)).collect()),
            ),
            (
                "zero for half of them",
                of(even(count).map(|x| (x - 0.5).max(0.0) * 1e-39).collect()),
            ),
            (
                "whole numbers",
                of(even(count).map(|x| (x * 100.0).floor()).collect()),
            ),
            ("equal", vec![0.25; count as usize]),
            ("few", vec![3.0, 1.0, 2.0, -1.0, 0.0]),
        ]
    }

    #[test]
    fn the_top_is_what_was_asked_for_within_the_resolution() {
        for (name, mut scores) in distributions() {
            let histogram = of(&scores);
            scores.sort_by(|a, b| b.total_cmp(a));
            for fraction in [0.001, 0.07, 0.1, 0.3, 0.5, 0.9, 1.0] {
                let top = histogram.top(fraction).unwrap();
                let kept = scores.iter().filter(|score| **score >= top.threshold);
                assert_eq!(kept.count() as u64, top.kept, "{name} {fraction}");
                assert!(top.kept >= top.wanted, "{name} {fraction}: {top:?}");
                // The exact threshold, and how far below it the histogram's may be.
                let exact = scores[top.wanted as usize - 1];
                let slack = f64::from(exact.abs()) * histogram.resolution() + 1e-38;
                let reached = f64::from(exact) - f64::from(top.threshold);
                assert!(
                    (0.0..=slack).contains(&reached),
                    "{name} {fraction}: {exact} {top:?}"
                );
            }
        }
    }

    #[test]
    fn usual_distributions_are_cut_within_a_percent_of_the_rows() {
        for (name, scores) in distributions() {
            if ["equal", "whole numbers", "zero for half of them"].contains(&name) {
                continue; // ties: all are kept
            }
            let histogram = of(&scores);
            for fraction in [0.01, 0.1, 0.5] {
                let top = histogram.top(fraction).unwrap();
                let more = (top.kept - top.wanted) as f64 / scores.len() as f64;
                assert!(more <= 0.01, "{name} {fraction}: {top:?}");
            }
        }
    }

    #[test]
    fn parts_merge_to_the_whole_in_any_order() {
        for (name, scores) in distributions() {
            let whole = of(&scores);
            assert!(whole.bins.len() <= BINS, "{name}");
            assert_eq!(whole.count(), scores.len() as u64, "{name}");
            for part in [97, 1000, 7777] {
                let parts: Vec<Histogram> = scores.chunks(part).map(of).collect();
                let merge = |mut merged: Histogram, part: &Histogram| {
                    merged.merge(part);
                    merged
                };
                let forward = parts.iter().fold(Histogram::default(), merge);
                let backward = parts.iter().rev().fold(Histogram::default(), merge);
                assert!((&forward, &backward) == (&whole, &whole), "{name} {part}");
            }
            let json = serde_json::to_string(&whole).unwrap();
            assert!(json.len() < 50_000, "{name}: {} bytes", json.len());
            let back: Histogram = serde_json::from_str(&json).unwrap();
            assert!(back == whole, "{name}");
        }
    }

    #[test]
    fn special_numbers_have_their_places() {
        let scores = [
            f32::MAX,
            f32::MIN,
            0.0,
            -0.0,
            1.0,
            f32::from_bits(1),
            -f32::from_bits(1),
        ];
        let mut histogram = of(&scores);
        histogram.merge(&of(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]));
        for _ in 0..=COARSEST {
            assert_eq!(histogram.count(), 7);
            let zeros = histogram.bins().find(|bin| bin.low == 0.0).unwrap();
            assert_eq!((zeros.high, zeros.count), (0.0, 2));
            for bin in histogram.bins() {
                let within = scores.iter().filter(|s| (bin.low..=bin.high).contains(*s));
                assert_eq!(within.count() as u64, bin.count, "{bin:?}");
                assert!(bin.low.is_finite() && bin.high.is_finite(), "{bin:?}");
            }
            histogram.coarsen(1);
        }
        assert_eq!(of(&[]).top(0.5), None);
        let equal = of(&[2.0; 7]).top(0.1).unwrap();
        assert_eq!((equal.threshold, equal.kept, equal.wanted), (2.0, 7, 1));
    }

    #[test]
    fn impossible_histograms_are_refused() {
        let read = |shift: i64, bins: &str| {
            serde_json::from_value::<Histogram>(serde_json::json!({ "shift": shift, "bins": bins }))
        };
        assert_eq!(read(0, "1065353217:2").unwrap(), of(&[1.0, 1.0]));
        let most = format!("0:{0} 1:{0}", u64::MAX);
        let mut full = read(0, &most).unwrap();
        full.add(0.0);
        full.merge(&full.clone());
        let top = full.top(1.0).unwrap();
        assert_eq!((full.count(), top.kept), (u64::MAX, u64::MAX));
        let wrong = [
            (21, "1"),
            (-1, "1"),
            (0, "1:0"),
            (0, "5 0"),
            (0, "5 -1"),
            (0, "2147483647"),
            (20, "4096"),
            (0, "1:x"),
            (0, "99999999999999999999"),
        ];
        for (shift, bins) in wrong {
            assert!(read(shift, bins).is_err(), "{shift} {bins}");
        }
    }
}
