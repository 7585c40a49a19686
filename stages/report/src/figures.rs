//! Images in a page. An image is a button (`summary`) that opens its metadata and the command line
//! that explains it. An image that may be NSFW is blurred until it is opened.

use askama::Template;
use sluice_harness::shell;
use sluice_manifest::numbers::{bytes, decimal};
use sluice_run::card::{ImageCard, shortened};
use sluice_run::scoring::Scoring;

use crate::album::{Album, Picture};

/// The maximum number of characters of a caption.
const CAPTION: usize = 160;
/// The maximum number of characters of the note below an image.
const NOTE: usize = 90;

/// An occurrence of an image in the page.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The index in the album.
    pub place: usize,
    /// The score for which it is shown.
    pub value: Option<f32>,
    /// The note below it.
    pub note: String,
}

/// Some images with a title.
#[derive(Debug, Clone)]
pub struct Gallery {
    /// The title.
    pub title: String,
    /// A description of the images.
    pub about: String,
    /// The images.
    pub shown: Vec<Shown>,
}

/// Renders the images of an album.
#[derive(Clone, Copy)]
pub(crate) struct Figures<'a> {
    /// The album.
    pub album: &'a Album,
    /// The run's URI, for command lines.
    pub run: &'a str,
    /// The scores of the run.
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
    /// Returns the HTML of an image.
    ///
    /// # Errors
    ///
    /// Rendering to a string does not fail, so no error is expected.
    ///
    /// # Panics
    ///
    /// Panics if `shown` belongs to another album.
    pub(crate) fn html(&self, shown: &Shown) -> askama::Result<String> {
        let picture = &self.album.pictures[shown.place];
        let card = &picture.card;
        let id = card.image_id.as_str();
        Figure {
            place: shown.place,
            picture,
            value: shown.value,
            note: shortened(&shown.note, NOTE),
            caption: card.caption.as_deref().map(|text| shortened(text, CAPTION)),
            fate: card.fate(),
            facts: facts(card),
            scores: self.scores(card),
            explain: shell(&["sluice", "explain", "--run", self.run, id]),
        }
        .render()
    }

    fn scores(&self, card: &ImageCard) -> String {
        let scores = self.scoring.scores.iter().zip(&card.scores);
        let known = scores.filter(|(_, value)| !value.is_nan());
        let texts = known.map(|(score, value)| format!("{} {}", score.name, decimal(*value)));
        texts.collect::<Vec<_>>().join(", ")
    }
}

impl Gallery {
    /// Creates a gallery of cards, which are added to the album.
    pub fn new<'c>(
        title: impl Into<String>,
        about: impl Into<String>,
        cards: impl IntoIterator<Item = &'c ImageCard>,
        album: &mut Album,
        note: impl Fn(&ImageCard) -> String,
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

fn facts(card: &ImageCard) -> String {
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
