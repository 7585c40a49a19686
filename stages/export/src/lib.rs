//! `sluice-export`: joins the decisions, packs the kept samples into shards, copies them out.
//!
//! Four subcommands. [`decide`] joins the decisions of the deciding steps, a partition at a time.
//! [`plan`] packs output shards from the counts in `decide`'s receipts alone: all kept samples lie
//! on one line, and the line is cut into equal lengths. [`write`] finds the samples of one such
//! length and copies their members byte for byte, so every output shard can be written by itself.
//! [`index`] runs when all shards are there: it removes those that the plan does not have, and writes
//! `index.json` and the dataset card.
//!
//! `plan` [claims](claim) the output for its run, and refuses one that is somebody else's.

pub mod captions;
pub mod card;
pub mod claim;
pub mod columns;
pub mod croissant;
pub mod curated;
pub mod decide;
pub mod format;
pub mod hub;
pub mod index;
pub mod kept;
pub mod lineage;
pub mod pack;
pub mod place;
pub mod plan;
pub mod recoded;
pub mod scores;
pub mod split;
pub mod splits;
pub mod words;
pub mod write;

use anyhow::Result;
use clap::{Parser, Subcommand};
use serde::{Deserialize, Serialize};
use sluice_harness::{Common, Context, Gives, Program, StepArgs, Upstream};
use sluice_manifest::{Operation, Resources, Role, StepName, UnitKind};

/// Decide which samples stay, pack them into shards, copy them out
///
/// The subcommands in order: decide, plan, write, index.
#[derive(Debug, Parser)]
#[command(name = "sluice-export", version)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands of the export.
#[derive(Debug, Subcommand)]
pub enum Command {
    Decide(decide::Args),
    Plan(plan::Args),
    Write(write::Args),
    Index(index::Args),
}

impl Command {
    fn step_args(&self) -> &StepArgs {
        match self {
            Self::Decide(args) => &args.step,
            Self::Plan(args) => &args.step,
            Self::Write(args) => &args.step,
            Self::Index(args) => &args.step,
        }
    }
}

/// One subcommand's work; `after` are the subcommands that it waits for.
const fn operation(
    subcommand: &'static str,
    unit: UnitKind,
    resources: Resources,
    after: &'static [&'static str],
    version: u32,
) -> Operation {
    Operation {
        subcommand: Some(subcommand),
        unit,
        resources,
        after,
        version,
    }
}

impl Program for Args {
    const NAME: &'static str = "sluice-export";
    const ROLE: Role = Role::Sink;
    const OPERATIONS: &'static [Operation] = &[
        operation("decide", UnitKind::Part, Resources::Light, &[], 3),
        operation("plan", UnitKind::Plan, Resources::Light, &["decide"], 3),
        operation("write", UnitKind::Shard, Resources::Copy, &["plan"], 2),
        operation("index", UnitKind::Index, Resources::Light, &["write"], 4),
    ];

    fn common(&self) -> &Common {
        &self.command.step_args().common
    }

    fn step_args(&self) -> Option<&StepArgs> {
        Some(self.command.step_args())
    }

    fn subcommand(&self) -> Option<&'static str> {
        Some(match &self.command {
            Command::Decide(_) => "decide",
            Command::Plan(_) => "plan",
            Command::Write(_) => "write",
            Command::Index(_) => "index",
        })
    }

    fn needs(&self) -> Result<Vec<StepName>> {
        Ok(match &self.command {
            Command::Plan(args) => args.needs(),
            Command::Decide(_) | Command::Write(_) | Command::Index(_) => Vec::new(),
        })
    }

    fn check(&self, upstream: &Upstream) -> Result<Gives> {
        if let Command::Plan(args) = &self.command {
            args.check(&self.node().step, upstream)?;
        }
        Ok(Gives::default())
    }

    fn run(&self, context: &Context) -> Result<()> {
        match &self.command {
            Command::Decide(_) => decide::run(context),
            Command::Plan(args) => plan::run(args, context),
            Command::Write(_) => write::run(context),
            Command::Index(args) => index::run(args, context),
        }
    }
}

/// Settings of `decide` and `write`: none can change what they write.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct NoSettings {}
