//! Weights in 8 bits: dynamic quantisation of an ONNX file's matrix products.
//!
//! A product of float32 numbers with constant weights becomes DynamicQuantizeLinear, MatMulInteger, Cast
//! and Mul, which ONNX Runtime computes as one operator. A weight is `q * scale`: each column of a matrix
//! has its own scale, by which its largest magnitude is [`LARGEST`]. The other side is quantised when the
//! model runs, with one scale for all of its numbers, so such a graph is run one image at a time
//! ([`crate::Session::run`]). Everything else stays in float32: convolutions above all, which need
//! activations calibrated on pictures.
//!
//! The result is one file without external data. The same input gives the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use sluice_manifest::{Error, Result};

use super::graph::{Attribute, FLOAT, SIGNED_BYTE, field, node, tensor};
use super::{elements, floats};
use crate::onnx::{bytes_of, fields, number_of, numbers_of, whole_fields};

/// Largest magnitude of a quantised weight: 7 bits. Processors without VNNI add two products of a weight and
/// a number from 0 to 255 in 16 bits, which only then never saturate: `2 * 63 * 255 < 2^15`. So the result
/// is the same on every processor.
const LARGEST: f32 = 63.0;
/// Oldest opset with DynamicQuantizeLinear.
const OPSET: u64 = 11;
/// Most bytes of a Protocol Buffers message.
const MOST_BYTES: usize = i32::MAX as usize;

/// An ONNX file of another precision.
#[derive(Debug)]
pub(crate) struct Made {
    pub onnx: Vec<u8>,
    /// Matrix products, and convolutions, that are in it.
    pub products: usize,
}

/// Returns an ONNX file with weights in 8 bits. `read` gives a range of a file of external data; one
/// without an end goes to the end of the file.
///
/// # Errors
/// Usage, when there is nothing to quantise; data, when the file is broken; as `read`.
pub(crate) fn quantize(
    onnx: &[u8],
    read: impl FnMut(&str, Range<u64>) -> Result<Vec<u8>>,
) -> Result<Made> {
    let graph = bytes_of(onnx, 7).ok_or_else(|| Error::data("it has no graph"))?;
    check_opset(onnx)?;
    let mut rewrite = Rewrite {
        read,
        tensors: initializers(graph),
        quantized: BTreeMap::new(),
        sides: BTreeSet::new(),
        nodes: Vec::new(),
        kept: Vec::new(),
        products: 0,
    };
    for (_, node) in fields(graph).filter(|(number, _)| *number == 1) {
        rewrite.node(node)?;
    }
    if rewrite.products == 0 {
        return Err(
            Error::usage("no matrix product of float32 numbers with constant weights")
                .hint("convolution networks and exports in other precisions run as they are"),
        );
    }
    let graph = rewrite.finish(graph)?;
    Ok(Made {
        onnx: with_graph(onnx, &graph)?,
        products: rewrite.products,
    })
}

/// Returns whether an ONNX file has weights that make sums of two products saturate in 16 bits:
/// `2 * 64 * 255 < 2^15`. `read` is that of [`quantize`].
///
/// # Errors
/// As `read`.
pub(crate) fn saturates(
    onnx: &[u8],
    mut read: impl FnMut(&str, Range<u64>) -> Result<Vec<u8>>,
) -> Result<bool> {
    const MOST: u8 = 64;
    for tensor in initializers(bytes_of(onnx, 7).unwrap_or_default()).values() {
        if number_of(tensor, 2) == Some(SIGNED_BYTE) {
            let weights = content(tensor, &mut read)?;
            let mut magnitudes = weights.iter().map(|&byte| (byte as i8).unsigned_abs());
            if magnitudes.any(|magnitude| magnitude > MOST) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Returns an ONNX file with another graph.
pub(super) fn with_graph(onnx: &[u8], graph: &[u8]) -> Result<Vec<u8>> {
    let mut made = Vec::with_capacity(graph.len() + 1024);
    for (number, _, whole) in whole_fields(onnx) {
        match number {
            7 => field(&mut made, 7, graph),
            _ => made.extend_from_slice(whole),
        }
    }
    if made.len() > MOST_BYTES {
        Err(Error::usage("the weights are above 2 GB in this precision"))
    } else {
        Ok(made)
    }
}

fn check_opset(onnx: &[u8]) -> Result<()> {
    let opsets = fields(onnx).filter(|(number, _)| *number == 8);
    let is_default = |opset: &&[u8]| bytes_of(opset, 1).unwrap_or_default().is_empty();
    let opset = opsets.map(|(_, opset)| opset).find(is_default);
    match opset.and_then(|opset| number_of(opset, 2)) {
        Some(version) if version < OPSET => Err(Error::usage(format!(
            "it is of opset {version}, quantisation needs {OPSET} or newer"
        ))
        .hint("export the model again with --opset 17")),
        _ => Ok(()),
    }
}

/// Returns the constant tensors of a graph, by name.
pub(super) fn initializers(graph: &[u8]) -> BTreeMap<&str, &[u8]> {
    let tensors = fields(graph).filter(|(number, _)| *number == 5);
    tensors
        .filter_map(|(_, tensor)| Some((text(bytes_of(tensor, 8)?), tensor)))
        .collect()
}

pub(super) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// Returns the texts of all fields with this number.
pub(super) fn texts(message: &[u8], number: u64) -> Vec<&str> {
    let found = fields(message).filter(|(found, _)| *found == number);
    found.map(|(_, value)| text(value)).collect()
}

/// A matrix product with constant weights.
struct Product<'a> {
    side: &'a str,
    weights: &'a str,
    bias: Option<&'a str>,
    output: &'a str,
    /// Whether a row of the weights is a column of the matrix.
    is_transposed: bool,
}

/// Weights in 8 bits.
struct Weights {
    /// The name of the tensor, without `/int8` or `/scale`.
    name: String,
    tensors: [Vec<u8>; 2],
}

struct Rewrite<'a, R> {
    read: R,
    tensors: BTreeMap<&'a str, &'a [u8]>,
    /// The weights that are in 8 bits, by name and by whether they were transposed.
    quantized: BTreeMap<(&'a str, bool), Weights>,
    /// What is quantised at run time already.
    sides: BTreeSet<&'a str>,
    /// The new graph's nodes.
    nodes: Vec<u8>,
    /// Nodes that stayed as they are, and names that others use.
    kept: Vec<&'a [u8]>,
    products: usize,
}

impl<'a, R: FnMut(&str, Range<u64>) -> Result<Vec<u8>>> Rewrite<'a, R> {
    fn node(&mut self, node: &'a [u8]) -> Result<()> {
        match self.product(node) {
            Some(product) => self.replace(&product),
            None => {
                field(&mut self.nodes, 1, node);
                self.kept.push(node);
                Ok(())
            }
        }
    }

    /// Returns the matrix product that a node is, if it can be quantised.
    fn product(&self, node: &'a [u8]) -> Option<Product<'a>> {
        let inputs = texts(node, 1);
        let [side, weights, ..] = inputs[..] else {
            return None;
        };
        let tensor = self.tensors.get(weights)?;
        let is_matrix = number_of(tensor, 2) == Some(FLOAT) && numbers_of(tensor, 1).len() == 2;
        let is_default = bytes_of(node, 7).unwrap_or_default().is_empty();
        let is_constant = self.tensors.contains_key(side);
        let is_transposed = match text(bytes_of(node, 4)?) {
            "MatMul" => false,
            "Gemm" => transposition(node)?,
            _ => return None,
        };
        (is_matrix && is_default && !is_constant).then(|| Product {
            side,
            weights,
            bias: inputs.get(2).copied().filter(|bias| !bias.is_empty()),
            output: texts(node, 2).first().copied().unwrap_or_default(),
            is_transposed,
        })
    }

    fn replace(&mut self, product: &Product<'a>) -> Result<()> {
        let weights = self.weights(product)?;
        let (side, output) = (product.side, product.output);
        let of_side = |part: &str| format!("{side}/{part}");
        let of_output = |part: &str| format!("{output}/{part}");
        let (bytes, scale, zero) = (of_side("int8"), of_side("scale"), of_side("zero"));
        if self.sides.insert(side) {
            let outputs = [bytes.as_str(), &scale, &zero];
            self.add(node("DynamicQuantizeLinear", &[side], &outputs, &[]));
        }
        let (whole, float, scales) = (of_output("int32"), of_output("float"), of_output("scales"));
        let (matrix, of_columns) = (format!("{weights}/int8"), format!("{weights}/scale"));
        let inputs = [bytes.as_str(), &matrix, &zero];
        self.add(node("MatMulInteger", &inputs, &[&whole], &[]));
        let to = [Attribute::Integer("to", FLOAT)];
        self.add(node("Cast", &[&whole], &[&float], &to));
        self.add(node("Mul", &[&scale, &of_columns], &[&scales], &[]));
        let unbiased = of_output("unbiased");
        let last = product.bias.map_or(output, |_| &unbiased);
        self.add(node("Mul", &[&float, &scales], &[last], &[]));
        if let Some(bias) = product.bias {
            self.add(node("Add", &[last, bias], &[output], &[]));
            self.kept.push(bias.as_bytes());
        }
        self.products += 1;
        Ok(())
    }

    fn add(&mut self, node: Vec<u8>) {
        field(&mut self.nodes, 1, &node);
    }

    /// Quantises the weights of a product. Returns the name of the result.
    fn weights(&mut self, product: &Product<'a>) -> Result<String> {
        let key = (product.weights, product.is_transposed);
        if let Some(known) = self.quantized.get(&key) {
            return Ok(known.name.clone());
        }
        let tensor = self.tensors[product.weights];
        let shape: Vec<usize> = numbers_of(tensor, 1).iter().map(|&n| n as usize).collect();
        let values = floats(&content(tensor, &mut self.read)?);
        let wrong = |what: String| Error::data(format!("tensor {:?}: {what}", product.weights));
        if values.len() != elements(&shape).map_err(wrong)? {
            return Err(wrong("has another length than its shape".to_owned()));
        }
        let name = if product.is_transposed {
            format!("{}/transposed", product.weights)
        } else {
            product.weights.to_owned()
        };
        let quantized = in_8_bits(&name, [shape[0], shape[1]], &values, product.is_transposed);
        let weights = Weights {
            name: name.clone(),
            tensors: quantized,
        };
        self.quantized.insert(key, weights);
        Ok(name)
    }

    /// Returns the new graph.
    fn finish(&mut self, graph: &[u8]) -> Result<Vec<u8>> {
        let mut finished = std::mem::take(&mut self.nodes);
        let mut constants = Vec::new();
        for (number, value, whole) in whole_fields(graph) {
            match number {
                1 => {}
                5 => self.constant(value, &mut constants)?,
                _ => finished.extend_from_slice(whole),
            }
        }
        for tensor in self.quantized.values().flat_map(|weights| &weights.tensors) {
            field(&mut constants, 5, tensor);
        }
        finished.extend(constants);
        Ok(finished)
    }

    /// Adds a constant, unless it is not used any more.
    fn constant(&mut self, tensor: &[u8], constants: &mut Vec<u8>) -> Result<()> {
        let name = text(bytes_of(tensor, 8).unwrap_or_default());
        let was_quantized = [false, true].iter().any(|&is_transposed| {
            let key = (name, is_transposed);
            self.quantized.contains_key(&key)
        });
        if was_quantized && !self.kept.iter().any(|node| contains(node, name.as_bytes())) {
            return Ok(());
        }
        if bytes_of(tensor, 13).is_none() {
            field(constants, 5, tensor);
            return Ok(());
        }
        let shape: Vec<usize> = numbers_of(tensor, 1).iter().map(|&n| n as usize).collect();
        let kind = number_of(tensor, 2).unwrap_or_default();
        let content = content(tensor, &mut self.read)?;
        field(constants, 5, &self::tensor(name, kind, &shape, &content));
        Ok(())
    }
}

/// Returns the bytes of a tensor, which may be in another file.
pub(super) fn content(
    tensor: &[u8],
    mut read: impl FnMut(&str, Range<u64>) -> Result<Vec<u8>>,
) -> Result<Vec<u8>> {
    if let Some(content) = bytes_of(tensor, 9).or_else(|| bytes_of(tensor, 4)) {
        return Ok(content.to_vec());
    }
    let entries = fields(tensor).filter(|(number, _)| *number == 13);
    let entries = entries.map(|(_, entry)| (texts(entry, 1), texts(entry, 2)));
    let (mut location, mut offset, mut length) = (None, 0, None);
    for (key, value) in entries {
        let value = value.first().copied().unwrap_or_default();
        match key.first().copied().unwrap_or_default() {
            "location" => location = Some(value),
            "offset" => offset = value.parse().unwrap_or_default(),
            "length" => length = value.parse().ok(),
            _ => {}
        }
    }
    let Some(location) = location else {
        return Ok(Vec::new());
    };
    let end = length.map_or(u64::MAX, |length: u64| offset + length);
    read(location, offset..end)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes
        .windows(part.len().max(1))
        .any(|window| window == part)
}

/// Returns whether a `Gemm` has transposed weights; none where it computes more than a product and a sum.
fn transposition(node: &[u8]) -> Option<bool> {
    let mut is_transposed = false;
    for (_, attribute) in fields(node).filter(|(number, _)| *number == 5) {
        let name = text(bytes_of(attribute, 1)?);
        let integer = number_of(attribute, 3).unwrap_or_default();
        let float = bytes_of(attribute, 2).and_then(|bytes| bytes.try_into().ok());
        let is_one = float.map(f32::from_le_bytes) == Some(1.0);
        match name {
            "transB" => is_transposed = integer != 0,
            "transA" if integer == 0 => {}
            "alpha" | "beta" if is_one => {}
            _ => return None,
        }
    }
    Some(is_transposed)
}

/// Returns the tensors of a matrix in 8 bits and of the scales of its columns.
fn in_8_bits(
    name: &str,
    [rows, columns]: [usize; 2],
    values: &[f32],
    is_transposed: bool,
) -> [Vec<u8>; 2] {
    let (inner, outer) = if is_transposed {
        (columns, rows)
    } else {
        (rows, columns)
    };
    let at = |row: usize, column: usize| {
        if is_transposed {
            values[column * inner + row]
        } else {
            values[row * outer + column]
        }
    };
    let scale = |column: usize| {
        let largest = (0..inner).fold(0.0_f32, |most, row| most.max(at(row, column).abs()));
        if largest > 0.0 && largest.is_finite() {
            largest / LARGEST
        } else {
            1.0
        }
    };
    let scales: Vec<f32> = (0..outer).map(scale).collect();
    let mut bytes = Vec::with_capacity(inner * outer);
    for row in 0..inner {
        let columns = scales.iter().enumerate();
        bytes.extend(columns.map(|(column, scale)| {
            let quantized = (at(row, column) / scale).round_ties_even();
            quantized.clamp(-LARGEST, LARGEST) as i8 as u8
        }));
    }
    let scale_bytes: Vec<u8> = scales
        .iter()
        .flat_map(|scale| scale.to_le_bytes())
        .collect();
    [
        tensor(
            &format!("{name}/int8"),
            SIGNED_BYTE,
            &[inner, outer],
            &bytes,
        ),
        tensor(&format!("{name}/scale"), FLOAT, &[outer], &scale_bytes),
    ]
}
