//! `sluice-nsfw`: scores what is not safe for work.
//!
//! A head scores the embeddings of `embed`, a classifier such as OpenNSFW the pixels.
//! `sluice-filter` decides what stays.

use anyhow::Result;
use clap::Parser;
use sluice_harness::{Common, Context, Program, StepArgs};
use sluice_manifest::{Error, Operation, Resources, Role, StepName, UnitKind};
use sluice_run::{StepOutputs, Upstream};
use sluice_scoring::{ImageProgram, ImageStep, ScorerArgs};
use sluice_store::Storage;

/// Score what is not safe for work
///
/// Example: sluice-nsfw --run runs/a --model laion-nsfw
#[derive(Debug, Parser)]
#[command(name = "sluice-nsfw", version)]
pub struct Args {
    /// The model: one of the catalogue, or the URI of a folder with model.onnx and model.toml
    #[arg(
        long,
        env = "SLUICE_NSFW_MODEL",
        value_name = "MODEL",
        default_value = "laion-nsfw"
    )]
    pub model: String,

    /// The arguments of every scorer that runs a model.
    #[command(flatten)]
    pub scorer: ScorerArgs,
}

impl Program for Args {
    const NAME: &'static str = "sluice-nsfw";
    const ROLE: Role = Role::Scorer;
    const OPERATIONS: &'static [Operation] = &[Operation {
        subcommand: None,
        unit: UnitKind::Partition,
        resources: Resources::Model,
        after: &[],
        revision: 2,
    }];

    fn common(&self) -> &Common {
        &self.scorer.step.common
    }

    fn step_args(&self) -> Option<&StepArgs> {
        Some(&self.scorer.step)
    }

    fn needs(&self) -> Result<Vec<StepName>> {
        Ok(self.scorer.needs(&self.model))
    }

    fn check(&self, upstream: &Upstream) -> Result<StepOutputs> {
        let scorer = self.scorer.scorer(&upstream.storage, &self.model)?;
        Ok(scorer.check(upstream)?)
    }

    fn run(&self, context: &Context) -> Result<()> {
        let scorer = self.scorer.scorer(&context.storage, &self.model)?;
        Ok(scorer.run(context)?)
    }
}

impl ImageProgram for Args {
    fn image_step(&self, storage: &Storage) -> Result<Option<Box<dyn ImageStep>>, Error> {
        let scorer = self.scorer.scorer(storage, &self.model)?;
        Ok(scorer.into_image_step())
    }
}
