//! ONNX models from weights as their authors published them.
//!
//! Weights are read by what their formats say, without the libraries that wrote them: PyTorch's state
//! dicts (a pickle, of which only what a state dict needs is understood, so no code of a file runs),
//! TensorFlow's checkpoints, and files in zip archives and wheels. The same input gives the same bytes.

mod efficientnet;
mod graph;
pub(crate) mod half;
mod heads;
mod pickle;
pub(crate) mod quantize;
mod safetensors;
mod tensorflow;
mod torch;
mod vit;
mod zip;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sluice_manifest::{Error, Result};

pub(crate) use self::graph::with_metadata;

/// How a model's ONNX file is made from the file that its authors publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Conversion {
    /// A member of a zip archive is the ONNX file.
    Member,
    /// A PyTorch state dict of linear layers without activation between them, as one layer.
    LinearLayers,
    /// A Keras model in a zip archive: normalisation, dense layers with ReLU, a sigmoid.
    KerasLayers,
    /// The PyTorch weights of EfficientNet-Lite0 in a wheel, up to the global average pool.
    EfficientnetLite0,
    /// The safetensors of a vision transformer, with its `config.json`.
    VisionTransformer,
}

/// The origin of the weights, as written into the ONNX file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Credit<'a> {
    pub name: &'a str,
    pub licence: &'a str,
    pub origin: &'a str,
}

/// A tensor of float32 numbers, the last axis contiguous.
#[derive(Debug, Clone, PartialEq)]
struct Tensor {
    shape: Vec<usize>,
    values: Vec<f32>,
}

type Tensors = BTreeMap<String, Tensor>;

/// Returns the ONNX file of a model, made from the content of its published file and, for transformers,
/// of the `config.json` in the same folder.
///
/// # Errors
/// Data, when the content is not what the conversion reads.
pub(crate) fn convert(
    conversion: Conversion,
    content: &[u8],
    config: &[u8],
    credit: &Credit<'_>,
) -> Result<Vec<u8>> {
    let converted = match conversion {
        Conversion::Member => zip::only(content, ".onnx"),
        Conversion::LinearLayers => heads::linear(content, credit),
        Conversion::KerasLayers => heads::keras(content, credit),
        Conversion::EfficientnetLite0 => efficientnet::convert(content),
        Conversion::VisionTransformer => vit::convert(content, config, credit.name),
    };
    converted.map_err(|wrong| {
        let what = format!("{}: cannot be converted: {wrong}", credit.name);
        match conversion {
            Conversion::VisionTransformer => Error::usage(what).hint(
                "export it as ONNX: `optimum-cli export onnx --model FOLDER OUTPUT`, then pull OUTPUT",
            ),
            _ => Error::data(what).hint("the conversion is of the file that the catalogue names"),
        }
    })
}

/// Returns a tensor by its name.
fn tensor<'t>(tensors: &'t Tensors, name: &str) -> Result<&'t Tensor, String> {
    tensors
        .get(name)
        .ok_or_else(|| format!("it has no tensor {name:?}"))
}

/// Returns the number of elements of a shape, unless that is more than any model has.
fn elements(shape: &[usize]) -> Result<usize, String> {
    const MOST: usize = 1 << 31;
    let product = shape
        .iter()
        .try_fold(1_usize, |product, &size| product.checked_mul(size));
    product
        .filter(|&product| product <= MOST)
        .ok_or_else(|| format!("a tensor of shape {shape:?} is too large"))
}

/// Returns the little-endian float32 numbers of some bytes.
fn floats(bytes: &[u8]) -> Vec<f32> {
    let (numbers, _) = bytes.as_chunks::<4>();
    numbers
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect()
}

#[cfg(test)]
mod tests;
