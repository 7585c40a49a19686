//! Objects under a URI, and manifests in them.
//!
//! The one crate that names opendal. [`Store`] is a URI prefix, on local disk, S3, Google Cloud
//! Storage or Azure Blob: get, read in stretches, atomic put, sorted list. [`rows`](Store::rows) and [`write_rows`](Store::write_rows) turn
//! manifests into typed rows and back, a row group at a time, so that memory does not depend on a
//! manifest's length. The calls block; the asynchronous part stays inside this crate.
//!
//! An object appears whole or not at all. On local disk that takes a temporary file beside the
//! objects (in `.sluice-tmp/` under the prefix) and a rename. Nothing relies on conditional
//! writes, renames of objects, or the order of listings.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "this is the one crate that names opendal and opens files"
)]

mod client;
mod disk;
mod location;
mod object;
mod remote;
mod rows;
mod runtime;
mod settings;
mod source;
mod stop;
mod storage;
mod store;
mod table;
mod temporary;
mod transport;
mod vectors;
mod within;

pub use location::Location;
pub use object::{ObjectReader, ObjectWriter};
pub use rows::{RowReader, RowWriter};
pub use source::Checked;
pub use storage::Storage;
pub use store::{ObjectInfo, Store};
pub use table::{GroupSize, Table, TableWriter, vectors};
