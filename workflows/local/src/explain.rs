//! `sluice explain`: what happened to an image, and why.
//!
//! It works on a run in any state: the facts come from the receipts that exist.

mod decisions;
mod facts;
mod lookup;
mod output;
mod resolve;
mod words;

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use clap::Args;
use sluice_harness::{MemoryBudget, ToolContext};
use sluice_manifest::ImageId;
use sluice_report::gallery::{Gallery, Pictures};
use sluice_run::card::ImageCard;
use sluice_run::walk::Walk;
use sluice_run::{Plan, Receipts, Run, counted};

use self::facts::ImageFacts;
use crate::gallery::Pictured;

pub use self::lookup::Lookup;

/// Show what happened to an image and why
///
/// An image is identified by its id (its shard without .tar, a slash, its key), by its key, by its
/// file name, by a part of its id, or by its path in the curated dataset: OUT/shard-00000.tar/KEY.
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

    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,

    /// Write a page with the images and their duplicates, and open it in the browser
    #[arg(long)]
    pub open: bool,
}

/// Prints what happened to the images.
///
/// # Errors
/// Returns a usage error when there is no such image, and a data error when a manifest is missing
/// or broken.
pub fn explain(args: &ExplainArgs, tool: &mut ToolContext<'_>) -> Result<()> {
    let recorded = Run::open_read_only(&tool.shared.storage, &args.run)?;
    let plan = recorded.plan()?;
    let receipts = counted::receipts(&recorded)?;
    let lookup = Lookup::new(&recorded, &plan, &receipts);
    let mut all_facts = Vec::new();
    for image in &args.images {
        let id = lookup.resolve(image)?;
        all_facts.push(lookup.facts(id.as_str())?);
    }
    for (number, facts) in all_facts.iter().enumerate() {
        if args.json {
            writeln!(tool.out, "{}", serde_json::to_string(facts)?)?
        } else {
            let space = if number > 0 { "\n" } else { "" };
            write!(tool.out, "{space}{}", words::words(facts))?;
        }
    }
    if args.open {
        let place = page(&recorded, &tool.shared.memory, &plan, &receipts, &all_facts)?;
        writeln!(tool.err, "page: {place}")?;
        open(&place);
    }
    Ok(())
}

/// Writes a page of images and their duplicates to the folder of temporary files.
fn page(
    recorded: &Run,
    memory: &MemoryBudget,
    plan: &Plan,
    receipts: &Receipts,
    all_facts: &[ImageFacts],
) -> Result<String> {
    let run = Pictured {
        walk: Walk::new(recorded, plan, receipts)?,
        recorded,
        memory,
        plan,
        receipts,
    };
    let mut pictures = Pictures {
        title: "Explained".to_owned(),
        about: recorded.location().to_string(),
        ..Pictures::default()
    };
    for facts in all_facts {
        let cards = run.named(&names(facts))?;
        let title = facts.image_id.to_string();
        let gallery = Gallery::new(title, "", &cards, &mut pictures.album, ImageCard::fate);
        pictures.galleries.push(gallery);
    }
    let folder = tempfile::Builder::new().prefix("sluice-explain-").tempdir();
    let folder = folder.context("cannot make a folder for the page")?.keep();
    let place = folder.join("explain.html").to_string_lossy().into_owned();
    run.write(pictures, &place, sluice_report::gallery::MAX_BYTES)
}

/// Returns an image, the image it duplicates, and the other duplicates.
fn names(facts: &ImageFacts) -> Vec<ImageId> {
    let mut names = vec![facts.image_id.clone()];
    names.extend(
        facts
            .duplicates
            .iter()
            .map(|link| link.duplicate_of.clone()),
    );
    names.extend(
        facts
            .neighbours
            .iter()
            .map(|neighbour| neighbour.image_id.clone()),
    );
    names.dedup();
    names
}

/// Opens a page in the browser, if there is one.
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
