//! What a model's matrix products are computed in.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The precision of an encoder's matrix products. Embeddings are stored as float32 in any case.
/// README.md states the differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// model.onnx as it is
    #[default]
    Float32,
    /// model.float16.onnx, which `sluice models quantize` makes of model.onnx
    Float16,
    /// model.bfloat16.onnx on GPUs, or model.onnx computed by OpenVINO
    Bfloat16,
    /// model.int8.onnx, which `sluice models quantize` makes of model.onnx
    Int8,
}

impl Precision {
    /// All precisions.
    pub const ALL: [Self; 4] = [Self::Float32, Self::Float16, Self::Bfloat16, Self::Int8];
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Unwrap safety: no value is skipped.
        f.write_str(self.to_possible_value().expect("a value").get_name())
    }
}
