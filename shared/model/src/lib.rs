//! Models: an ONNX file with a spec that says how to feed it.
//!
//! The one crate that names ort. A [`Spec`] comes from the built-in [`catalogue`], from a
//! `model.toml`, or from the `preprocessor_config.json` of a Hugging Face export. [`Model::find`]
//! resolves what `--model` names, [`Model::session`] loads it into ONNX Runtime.

#![expect(
    clippy::disallowed_types,
    reason = "this is the one crate that names ort"
)]

mod cache;
mod catalogue;
mod hugging_face;
mod model;
mod onnx;
mod precision;
mod session;
mod spec;

pub use cache::{default_cache, pull};
pub use catalogue::catalogue;
pub use model::{Model, ModelSettings};
pub use precision::Precision;
pub use session::Session;
pub use spec::{Kind, Score, Spec};
