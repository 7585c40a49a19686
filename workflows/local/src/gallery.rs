//! `sluice gallery`: the pictures of a run that somebody asks for, as a page or as files.

mod export;
mod selection;

use std::collections::HashSet;
use std::io::Read;

use anyhow::Result;
use clap::Args;
use sluice_harness::{Context, Desk, Plan, Receipts};
use sluice_manifest::numbers::plural;
use sluice_manifest::rows::DuplicateRow;
use sluice_manifest::{Error, ImageId, StepName};
use sluice_report::card::Card;
use sluice_report::duplicates::each_duplicate;
use sluice_report::figures::{Gallery, fate};
use sluice_report::gallery::{Pictures, page};
use sluice_report::page::Options;
use sluice_report::page::galleries::{PairGallery, pair};
use sluice_report::plot::number;
use sluice_report::sampling::{Best, hash};
use sluice_report::walk::Walk;
use sluice_report::{counted, steps};
use sluice_store::{Location, Storage, Store};

use self::selection::{ScoreRange, Selection};
use crate::taken::refuse_taken;
use crate::text::shorten;

/// The page, where no other is named.
const PAGE: &str = "gallery.html";
/// Characters of a caption below a picture.
const CAPTION: usize = 80;

/// Make a page of pictures of a run, or copy the pictures into a folder
///
/// Several conditions select what meets all of them; without any, random samples of the run. Which
/// ones are shown does not change from one call to the next.
///
/// Example: sluice gallery --run runs/a --dropped-by filter --limit 200
#[derive(Debug, Args)]
pub struct GalleryArgs {
    /// The run: a URI prefix, on local disk or in object storage
    #[arg(long, env = "SLUICE_RUN", value_name = "URI")]
    pub run: String,

    /// What this step dropped
    #[arg(long, value_name = "STEP", conflicts_with = "kept")]
    pub dropped_by: Option<StepName>,

    /// What was dropped for this reason: a rule, a score, or a reason such as above-max:nsfw
    #[arg(long, value_name = "NAME", conflicts_with = "kept")]
    pub rule: Option<String>,

    /// What has a score in this range, for example aesthetic=4.5..5.5; either end may be left out
    #[arg(long, value_name = "SCORE=FROM..TO")]
    pub score: Vec<ScoreRange>,

    /// Duplicates, each beside what it duplicates
    #[arg(long, conflicts_with = "kept")]
    pub duplicates: bool,

    /// What was kept
    #[arg(long)]
    pub kept: bool,

    /// The images that this file names, one a line
    #[arg(long, value_name = "FILE")]
    pub ids: Option<String>,

    /// Pictures at most
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: usize,

    /// The page [default: gallery.html]
    #[arg(long, value_name = "FILE", conflicts_with = "to")]
    pub output: Option<String>,

    /// Copy the picture files into this folder, with captions, in place of a page
    #[arg(long, value_name = "FOLDER")]
    pub to: Option<String>,

    /// Maximum size of the page in bytes; thumbnails are as large as it allows
    #[arg(long, value_name = "BYTES", default_value_t = sluice_report::MAX_BYTES)]
    pub max_bytes: u64,
}

/// A run with its pictures.
pub struct Pictured<'a> {
    /// The run.
    pub context: &'a Context,
    /// Its shards.
    pub plan: &'a Plan,
    /// What was run.
    pub receipts: &'a Receipts,
    /// A walk over its samples.
    pub walk: Walk<'a>,
}

/// Makes the page, or copies the files.
///
/// # Errors
/// Usage, when a step, a score or a file is not there; data, when a manifest is missing or broken.
pub fn gallery(args: &GalleryArgs, desk: &mut Desk<'_>) -> Result<()> {
    let context = Context::look(&args.run, "sluice", &desk.shared)?;
    let plan = context.plan()?;
    let receipts = counted::receipts(&context)?;
    let run = Pictured {
        walk: Walk::new(&context, &plan, &receipts)?,
        context: &context,
        plan: &plan,
        receipts: &receipts,
    };
    let page = args.output.as_deref().unwrap_or(PAGE);
    match &args.to {
        Some(folder) => export::refuse_other_folder(&run, folder)?,
        None => run.refuse_other_page(page)?,
    }
    let selection = Selection::new(args, &run, &desk.shared.storage)?;
    let pairs = match args.duplicates {
        true => run.pairs(&selection, args.limit)?,
        false => Vec::new(),
    };
    let cards = match args.duplicates {
        true => Vec::new(),
        false => run.cards(&selection, args.limit)?,
    };
    if pairs.is_empty() && cards.is_empty() {
        return Err(Error::usage("no image of the run is like that")
            .hint("`sluice explain` says what became of one image")
            .into());
    }
    if let Some(folder) = &args.to {
        let count = export::export(&run, &cards, &pairs, folder)?;
        writeln!(desk.out, "{} in {folder}", plural(count, "picture"))?;
        return Ok(());
    }
    let pictures = pictures(&run, &selection, &cards, &pairs);
    let count = pictures.album.pictures.len() as u64;
    let place = run.write(pictures, page, args.max_bytes)?;
    writeln!(desk.out, "{} in {place}", plural(count, "picture"))?;
    Ok(())
}

/// A duplicate and what it duplicates.
type PairOfCards = (DuplicateRow, Card, Card);

impl Pictured<'_> {
    fn cards(&self, selection: &Selection, limit: usize) -> Result<Vec<Card>> {
        let mut cards = self
            .walk
            .select(limit, |walked| selection.selects(walked))?;
        let score = selection.scores.first().map(|(place, _)| *place);
        cards.sort_by(|a, b| {
            let by_score = score.map(|place| a.scores[place].total_cmp(&b.scores[place]));
            by_score
                .unwrap_or(std::cmp::Ordering::Equal)
                .then_with(|| a.image_id.cmp(&b.image_id))
        });
        Ok(cards)
    }

    fn pairs(&self, selection: &Selection, limit: usize) -> Result<Vec<PairOfCards>> {
        let mut chosen: Best<DuplicateRow> = Best::new(limit);
        let chain = steps::chain(self.receipts);
        each_duplicate(self.context, self.receipts, |step, row| {
            let name = row.image_id.as_str();
            let is_pair = row.reference.is_none();
            if is_pair && chain.contains(&step) && selection.selects_step(step) {
                chosen.offer(hash(name), name, || row.clone());
            }
        })?;
        let rows = chosen.items();
        let names = rows.flat_map(|row| [row.image_id.clone(), row.duplicate_of.clone()]);
        let named = self.walk.named(&names.collect(), None)?;
        let pairs = chosen.items().filter_map(|row| {
            let (gone, other) = (named.get(&row.image_id)?, named.get(&row.duplicate_of)?);
            Some((row.clone(), gone.clone(), other.clone()))
        });
        Ok(pairs.collect())
    }

    /// Returns the cards of some images.
    ///
    /// # Errors
    /// Data, when a manifest is missing or broken.
    pub fn named(&self, names: &[ImageId]) -> Result<Vec<Card>> {
        let wanted: HashSet<ImageId> = names.iter().cloned().collect();
        let mut found = self.walk.named(&wanted, None)?;
        Ok(names.iter().filter_map(|name| found.remove(name)).collect())
    }

    /// Refuses a place to write to that is part of the run, its input or its outputs.
    ///
    /// # Errors
    /// Usage; data, when a manifest is missing or broken.
    pub fn refuse_taken(&self, flag: &str, place: &Location) -> Result<()> {
        refuse_taken(flag, place, self.context, self.plan, self.receipts)
    }

    /// Refuses a place for a page that is taken, or that holds another file than a page.
    ///
    /// # Errors
    /// Usage; of storage.
    pub fn refuse_other_page(&self, place: &str) -> Result<()> {
        let location = Location::parse(place)?;
        self.refuse_taken("--output", &location)?;
        let Some((folder, name)) = location.split() else {
            return Err(not_a_file(place));
        };
        let Some(store) = self.context.storage.open_if_there(&folder)? else {
            return Ok(());
        };
        match store.stat(&name)?.is_some_and(|found| found.bytes > 0) && !is_page(&store, &name)? {
            true => Err(Error::usage(format!(
                "--output {place}: holds something else than a page, which would be overwritten"
            ))
            .hint("name a file of its own")
            .into()),
            false => Ok(()),
        }
    }

    /// Writes a page of pictures, and returns where it is.
    ///
    /// # Errors
    /// Of storage; usage, when the place is not one of a file.
    pub fn write(&self, pictures: Pictures, place: &str, max_bytes: u64) -> Result<String> {
        let options = Options {
            images: true,
            max_bytes,
        };
        let html = page(self.context, self.plan, &self.walk, pictures, options)?;
        put(&self.context.storage, place, html)
    }
}

/// Writes a file, and returns where it is.
///
/// # Errors
/// Of storage; usage, when the place is not one of a file.
pub fn put(storage: &Storage, place: &str, content: String) -> Result<String> {
    let location = Location::parse(place)?;
    let Some((folder, name)) = location.split() else {
        return Err(not_a_file(place));
    };
    let store = storage.create(&folder)?;
    store.put(&name, content)?;
    store.tidy();
    Ok(location.to_string())
}

fn not_a_file(place: &str) -> anyhow::Error {
    Error::usage(format!("{place}: not the path of a file")).into()
}

fn is_page(store: &Store, name: &str) -> Result<bool> {
    const START: &[u8] = b"<!doctype html>";
    let mut start = Vec::new();
    let mut file = store.reader(name)?.take(START.len() as u64);
    file.read_to_end(&mut start)
        .map_err(|e| Error::of_io(e, &store.uri(name)))?;
    Ok(start.eq_ignore_ascii_case(START))
}

fn pictures(
    run: &Pictured<'_>,
    selection: &Selection,
    cards: &[Card],
    pairs: &[PairOfCards],
) -> Pictures {
    let mut pictures = Pictures {
        title: selection.title.clone(),
        about: run.context.run.location().to_string(),
        ..Pictures::default()
    };
    let album = &mut pictures.album;
    if !cards.is_empty() {
        let score = selection.scores.first().map(|(place, _)| *place);
        let note = |card: &Card| note(card, score);
        let title = plural(cards.len() as u64, "picture");
        pictures.galleries = vec![Gallery::new(title, "", cards, album, note)];
    }
    if !pairs.is_empty() {
        let of_pairs = pairs.iter().flat_map(|(_, gone, other)| [gone, other]);
        let named = of_pairs
            .map(|card| (card.image_id.clone(), card.clone()))
            .collect();
        let pairs = pairs
            .iter()
            .filter_map(|(row, _, _)| pair(row, &named, album));
        pictures.pairs = vec![PairGallery {
            title: "Duplicates".to_owned(),
            about: "Each beside the image because of which it was dropped.".to_owned(),
            pairs: pairs.collect(),
        }];
    }
    pictures
}

/// Returns what stands below a picture: its score, what became of it, its caption.
fn note(card: &Card, score: Option<usize>) -> String {
    let score = score.map(|place| number(card.scores[place]));
    let caption = card
        .caption
        .as_deref()
        .map(|caption| shorten(caption, CAPTION));
    let parts = score.into_iter().chain([fate(card)]).chain(caption);
    parts.collect::<Vec<_>>().join("; ")
}
