//! `sluice gallery`: selected pictures of a run, as a page or as files.

mod export;
mod selection;

use std::collections::HashSet;
use std::io::Read;

use anyhow::Result;
use clap::Args;
use sluice_harness::{MemoryBudget, ToolContext};
use sluice_manifest::numbers::{decimal, plural};
use sluice_manifest::rows::DuplicateRow;
use sluice_manifest::{Error, ImageId, StepName};
use sluice_report::gallery::{Gallery, Options, PairGallery, Pictures, page, pair};
use sluice_run::card::ImageCard;
use sluice_run::duplicates::each_duplicate;
use sluice_run::sampling::{Best, hash};
use sluice_run::walk::Walk;
use sluice_run::{Plan, Receipts, Run, counted, steps};
use sluice_store::{Location, Storage, Store};

use self::selection::{SampleSelection, ScoreRange};
use crate::taken::refuse_taken;
use crate::text::shorten;

/// The default name of the page.
const PAGE: &str = "gallery.html";
/// The number of characters of a caption below a picture.
const CAPTION: usize = 80;

/// Make a page of pictures of a run, or copy the pictures into a folder
///
/// With several conditions, an image must meet every condition. Without any, random samples of the run
/// are shown. The selection is the same in every call.
///
/// Example: sluice gallery --run runs/a --dropped-by filter --limit 200
#[derive(Debug, Args)]
pub struct GalleryArgs {
    /// The run: a URI prefix, on local disk or in object storage
    #[arg(long, env = "SLUICE_RUN", value_name = "URI")]
    pub run: String,

    /// Images that this step dropped
    #[arg(long, value_name = "STEP", conflicts_with = "kept")]
    pub dropped_by: Option<StepName>,

    /// Images dropped for this reason: a rule, a score, or a reason such as above-max:nsfw
    #[arg(long, value_name = "NAME", conflicts_with = "kept")]
    pub rule: Option<String>,

    /// Images with a score in this range, for example aesthetic=4.5..5.5; either end may be left
    /// out
    #[arg(long, value_name = "SCORE=FROM..TO")]
    pub score: Vec<ScoreRange>,

    /// Duplicates, each with the image that it duplicates
    #[arg(long, conflicts_with = "kept")]
    pub duplicates: bool,

    /// Images that were kept
    #[arg(long)]
    pub kept: bool,

    /// The images listed in this file, one per line
    #[arg(long, value_name = "FILE")]
    pub ids: Option<String>,

    /// Maximum number of pictures
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: usize,

    /// The page [default: gallery.html]
    #[arg(long, value_name = "FILE", conflicts_with = "to")]
    pub output: Option<String>,

    /// Copy the picture files into this folder, with captions, instead of writing a page
    #[arg(long, value_name = "FOLDER")]
    pub to: Option<String>,

    /// Maximum size of the page in bytes; thumbnails are as large as it allows
    #[arg(long, value_name = "BYTES", default_value_t = sluice_report::gallery::MAX_BYTES)]
    pub max_bytes: u64,
}

/// A run with its pictures.
pub struct Pictured<'a> {
    /// The run.
    pub recorded: &'a Run,
    /// The memory for decoding its pictures.
    pub memory: &'a MemoryBudget,
    /// Its shards.
    pub plan: &'a Plan,
    /// The receipts of the run.
    pub receipts: &'a Receipts,
    /// An iterator over its samples.
    pub walk: Walk<'a>,
}

/// Writes the page, or copies the files.
///
/// # Errors
/// Usage, when a step, a score or a file does not exist; data, when a manifest is missing or
/// broken.
pub fn gallery(args: &GalleryArgs, tool: &mut ToolContext<'_>) -> Result<()> {
    let recorded = Run::open_read_only(&tool.shared.storage, &args.run)?;
    let plan = recorded.plan()?;
    let receipts = counted::receipts(&recorded)?;
    let run = Pictured {
        walk: Walk::new(&recorded, &plan, &receipts)?,
        recorded: &recorded,
        memory: &tool.shared.memory,
        plan: &plan,
        receipts: &receipts,
    };
    let page = args.output.as_deref().unwrap_or(PAGE);
    match &args.to {
        Some(folder) => export::refuse_other_folder(&run, folder)?,
        None => run.refuse_other_page(page)?,
    }
    let selection = SampleSelection::new(args, &run, &tool.shared.storage)?;
    let pairs = if args.duplicates {
        run.pairs(&selection, args.limit)?
    } else {
        Vec::new()
    };
    let cards = if args.duplicates {
        Vec::new()
    } else {
        run.cards(&selection, args.limit)?
    };
    if pairs.is_empty() && cards.is_empty() {
        return Err(Error::usage("no image of the run matches")
            .hint("`sluice explain` shows what happened to one image")
            .into());
    }
    if let Some(folder) = &args.to {
        let count = export::export(&run, &cards, &pairs, folder)?;
        writeln!(tool.out, "{} in {folder}", plural(count, "picture"))?;
        return Ok(());
    }
    let pictures = pictures(&run, &selection, &cards, &pairs);
    let count = pictures.album.pictures.len() as u64;
    let place = run.write(pictures, page, args.max_bytes)?;
    writeln!(tool.out, "{} in {place}", plural(count, "picture"))?;
    Ok(())
}

/// A duplicate and the image that it duplicates.
type PairOfCards = (DuplicateRow, ImageCard, ImageCard);

impl Pictured<'_> {
    fn cards(&self, selection: &SampleSelection, limit: usize) -> Result<Vec<ImageCard>> {
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

    fn pairs(&self, selection: &SampleSelection, limit: usize) -> Result<Vec<PairOfCards>> {
        let mut chosen: Best<DuplicateRow> = Best::new(limit);
        let chain = steps::chain(self.receipts);
        each_duplicate(self.recorded, self.receipts, |step, row| {
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

    /// Returns the cards of the given images.
    ///
    /// # Errors
    /// Data, when a manifest is missing or broken.
    pub fn named(&self, names: &[ImageId]) -> Result<Vec<ImageCard>> {
        let wanted: HashSet<ImageId> = names.iter().cloned().collect();
        let mut found = self.walk.named(&wanted, None)?;
        Ok(names.iter().filter_map(|name| found.remove(name)).collect())
    }

    /// Refuses a destination inside the run, its input or its outputs.
    ///
    /// # Errors
    /// Usage, for such a destination; data, when a manifest is missing or broken.
    pub fn refuse_taken(&self, flag: &str, place: &Location) -> Result<()> {
        refuse_taken(flag, place, self.recorded, self.plan, self.receipts)
    }

    /// Refuses a destination of the page that is inside the run, or where a file exists that is not
    /// a page.
    ///
    /// # Errors
    /// Usage, for such a destination; or a storage error.
    pub fn refuse_other_page(&self, place: &str) -> Result<()> {
        let location = Location::parse(place)?;
        self.refuse_taken("--output", &location)?;
        let Some((folder, name)) = location.split() else {
            return Err(not_a_file(place));
        };
        let Some(store) = self.recorded.storage.open_if_there(&folder)? else {
            return Ok(());
        };
        if store.stat(&name)?.is_some_and(|found| found.bytes > 0) && !is_page(&store, &name)? {
            Err(Error::usage(format!(
                "--output {place}: this file is not a page and would be overwritten"
            ))
            .hint("choose another file")
            .into())
        } else {
            Ok(())
        }
    }

    /// Writes a page of pictures, and returns its location.
    ///
    /// # Errors
    /// A storage error; usage, when the destination is not a file.
    pub fn write(&self, pictures: Pictures, place: &str, max_bytes: u64) -> Result<String> {
        let options = Options {
            images: true,
            max_bytes,
        };
        let html = page(
            self.recorded,
            self.memory,
            self.plan,
            &self.walk,
            pictures,
            options,
        )?;
        put(&self.recorded.storage, place, html)
    }
}

/// Writes a file, and returns its location.
///
/// # Errors
/// A storage error; usage, when the destination is not a file.
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
    selection: &SampleSelection,
    cards: &[ImageCard],
    pairs: &[PairOfCards],
) -> Pictures {
    let mut pictures = Pictures {
        title: selection.title.clone(),
        about: run.recorded.location().to_string(),
        ..Pictures::default()
    };
    let album = &mut pictures.album;
    if !cards.is_empty() {
        let score = selection.scores.first().map(|(place, _)| *place);
        let note = |card: &ImageCard| note(card, score);
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
            about: "Each with the image that it duplicates.".to_owned(),
            pairs: pairs.collect(),
        }];
    }
    pictures
}

/// Returns the text below a picture: its score, the decision, its caption.
fn note(card: &ImageCard, score: Option<usize>) -> String {
    let score = score.map(|place| decimal(card.scores[place]));
    let caption = card
        .caption
        .as_deref()
        .map(|caption| shorten(caption, CAPTION));
    let parts = score.into_iter().chain([card.fate()]).chain(caption);
    parts.collect::<Vec<_>>().join("; ")
}
