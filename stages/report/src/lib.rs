//! `sluice-report`: one self-contained HTML page about a run, with images.
//!
//! The page shows where the samples went, how long the steps took, the distribution of each score
//! with an adjustable threshold, images that were kept and dropped and why, the composition of the
//! dataset, problems, and the settings and models of each step. It is computed from the receipts of
//! all steps that ran, one pass over the duplicates and one over the samples; only counts, bins and
//! samples of fixed size are held in memory. Thumbnails are made from the source shards. A report
//! can be made at any time.

mod album;
mod data;
mod document;
mod duplicates;
mod figures;
pub mod findings;
mod frequent;
pub mod gallery;
mod page;
mod plot;
mod times;

use std::io::Write;

use anyhow::Result;
use clap::Parser;
use serde::{Deserialize, Serialize};
use sluice_harness::{Common, Context, Program, StepArgs, Work};
use sluice_manifest::{
    Counts, Input, Operation, Resources, Role, StepName, Unit, UnitKind, layout,
};
use sluice_run::{Receipts, counted, steps};

use crate::page::Options;

/// The default maximum size of a page, and the smallest that can be requested, in bytes.
pub const MAX_BYTES: u64 = 5_000_000;
const LEAST_BYTES: u64 = 100_000;

/// Write a page about the run, RUN/report/index.html
///
/// The page is self-contained: it loads no other files, so it can be opened from a disk or a bucket,
/// and sent to others.
///
/// Example: sluice-report --run runs/a
#[derive(Debug, Parser)]
#[command(name = "sluice-report", version)]
pub struct Args {
    /// The arguments of every step after `read`.
    #[command(flatten)]
    pub step: StepArgs,

    /// Omit the images, for data that must stay in its storage
    #[arg(long, env = "SLUICE_NO_IMAGES")]
    pub no_images: bool,

    /// Maximum size of the page in bytes; thumbnails are as large as it allows
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
        revision: 3,
    }];

    fn common(&self) -> &Common {
        &self.step.common
    }

    fn step_args(&self) -> Option<&StepArgs> {
        Some(&self.step)
    }

    fn run(&self, context: &Context) -> Result<()> {
        let plan = context.plan()?;
        let receipts = counted::receipts(&context.run)?;
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
            let Some(mut open_unit) = context.begin(work)? else {
                return Ok(());
            };
            let html = page::page(&context.run, &context.memory, &plan, &receipts, options)?;
            let mut object = context.run.writer(layout::REPORT)?;
            object.write_all(html.as_bytes())?;
            open_unit.publish(|| object.finish())?;
            Ok(open_unit.commit(Counts::default())?)
        })
    }
}

/// The settings that shape the page.
#[derive(Debug, Serialize, Deserialize)]
struct Settings {
    /// Whether the page has images.
    images: bool,
    /// The maximum size of the page in bytes.
    max_bytes: u64,
}

/// Returns everything that was done in the run as inputs, except the page itself.
fn inputs(receipts: &Receipts, own: &StepName) -> Vec<Input> {
    let done = steps::nodes(receipts).into_iter();
    let done = done.filter(|node| node.step != own && node.kind() != UnitKind::Report);
    done.map(|node| {
        let fingerprints = node.units.iter().map(|receipt| &receipt.fingerprint);
        Input::units(node.step, node.kind(), fingerprints)
    })
    .collect()
}
