//! Copies pictures of a run to files, with their captions.

use anyhow::Result;
use serde_json::json;
use sluice_manifest::Error;
use sluice_pixels::Limits;
use sluice_run::card::ImageCard;
use sluice_run::duplicates::found_by;
use sluice_source::each_image_file;
use sluice_store::{Location, Store};

use super::{PairOfCards, Pictured};

/// The list of the files in the folder.
const INDEX: &str = "samples.jsonl";

/// A file to write: its name without the extension, and the sample.
struct Copy<'c> {
    name: String,
    card: &'c ImageCard,
    note: Option<String>,
}

/// Refuses a folder inside the run, its input or its outputs, or with files that are not from an
/// earlier copy.
///
/// # Errors
/// Usage, for such a folder; or a storage error.
pub(super) fn refuse_other_folder(run: &Pictured<'_>, folder: &str) -> Result<()> {
    let place = Location::parse(folder)?;
    run.refuse_taken("--to", &place)?;
    let Some(store) = run.recorded.storage.open_if_there(&place)? else {
        return Ok(());
    };
    let objects = store.list("")?;
    match objects.first() {
        Some(other) if store.stat(INDEX)?.is_none() => Err(Error::usage(format!(
            "--to {folder}: contains {:?}, which `sluice gallery` did not write",
            other.path
        ))
        .hint("choose an empty folder")
        .into()),
        _ => Ok(()),
    }
}

/// Copies the pictures into a folder, with a text file for each caption and a list of all files.
/// Returns the number of copied pictures.
///
/// # Errors
/// A storage error; usage, when the folder is not a valid destination.
pub(super) fn export(
    run: &Pictured<'_>,
    cards: &[ImageCard],
    pairs: &[PairOfCards],
    folder: &str,
) -> Result<u64> {
    let store = run.recorded.storage.create(&Location::parse(folder)?)?;
    let mut copies: Vec<Copy<'_>> = cards
        .iter()
        .map(|card| Copy {
            name: card.image_id.to_string(),
            card,
            note: None,
        })
        .collect();
    for (number, (row, gone, other)) in pairs.iter().enumerate() {
        let copy = |which: &str, card| Copy {
            name: format!("{number:05}/{which}"),
            card,
            note: Some(found_by(row)),
        };
        copies.extend([copy("dropped", gone), copy("kept", other)]);
    }
    let cards: Vec<&ImageCard> = copies.iter().map(|copy| copy.card).collect();
    let max_bytes = Limits::default().max_bytes;
    let written = each_image_file(run.recorded, run.plan, &cards, max_bytes, |place, file| {
        copies[place].write(&store, file)
    })?;
    let mut lines = String::new();
    let mut count = 0;
    for (place, outcome) in written {
        let (copy, file) = (&copies[place], outcome.ok());
        count += u64::from(file.is_some());
        lines.push_str(&format!("{}\n", copy.line(file, run)));
    }
    store.put(INDEX, lines)?;
    store.tidy();
    Ok(count)
}

impl Copy<'_> {
    /// Writes the file, and returns its name.
    fn write(&self, store: &Store, file: Vec<u8>) -> Result<String, Error> {
        let extension = self
            .card
            .member
            .as_ref()
            .map_or("", |member| &member.extension);
        let name = sluice_shard::safe_member_name(&self.name, extension);
        store.put(&name, file)?;
        if let Some(caption) = &self.card.caption {
            let text = sluice_shard::safe_member_name(&self.name, "txt");
            store.put(&text, caption.clone())?;
        }
        Ok(name)
    }

    fn line(&self, file: Option<String>, run: &Pictured<'_>) -> serde_json::Value {
        let scores = run.walk.scoring.scores.iter().zip(&self.card.scores);
        let scores = scores.filter(|(_, value)| !value.is_nan());
        let scores: serde_json::Map<_, _> = scores
            .map(|(score, value)| (score.name.to_string(), json!(value)))
            .collect();
        json!({
            "file": file,
            "image_id": self.card.image_id,
            "fate": self.card.fate(),
            "duplicate": self.note,
            "caption": self.card.caption,
            "scores": scores,
        })
    }
}
