//! A partition's images or embeddings through a model: what `embed`, `aesthetic` and `nsfw` share.
//!
//! [`images`] streams the images that `read` found sound through a model's preprocessing, a batch
//! ahead of inference. [`score`] is the whole of a scoring stage: heads on embeddings, classifiers
//! on pixels, or `read`'s measures, and the threshold that decides.

mod arguments;
mod images;
mod score;

pub use arguments::{Feed, ModelArgs};
pub use images::{Batch, each_batch};
pub use score::{Policy, Scoring, score};
