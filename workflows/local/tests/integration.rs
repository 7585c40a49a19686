//! Tests of `sluice` on small synthetic shards. The embeddings are artificial; the stages' own
//! programs do everything else.
//!
//! Failures: `verify` reports a sound run as damaged or the reverse, `explain` reports something
//! that did not happen to an image, or an option does not reach its step.

#[path = "integration/damage.rs"]
mod damage;
#[path = "integration/doctor.rs"]
mod doctor;
#[path = "integration/documents.rs"]
mod documents;
#[path = "integration/explain.rs"]
mod explain;
#[path = "integration/gallery.rs"]
mod gallery;
#[path = "integration/inputs.rs"]
mod inputs;
#[path = "integration/inspect.rs"]
mod inspect;
#[path = "integration/one_pass.rs"]
mod one_pass;
#[path = "integration/outputs.rs"]
mod outputs;
#[path = "integration/places.rs"]
mod places;
#[path = "integration/references.rs"]
mod references;
#[path = "integration/run.rs"]
mod run;
#[path = "integration/support.rs"]
mod support;
#[path = "integration/thresholds.rs"]
mod thresholds;
#[path = "integration/trials.rs"]
mod trials;
#[path = "integration/unusable.rs"]
mod unusable;
#[path = "integration/verify.rs"]
mod verify;
