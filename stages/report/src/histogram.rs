//! Pictures of the scores' histograms.
//!
//! The histograms come from the receipts. Their bins are narrow, and wider the larger the scores are;
//! a bar of the picture holds the bins whose middle lies in it.

use std::fmt::Write as _;

use sluice_manifest::Histogram;

/// Most bars.
const BARS: usize = 40;
/// Size of the picture, in its own units.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 160.0;
const FOOT: f64 = 22.0;
const HEAD: f64 = 18.0;
/// Height that a threshold's label takes.
const LINE: f64 = 13.0;

/// A histogram as bars of equal width.
#[derive(Debug, Clone, PartialEq)]
struct Bars {
    low: f64,
    high: f64,
    counts: Vec<u64>,
}

impl Bars {
    /// Returns the bars; none without scores.
    fn of(histogram: &Histogram) -> Option<Self> {
        let low = f64::from(histogram.bins().next()?.low);
        let high = f64::from(histogram.bins().next_back()?.high);
        let bars = histogram.bins().count().min(BARS);
        let mut counts = vec![0; bars];
        for bin in histogram.bins() {
            let middle = f64::from(bin.low).midpoint(bin.high.into());
            // In a picture without width, where this is no number, it is the first bar.
            let bar = (middle - low) / (high - low) * bars as f64;
            counts[(bar as usize).min(bars - 1)] += bin.count;
        }
        Some(Self { low, high, counts })
    }

    /// Returns how far to the right a score is.
    fn position(&self, score: f64) -> f64 {
        let width = self.high - self.low;
        let place = if width > 0.0 {
            (score - self.low) / width
        } else {
            0.5
        };
        place.clamp(0.0, 1.0) * WIDTH
    }
}

/// Returns the picture: bars, a line for each threshold with its label, the ends of the range below.
/// None without scores.
pub fn svg(histogram: &Histogram, title: &str, thresholds: &[(f32, String)]) -> Option<String> {
    let bars = Bars::of(histogram)?;
    let tallest = bars.counts.iter().copied().max().unwrap_or(0).max(1);
    let step = WIDTH / bars.counts.len() as f64;
    let scale = (HEIGHT - FOOT - HEAD) / tallest as f64;
    let floor = HEIGHT - FOOT;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
        escape(title)
    );
    for (bar, &count) in bars.counts.iter().enumerate() {
        if count == 0 {
            continue;
        }
        let height = count as f64 * scale;
        // Writing to a string does not fail.
        let _ = write!(
            svg,
            "<rect class=\"score\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\"/>",
            bar as f64 * step + 0.5,
            floor - height,
            step - 1.0,
        );
    }
    let _ = write!(
        svg,
        "<line class=\"axis\" x1=\"0\" x2=\"{WIDTH}\" y1=\"{floor}\" y2=\"{floor}\"/>"
    );
    let foot = HEIGHT - 6.0;
    let (low, high) = (number(bars.low as f32), number(bars.high as f32));
    let _ = write!(svg, "<text x=\"2\" y=\"{foot}\">{low}</text>");
    let _ = write!(
        svg,
        "<text x=\"{}\" y=\"{foot}\" text-anchor=\"end\">{high}</text>",
        WIDTH - 2.0
    );
    for (row, (threshold, label)) in thresholds.iter().enumerate() {
        let x = bars.position(f64::from(*threshold));
        let (anchor, at) = match x > WIDTH / 2.0 {
            true => ("end", x - 5.0),
            false => ("start", x + 5.0),
        };
        let _ = write!(
            svg,
            "<line class=\"threshold\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{floor}\"/>\
             <text class=\"threshold\" x=\"{at:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
            12.0 + row as f64 * LINE,
            escape(label)
        );
    }
    svg.push_str("</svg>");
    Some(svg)
}

/// Returns a score with as many digits as are needed to tell scores apart.
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

    fn histogram(scores: impl IntoIterator<Item = f32>) -> Histogram {
        let mut histogram = Histogram::default();
        scores.into_iter().for_each(|score| histogram.add(score));
        histogram
    }

    #[test]
    fn every_score_is_in_one_bar() {
        for scores in [1, 2, 39, 40, 41, 5000] {
            let histogram = histogram((0..scores).map(|i| i as f32 / 700.0 - 3.0));
            let bars = Bars::of(&histogram).unwrap();
            assert_eq!(bars.counts.iter().sum::<u64>(), scores, "{scores}");
            assert!(bars.counts.len() <= BARS, "{scores}");
            let last = f64::from((scores - 1) as f32 / 700.0 - 3.0);
            assert!(bars.low <= -3.0 && last <= bars.high, "{scores}: {bars:?}");
        }
        assert_eq!(Bars::of(&histogram([])), None);
    }

    #[test]
    fn equal_scores_make_one_bar() {
        let thresholds = [(9.0, "usable: min 9".to_owned()), (2.0, "<x>".to_owned())];
        let svg = svg(&histogram([3.0, 3.0]), "a <title>", &thresholds).unwrap();
        assert_eq!(svg.matches("<rect").count(), 1, "{svg}");
        assert!(
            svg.contains("a &lt;title&gt;") && svg.contains("&lt;x&gt;"),
            "{svg}"
        );
        assert_eq!(svg.matches("<line class=\"threshold\"").count(), 2, "{svg}");
    }

    #[test]
    fn numbers_are_short() {
        let numbers = [5.0, 0.25, -0.00001, 4.123_456].map(number);
        assert_eq!(numbers, ["5", "0.25", "0", "4.1235"]);
    }
}
