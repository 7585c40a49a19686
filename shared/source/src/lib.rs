//! The samples of an input and the bytes of their members, whatever the input is made of.
//!
//! A shard of the plan is a tar, a list of files, or a Parquet file with images. [`Samples`] streams
//! its samples, for `read` and `verify`. `read` records for each member where it is
//! ([`MemberRow::offset`](sluice_manifest::rows::MemberRow)): an offset in the tar, a row of
//! `partition/files`, or a row of the Parquet file. [`SourceShard`] gives the members' bytes by that
//! address, front to back, to the steps after `read`.

mod files;
mod images;
mod linked;
mod reader;
mod samples;
mod shard;
mod sidecar;

pub use images::{ImageColumns, caption_column};
pub use reader::{EachImage, InputReader, locate};
pub use samples::Samples;
pub use shard::{SourceShard, packing};
