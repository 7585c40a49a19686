//! The section about scores: for each a histogram with a threshold that can be moved, the pictures
//! next to it, and what to write into the pipeline.

use askama::Template;
use serde::Serialize;
use sluice_manifest::Keep;

use crate::album::Album;
use crate::card::Card;
use crate::curve::{Curve, Kept};
use crate::figures::{Figures, Gallery, Shown, state};
use crate::findings::{ControlFindings, Findings};
use crate::plot::{Bars, number};
use crate::scoring::{Control, Scoring};
use sluice_manifest::numbers::{percent, plural, thousands};

/// Scores whose pictures are shown; of further ones there are numbers only.
const WITH_PICTURES: usize = 20;
/// Rows of the table of thresholds.
const TABLE: usize = 24;
/// Pictures of the strip on each side of the threshold. The script has the same number.
const STRIP: usize = 6;

/// Every score, with a threshold that can be moved.
#[derive(Debug)]
pub struct Scores {
    controls: Vec<View>,
}

/// A threshold that can be moved.
#[derive(Debug)]
struct View {
    /// The title of its part.
    title: String,
    /// Names it in the page.
    id: String,
    notes: Vec<String>,
    plot: String,
    /// For the script.
    data: Data,
    /// What it keeps now.
    result: String,
    flag: String,
    line: String,
    table: Vec<[String; 3]>,
    /// All pictures by score, those next to the threshold visible.
    strip: Vec<(Shown, bool)>,
    /// How many of the strip have lower scores than the threshold.
    below: usize,
    galleries: Vec<Gallery>,
}

/// What the script needs of a control.
#[derive(Debug, Clone, Serialize)]
struct Data {
    /// The score.
    score: String,
    /// `min` or `max`.
    flag: &'static str,
    /// The threshold in force.
    now: f32,
    /// What it keeps.
    kept: u64,
    /// What comes to the filter.
    came: u64,
    /// The ends of the plot.
    axis: [f64; 2],
    /// The number after the greatest score.
    end: f32,
    /// Names of the filter's rules.
    rules: String,
    curve: Curve,
}

#[derive(Template)]
#[template(path = "scores.html")]
struct Section<'a> {
    controls: &'a [View],
    figures: Figures<'a>,
}

impl Scores {
    /// Returns the section. Pictures are added to the album. `most` bins are put into the page for each
    /// score.
    pub fn new(scoring: &Scoring, findings: &Findings, album: &mut Album, most: usize) -> Self {
        let pairs = scoring.controls.iter().zip(&findings.controls).enumerate();
        let controls = pairs.filter_map(|(place, (control, found))| {
            let pictures = (place < WITH_PICTURES).then_some(&mut *album);
            view(place, control, found, scoring, pictures, most)
        });
        Self {
            controls: controls.collect(),
        }
    }

    /// Returns what the script needs, as JSON.
    ///
    /// # Errors
    /// None: numbers and texts serialise.
    pub fn data(&self) -> serde_json::Result<String> {
        let data: Vec<&Data> = self.controls.iter().map(|view| &view.data).collect();
        // Inside of a script element nothing may look like markup.
        Ok(serde_json::to_string(&data)?.replace('<', "\\u003c"))
    }

    /// Returns the markup.
    ///
    /// # Errors
    /// None: drawing into a text does not fail.
    pub fn html(&self, figures: Figures<'_>) -> askama::Result<String> {
        let controls = &self.controls;
        Section { controls, figures }.render()
    }
}

fn view(
    place: usize,
    control: &Control,
    found: &ControlFindings,
    scoring: &Scoring,
    album: Option<&mut Album>,
    most: usize,
) -> Option<View> {
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
        Some(filter) => format!("{name}: {} {} in {}", side(keep), number(now), filter.step),
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
    let data = Data {
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
        let note = |card: &Card| note(card, control.score);
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
    Some(View {
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

/// Returns a score as a key of a pipeline file.
fn quoted(score: &str) -> String {
    match score.contains('.') {
        true => format!("\"{score}\""),
        false => score.to_owned(),
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

/// Returns what the threshold in force keeps. The script writes the same.
fn result(data: &Data) -> String {
    format!(
        "keeps {} of {} ({}), as it is now",
        thousands(data.kept),
        thousands(data.came),
        percent(data.kept, data.came)
    )
}

/// Returns thresholds with what they keep: the one in force, and others with equal numbers of images
/// between them.
fn table(data: &Data) -> Vec<[String; 3]> {
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
        let Kept { certain, possible } = data.curve.kept(threshold)?;
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

fn note(card: &Card, score: usize) -> String {
    format!("{}, {}", number(card.scores[score]), state(card))
}

/// Returns the pictures of a control by score, and which of them are next to the threshold.
fn strip_of(control: &Control, found: &ControlFindings, album: &mut Album) -> Vec<(Shown, bool)> {
    let near = found.inside.items().chain(found.outside.items());
    let ends = found.lowest.items().chain(found.highest.items());
    let ranges = found.ranges.iter().flat_map(|range| range.items());
    let mut cards: Vec<&Card> = near.chain(ranges).chain(ends).collect();
    // Album places are given in the order of importance.
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
