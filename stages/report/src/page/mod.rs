//! The page about a run, with one module for each section.
//!
//! The sections are created first, which adds their images to the album. The page is rendered
//! without images to determine how much room is left for them. Then the thumbnails are made and the
//! page is rendered again.

pub(crate) mod data;
pub(crate) mod funnel;
pub(crate) mod galleries;
pub(crate) mod scores;
pub(crate) mod steps;
pub(crate) mod trouble;

use anyhow::Result;
use askama::Template;
use sluice_harness::MemoryBudget;
use sluice_manifest::numbers::{bytes, plural};
use sluice_manifest::{RunInfo, StepName, UnitKind};
use sluice_run::walk::Walk;
use sluice_run::{Plan, Receipts, Run, steps as of_run};

use self::data::DataSection;
use self::funnel::FunnelSection;
use self::galleries::Galleries;
use self::scores::Scores;
use self::steps::Steps;
use self::trouble::ProblemsSection;
use crate::album::Album;
use crate::document::Document;
use crate::duplicates::Duplicates;
use crate::figures::Figures;
use crate::findings::Findings;

/// The approximate bytes of a score's bin in the page.
const BIN: u64 = 75;
/// The reciprocal of the share of the page that bins may take.
const BINS: u64 = 5;
/// The approximate bytes that an image adds to the text.
const PICTURE: u64 = 200;

/// Options of the page.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Whether the page has images.
    pub images: bool,
    /// The maximum size of the page in bytes.
    pub max_bytes: u64,
}

/// Returns the HTML of the page about a run.
///
/// # Errors
///
/// Returns a data error if a manifest is missing or damaged, and otherwise a storage error.
pub(crate) fn page(
    run: &Run,
    memory: &MemoryBudget,
    plan: &Plan,
    receipts: &Receipts,
    options: Options,
) -> Result<String> {
    let duplicates = Duplicates::read(run, receipts)?;
    let walk = Walk::new(run, plan, receipts)?;
    let findings = Findings::of_run(&walk, &duplicates.names())?;
    let read = receipts.is_complete(&StepName::read(), UnitKind::Partition);
    let mut deciders = receipts.steps().into_iter();
    let deduplicated = deciders.any(|step| of_run::duplicates(receipts, step).next().is_some());
    let mut album = Album::default();
    let controls = walk.scoring.controls.len().max(1) as u64;
    let most = options.max_bytes / BINS / BIN / controls;
    let scores = Scores::new(&walk.scoring, &findings, &mut album, most as usize);
    let galleries = Galleries::new(read, deduplicated, &findings, &duplicates, &mut album);
    let uri = run.location().to_string();
    let head = Head::new(&plan.info, receipts);
    let title = format!("Sluice: {}", plan.info.input);
    let (funnel, data) = (
        FunnelSection::new(receipts, &findings),
        DataSection::new(&findings.data),
    );
    let (trouble, steps) = (
        ProblemsSection::new(run, plan, receipts)?,
        Steps::new(receipts),
    );
    let for_script = scores.data()?;
    let draw = |album: &Album| -> Result<String> {
        let figures = Figures {
            album,
            run: &uri,
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
    with_pictures(run, memory, plan, &mut album, options, draw)
}

/// Renders a page without images and then, if requested, with as many as fit.
///
/// # Errors
///
/// Fails like `draw`, and with a transient error if storage fails.
pub(crate) fn with_pictures(
    run: &Run,
    memory: &MemoryBudget,
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
    album.make_thumbnails(run, memory, plan, room)?;
    draw(album)
}

/// The header of the page.
#[derive(Debug, Template)]
#[template(path = "head.html")]
struct Head {
    input: String,
    patterns: Vec<String>,
    /// Whether the patterns differ from the input's root.
    asked: bool,
    shards: String,
    bytes: String,
    partitions: String,
    outputs: Vec<OutputLine>,
}

/// A curated dataset.
#[derive(Debug)]
struct OutputLine {
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

fn outputs(receipts: &Receipts) -> Vec<OutputLine> {
    let exports = of_run::exports(receipts).into_iter();
    let datasets = exports.filter_map(|step| of_run::dataset(receipts, step));
    let outputs = datasets.map(|dataset| OutputLine {
        uri: dataset.uri,
        written: dataset.is_complete.then(|| {
            let shards = plural(dataset.shards, "shard");
            format!("{} in {shards}", bytes(dataset.bytes))
        }),
    });
    outputs.collect()
}
