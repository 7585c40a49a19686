//! `sluice-nsfw`: scores what is not safe for work, keeps what is below `--max-score`.
//!
//! A head scores the embeddings of `embed`, a classifier such as OpenNSFW the pixels.
//! The score of every image is kept; the threshold only decides.

use anyhow::Result;
use clap::Parser;
use sluice_harness::{Common, Context, Program};
use sluice_inference::{ModelArgs, Policy, Scoring, score};
use sluice_manifest::{Reason, dag};

/// Score what is not safe for work, keep images below --max-score
///
/// Example: sluice-nsfw --run runs/a --model laion-nsfw --max-score 0.5
#[derive(Debug, Parser)]
#[command(name = "sluice-nsfw", version)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,

    /// The model: one of the catalogue, or the URI of a folder with model.onnx and model.toml
    #[arg(
        long,
        env = "SLUICE_NSFW_MODEL",
        value_name = "MODEL",
        default_value = "laion-nsfw"
    )]
    pub model: String,

    /// Keep images with a score below this (default: the model's own threshold)
    #[arg(
        long,
        env = "SLUICE_NSFW_MAX_SCORE",
        value_name = "SCORE",
        allow_negative_numbers = true
    )]
    pub max_score: Option<f32>,

    #[command(flatten)]
    pub models: ModelArgs,
}

impl Program for Args {
    const NAME: &'static str = "sluice-nsfw";

    fn common(&self) -> &Common {
        &self.common
    }

    fn run(&self, context: &Context) -> Result<()> {
        let model = self.models.find(&self.model)?;
        let own = model.spec.score.as_ref().map(|score| score.threshold);
        let scoring = Scoring {
            step: &dag::NSFW,
            policy: Policy::Below(self.max_score.or(own).unwrap_or_default()),
            model,
            unscored: Reason::NotNsfw,
            refused: Reason::MaxScoreReached,
            feed: self.models.feed(),
        };
        Ok(score(context, &scoring)?)
    }
}
