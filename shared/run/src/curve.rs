//! The number of images that a filter keeps, for every threshold.
//!
//! The scores of the images that a threshold keeps, and of those that it drops, are counted in two
//! histograms of at most 4096 bins each. Each histogram has the scores of one side, so no bin
//! contains the current threshold. The count is therefore exact for that threshold, for the lower
//! bound of every bin, and for every number between two bins. If a score has fewer distinct values
//! than bins, every bin has one value and the count is exact for every number.

use serde::Serialize;
use sluice_manifest::{Histogram, Keep};

/// The scores in a range.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CurveBin {
    /// The lowest score of the range.
    pub low: f32,
    /// The highest score of the range.
    pub high: f32,
    /// The number of images that pass every other condition of the filter.
    pub certain: u64,
    /// The number of images that pass every other threshold of the filter, but whose rules were not
    /// evaluated.
    pub possible: u64,
}

/// The number of kept images by threshold.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Curve {
    /// Which side of the threshold is kept.
    pub keep: Keep,
    /// The bins in ascending order.
    pub bins: Vec<CurveBin>,
    /// The width of a bin as a fraction of its scores. 0: each bin has one value.
    pub resolution: f64,
}

/// The number of images that a threshold keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptCount {
    /// The images that are certainly kept.
    pub certain: u64,
    /// The additional images that are kept unless a rule of the filter drops them.
    pub possible: u64,
}

impl Curve {
    /// Returns the curve of the current threshold, from the scores that it keeps and the scores
    /// that only it drops. If `has_rules`, the filter has rules, and they were evaluated for the
    /// kept images only.
    pub fn new(
        keep: Keep,
        threshold: f32,
        kept: &Histogram,
        dropped: &Histogram,
        has_rules: bool,
    ) -> Self {
        let side = |histogram: &Histogram, is_above: bool, is_certain: bool| -> Vec<CurveBin> {
            let bins = histogram.bins().map(|bin| CurveBin {
                low: if is_above {
                    bin.low.max(threshold)
                } else {
                    bin.low
                },
                high: if is_above {
                    bin.high
                } else {
                    bin.high.min(threshold.next_down())
                },
                certain: if is_certain { bin.count } else { 0 },
                possible: if is_certain { 0 } else { bin.count },
            });
            bins.collect()
        };
        let (below, above) = match keep {
            Keep::AtLeast => (side(dropped, false, !has_rules), side(kept, true, true)),
            Keep::Below => (side(kept, false, true), side(dropped, true, !has_rules)),
        };
        Self {
            keep,
            bins: [below, above].concat(),
            resolution: kept.resolution().max(dropped.resolution()),
        }
    }

    /// Merges adjacent bins until there are at most `most`. No bin contains `threshold`.
    #[must_use]
    pub fn coarser(self, most: usize, threshold: f32) -> Self {
        let by = self.bins.len().div_ceil(most.max(2) - 1).max(1);
        if by == 1 {
            return self;
        }
        let split = self.bins.partition_point(|bin| bin.low < threshold);
        let (below, above) = self.bins.split_at(split);
        let bins: Vec<CurveBin> = below.chunks(by).chain(above.chunks(by)).map(join).collect();
        let width = |bin: &CurveBin| {
            f64::from(bin.high - bin.low) / f64::from(bin.high.abs().max(bin.low.abs()))
        };
        let widest = bins.iter().map(width).fold(self.resolution, f64::max);
        Self {
            keep: self.keep,
            resolution: widest,
            bins,
        }
    }

    /// Returns the number of images that a threshold keeps, or `None` if it is inside a bin, where
    /// the count is not exact.
    pub fn kept(&self, threshold: f32) -> Option<KeptCount> {
        let at = self.bins.partition_point(|bin| bin.high < threshold);
        if self.bins.get(at).is_some_and(|bin| bin.low < threshold) {
            return None;
        }
        let bins = match self.keep {
            Keep::AtLeast => &self.bins[at..],
            Keep::Below => &self.bins[..at],
        };
        Some(KeptCount {
            certain: bins.iter().map(|bin| bin.certain).sum(),
            possible: bins.iter().map(|bin| bin.possible).sum(),
        })
    }

    /// Returns the thresholds with exact counts at which the count changes: the lower bounds of all
    /// bins, and the number after the last one.
    pub fn edges(&self) -> Vec<f32> {
        let lows = self.bins.iter().map(|bin| bin.low);
        let end = self.bins.last().map(|bin| bin.high.next_up());
        lows.chain(end).collect()
    }

    /// Returns the number of images in all bins.
    pub fn total(&self) -> u64 {
        self.bins.iter().map(|bin| bin.certain + bin.possible).sum()
    }
}

fn join(bins: &[CurveBin]) -> CurveBin {
    let (first, last) = (bins[0], bins[bins.len() - 1]);
    CurveBin {
        low: first.low,
        high: last.high,
        certain: bins.iter().map(|bin| bin.certain).sum(),
        possible: bins.iter().map(|bin| bin.possible).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(count: u32) -> Vec<f32> {
        (0..count)
            .map(|i| ((i * 7919) % count) as f32 / 977.0 - 1.5)
            .collect()
    }

    fn curve(scores: &[f32], keep: Keep, threshold: f32) -> Curve {
        let mut sides = [Histogram::default(), Histogram::default()];
        for score in scores {
            sides[usize::from(!keep.passes(*score, threshold))].add(*score);
        }
        Curve::new(keep, threshold, &sides[0], &sides[1], false)
    }

    fn kept(scores: &[f32], keep: Keep, threshold: f32) -> u64 {
        scores
            .iter()
            .filter(|score| keep.passes(**score, threshold))
            .count() as u64
    }

    #[test]
    fn counts_are_exact_at_every_edge() {
        for (count, most) in [
            (1, 9),
            (500, 4096),
            (500, 20),
            (30_000, 4096),
            (30_000, 300),
        ] {
            let scores = scores(count);
            for keep in [Keep::AtLeast, Keep::Below] {
                let now = 0.123_4;
                let curve = curve(&scores, keep, now).coarser(most, now);
                assert!(curve.bins.len() <= most.max(2) + 1, "{count}");
                for threshold in curve.edges().into_iter().chain([now, -1e9, 1e9]) {
                    let found = curve.kept(threshold).map(|kept| kept.certain);
                    assert_eq!(found, Some(kept(&scores, keep, threshold)), "{threshold}");
                }
            }
        }
    }

    #[test]
    fn any_number_is_exact_while_values_are_few() {
        let scores = scores(900);
        let curve = curve(&scores, Keep::AtLeast, 0.0);
        assert_eq!(curve.resolution, 0.0);
        for step in -200..200 {
            let threshold = step as f32 / 100.0;
            let found = curve.kept(threshold).unwrap().certain;
            assert_eq!(found, kept(&scores, Keep::AtLeast, threshold));
        }
    }

    #[test]
    fn what_rules_may_still_drop_is_not_certain() {
        let (mut kept, mut dropped) = (Histogram::default(), Histogram::default());
        [5.0, 6.0].into_iter().for_each(|score| kept.add(score));
        [3.0, 4.0].into_iter().for_each(|score| dropped.add(score));
        let curve = Curve::new(Keep::AtLeast, 5.0, &kept, &dropped, true);
        let at = |threshold| {
            let kept = curve.kept(threshold).unwrap();
            (kept.certain, kept.possible)
        };
        assert_eq!([at(5.5), at(5.0), at(3.5)], [(1, 0), (2, 0), (2, 1)]);
    }
}
