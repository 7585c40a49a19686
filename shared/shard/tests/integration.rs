//! The shard crate from outside: one program, one module per subject.
//!
//! A failure is a member that is lost, counted twice or read wrong; a panic, a hang or memory
//! beyond the bound on hostile input; damage told as an I/O error or the other way round. What becomes of each odd archive is pinned in
//! `hard.rs` (`OUTCOMES`): when a change there is meant, copy the line that the failure prints.

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
