//! `sluice-aesthetic`: scores how good images look, keeps those at or above `--min-score`.
//!
//! A head scores the embeddings of `embed`, a classifier the pixels, and `technical-quality` the measures of
//! `read`; the last is not a learned aesthetic.
//! The score of every image is kept; the threshold only decides.

use anyhow::Result;
use clap::Parser;
use sluice_harness::{Common, Context, Program};
use sluice_inference::{ModelArgs, Policy, Scoring, score};
use sluice_manifest::{Reason, dag};

/// Score how good the images look, keep those at or above --min-score
///
/// Example: sluice-aesthetic --run runs/a --model laion-aesthetic-v2 --min-score 5.0
#[derive(Debug, Parser)]
#[command(name = "sluice-aesthetic", version)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,

    /// The model: one of the catalogue, or the URI of a folder with model.onnx and model.toml
    #[arg(
        long,
        env = "SLUICE_AESTHETIC_MODEL",
        value_name = "MODEL",
        default_value = "laion-aesthetic-v2"
    )]
    pub model: String,

    /// Keep images with at least this score (default: the model's own threshold)
    #[arg(
        long,
        env = "SLUICE_AESTHETIC_MIN_SCORE",
        value_name = "SCORE",
        allow_negative_numbers = true
    )]
    pub min_score: Option<f32>,

    #[command(flatten)]
    pub models: ModelArgs,
}

impl Program for Args {
    const NAME: &'static str = "sluice-aesthetic";

    fn common(&self) -> &Common {
        &self.common
    }

    fn run(&self, context: &Context) -> Result<()> {
        let model = self.models.find(&self.model)?;
        let own = model.spec.score.as_ref().map(|score| score.threshold);
        let scoring = Scoring {
            step: &dag::AESTHETIC,
            policy: Policy::AtLeast(self.min_score.or(own).unwrap_or_default()),
            model,
            unscored: Reason::NotAesthetic,
            refused: Reason::BelowMinScore,
            feed: self.models.feed(),
        };
        Ok(score(context, &scoring)?)
    }
}
