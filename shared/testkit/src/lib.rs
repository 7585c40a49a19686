//! Helpers for the tests of all crates.

pub mod failing;
pub mod hub;
mod need;
mod numbers;
pub mod onnx;
pub mod pictures;
mod shards;

pub use need::{Need, browser, fixtures, onnxruntime_of, place, python};
pub use numbers::Numbers;
pub use shards::Shard;
