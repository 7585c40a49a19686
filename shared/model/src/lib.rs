//! Models: an ONNX file with a spec that describes its input and output.
//!
//! The one crate that names ort. A [`Spec`] comes from the built-in [`catalogue`], from a
//! `model.toml`, or from the files that transformers, timm and open_clip publish with a model. [`Model::find`]
//! resolves what `--model` names, [`Model::session`] loads it into ONNX Runtime.

#![expect(
    clippy::disallowed_types,
    reason = "this is the one crate that names ort"
)]

mod cache;
mod catalogue;
mod choose;
mod convert;
mod device;
mod driver;
mod exports;
mod install;
mod keys;
mod labels;
mod layout;
mod library;
mod machine;
mod model;
mod needed;
mod onnx;
mod open_clip;
mod placement;
mod pooling;
mod precision;
mod processors;
mod provider;
mod quantize;
mod ranges;
mod scores;
mod session;
mod source;
mod spec;
mod timm;
mod weights;
mod wiring;

pub use cache::{cached, default_cache, folder_of, remove};
pub use catalogue::{catalogue, named};
pub use choose::{Choice, is_weights};
pub use convert::Conversion;
pub use device::Device;
pub use driver::{Driver, Gpu};
pub use install::{Installed, ModelFiles, install};
pub use library::library_version;
pub use machine::{Machine, MissingPart};
pub use model::{Model, ModelSettings, ScoreColumns, precisions};
pub use placement::{BatchSize, Placement};
pub use precision::Precision;
pub use quantize::QuantizedModel;
pub use ranges::Ranges;
pub use session::{InputNumber, Session, TensorValues};
pub use source::PublishedFile;
pub use spec::{Activation, Column, Kind, Label, Pooling, ScoreSpec, Spec};
pub use weights::{data_names, file_sha256};
