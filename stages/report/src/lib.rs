//! `sluice-report`: one self-contained HTML page about a run.
//!
//! The page shows where the samples went, the distribution of each score, what was rejected and why,
//! and the settings and models of each step. It is made from the receipts of whatever was run, and
//! from a stream over the duplicates and the rejects; only counts and a few examples are held in
//! memory. A report can be made at any time.

pub mod counted;
pub mod frequent;
pub mod funnel;
pub mod gather;
pub mod histogram;
pub mod page;
pub mod planned;
pub mod settings;
pub mod steps;
pub mod thresholds;

use std::io::Write;

use anyhow::Result;
use askama::Template;
use clap::Parser;
use serde::{Deserialize, Serialize};
use sluice_harness::{Common, Context, Program, Receipts, StepArgs, Work};
use sluice_manifest::{
    Counts, Input, Operation, Resources, Role, StepName, Unit, UnitKind, layout,
};

pub use crate::funnel::Funnel;

/// Write a page about the run, RUN/report/index.html
///
/// The page needs nothing but itself: no script, no font, no network.
///
/// Example: sluice-report --run runs/a
#[derive(Debug, Parser)]
#[command(name = "sluice-report", version)]
pub struct Args {
    #[command(flatten)]
    pub step: StepArgs,
}

impl Program for Args {
    const NAME: &'static str = "sluice-report";
    const ROLE: Role = Role::Sink;
    const OPERATIONS: &'static [Operation] = &[Operation {
        subcommand: None,
        unit: UnitKind::Report,
        resources: Resources::Light,
        after: &[],
        version: 2,
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
            let work = Work {
                unit,
                units: 1,
                settings: Settings {},
                inputs: inputs(&receipts, context.step()),
            };
            let Some(mut task) = context.begin(work)? else {
                return Ok(());
            };
            let found = gather::gather(context, &plan, &receipts)?;
            let html = page::Page::new(&plan.info, &receipts, found).render()?;
            let mut object = context.run.writer(layout::REPORT)?;
            object.write_all(html.as_bytes())?;
            task.publish(|| object.finish())?;
            Ok(task.commit(Counts::default())?)
        })
    }
}

/// No setting shapes the page.
#[derive(Debug, Serialize, Deserialize)]
struct Settings {}

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
