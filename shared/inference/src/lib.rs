//! Runs models on the images of a partition. It knows nothing of steps, units or receipts.
//!
//! [`Images`] reads the image files of the survivors. [`each_batch`] decodes and preprocesses them for
//! one model or for several, ahead of inference. [`Runner`] is a model with its session and its device.

mod files;
mod images;
mod runner;
mod tensor;

pub use files::Images;
pub use images::{BatchOptions, TensorBatch, each_batch};
pub use runner::Runner;
pub use tensor::PixelTensor;
