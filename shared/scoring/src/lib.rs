//! Steps that run a model or write scores.
//!
//! [`run_images`] runs the models of one or more steps on the images of the survivors in one pass, and
//! takes over rows that were computed before. [`ModelScorer`] is a complete scoring stage: heads on
//! embeddings, classifiers on images, or the measures of `read`. [`ScoreWriter`] writes the scores of
//! any scorer.

mod arguments;
mod pass;
mod reuse;
mod score;
mod settings;
mod writer;

pub use arguments::{DeviceArgs, ModelArgs};
pub use pass::{ImageProgram, ImageStep, StepWriter, run_images};
pub use reuse::{Join, Previous};
pub use score::{ModelScorer, ScorerArgs};
pub use settings::Settings;
pub use writer::ScoreWriter;
