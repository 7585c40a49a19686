//! `sluice-dedup`: exact, perceptual and semantic duplicates among the survivors of the steps before.
//!
//! | subcommand | finds | parallel over |
//! | --- | --- | --- |
//! | `exact` | equal bytes | ranges of content hashes |
//! | `pairs` | pairs of perceptual hashes within a Hamming distance | ranges of hashes |
//! | `perceptual` | perceptual duplicates among the pairs | one |
//! | `fit` | nothing yet: k-means on a sample of the embeddings | one |
//! | `assign` | nothing yet: each survivor's cluster | partitions |
//! | `match` | embeddings within `eps` inside a cluster | groups of clusters |
//! | `index` | nothing: writes an index of a run for the `--against` of others | one |
//!
//! A dedup step is one deciding step, whatever methods it has. Each method compares the images that
//! the methods before it left. Each writes `duplicates`, one row for every image that it removes.
//! The algorithms are on slices, without I/O: of hashes in modules of their own, of vectors in
//! `sluice-knn`.

mod arguments;
pub mod bands;
mod clusters;
pub mod components;
mod distance;
mod embeddings;
pub mod exact;
mod groups;
pub mod hash;
mod hashes;
mod index;
mod methods;
mod pairs;
pub mod perceptual;
pub mod ranking;
mod references;
mod semantic;
mod settings;
mod survivors;

use anyhow::Result;
use sluice_harness::{Common, Context, Program, ProgramNode, StepArgs};
use sluice_knn::Check;
use sluice_manifest::{Error, Operation, Resources, Role, StepName, UnitKind, layout};
use sluice_run::{StepOutputs, Upstream};

use crate::arguments::NearArgs;
use crate::index::open::{Comparison, References};
use crate::settings::{NearSettings, OnRequest};

pub use crate::arguments::{Args, Command, Eps};
pub use crate::methods::Methods;
pub use crate::settings::{
    AssignSettings, ExactSettings, FitSettings, MatchSettings, PairsSettings, PerceptualSettings,
};

const fn operation(
    subcommand: &'static str,
    unit: UnitKind,
    after: &'static [&'static str],
    revision: u32,
) -> Operation {
    Operation {
        subcommand: Some(subcommand),
        unit,
        resources: Resources::Cpu,
        after,
        revision,
    }
}

/// `index` is no part of a step, so it is not among the operations of a pipeline.
static INDEX: Operation = operation("index", UnitKind::Index, &[], 1);

impl Program for Args {
    const NAME: &'static str = "sluice-dedup";
    const ROLE: Role = Role::Decider;
    const OPERATIONS: &'static [Operation] = &[
        operation("exact", UnitKind::Exact, &[], 4),
        operation("pairs", UnitKind::Pairs, &["exact"], 2),
        operation("perceptual", UnitKind::Perceptual, &["exact", "pairs"], 4),
        operation("fit", UnitKind::Fit, &[], 3),
        operation(
            "assign",
            UnitKind::Partition,
            &["fit", "exact", "perceptual"],
            4,
        ),
        operation("match", UnitKind::Group, &["assign"], 4),
    ];

    fn common(&self) -> &Common {
        self.command.common()
    }

    fn step_args(&self) -> Option<&StepArgs> {
        self.command.stage_args().map(|stage| &stage.step)
    }

    fn subcommand(&self) -> Option<&'static str> {
        Some(self.command.name())
    }

    fn output(&self) -> Option<&str> {
        match &self.command {
            Command::Index(index) => Some(&index.output),
            _ => None,
        }
    }

    fn is_active(&self) -> bool {
        let (stage, method) = (self.command.stage_args(), self.command.method());
        match (stage, method) {
            (Some(stage), Some(method)) => stage.methods().contains(method),
            _ => true,
        }
    }

    fn node(&self) -> ProgramNode {
        let subcommand = self.command.name();
        let mut operations = Self::OPERATIONS.iter();
        let operation = operations.find(|operation| operation.subcommand == Some(subcommand));
        let args = self.step_args();
        let (default, survivors_of) = match &self.command {
            Command::Index(index) => ("index", &index.survivors_of),
            _ => (Self::stage(), &None),
        };
        ProgramNode {
            step: args
                .and_then(|args| args.step.clone())
                .unwrap_or_else(|| StepName::fixed(default)),
            stage: Self::stage(),
            operation: operation.unwrap_or(&INDEX),
            survivors_of: args
                .and_then(|args| args.survivors_of.clone())
                .or_else(|| survivors_of.clone()),
        }
    }

    fn needs(&self) -> Result<Vec<StepName>> {
        let embeddings = self.command.embeddings().into_iter();
        let scores = self.command.rank_by().map(|score| &score.step);
        Ok(embeddings.chain(scores).cloned().collect())
    }

    fn check(&self, upstream: &Upstream) -> Result<StepOutputs> {
        if let Some(score) = self.command.rank_by() {
            upstream.score(score)?;
        }
        if let Some(step) = self.command.embeddings() {
            upstream.embedder(step)?;
        }
        let near = self.command.near().map(NearArgs::settings).transpose()?;
        let is_computed = |hash| upstream.computes(&format!("{hash}"));
        if let Some(hash) = near.as_ref().and_then(NearSettings::on_request)
            && !is_computed(hash)
        {
            return Err(survivors::not_computed(hash).into());
        }
        let comparison = match (&self.command, near) {
            (_, Some(near)) => Comparison::Perceptual(near.hash),
            (Command::Match(_), _) => Comparison::Semantic,
            _ => Comparison::Exact {
                has_md5: is_computed(OnRequest::Md5),
            },
        };
        let has_clusters = matches!(self.command, Command::Assign(_) | Command::Match(_));
        let (Some(stage), Some(args)) = (self.command.stage_args(), self.command.references())
        else {
            return Ok(StepOutputs {
                has_clusters,
                ..StepOutputs::default()
            });
        };
        let storage = &upstream.storage;
        let references = References::open(storage, args, &stage.methods(), comparison)?;
        if matches!(self.command, Command::Match(_)) {
            references.check_encoders(upstream)?;
        }
        Ok(StepOutputs {
            has_clusters,
            references: references.uses(),
            ..StepOutputs::default()
        })
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
        if let Some(stage) = self.command.stage_args() {
            remove_inactive(context, &stage.methods())?;
        }
        match &self.command {
            Command::Exact(args) => hashes::exact(args, context),
            Command::Pairs(args) => pairs::find(args, context),
            Command::Perceptual(args) => hashes::perceptual(args, context),
            Command::Fit(args) => semantic::fit(args, context),
            Command::Assign(args) => semantic::assign(args, context),
            Command::Match(args) => groups::match_groups(args, context),
            Command::Index(args) => index::write::write(args, context),
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
