//! `sluice-export`: combines the decisions, packs the kept samples into shards, and copies them to
//! the output.
//!
//! There are four subcommands. [`decide`] combines the decisions of the deciding steps, one
//! partition at a time. [`plan`] packs output shards from the counts in `decide`'s receipts alone:
//! all kept samples form one sequence, which is divided into equal lengths. [`write`] finds the
//! samples of one such length and copies their members byte for byte, so output shards can be
//! written independently. [`index`] runs when all shards exist: it removes shards that are not in
//! the plan, and writes `index.json` and the dataset card.
//!
//! `plan` [claims](claim) the output for its run, and rejects one that belongs to another run.

pub mod captions;
pub mod card;
pub mod claim;
pub mod columns;
pub mod croissant;
pub mod curated;
pub mod decide;
pub mod format;
pub mod groups;
pub mod hub;
pub mod index;
pub mod kept;
pub mod lineage;
pub mod output_plan;
mod pack;
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
use sluice_harness::{Common, Context, Program, StepArgs};
use sluice_manifest::{Operation, Resources, Role, StepName, UnitKind};
use sluice_run::{StepOutputs, Upstream};

/// Decide which samples stay, pack them into shards, copy them out
///
/// The subcommands in order: decide, plan, write, index.
#[derive(Debug, Parser)]
#[command(name = "sluice-export", version)]
pub struct Args {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands of the export.
#[derive(Debug, Subcommand)]
#[expect(
    missing_docs,
    reason = "the help of a subcommand is the docstring of its arguments"
)]
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

/// Creates an operation. `after` lists the subcommands that must finish before.
const fn operation(
    subcommand: &'static str,
    unit: UnitKind,
    resources: Resources,
    after: &'static [&'static str],
    revision: u32,
) -> Operation {
    Operation {
        subcommand: Some(subcommand),
        unit,
        resources,
        after,
        revision,
    }
}

impl Program for Args {
    const NAME: &'static str = "sluice-export";
    const ROLE: Role = Role::Sink;
    const OPERATIONS: &'static [Operation] = &[
        operation("decide", UnitKind::Partition, Resources::Light, &[], 3),
        operation("plan", UnitKind::Plan, Resources::Light, &["decide"], 4),
        operation("write", UnitKind::Shard, Resources::Copy, &["plan"], 3),
        operation("index", UnitKind::Index, Resources::Light, &["write"], 5),
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

    fn output(&self) -> Option<&str> {
        match &self.command {
            Command::Plan(args) => Some(&args.output),
            Command::Decide(_) | Command::Write(_) | Command::Index(_) => None,
        }
    }

    fn check(&self, upstream: &Upstream) -> Result<StepOutputs> {
        if let Command::Plan(args) = &self.command {
            args.check(&self.node().step, upstream)?;
        }
        Ok(StepOutputs::default())
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

/// The settings of `decide` and `write`, which have none that change their outputs.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct NoSettings {}
