//! The whole pipeline on object stores: SeaweedFS (S3), Azurite (Azure Blob) and fake-gcs-server
//! (Google Cloud Storage), each a real server that the test starts, with HAProxy before it where
//! something has to go wrong or to be counted.
//!
//! What counts as failure: a byte that differs from what the same run makes on local disk, a
//! request more than stated, a fault of the store that comes through, a wait longer than the
//! settings say, a message that does not name the object, memory beyond what the disk takes and a
//! stated rest, something half-written, and a secret in anything that a program says or writes.
//! Every program here runs with `SLUICE_LOG=trace`, and all that it says is searched for secrets.
//!
//! The photographs are the demo's, each with a member of noise, in two shards of nine megabytes. A
//! test that lacks a server, a model or the photographs is skipped and counted
//! (`sluice_testkit::Need`); `make test` fetches all of them.

#![expect(
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "tests print their figures, and what they compare lies on local disk"
)]

mod failing;
mod faults;
mod forms;
mod memory;
mod reference;
mod remote;
mod requests;
mod secrets;
mod stopped;
mod stores;
