//! sluice-testkit: what the crates' tests share.

pub mod failing;
pub mod hub;
mod need;
pub mod onnx;
pub mod pictures;
mod shards;

pub use need::{Need, browser, fixtures, place, python};
pub use shards::Shard;
