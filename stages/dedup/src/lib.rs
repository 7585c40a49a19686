//! `sluice-dedup`: exact, perceptual and semantic duplicates among the survivors of the steps before.
//!
//! | subcommand | finds | parallel over |
//! | --- | --- | --- |
//! | `exact` | equal bytes | ranges of content hashes |
//! | `perceptual` | perceptual hashes within a Hamming distance | one |
//! | `fit` | nothing yet: k-means on a sample of the embeddings | one |
//! | `assign` | nothing yet: each survivor's cluster | partitions |
//! | `match` | embeddings within `eps` inside a cluster | groups of clusters |
//!
//! A dedup step is one deciding step, whatever methods it has. Each method compares the images that
//! the methods before it left. Each writes `duplicates`, one row for every image that it removes.
//! The algorithms are in modules of their own, on slices, without I/O.

mod arguments;
mod bytes;
mod codes;
mod embeddings;
mod estimates;
pub mod exact;
mod groups;
mod hashes;
pub mod kmeans;
pub mod matching;
mod members;
mod methods;
pub mod perceptual;
mod points;
mod products;
pub mod ranking;
mod seeding;
mod semantic;
mod settings;
mod survivors;

use anyhow::Result;
use sluice_harness::{Common, Context, Gives, Program, StepArgs, Upstream};
use sluice_manifest::{Error, Operation, Resources, Role, StepName, UnitKind, layout};

pub use crate::arguments::{Args, Command, Eps};
pub use crate::methods::Methods;
pub use crate::settings::{
    AssignSettings, ExactSettings, FitSettings, MatchSettings, PerceptualSettings,
};

/// Fails when the work is to stop. Long computations call it between their parts, on any thread.
pub type Check<'a> = &'a (dyn Fn() -> sluice_manifest::Result<()> + Sync);

const fn operation(
    subcommand: &'static str,
    unit: UnitKind,
    after: &'static [&'static str],
) -> Operation {
    Operation {
        subcommand: Some(subcommand),
        unit,
        resources: Resources::Cpu,
        after,
        version: 3,
    }
}

impl Program for Args {
    const NAME: &'static str = "sluice-dedup";
    const ROLE: Role = Role::Decider;
    const OPERATIONS: &'static [Operation] = &[
        operation("exact", UnitKind::Exact, &[]),
        operation("perceptual", UnitKind::Perceptual, &["exact"]),
        operation("fit", UnitKind::Fit, &[]),
        operation("assign", UnitKind::Part, &["fit", "exact", "perceptual"]),
        operation("match", UnitKind::Group, &["assign"]),
    ];

    fn common(&self) -> &Common {
        &self.command.stage_args().step.common
    }

    fn step_args(&self) -> Option<&StepArgs> {
        Some(&self.command.stage_args().step)
    }

    fn subcommand(&self) -> Option<&'static str> {
        Some(self.command.name())
    }

    fn is_active(&self) -> bool {
        let methods = self.command.stage_args().methods();
        methods.contains(self.command.method())
    }

    fn needs(&self) -> Result<Vec<StepName>> {
        let embeddings = self.command.embeddings().into_iter();
        let scores = self.command.rank_by().map(|score| &score.step);
        Ok(embeddings.chain(scores).cloned().collect())
    }

    fn check(&self, upstream: &Upstream) -> Result<Gives> {
        if let Some(score) = self.command.rank_by() {
            upstream.score(score)?;
        }
        if let Some(step) = self.command.embeddings() {
            upstream.embedder(step)?;
        }
        Ok(Gives::default())
    }

    fn run(&self, context: &Context) -> Result<()> {
        if !self.is_active() {
            let subcommand = self.command.name();
            return Err(
                Error::usage(format!("{subcommand}: --methods does not ask for it"))
                    .hint("add its method to --methods, or leave out this command")
                    .into(),
            );
        }
        remove_inactive(context, &self.command.stage_args().methods())?;
        match &self.command {
            Command::Exact(args) => hashes::exact(args, context),
            Command::Perceptual(args) => hashes::perceptual(args, context),
            Command::Fit(args) => semantic::fit(args, context),
            Command::Assign(args) => semantic::assign(args, context),
            Command::Match(args) => groups::match_groups(args, context),
        }
    }
}

/// Removes the units of methods that the step no longer has. Later steps would take their decisions
/// for the step's own.
fn remove_inactive(context: &Context, methods: &Methods) -> Result<()> {
    if methods.are_all() {
        return Ok(());
    }
    let folder = layout::receipts(context.step());
    Ok(context.remove_units(&folder, |_, unit| !methods.include(unit.kind))?)
}
