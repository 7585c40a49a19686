//! Tests of the shard crate's public interface: one program, one module per subject.
//!
//! They fail if a member is lost, counted twice or read incorrectly; on a panic, a hang or memory
//! use over the limit on hostile input; and if damage is reported as an I/O error or the reverse.
//! `hard.rs` (`OUTCOMES`) pins the outcome for each irregular archive. If a change there is
//! intended, copy the line that the failure prints.

#![expect(
    clippy::disallowed_methods,
    reason = "fixtures are plain files, and the crate under test knows no store"
)]

#[path = "integration/support.rs"]
mod support;

#[path = "integration/faults.rs"]
mod faults;
#[path = "integration/hard.rs"]
mod hard;
#[path = "integration/hostile.rs"]
mod hostile;
#[path = "integration/photos.rs"]
mod photos;
#[path = "integration/roundtrip.rs"]
mod roundtrip;
