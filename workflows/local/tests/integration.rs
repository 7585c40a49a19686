//! The program for people, on runs whose embeddings are made up: everything else is done by the
//! stages' own programs, on small synthetic shards.
//!
//! A test fails when a run that is sound is called unsound or the other way round, when an image's
//! story is not what happened to it, or when an option does not reach its step.

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
#[path = "integration/outputs.rs"]
mod outputs;
#[path = "integration/places.rs"]
mod places;
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
