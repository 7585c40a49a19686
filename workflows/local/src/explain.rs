//! `sluice explain`: what happened to an image, and why.
//!
//! Works on any run, however far it is: what is known comes from the receipts that are there.

mod decisions;
mod lookup;
mod output;
mod resolve;
mod story;
mod words;

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use clap::Args;
use sluice_harness::{Context, Desk, Plan, Receipts};
use sluice_manifest::ImageId;
use sluice_report::counted;
use sluice_report::figures::{Gallery, fate};
use sluice_report::gallery::Pictures;
use sluice_report::walk::Walk;

pub use self::lookup::Lookup;
use self::story::Story;
use crate::gallery::Pictured;

/// Show what happened to an image and why
///
/// An image is named by its id (its shard without .tar, a slash, its key), by its key or its file's
/// name, by a part of its id, or by its place in the curated dataset: OUT/shard-00000.tar/KEY.
///
/// Example: sluice explain --run runs/a shards/00017/000123
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The run: a URI prefix, on local disk or in object storage
    #[arg(long, env = "SLUICE_RUN", value_name = "URI")]
    pub run: String,

    /// The images: ids, keys, file names, parts of ids
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,

    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,

    /// Make a page of the images and their duplicates, and open it in the browser
    #[arg(long)]
    pub open: bool,
}

/// Prints the stories of images.
///
/// # Errors
/// Usage, when there is no such image; data, when a manifest is missing or broken.
pub fn explain(args: &ExplainArgs, desk: &mut Desk<'_>) -> Result<()> {
    let context = Context::look(&args.run, "sluice", &desk.shared)?;
    let plan = context.plan()?;
    let receipts = counted::receipts(&context)?;
    let lookup = Lookup::new(&context, &plan, &receipts);
    let mut stories = Vec::new();
    for image in &args.images {
        let id = lookup.resolve(image)?;
        stories.push(lookup.story(id.as_str())?);
    }
    for (number, story) in stories.iter().enumerate() {
        match args.json {
            true => writeln!(desk.out, "{}", serde_json::to_string(story)?)?,
            false => {
                let space = if number > 0 { "\n" } else { "" };
                write!(desk.out, "{space}{}", words::words(story))?;
            }
        }
    }
    if args.open {
        let place = page(&context, &plan, &receipts, &stories)?;
        writeln!(desk.err, "page: {place}")?;
        open(&place);
    }
    Ok(())
}

/// Makes a page of some images and their duplicates, in the folder of temporary files.
fn page(context: &Context, plan: &Plan, receipts: &Receipts, stories: &[Story]) -> Result<String> {
    let run = Pictured {
        walk: Walk::new(context, plan, receipts)?,
        context,
        plan,
        receipts,
    };
    let mut pictures = Pictures {
        title: "Explained".to_owned(),
        about: context.run.location().to_string(),
        ..Pictures::default()
    };
    for story in stories {
        let cards = run.named(&names(story))?;
        let title = story.image_id.to_string();
        let gallery = Gallery::new(title, "", &cards, &mut pictures.album, fate);
        pictures.galleries.push(gallery);
    }
    let folder = tempfile::Builder::new().prefix("sluice-explain-").tempdir();
    let folder = folder.context("cannot make a folder for the page")?.keep();
    let place = folder.join("explain.html").to_string_lossy().into_owned();
    run.write(pictures, &place, sluice_report::MAX_BYTES)
}

/// Returns an image, what it duplicates, and the other duplicates.
fn names(story: &Story) -> Vec<ImageId> {
    let mut names = vec![story.image_id.clone()];
    names.extend(
        story
            .duplicates
            .iter()
            .map(|link| link.duplicate_of.clone()),
    );
    names.extend(
        story
            .neighbours
            .iter()
            .map(|neighbour| neighbour.image_id.clone()),
    );
    names.dedup();
    names
}

/// Opens a page in the browser, where there is one.
fn open(place: &str) {
    let program = if cfg!(target_os = "macos") {
        "open"
    } else {
        "xdg-open"
    };
    let started = Command::new(program)
        .arg(place)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    if let Err(e) = started {
        tracing::debug!("{program}: {e}");
    }
}
