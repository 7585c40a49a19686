//! `sluice-report`: one self-contained HTML page about a run, with pictures.
//!
//! The page shows where the samples went, how long the steps took, the distribution of each score with
//! a threshold that can be moved, pictures of what was kept and dropped and why, what the dataset
//! consists of, what went wrong, and the settings and models of each step. It is made from the receipts
//! of whatever was run, one pass over the duplicates and one over the samples; counts, bins and samples
//! of fixed size are held in memory. Thumbnails are made from the source shards. A report can be made at
//! any time.

pub mod album;
pub mod card;
pub mod counted;
pub mod curve;
pub mod data;
pub mod document;
pub mod duplicates;
pub mod figures;
pub mod files;
pub mod findings;
pub mod frequent;
pub mod funnel;
pub mod gallery;
pub mod page;
pub mod planned;
pub mod plot;
pub mod sampling;
pub mod scoring;
pub mod settings;
pub mod steps;
pub mod thresholds;
pub mod times;
pub mod walk;

use std::io::Write;

use anyhow::Result;
use clap::Parser;
use serde::{Deserialize, Serialize};
use sluice_harness::{Common, Context, Program, Receipts, StepArgs, Work};
use sluice_manifest::{
    Counts, Input, Operation, Resources, Role, StepName, Unit, UnitKind, layout,
};

pub use crate::funnel::Funnel;
use crate::page::Options;

/// Bytes of the page by default, and at least.
pub const MAX_BYTES: u64 = 5_000_000;
const LEAST_BYTES: u64 = 100_000;

/// Write a page about the run, RUN/report/index.html
///
/// The page needs nothing but itself: it loads nothing and can be opened from a disk or a bucket, and
/// sent to someone.
///
/// Example: sluice-report --run runs/a
#[derive(Debug, Parser)]
#[command(name = "sluice-report", version)]
pub struct Args {
    #[command(flatten)]
    pub step: StepArgs,

    /// Leave the pictures out, for data that must not leave its place
    #[arg(long, env = "SLUICE_NO_IMAGES")]
    pub no_images: bool,

    /// Bytes that the page may have; thumbnails are as large as that allows
    #[arg(long, env = "SLUICE_MAX_BYTES", value_name = "BYTES", default_value_t = MAX_BYTES,
        value_parser = clap::value_parser!(u64).range(LEAST_BYTES..))]
    pub max_bytes: u64,
}

impl Program for Args {
    const NAME: &'static str = "sluice-report";
    const ROLE: Role = Role::Sink;
    const OPERATIONS: &'static [Operation] = &[Operation {
        subcommand: None,
        unit: UnitKind::Report,
        resources: Resources::Light,
        after: &[],
        version: 3,
    }];

    fn common(&self) -> &Common {
        &self.step.common
    }

    fn step_args(&self) -> Option<&StepArgs> {
        Some(&self.step)
    }

    fn run(&self, context: &Context) -> Result<()> {
        let plan = context.plan()?;
        let receipts = counted::receipts(context)?;
        let unit = Unit::once(UnitKind::Report);
        context.each_unit(vec![unit], 1, |unit| {
            let options = Options {
                images: !self.no_images,
                max_bytes: self.max_bytes,
            };
            let work = Work {
                unit,
                units: 1,
                settings: Settings {
                    images: !self.no_images,
                    max_bytes: self.max_bytes,
                },
                inputs: inputs(&receipts, context.step()),
            };
            let Some(mut task) = context.begin(work)? else {
                return Ok(());
            };
            let html = page::page(context, &plan, &receipts, options)?;
            let mut object = context.run.writer(layout::REPORT)?;
            object.write_all(html.as_bytes())?;
            task.publish(|| object.finish())?;
            Ok(task.commit(Counts::default())?)
        })
    }
}

/// What shapes the page.
#[derive(Debug, Serialize, Deserialize)]
struct Settings {
    /// Whether it has pictures.
    images: bool,
    /// Bytes that it may have.
    max_bytes: u64,
}

/// Returns everything that was done when the page is made, but the page itself.
fn inputs(receipts: &Receipts, own: &StepName) -> Vec<Input> {
    let done = steps::nodes(receipts).into_iter();
    let done = done.filter(|node| node.step != own && node.kind() != UnitKind::Report);
    done.map(|node| {
        let fingerprints = node.units.iter().map(|receipt| &receipt.fingerprint);
        Input::units(node.step, node.kind(), fingerprints)
    })
    .collect()
}
