//! The page about a run: one module for each of its sections.
//!
//! The sections are made first, which adds their pictures to the album. The text is drawn without
//! pictures, to know how much room is left for them; then the thumbnails are made and it is drawn again.

pub mod data;
pub mod funnel;
pub mod galleries;
pub mod scores;
pub mod steps;
pub mod trouble;

use anyhow::Result;
use askama::Template;
use sluice_harness::{Context, Plan, Receipts};
use sluice_manifest::{RunInfo, StepName, UnitKind};

use self::data::DataSection;
use self::funnel::FunnelSection;
use self::galleries::Galleries;
use self::scores::Scores;
use self::steps::Steps;
use self::trouble::Trouble;
use crate::album::Album;
use crate::document::Document;
use crate::duplicates::Duplicates;
use crate::figures::Figures;
use crate::steps as of_run;
use crate::walk::Walk;
use sluice_manifest::numbers::{bytes, plural};

/// Bytes of a bin of a score in the page, about.
const BIN: u64 = 75;
/// The part of the page that bins may take.
const BINS: u64 = 5;
/// Bytes by which a picture makes the text longer, about.
const PICTURE: u64 = 200;

/// How the page is made.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Whether it has pictures.
    pub images: bool,
    /// Bytes that it may have.
    pub max_bytes: u64,
}

/// Returns the page about a run.
///
/// # Errors
/// Data, when a manifest is missing or broken; of storage.
pub fn page(
    context: &Context,
    plan: &Plan,
    receipts: &Receipts,
    options: Options,
) -> Result<String> {
    let duplicates = Duplicates::read(context, receipts)?;
    let walk = Walk::new(context, plan, receipts)?;
    let findings = walk.findings(&duplicates.names())?;
    let read = receipts.is_complete(&StepName::read(), UnitKind::Part);
    let mut deciders = receipts.steps().into_iter();
    let deduplicated = deciders.any(|step| of_run::duplicates(receipts, step).next().is_some());
    let mut album = Album::default();
    let controls = walk.scoring.controls.len().max(1) as u64;
    let most = options.max_bytes / BINS / BIN / controls;
    let scores = Scores::new(&walk.scoring, &findings, &mut album, most as usize);
    let galleries = Galleries::new(read, deduplicated, &findings, &duplicates, &mut album);
    let run = context.run.location().to_string();
    let head = Head::new(&plan.info, receipts);
    let title = format!("Sluice: {}", plan.info.input);
    let (funnel, data) = (
        FunnelSection::new(receipts, &findings),
        DataSection::new(&findings.data),
    );
    let (trouble, steps) = (Trouble::new(context, plan, receipts)?, Steps::new(receipts));
    let for_script = scores.data()?;
    let draw = |album: &Album| -> Result<String> {
        let figures = Figures {
            album,
            run: &run,
            scoring: &walk.scoring,
        };
        let sections = [
            head.render()?,
            funnel.render()?,
            scores.html(figures)?,
            galleries.html(figures)?,
            data.render()?,
            trouble.render()?,
            steps.render()?,
        ];
        Ok(Document::new(&title, &sections.concat(), &for_script, album).render()?)
    };
    with_pictures(context, plan, &mut album, options, draw)
}

/// Draws a page without pictures and, where there is room for them, with pictures.
///
/// # Errors
/// As `draw`; of storage.
pub fn with_pictures(
    context: &Context,
    plan: &Plan,
    album: &mut Album,
    options: Options,
    draw: impl Fn(&Album) -> Result<String>,
) -> Result<String> {
    let text = draw(album)?;
    if !options.images {
        return Ok(text);
    }
    let used = text.len() as u64 + PICTURE * album.pictures.len() as u64;
    let room = options.max_bytes.saturating_sub(used);
    album.make_thumbnails(context, plan, room)?;
    draw(album)
}

/// The head of the page.
#[derive(Debug, Template)]
#[template(path = "head.html")]
struct Head {
    input: String,
    patterns: Vec<String>,
    /// Whether the patterns say more than the input.
    asked: bool,
    shards: String,
    bytes: String,
    partitions: String,
    outputs: Vec<Output>,
}

/// A curated dataset.
#[derive(Debug)]
struct Output {
    uri: String,
    written: Option<String>,
}

impl Head {
    fn new(info: &RunInfo, receipts: &Receipts) -> Self {
        Self {
            input: info.input.clone(),
            patterns: info.patterns.clone(),
            asked: info.patterns != [info.input.as_str()],
            shards: plural(info.shards, "shard"),
            bytes: bytes(info.bytes),
            partitions: plural(info.partitions.into(), "partition"),
            outputs: outputs(receipts),
        }
    }
}

fn outputs(receipts: &Receipts) -> Vec<Output> {
    let exports = of_run::exports(receipts).into_iter();
    let datasets = exports.filter_map(|step| of_run::dataset(receipts, step));
    let outputs = datasets.map(|dataset| Output {
        uri: dataset.uri,
        written: dataset.is_complete.then(|| {
            let shards = plural(dataset.shards, "shard");
            format!("{} in {shards}", bytes(dataset.bytes))
        }),
    });
    outputs.collect()
}
