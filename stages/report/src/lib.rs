//! `sluice-report`: one self-contained HTML page about a run.
//!
//! The page tells where the samples went, how the scores lie, what was rejected and why, and with
//! which settings and models. It is made from the receipts and a stream over the scores,
//! duplicates and rejects; nothing is held but counts and a few examples. Steps that were not run
//! are named as such, so that a report can be had at any time.

pub mod frequent;
pub mod funnel;
pub mod gather;
pub mod histogram;
pub mod page;

use std::io::Write;

use anyhow::Result;
use askama::Template;
use clap::Parser;
use serde_json::json;
use sluice_harness::{Common, Context, Program, Receipts, Work};
use sluice_manifest::dag::{self, STEPS};
use sluice_manifest::{Counts, Input, Unit, layout};

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
    pub common: Common,
}

impl Program for Args {
    const NAME: &'static str = "sluice-report";

    fn common(&self) -> &Common {
        &self.common
    }

    fn run(&self, context: &Context) -> Result<()> {
        let plan = context.plan()?;
        let receipts = context.receipts()?;
        let unit = Unit::once(dag::REPORT.name);
        context.each_unit(&dag::REPORT, vec![unit], 1, |unit| {
            let work = Work {
                step: &dag::REPORT,
                version: 1,
                unit,
                units: 1,
                settings: json!({}),
                basis: None,
                inputs: inputs(&receipts),
            };
            let Some(mut task) = context.begin(work)? else {
                return Ok(());
            };
            let found = gather::gather(context, &plan, &receipts)?;
            let html = page::Page::new(&plan.info, &receipts, found).render()?;
            let mut object = context.run.writer(layout::REPORT)?;
            object.write_all(html.as_bytes())?;
            task.wrote(object.finish()?);
            Ok(task.commit(Counts::default())?)
        })
    }
}

/// Everything that was done when the page is made.
fn inputs(receipts: &Receipts) -> Vec<Input> {
    let done = STEPS
        .iter()
        .filter(|step| step.name != dag::REPORT.name && !receipts.of(step).is_empty());
    done.map(|step| receipts.combined_input(step)).collect()
}
