//! Object storage under a URI prefix, and Parquet manifests in it.
//!
//! This is the only crate that names opendal. A [`Store`] is a URI prefix on local disk, S3, Google
//! Cloud Storage or Azure Blob Storage. It offers whole reads, byte ranges with prefetch, atomic
//! writes and sorted listings. [`rows`](Store::rows) and [`write_rows`](Store::write_rows) read and
//! write manifests as typed rows, one row group at a time, so memory use does not depend on a
//! manifest's length. All calls block; the asynchronous part is internal to this crate.
//!
//! An object becomes visible whole or not at all. On local disk this takes a temporary file (in
//! `.sluice-tmp/` under the prefix) and a rename. Nothing relies on conditional writes, on renaming
//! objects, or on the order of listings.
//!
//! # Storage errors
//!
//! Functions that make requests return a *storage error* when one fails. Its class says what the
//! caller can do: usage, when the endpoint, the credentials or the bucket are wrong; data, when the
//! object is missing, shorter than expected or changed; transient, when a retry may help (network,
//! throttling, timeout, full disk); stopped, after a signal.

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
