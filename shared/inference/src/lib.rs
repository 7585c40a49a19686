//! Models on a partition's images or embeddings: what the stages that run a model share.
//!
//! [`run_images`] runs the models of one or more steps on the images of the survivors in one pass. It
//! decodes ahead of inference and takes over rows that were computed before. [`ModelScorer`] is a
//! complete scoring stage: heads on embeddings, classifiers on images, or the measures of `read`.
//! [`ScoreWriter`] writes the scores of any scorer.

mod arguments;
mod files;
mod images;
mod pass;
mod reuse;
mod runner;
mod score;
mod settings;
mod tensor;
mod writer;

pub use arguments::ModelArgs;
pub use files::Images;
pub use images::{BatchOptions, TensorBatch, each_batch};
pub use pass::{ImageProgram, ImageStep, StepWriter, run_images};
pub use reuse::{Join, Previous};
pub use runner::Runner;
pub use score::{ModelScorer, ScorerArgs};
pub use settings::Settings;
pub use tensor::PixelTensor;
pub use writer::ScoreWriter;
