//! Pictures in a page. A picture is a button (`summary`) that opens what is known about it, with the
//! command line that explains it. One that may be NSFW is blurred until it is opened.

use askama::Template;
use sluice_harness::shell;
use sluice_manifest::text::one_line;

use crate::album::{Album, Picture};
use crate::card::{Card, shortened};
use crate::plot::number;
use crate::scoring::Scoring;
use sluice_manifest::numbers::bytes;

/// Characters of a caption that are shown.
const CAPTION: usize = 160;
/// Characters of what stands below a picture.
const NOTE: usize = 90;

/// A picture at a place of the page.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Its place in the album.
    pub place: usize,
    /// The score that it is shown for.
    pub value: Option<f32>,
    /// What stands below it.
    pub note: String,
}

/// Some pictures with a title.
#[derive(Debug, Clone)]
pub struct Gallery {
    /// The title.
    pub title: String,
    /// What they are.
    pub about: String,
    /// The pictures.
    pub shown: Vec<Shown>,
}

/// Draws the pictures of an album.
#[derive(Clone, Copy)]
pub struct Figures<'a> {
    /// The pictures.
    pub album: &'a Album,
    /// The run, for command lines.
    pub run: &'a str,
    /// The scores.
    pub scoring: &'a Scoring,
}

#[derive(Template)]
#[template(path = "figure.html")]
struct Figure<'a> {
    place: usize,
    picture: &'a Picture,
    value: Option<f32>,
    note: String,
    caption: Option<String>,
    fate: String,
    facts: String,
    scores: String,
    explain: String,
}

impl Figures<'_> {
    /// Returns the markup of a picture.
    ///
    /// # Errors
    /// None: drawing into a text does not fail.
    pub fn html(&self, shown: &Shown) -> askama::Result<String> {
        let picture = &self.album.pictures[shown.place];
        let card = &picture.card;
        let id = card.image_id.as_str();
        Figure {
            place: shown.place,
            picture,
            value: shown.value,
            note: shortened(&shown.note, NOTE),
            caption: card.caption.as_deref().map(|text| shortened(text, CAPTION)),
            fate: fate(card),
            facts: facts(card),
            scores: self.scores(card),
            explain: shell(&["sluice", "explain", "--run", self.run, id]),
        }
        .render()
    }

    fn scores(&self, card: &Card) -> String {
        let scores = self.scoring.scores.iter().zip(&card.scores);
        let known = scores.filter(|(_, value)| !value.is_nan());
        let texts = known.map(|(score, value)| format!("{} {}", score.name, number(*value)));
        texts.collect::<Vec<_>>().join(", ")
    }
}

impl Gallery {
    /// Returns a gallery of cards, which are added to the album.
    pub fn new<'c>(
        title: impl Into<String>,
        about: impl Into<String>,
        cards: impl IntoIterator<Item = &'c Card>,
        album: &mut Album,
        note: impl Fn(&Card) -> String,
    ) -> Self {
        let shown = cards.into_iter().map(|card| Shown {
            place: album.add(card),
            value: None,
            note: note(card),
        });
        Self {
            shown: shown.collect(),
            title: title.into(),
            about: about.into(),
        }
    }
}

/// Returns what became of a picture, as a sentence without its end.
pub fn fate(card: &Card) -> String {
    let Some(dropped) = &card.dropped else {
        return "kept".to_owned();
    };
    let text = format!("dropped by {}: {}", dropped.step, dropped.reason);
    match &card.detail {
        Some(detail) => format!("{text} ({})", one_line(detail)),
        None => text,
    }
}

/// Returns `kept` or `dropped by STEP`.
pub fn state(card: &Card) -> String {
    match &card.dropped {
        None => "kept".to_owned(),
        Some(dropped) => format!("dropped by {}", dropped.step),
    }
}

fn facts(card: &Card) -> String {
    let format = card.format.as_deref().unwrap_or("unknown format");
    let size = card
        .size
        .map(|(width, height)| format!(", {width} x {height}"));
    format!(
        "{format}{}, {}",
        size.unwrap_or_default(),
        bytes(card.bytes)
    )
}
