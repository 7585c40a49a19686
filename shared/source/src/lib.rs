//! The samples of an input and the bytes of their members, for every kind of input.
//!
//! A shard of the plan is a tar, a list of files, or a Parquet file with images. [`Samples`]
//! streams its samples, for `read` and `verify`. `read` records the position of each member
//! ([`MemberRow::offset`](sluice_manifest::rows::MemberRow)): an offset in the tar, a row of
//! `partition/files`, or a row of the Parquet file. [`SourceShard`] reads members at these
//! positions, in ascending order, for the steps after `read`.

mod files;
mod images;
mod linked;
mod pictures;
mod planned;
mod reader;
mod samples;
mod shard;
mod sidecar;

pub use images::{ImageColumns, caption_column};
pub use pictures::each_image_file;
pub use planned::open_shard;
pub use reader::{EachImage, InputReader, locate};
pub use samples::Samples;
pub use shard::{SourceShard, compressions};
