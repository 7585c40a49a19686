//! `sluice-export`: joins the decisions, packs the kept samples into shards, copies them out.
//!
//! Four steps. [`decide`] joins the filters' decisions, a partition at a time. [`plan`] packs output
//! shards from the counts in `decide`'s receipts alone: all kept samples lie on one line, and the
//! line is cut into equal lengths. [`write`] finds the samples of one such length and copies their
//! members byte for byte, so every output shard can be written by itself. [`index`] runs when all
//! are there: it removes what an earlier, longer plan left behind, and writes `index.json` and the
//! dataset card.

pub mod card;
pub mod columns;
pub mod curated;
pub mod decide;
pub mod index;
pub mod kept;
pub mod pack;
pub mod plan;
pub mod write;

use anyhow::Result;
use clap::{Parser, Subcommand};
use sluice_harness::{Common, Context, Program};

/// Decide which samples stay, pack them into shards, copy them out
///
/// The steps in order: decide, plan, write, index.
#[derive(Debug, Parser)]
#[command(name = "sluice-export", version)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

/// The steps of the export.
#[derive(Debug, Subcommand)]
pub enum Command {
    Decide(decide::Args),
    Plan(plan::Args),
    Write(write::Args),
    Index(index::Args),
}

impl Program for Args {
    const NAME: &'static str = "sluice-export";

    fn common(&self) -> &Common {
        match &self.command {
            Command::Decide(args) => &args.common,
            Command::Plan(args) => &args.common,
            Command::Write(args) => &args.common,
            Command::Index(args) => &args.common,
        }
    }

    fn run(&self, context: &Context) -> Result<()> {
        match &self.command {
            Command::Decide(args) => decide::run(args, context),
            Command::Plan(args) => plan::run(args, context),
            Command::Write(_) => write::run(context),
            Command::Index(_) => index::run(context),
        }
    }
}
