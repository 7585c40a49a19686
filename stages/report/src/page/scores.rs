//! The section about scores: for each a histogram with an adjustable threshold, the images next to
//! it, and the line for the pipeline file.

use askama::Template;
use serde::Serialize;
use sluice_manifest::Keep;
use sluice_manifest::numbers::{decimal, percent, plural, thousands};
use sluice_run::card::ImageCard;
use sluice_run::curve::{Curve, KeptCount};
use sluice_run::scoring::{Control, Scoring};

use crate::album::Album;
use crate::figures::{Figures, Gallery, Shown};
use crate::findings::{ControlFindings, Findings};
use crate::plot::Bars;

/// The number of scores whose images are shown. Further ones have only numbers.
const WITH_PICTURES: usize = 20;
/// The number of rows in the table of thresholds.
const TABLE: usize = 24;
/// The number of images in the strip on each side of the threshold. The script has the same number.
const STRIP: usize = 6;

/// The section about scores.
#[derive(Debug)]
pub(crate) struct Scores {
    controls: Vec<ControlView>,
}

/// An adjustable threshold.
#[derive(Debug)]
struct ControlView {
    /// The title of its part of the section.
    title: String,
    /// The id of its element in the page.
    id: String,
    notes: Vec<String>,
    plot: String,
    /// The data for the script.
    data: ControlData,
    /// A description of what it keeps now.
    result: String,
    flag: String,
    line: String,
    table: Vec<[String; 3]>,
    /// Images sorted by score, and whether they are visible: those next to the threshold are.
    strip: Vec<(Shown, bool)>,
    /// The number of images in the strip with lower scores than the threshold.
    below: usize,
    galleries: Vec<Gallery>,
}

/// The data of a control that the script needs.
#[derive(Debug, Clone, Serialize)]
struct ControlData {
    /// The name of the score.
    score: String,
    /// `min` or `max`.
    flag: &'static str,
    /// The current threshold.
    now: f32,
    /// The number of images that it keeps.
    kept: u64,
    /// The number of images that reach the filter.
    came: u64,
    /// The ends of the plot.
    axis: [f64; 2],
    /// The number after the highest score.
    end: f32,
    /// The names of the filter's rules.
    rules: String,
    curve: Curve,
}

#[derive(Template)]
#[template(path = "scores.html")]
struct ScoresTemplate<'a> {
    controls: &'a [ControlView],
    figures: Figures<'a>,
}

impl Scores {
    /// Creates the section. Images are added to the album. At most `most` bins are put into the
    /// page for each score.
    pub(crate) fn new(
        scoring: &Scoring,
        findings: &Findings,
        album: &mut Album,
        most: usize,
    ) -> Self {
        let pairs = scoring.controls.iter().zip(&findings.controls).enumerate();
        let controls = pairs.filter_map(|(place, (control, found))| {
            let pictures = (place < WITH_PICTURES).then_some(&mut *album);
            view(place, control, found, scoring, pictures, most)
        });
        Self {
            controls: controls.collect(),
        }
    }

    /// Returns the data for the script as JSON.
    ///
    /// # Errors
    ///
    /// Numbers and texts can always be serialised, so no error is expected.
    pub(crate) fn data(&self) -> serde_json::Result<String> {
        let data: Vec<&ControlData> = self.controls.iter().map(|view| &view.data).collect();
        // Inside a script element, nothing may look like markup.
        Ok(serde_json::to_string(&data)?.replace('<', "\\u003c"))
    }

    /// Returns the HTML of the section.
    ///
    /// # Errors
    ///
    /// Rendering to a string does not fail, so no error is expected.
    pub(crate) fn html(&self, figures: Figures<'_>) -> askama::Result<String> {
        let controls = &self.controls;
        ScoresTemplate { controls, figures }.render()
    }
}

fn view(
    place: usize,
    control: &Control,
    found: &ControlFindings,
    scoring: &Scoring,
    album: Option<&mut Album>,
    most: usize,
) -> Option<ControlView> {
    let score = &scoring.scores[control.score];
    let name = score.name.to_string();
    let (now, keep) = (control.threshold, control.keep);
    let filter = control.set_by.map(|(filter, _)| &scoring.filters[filter]);
    let rules = filter
        .map(|filter| filter.rules.join(", "))
        .unwrap_or_default();
    let curve = Curve::new(keep, now, &found.kept, &found.regained, !rules.is_empty());
    let bars = Bars::of(&curve)?;
    let exact = curve.resolution;
    let curve = curve.coarser(most, now);
    let title = match filter {
        Some(filter) => format!("{name}: {} {} in {}", side(keep), decimal(now), filter.step),
        None => name.clone(),
    };
    let mut notes = vec![format!(
        "{} scored",
        plural(score.histogram.count(), "image")
    )];
    if score.unscored > 0 {
        notes.push(format!("{} without a score", thousands(score.unscored)));
    }
    notes.extend(score.source.iter().map(|source| format!("from {source}")));
    if filter.is_none() {
        notes.push("no filter sets a threshold".to_owned());
    }
    notes.push(resolution(curve.resolution.max(exact)));
    let data = ControlData {
        flag: if keep == Keep::Below { "max" } else { "min" },
        score: name,
        now,
        kept: found.kept.count(),
        came: if filter.is_some() {
            found.came
        } else {
            curve.total()
        },
        axis: [bars.low, bars.high],
        end: curve.edges().last().copied().unwrap_or(now),
        rules,
        curve,
    };
    let (mut strip, mut galleries) = (Vec::new(), Vec::new());
    if let Some(album) = album {
        strip = strip_of(control, found, album);
        let note = |card: &ImageCard| note(card, control.score);
        galleries = vec![
            Gallery::new("Lowest scores", "", found.lowest.items(), album, note),
            Gallery::new(
                "Highest scores",
                "",
                found.highest.items().rev(),
                album,
                note,
            ),
        ];
    }
    Some(ControlView {
        plot: bars.svg(
            &format!("distribution of {}", data.score),
            now,
            keep == Keep::Below,
        ),
        id: format!("score-{place}"),
        result: result(&data),
        flag: format!("--{} {}={now}", data.flag, data.score),
        line: format!("{} = {{ {} = {now} }}", data.flag, quoted(&data.score)),
        table: table(&data),
        below: strip
            .iter()
            .filter(|(shown, _)| shown.value < Some(now))
            .count(),
        data,
        title,
        notes,
        strip,
        galleries,
    })
}

fn side(keep: Keep) -> &'static str {
    match keep {
        Keep::AtLeast => "at least",
        Keep::Below => "below",
    }
}

/// Quotes a score as a key of a pipeline file if necessary.
fn quoted(score: &str) -> String {
    if score.contains('.') {
        format!("\"{score}\"")
    } else {
        score.to_owned()
    }
}

fn resolution(resolution: f64) -> String {
    match resolution {
        0.0 => "counts are exact for every threshold".to_owned(),
        width => format!(
            "counts are exact for thresholds {:.2}% apart, which the control moves to",
            width * 100.0
        ),
    }
}

/// Describes what the current threshold keeps. The script writes the same text.
fn result(data: &ControlData) -> String {
    format!(
        "keeps {} of {} ({}), as it is now",
        thousands(data.kept),
        thousands(data.came),
        percent(data.kept, data.came)
    )
}

/// Returns thresholds with the number of images that they keep: the current one, and others with
/// equal numbers of images between them.
fn table(data: &ControlData) -> Vec<[String; 3]> {
    let edges = data.curve.edges();
    let step = edges.len().div_ceil(TABLE).max(1);
    let mut thresholds: Vec<f32> = edges
        .iter()
        .copied()
        .step_by(step)
        .chain([data.now])
        .collect();
    thresholds.extend(edges.last());
    thresholds.sort_by(f32::total_cmp);
    thresholds.dedup();
    let rows = thresholds.into_iter().filter_map(|threshold| {
        let KeptCount { certain, possible } = data.curve.kept(threshold)?;
        let kept = match possible {
            0 => thousands(certain),
            more => format!("{} to {}", thousands(certain), thousands(certain + more)),
        };
        let is_now = if threshold == data.now { " (now)" } else { "" };
        Some([
            format!("{threshold}{is_now}"),
            kept,
            percent(certain, data.came),
        ])
    });
    rows.collect()
}

fn note(card: &ImageCard, score: usize) -> String {
    format!("{}, {}", decimal(card.scores[score]), card.state())
}

/// Returns the images of a control sorted by score, and whether they are next to the threshold.
fn strip_of(control: &Control, found: &ControlFindings, album: &mut Album) -> Vec<(Shown, bool)> {
    let near = found.inside.items().chain(found.outside.items());
    let ends = found.lowest.items().chain(found.highest.items());
    let ranges = found.ranges.iter().flat_map(|range| range.items());
    let mut cards: Vec<&ImageCard> = near.chain(ranges).chain(ends).collect();
    // Images are added to the album in order of importance.
    let places: Vec<usize> = cards.iter().map(|card| album.add(card)).collect();
    let mut strip: Vec<Shown> = cards
        .drain(..)
        .zip(places)
        .map(|(card, place)| Shown {
            place,
            value: Some(card.scores[control.score]),
            note: note(card, control.score),
        })
        .collect();
    strip.sort_by(|a, b| {
        a.value
            .partial_cmp(&b.value)
            .unwrap_or(std::cmp::Ordering::Equal)
            .then(a.place.cmp(&b.place))
    });
    strip.dedup_by_key(|shown| shown.place);
    let below = strip
        .iter()
        .filter(|shown| shown.value < Some(control.threshold))
        .count();
    let near = below.saturating_sub(STRIP)..below + STRIP;
    let strip = strip.into_iter().enumerate();
    strip
        .map(|(place, shown)| (shown, near.contains(&place)))
        .collect()
}
