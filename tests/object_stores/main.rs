//! The whole pipeline on object stores: SeaweedFS (S3), Azurite (Azure Blob) and fake-gcs-server
//! (Google Cloud Storage). The tests start real servers, with HAProxy in front to cause faults and
//! to count requests.
//!
//! Failures: a byte that differs from the same run on local disk, more requests than stated, a
//! fault that reaches the user, a wait beyond the configured limit, a message without the object's
//! name, more memory than on local disk plus a constant, a partially written object, and a secret
//! in the output of a program. Every program runs with `SLUICE_LOG=trace`, and all its output is
//! searched for secrets.
//!
//! The photographs are the demo's, each with an additional member of noise, in two shards of nine
//! megabytes. A test that lacks a server, a model or the photographs is skipped and counted
//! (`sluice_testkit::Need`); `make test` fetches everything.

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
