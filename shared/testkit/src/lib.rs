//! sluice-testkit: what the crates' tests share.

pub mod failing;
mod need;
pub mod onnx;
pub mod pictures;
mod shards;

pub use need::{Need, fixtures, place, python};
pub use shards::Shard;
