//! Histograms of scores, and their picture.

use std::fmt::Write as _;

/// Number of bars.
const BINS: usize = 40;
/// Size of the picture, in its own units.
const WIDTH: f32 = 640.0;
const HEIGHT: f32 = 160.0;
const FOOT: f32 = 22.0;
const HEAD: f32 = 18.0;

/// The least and the greatest score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// The least.
    pub low: f32,
    /// The greatest.
    pub high: f32,
}

impl Range {
    /// Widens a range, where there is one, to hold a score.
    pub fn widen(range: Option<Self>, score: f32) -> Option<Self> {
        if !score.is_finite() {
            return range;
        }
        let before = range.unwrap_or(Self {
            low: score,
            high: score,
        });
        Some(Self {
            low: before.low.min(score),
            high: before.high.max(score),
        })
    }
}

/// How many scores lie where, and how many of them were kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    range: Range,
    kept: [u64; BINS],
    dropped: [u64; BINS],
}

impl Histogram {
    /// An empty histogram over a range.
    pub fn new(range: Range) -> Self {
        Self {
            range,
            kept: [0; BINS],
            dropped: [0; BINS],
        }
    }

    /// Counts a score.
    pub fn add(&mut self, score: f32, keep: bool) {
        let width = (self.range.high - self.range.low).max(f32::MIN_POSITIVE);
        let place = (score - self.range.low) / width * BINS as f32;
        // A score that is no number counts at the low end; the cast takes care of both ends.
        let bin = (place as usize).min(BINS - 1);
        match keep {
            true => self.kept[bin] += 1,
            false => self.dropped[bin] += 1,
        }
    }

    /// Scores kept and dropped.
    pub fn totals(&self) -> (u64, u64) {
        (self.kept.iter().sum(), self.dropped.iter().sum())
    }

    /// The picture: stacked bars, the threshold as a line, the range's ends below.
    pub fn svg(&self, title: &str, threshold: Option<f32>) -> String {
        let tallest = self.kept.iter().zip(&self.dropped);
        let tallest = tallest.map(|(k, d)| k + d).max().unwrap_or(0).max(1);
        let step = WIDTH / BINS as f32;
        let scale = (HEIGHT - FOOT - HEAD) / tallest as f32;
        let floor = HEIGHT - FOOT;
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escape(title)
        );
        for (bin, (&kept, &dropped)) in self.kept.iter().zip(&self.dropped).enumerate() {
            let x = bin as f32 * step;
            let mut top = floor;
            for (count, class) in [(kept, "kept"), (dropped, "dropped")] {
                if count == 0 {
                    continue;
                }
                let height = count as f32 * scale;
                top -= height;
                // Writing to a string does not fail.
                let _ = write!(
                    svg,
                    "<rect class=\"{class}\" x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{height:.1}\"/>",
                    x + 0.5,
                    step - 1.0,
                );
            }
        }
        let _ = write!(
            svg,
            "<line class=\"axis\" x1=\"0\" x2=\"{WIDTH}\" y1=\"{floor}\" y2=\"{floor}\"/>"
        );
        let foot = HEIGHT - 6.0;
        let (low, high) = (number(self.range.low), number(self.range.high));
        let _ = write!(svg, "<text x=\"2\" y=\"{foot}\">{low}</text>");
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{foot}\" text-anchor=\"end\">{high}</text>",
            WIDTH - 2.0
        );
        if let Some(threshold) = threshold {
            let width = (self.range.high - self.range.low).max(f32::MIN_POSITIVE);
            let x = ((threshold - self.range.low) / width).clamp(0.0, 1.0) * WIDTH;
            let anchor = if x > WIDTH / 2.0 { "end" } else { "start" };
            let label = x + if x > WIDTH / 2.0 { -5.0 } else { 5.0 };
            let _ = write!(
                svg,
                "<line class=\"threshold\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{floor}\"/>\
                 <text class=\"threshold\" x=\"{label:.1}\" y=\"12\" text-anchor=\"{anchor}\">threshold {}</text>",
                number(threshold)
            );
        }
        svg.push_str("</svg>");
        svg
    }
}

/// A score with as many digits as tell something.
pub fn number(value: f32) -> String {
    let text = format!("{value:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    match text {
        "" | "-" | "-0" => "0".to_owned(),
        text => text.to_owned(),
    }
}

fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(scores: &[f32]) -> Range {
        let range = scores.iter().fold(None, |r, &s| Range::widen(r, s));
        range.unwrap()
    }

    #[test]
    fn every_score_is_counted_once() {
        let scores = [0.0, 0.5, 1.0, f32::NAN, 0.25];
        let mut histogram = Histogram::new(range(&scores));
        for score in scores {
            histogram.add(score, score < 0.5);
        }
        assert_eq!(histogram.totals(), (2, 3));
        assert_eq!(histogram.dropped[BINS - 1], 1, "the greatest is inside");
    }

    #[test]
    fn equal_scores_make_one_bar() {
        let mut histogram = Histogram::new(range(&[3.0]));
        histogram.add(3.0, true);
        let svg = histogram.svg("a <title>", Some(9.0));
        assert_eq!(svg.matches("<rect").count(), 1, "{svg}");
        assert!(svg.contains("a &lt;title&gt;") && svg.contains("threshold 9"));
    }

    #[test]
    fn numbers_are_short() {
        let numbers = [5.0, 0.25, -0.00001, 4.123_456].map(number);
        assert_eq!(numbers, ["5", "0.25", "0", "4.1235"]);
    }
}
