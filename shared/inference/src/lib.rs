//! A partition's images or embeddings through a model: what the stages that run a model share.
//!
//! [`each_row`] streams the survivors' images through a model's preprocessing, a batch ahead of
//! inference, and takes over what was computed before. [`ModelScorer`] is the whole of a stage that
//! scores with a model: heads on embeddings, classifiers on pixels, or the measures of `read`.
//! [`ScoreWriter`] writes the scores of any scorer.

mod arguments;
mod files;
mod images;
mod reuse;
mod runner;
mod score;
mod writer;

pub use arguments::ModelArgs;
pub use files::{ImageFiles, Images};
pub use images::{Batch, Feed, each_batch};
pub use reuse::{Join, Previous};
pub use runner::Runner;
pub use score::{ModelScorer, ScorerArgs, Settings, each_row};
pub use writer::ScoreWriter;
