//! Scores: what is known of a score besides its values, and their histogram.
//!
//! The histogram's bins have a width of a power of two and edges at its multiples. So the bins of
//! two histograms nest, and merging them gives the histogram of all values, whatever the order.

use serde::{Deserialize, Serialize};

use crate::{Error, Result, ScoreName, StepName};

/// Which scores a threshold keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// Scores at or above it.
    #[default]
    AtLeast,
    /// Scores below it.
    Below,
}

impl Keep {
    /// Whether a score passes a threshold. NaN does not.
    pub fn passes(self, score: f32, threshold: f32) -> bool {
        match self {
            Self::AtLeast => score >= threshold,
            Self::Below => score < threshold,
        }
    }
}

/// A column of `scores`, as its model describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreColumn {
    /// The column's name: [`ScoreColumn::ONLY`], or the output's where there are several.
    pub name: String,
    /// Lowest and highest score to expect, where the model states them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<[f32; 2]>,
    /// The model's own threshold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f32>,
    /// Which side of the threshold the model's authors keep.
    #[serde(default)]
    pub keep: Keep,
}

impl ScoreColumn {
    /// The column of models with one output.
    pub const ONLY: &'static str = "score";

    /// A column of which nothing is known but its name.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            range: None,
            threshold: None,
            keep: Keep::default(),
        }
    }

    /// Returns the place of a score among the columns of its step.
    ///
    /// # Errors
    /// Usage, when the step has no such output, or has several and none is named.
    pub fn position(columns: &[Self], score: &ScoreName) -> Result<usize> {
        let named = |name: &str| columns.iter().position(|column| column.name == name);
        let found = match &score.output {
            Some(output) => named(output),
            None if columns.len() == 1 => Some(0),
            None => named(Self::ONLY),
        };
        found.ok_or_else(|| {
            let names: Vec<String> = columns
                .iter()
                .map(|column| format!("{}.{}", score.step, column.name))
                .collect();
            let error = match &score.output {
                Some(output) => format!("step {} has no output {output:?}", score.step),
                None => format!("step {} has several outputs", score.step),
            };
            Error::usage(error).hint(format!("its scores are {}", names.join(", ")))
        })
    }
}

/// The name of a score as a column of the curated dataset: the step's name, with the output's
/// behind it where there are several. `_` stands for `-`.
pub fn curated_column(step: &StepName, columns: usize, output: &str) -> String {
    match columns {
        1 => step.identifier(),
        _ => format!("{}_{output}", step.identifier()),
    }
}

/// A score of a unit: its column and the histogram of its values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreSummary {
    /// The column.
    #[serde(flatten)]
    pub column: ScoreColumn,
    /// The values' histogram.
    pub histogram: Histogram,
}

/// Most bins of a histogram.
const BINS: i64 = 1024;
/// Least width of a bin, as a power of two. (Below it, scores of the range 0 to 1 have few bits.)
const FINEST: i32 = -24;
/// Highest number of a bin, as a power of two, so that numbers are exact.
const LARGEST_INDEX: f64 = (1_u64 << 52) as f64;

/// How many scores are in which bin. Bin `i` holds scores from `i * width` to below
/// `(i + 1) * width`; `width` is `2^exponent`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    exponent: i32,
    /// Number of a bin and its count, in order, without empty bins.
    bins: Vec<(i64, u64)>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            exponent: FINEST,
            bins: Vec::new(),
        }
    }
}

impl Histogram {
    /// Counts a score. One that is not finite is not counted.
    pub fn add(&mut self, score: f32) {
        if !score.is_finite() {
            return;
        }
        let score = f64::from(score);
        while (score / self.width()).abs() >= LARGEST_INDEX {
            self.coarsen(1);
        }
        let bin = (score / self.width()).floor() as i64;
        match self.bins.binary_search_by_key(&bin, |(bin, _)| *bin) {
            Ok(at) => self.bins[at].1 += 1,
            Err(at) => {
                self.bins.insert(at, (bin, 1));
                self.fit();
            }
        }
    }

    /// Adds another histogram's counts.
    pub fn merge(&mut self, other: &Self) {
        let mut other = other.clone();
        let exponent = self.exponent.max(other.exponent);
        self.coarsen(exponent - self.exponent);
        other.coarsen(exponent - other.exponent);
        self.bins.extend(other.bins);
        self.bins.sort_unstable();
        self.join_equal();
        self.fit();
    }

    /// Doubles the width until the bins fit.
    fn fit(&mut self) {
        while let (Some((first, _)), Some((last, _))) = (self.bins.first(), self.bins.last())
            && last - first >= BINS
        {
            self.coarsen(1);
        }
    }

    fn coarsen(&mut self, times: i32) {
        if times == 0 {
            return;
        }
        self.exponent += times;
        for (bin, _) in &mut self.bins {
            *bin >>= times.min(63);
        }
        self.join_equal();
    }

    fn join_equal(&mut self) {
        self.bins.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                earlier.1 += later.1;
            }
            same
        });
    }

    /// Returns the width of a bin: how exact a threshold taken from the histogram is.
    pub fn width(&self) -> f64 {
        2_f64.powi(self.exponent)
    }

    /// Returns the number of scores.
    pub fn count(&self) -> u64 {
        self.bins.iter().map(|(_, count)| count).sum()
    }

    /// Returns the lower edge and the count of each bin that is not empty, in order.
    pub fn bins(&self) -> impl DoubleEndedIterator<Item = (f64, u64)> {
        let width = self.width();
        let bins = self.bins.iter();
        bins.map(move |(bin, count)| (*bin as f64 * width, *count))
    }

    /// Returns the highest bin edge with at least this fraction of the scores at or above it, and
    /// how many there are. None without scores.
    pub fn top(&self, fraction: f64) -> Option<(f32, u64)> {
        let wanted = (fraction * self.count() as f64).ceil() as u64;
        let mut kept = 0;
        for (edge, count) in self.bins().rev() {
            kept += count;
            if kept >= wanted.max(1) {
                // Edges are multiples of a power of two near the scores, which are f32.
                return Some((edge as f32, kept));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(scores: &[f32]) -> Histogram {
        let mut histogram = Histogram::default();
        scores.iter().for_each(|score| histogram.add(*score));
        histogram
    }

    #[test]
    fn parts_merge_to_the_whole_in_any_order() {
        let scores: Vec<f32> = (0..4000_u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) % 10_007) as f32 / 700.0 - 3.0)
            .chain([1e-30, -0.0, f32::NAN, f32::INFINITY])
            .collect();
        let whole = of(&scores);
        for parts in [3, 1000] {
            let mut forward = Histogram::default();
            let mut backward = Histogram::default();
            scores
                .chunks(parts)
                .for_each(|part| forward.merge(&of(part)));
            let reversed = scores.chunks(parts).rev();
            reversed.for_each(|part| backward.merge(&of(part)));
            assert_eq!((&forward, &backward), (&whole, &whole));
        }
        assert_eq!(whole.count(), 4002);
        assert!(whole.bins.len() <= BINS as usize && whole.width() < 0.05);
        let json = serde_json::to_string(&whole).unwrap();
        assert_eq!(serde_json::from_str::<Histogram>(&json).unwrap(), whole);
    }

    #[test]
    fn the_top_is_at_least_what_was_asked_for() {
        let scores: Vec<f32> = (0..1000).map(|i| i as f32 / 1000.0).collect();
        let histogram = of(&scores);
        for fraction in [0.001, 0.3, 0.5, 1.0] {
            let (edge, kept) = histogram.top(fraction).unwrap();
            let above = scores.iter().filter(|score| **score >= edge).count() as u64;
            assert_eq!(above, kept, "{fraction}");
            let wanted = (fraction * 1000.0) as u64;
            assert!(kept >= wanted && kept <= wanted + 2, "{fraction}: {kept}");
        }
        assert_eq!(of(&[]).top(0.5), None);
        assert_eq!(of(&[2.0; 7]).top(0.1), Some((2.0, 7)));
    }

    #[test]
    fn extreme_scores_are_counted() {
        let histogram = of(&[f32::MAX, f32::MIN, 0.0, 1.0]);
        assert_eq!(histogram.count(), 4);
    }

    #[test]
    fn scores_are_found_among_columns() {
        let columns = ["drawing", "porn"].map(ScoreColumn::named);
        let find = |name: &str| ScoreColumn::position(&columns, &name.parse().unwrap());
        assert_eq!(find("nsfw.porn").unwrap(), 1);
        assert!(find("nsfw").is_err() && find("nsfw.x").is_err());
        let one = [ScoreColumn::named(ScoreColumn::ONLY)];
        assert_eq!(
            ScoreColumn::position(&one, &"a".parse().unwrap()).unwrap(),
            0
        );
    }
}
