//! Plots as SVG: bars over a range of numbers, and bars over labelled ranges.
//!
//! Colours and fonts are the page's (classes `all`, `kept`, `out`, `axis`, `mark`). A plot has a
//! title for screen readers. The page has a table of the same numbers below each plot.

use std::fmt::{self, Write as _};

use sluice_manifest::numbers::decimal;
use sluice_run::curve::Curve;

use crate::data::AcceptedAndKept;

/// The maximum number of bars of a score.
const BARS: usize = 48;
/// The size of a plot in its own units.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 150.0;
/// The room below the bars for labels, and above them.
const FOOT: f64 = 22.0;
const HEAD: f64 = 8.0;

/// The scores of a curve in bars of equal width.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bars {
    /// The left end of the plot.
    pub low: f64,
    /// The right end.
    pub high: f64,
    counts: Vec<u64>,
}

impl Bars {
    /// Returns the bars, or `None` if there are no scores. Outliers are counted in the first and
    /// last bar.
    pub(crate) fn of(curve: &Curve) -> Option<Self> {
        let total = curve.total();
        let at = |fraction: f64| {
            let mut left = (total as f64 * fraction) as u64;
            let mut bins = curve.bins.iter();
            bins.find_map(|bin| {
                let count = bin.certain + bin.possible;
                let is_here = left < count;
                left = left.saturating_sub(count);
                is_here.then_some((f64::from(bin.low), f64::from(bin.high)))
            })
        };
        let ((lower, _), (_, upper)) = (at(0.005)?, at(0.995)?);
        let margin = (upper - lower) / 4.0;
        let first = f64::from(curve.bins.first()?.low);
        let last = f64::from(curve.bins.last()?.high);
        let (low, high) = (first.max(lower - margin), last.min(upper + margin));
        let bars = curve.bins.len().min(BARS);
        let mut counts = vec![0; bars];
        for bin in &curve.bins {
            let middle = f64::from(bin.low).midpoint(bin.high.into());
            // In a plot of width 0, this is NaN and becomes the first bar.
            let bar = (middle - low) / (high - low) * bars as f64;
            counts[(bar.max(0.0) as usize).min(bars - 1)] += bin.certain + bin.possible;
        }
        Some(Self { low, high, counts })
    }

    /// Returns the horizontal position of a score.
    fn position(&self, score: f64) -> f64 {
        let width = self.high - self.low;
        let place = if width > 0.0 {
            (score - self.low) / width
        } else {
            0.5
        };
        place.clamp(0.0, 1.0) * WIDTH
    }

    /// Returns the plot. The dropped side of `threshold` is shaded.
    pub(crate) fn svg(&self, title: &str, threshold: f32, keeps_below: bool) -> String {
        let mut plot = Svg::new(title, "score");
        let tallest = self.counts.iter().copied().max().unwrap_or(0);
        let x = self.position(threshold.into());
        let (from, to) = if keeps_below { (x, WIDTH) } else { (0.0, x) };
        plot.rect("out", from, HEAD, to - from, HEIGHT - FOOT - HEAD);
        let step = WIDTH / self.counts.len() as f64;
        for (bar, &count) in self.counts.iter().enumerate() {
            plot.bar("all", bar as f64 * step, step, count, tallest);
        }
        plot.axis();
        plot.label(2.0, "start", &decimal(self.low as f32));
        plot.label(WIDTH - 2.0, "end", &decimal(self.high as f32));
        plot.write(format_args!(
            "<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{}\"/>",
            HEIGHT - FOOT
        ));
        plot.finish()
    }
}

/// Returns a plot of labelled ranges: all samples, overlaid with the kept ones.
pub(crate) fn ranges(title: &str, ranges: &[(String, AcceptedAndKept)]) -> String {
    let mut plot = Svg::new(title, "ranges");
    let tallest = ranges.iter().map(|(_, both)| both.all).max().unwrap_or(0);
    let step = WIDTH / ranges.len().max(1) as f64;
    for (place, (name, both)) in ranges.iter().enumerate() {
        let left = place as f64 * step;
        plot.bar("all", left, step, both.all, tallest);
        plot.bar("kept", left, step, both.kept, tallest);
        plot.label(left + step / 2.0, "middle", name);
    }
    plot.axis();
    plot.finish()
}

/// A plot under construction.
struct Svg {
    text: String,
}

impl Svg {
    fn new(title: &str, class: &str) -> Self {
        let title = escape(title);
        let text = format!(
            "<svg class=\"{class}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">"
        );
        Self { text }
    }

    fn write(&mut self, part: fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.text.write_fmt(part);
    }

    fn rect(&mut self, class: &str, x: f64, y: f64, width: f64, height: f64) {
        self.write(format_args!(
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
        ));
    }

    /// Adds a bar to a column of the plot. It is visible however small its count is.
    fn bar(&mut self, class: &str, left: f64, step: f64, count: u64, tallest: u64) {
        if count > 0 {
            let scale = (HEIGHT - FOOT - HEAD) / tallest.max(1) as f64;
            let height = (count as f64 * scale).max(1.0);
            let gap = (step / 8.0).min(3.0);
            self.rect(
                class,
                left + gap / 2.0,
                HEIGHT - FOOT - height,
                step - gap,
                height,
            );
        }
    }

    fn axis(&mut self) {
        let floor = HEIGHT - FOOT;
        self.write(format_args!(
            "<line class=\"axis\" x1=\"0\" x2=\"{WIDTH}\" y1=\"{floor}\" y2=\"{floor}\"/>"
        ));
    }

    fn label(&mut self, x: f64, anchor: &str, text: &str) {
        let (y, text) = (HEIGHT - 7.0, escape(text));
        self.write(format_args!(
            "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    fn finish(self) -> String {
        self.text + "</svg>"
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
    use sluice_manifest::{Histogram, Keep};

    use super::*;

    fn curve(scores: impl IntoIterator<Item = f32>) -> Curve {
        let mut histogram = Histogram::default();
        scores.into_iter().for_each(|score| histogram.add(score));
        let none = Histogram::default();
        Curve::new(Keep::AtLeast, f32::MIN, &histogram, &none, false)
    }

    #[test]
    fn every_score_is_in_one_bar() {
        for scores in [1, 2, 39, 40, 41, 5000] {
            let curve = curve((0..scores).map(|i| i as f32 / 700.0 - 3.0));
            let bars = Bars::of(&curve).unwrap();
            assert_eq!(bars.counts.iter().sum::<u64>(), scores, "{scores}");
            assert!(bars.counts.len() <= BARS, "{scores}");
        }
        assert_eq!(Bars::of(&curve([])), None);
    }

    #[test]
    fn outliers_do_not_widen_the_plot() {
        let scores = (0..1000).map(|i| i as f32 / 1000.0).chain([1e9, -1e9]);
        let bars = Bars::of(&curve(scores)).unwrap();
        assert!(bars.low > -1.0 && bars.high < 2.0, "{bars:?}");
        assert_eq!(bars.counts.iter().sum::<u64>(), 1002);
    }

    #[test]
    fn equal_scores_make_one_bar() {
        let bars = Bars::of(&curve([3.0, 3.0])).unwrap();
        let svg = bars.svg("a <title>", 3.0, false);
        assert_eq!(svg.matches("<rect class=\"all\"").count(), 1, "{svg}");
        assert!(svg.contains("a &lt;title&gt;"), "{svg}");
        assert_eq!(svg.matches("<line class=\"mark\"").count(), 1, "{svg}");
    }
}
