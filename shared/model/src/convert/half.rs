//! An ONNX file in float16 or bfloat16, for GPUs.
//!
//! Matrix products, convolutions and the operators between them are computed in 16 bits. These stay in
//! float32: the final projection; sums, powers and roots, which overflow or lose digits in 16 bits; and
//! unknown operators. Normalisation and softmax are one operator each, whose kernels sum in float32 for
//! any input. Where an export has them in parts, the parts stay in float32.
//!
//! Float16 ends at 65504. A node with a constant beyond that stays in float32, and so do the nodes around a
//! value that was measured to be as large ([`Plan::too_large`]). Only masks are clamped: numbers that mean
//! infinity, where they are added, chosen or moved.
//!
//! A value exists at most once in each type: `NAME` in float32 and `NAME/half` in 16 bits. Where a node
//! needs the other one, a Cast is added. The output stays in float32.
//!
//! With a preprocessing, the input becomes bytes (pixel values from 0 to 255), and the graph computes the
//! model's numbers from them. So a batch has a quarter of the bytes on its way to the GPU.
//!
//! The result is one file without external data. The same input gives the same bytes.

mod node;
mod operators;
mod pixels;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;

use sluice_manifest::{Error, Result};

use self::node::{Node, projection};
use self::operators::{KEEP_MASKS, OTHERS, TooLarge};
use super::graph::{Attribute, FLOAT, field, node, number, tensor};
use super::quantize::{Made, content, initializers, text, with_graph};
use super::{elements, floats};
use crate::onnx::{bytes_of, fields, number_of, numbers_of, whole_fields};

pub(crate) use self::operators::Half;
pub(crate) use self::pixels::Pixels;

/// The type of bytes in `TensorProto`.
const BYTE: u64 = 2;

/// What to convert a graph to.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub half: Half,
    /// The output whose projection stays in float32.
    pub output: String,
    /// How pixels become the input, or `None` if the input stays as it is.
    pub pixels: Option<Pixels>,
    /// Values that stay in float32, because they are too large for 16 bits.
    pub too_large: BTreeSet<String>,
}

/// An ONNX file in 16 bits.
#[derive(Debug)]
pub(crate) struct Halved {
    pub made: Made,
    /// The computed values that exist in 16 bits.
    pub values: Vec<HalfValue>,
    /// Constants that are too large for 16 bits, and that are not masks.
    pub too_large: BTreeSet<String>,
}

/// A computed value that exists in 16 bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HalfValue {
    /// Its name in the graph of float32.
    pub name: String,
    /// Whether numbers of a mask may be in it, below the range of float16.
    pub is_masked: bool,
}

/// Returns an ONNX file in 16 bits. `read` returns a range of a file of external data. A range without an
/// end is the rest of the file.
///
/// # Errors
/// Usage, when nothing is in float32; data, when the file is damaged; as `read`.
pub(crate) fn halve(
    onnx: &[u8],
    plan: &Plan,
    read: impl FnMut(&str, Range<u64>) -> Result<Vec<u8>>,
) -> Result<Halved> {
    let graph = bytes_of(onnx, 7).ok_or_else(|| Error::data("it has no graph"))?;
    let nodes = fields(graph).filter(|(number, _)| *number == 1);
    let nodes: Vec<Node<'_>> = nodes.map(|(_, bytes)| Node::of(bytes)).collect();
    let mut rewrite = Rewrite {
        read,
        plan,
        tensors: initializers(graph),
        values: HashMap::new(),
        in_half: Vec::new(),
        constants_too_large: HashMap::new(),
        kept: BTreeSet::new(),
        masked: HashSet::new(),
        there: HashSet::new(),
        nodes: Vec::new(),
        constants: Vec::new(),
        products: 0,
    };
    rewrite.inputs(graph)?;
    let projection = projection(&nodes, &plan.output, &rewrite.tensors);
    for (index, node) in nodes.iter().enumerate() {
        rewrite.node(node, Some(index) == projection)?;
    }
    if rewrite.products == 0 && (rewrite.kept.is_empty() && plan.too_large.is_empty()) {
        return Err(
            Error::usage("no matrix product or convolution of float32 numbers")
                .hint("exports in other precisions run as they are"),
        );
    }
    if rewrite.products == 0 {
        let error = "float16 cannot hold the numbers of any matrix product or convolution";
        return Err(Error::usage(error).hint("bfloat16 has the range of float32"));
    }
    let graph = rewrite.finish(graph)?;
    Ok(Halved {
        made: Made {
            onnx: with_graph(onnx, &graph)?,
            products: rewrite.products,
        },
        values: rewrite.in_half,
        too_large: rewrite.kept,
    })
}

/// Returns an ONNX file of float32 with further outputs: for each value its largest magnitude, or its
/// largest number if a mask may be in it. The outputs have the names of [`largest_of`].
pub(crate) fn with_largest(onnx: &[u8], values: &[HalfValue]) -> Result<Vec<u8>> {
    let mut graph = bytes_of(onnx, 7)
        .ok_or_else(|| Error::data("it has no graph"))?
        .to_vec();
    for HalfValue { name, is_masked } in values {
        let (magnitude, largest) = (format!("{name}/magnitude"), largest_of(name));
        if !is_masked {
            field(&mut graph, 1, &node("Abs", &[name], &[&magnitude], &[]));
        }
        let from = if *is_masked { name } else { &magnitude };
        let whole = [Attribute::Integer("keepdims", 0)];
        field(
            &mut graph,
            1,
            &node("ReduceMax", &[from], &[&largest], &whole),
        );
        field(&mut graph, 12, &scalar(&largest));
    }
    with_graph(onnx, &graph)
}

/// Returns the name of the output that has a value's largest number.
pub(crate) fn largest_of(value: &str) -> String {
    format!("{value}/largest")
}

/// How a value of float32 numbers is computed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    /// In float32, from constants alone.
    Constant,
    Full,
    Half,
}

struct Rewrite<'a, R> {
    read: R,
    plan: &'a Plan,
    tensors: BTreeMap<&'a str, &'a [u8]>,
    /// Values of float32 numbers.
    values: HashMap<&'a str, Value>,
    /// The computed values that exist in 16 bits.
    in_half: Vec<HalfValue>,
    /// Constants with numbers outside the range of 16 bits.
    constants_too_large: HashMap<&'a str, TooLarge>,
    /// Those of them for which a node stays in float32.
    kept: BTreeSet<String>,
    /// Values that may have numbers of a mask.
    masked: HashSet<&'a str>,
    /// Names in the new graph.
    there: HashSet<String>,
    nodes: Vec<u8>,
    constants: Vec<u8>,
    products: usize,
}

impl<'a, R: FnMut(&str, Range<u64>) -> Result<Vec<u8>>> Rewrite<'a, R> {
    /// Records the values that exist before the first node.
    fn inputs(&mut self, graph: &'a [u8]) -> Result<()> {
        for (_, value) in fields(graph).filter(|(number, _)| *number == 11) {
            let name = text(bytes_of(value, 1).unwrap_or_default());
            if element_of(value) == Some(FLOAT) {
                self.values.insert(name, Value::Full);
                self.there.insert(name.to_owned());
            }
        }
        for (name, tensor) in self.tensors.clone() {
            if number_of(tensor, 2) == Some(FLOAT) {
                self.there.remove(name);
                self.constant(name, tensor)?;
            }
        }
        if let Some(pixels) = &self.plan.pixels {
            self.normalize(pixels);
        }
        Ok(())
    }

    /// Records a constant of float32 numbers.
    fn constant(&mut self, name: &'a str, tensor: &[u8]) -> Result<()> {
        self.values.insert(name, Value::Constant);
        if self.plan.half == Half::Float16 {
            let numbers = floats(&content(tensor, &mut self.read)?);
            let too_large = TooLarge::of(&numbers);
            self.constants_too_large
                .extend(too_large.map(|size| (name, size)));
            if too_large == Some(TooLarge::Mask) {
                self.masked.insert(name);
            }
        }
        Ok(())
    }

    /// Adds the nodes that compute the model's input from bytes.
    fn normalize(&mut self, pixels: &Pixels) {
        let input = &pixels.input;
        let named = |part: &str| format!("{input}/{part}");
        let (bytes, scaled, scale, shift) = (
            named("cast"),
            named("scaled"),
            named("scale"),
            named("shift"),
        );
        for (name, values) in [(&scale, &pixels.scale), (&shift, &pixels.shift)] {
            let values: Vec<u8> = values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect();
            field(
                &mut self.constants,
                5,
                &tensor(name, FLOAT, &pixels.shape, &values),
            );
        }
        let to = [Attribute::Integer("to", FLOAT)];
        self.add(node("Cast", &[input], &[&bytes], &to));
        self.add(node("Mul", &[&bytes, &scale], &[&scaled], &[]));
        self.add(node("Add", &[&scaled, &shift], &[&named("float")], &[]));
        self.there.insert(named("float"));
    }

    fn add(&mut self, node: Vec<u8>) {
        field(&mut self.nodes, 1, &node);
    }

    fn node(&mut self, node: &Node<'a>, is_projection: bool) -> Result<()> {
        if node.has_graph() {
            let error = format!("operator {:?} has graphs of its own", node.operator);
            return Err(Error::usage(error).hint("export the model without branches and loops"));
        }
        if node.operator == "Constant"
            && let Some(tensor) = node.attribute("value").and_then(|value| bytes_of(value, 5))
            && let [name] = node.outputs[..]
        {
            self.tensors.insert(name, tensor);
            if number_of(tensor, 2) == Some(FLOAT) {
                self.constant(name, tensor)?;
            } else {
                self.keep(name, tensor)?;
            }
            return Ok(());
        }
        let is_masked = KEEP_MASKS.contains(&node.operator)
            && node.inputs.iter().any(|name| self.masked.contains(name));
        if is_masked {
            self.masked.extend(&node.outputs);
        }
        let value = self.result(node, is_projection);
        let is_half = value == Some(Value::Half);
        self.products += usize::from(is_half && self.plan.half.is_product(node.operator));
        let inputs = node.inputs.iter().map(|name| self.taken(name, is_half));
        let inputs = inputs.collect::<Result<Vec<String>>>()?;
        let outputs: Vec<String> = node
            .outputs
            .iter()
            .enumerate()
            .map(|(index, name)| {
                let value = value.filter(|_| index == 0 || !has_indices(node.operator));
                let Some(value) = value.filter(|_| !name.is_empty()) else {
                    return (*name).to_owned();
                };
                self.values.insert(name, value);
                if value == Value::Half {
                    self.note_half(name);
                }
                let name = self.named(name, value == Value::Half);
                self.there.insert(name.clone());
                name
            })
            .collect();
        self.add(node.renamed(&inputs, &outputs));
        Ok(())
    }

    /// Records a computed value that exists in 16 bits.
    fn note_half(&mut self, name: &str) {
        self.in_half.push(HalfValue {
            name: name.to_owned(),
            is_masked: self.masked.contains(name),
        });
    }

    /// Whether a node takes or gives numbers that are too large for 16 bits.
    fn is_too_large(&mut self, node: &Node<'a>) -> bool {
        let mut names = node.inputs.iter().chain(&node.outputs);
        let mut is_too_large = names.any(|name| self.plan.too_large.contains(*name));
        for name in &node.inputs {
            let is_kept = match self.constants_too_large.get(name) {
                Some(TooLarge::Number) => true,
                Some(TooLarge::Mask) => !KEEP_MASKS.contains(&node.operator),
                None => false,
            };
            if is_kept {
                self.kept.insert((*name).to_owned());
            }
            is_too_large |= is_kept;
        }
        is_too_large
    }

    /// Whether a node computes from constants that are too large for 16 bits. Then its results are, too.
    fn is_of_too_large(&mut self, node: &Node<'a>) -> bool {
        let mut inputs = node.inputs.iter();
        let is_too_large = inputs.any(|name| self.constants_too_large.contains_key(name));
        if is_too_large {
            let outputs = node.outputs.iter();
            self.constants_too_large
                .extend(outputs.map(|name| (*name, TooLarge::Number)));
        }
        is_too_large
    }

    /// Returns how a node's results are computed, or `None` if they are not float32 numbers.
    fn result(&mut self, node: &Node<'a>, is_projection: bool) -> Option<Value> {
        let taken = node.inputs.iter().filter_map(|name| self.values.get(name));
        let taken: Vec<Value> = taken.copied().collect();
        let integer = |name| node.attribute(name).and_then(|value| number_of(value, 3));
        let half = self.plan.half;
        match node.operator {
            operator if OTHERS.contains(&operator) => return None,
            "Cast" => return (integer("to") == Some(FLOAT)).then_some(Value::Full),
            "Constant" | "ConstantOfShape" => {
                let numbers = node.floats()?;
                if half == Half::Float16 && TooLarge::of(&numbers).is_some() {
                    let outputs = node.outputs.iter();
                    self.constants_too_large
                        .extend(outputs.map(|name| (*name, TooLarge::Number)));
                }
                return Some(Value::Constant);
            }
            _ if taken.is_empty() => return None,
            _ => {}
        }
        let mut computed = taken
            .iter()
            .filter(|value| **value != Value::Constant)
            .peekable();
        Some(match node.operator {
            _ if is_projection => Value::Full,
            // What is computed from constants alone is cast where it is needed in 16 bits.
            _ if computed.peek().is_none() && self.is_of_too_large(node) => Value::Full,
            operator if !half.is_product(operator) && !half.follows(operator) => Value::Full,
            _ if self.is_too_large(node) => Value::Full,
            operator if half.is_product(operator) => Value::Half,
            _ if computed.peek().is_none() => Value::Constant,
            _ if computed.all(|value| *value == Value::Half) => Value::Half,
            _ => Value::Full,
        })
    }

    /// Returns the name of a value in float32 or in 16 bits.
    fn named(&self, name: &str, is_half: bool) -> String {
        let pixels = self.plan.pixels.as_ref();
        let is_input = pixels.is_some_and(|pixels| pixels.input == name);
        match (is_half, is_input) {
            (true, _) => format!("{name}/half"),
            (false, true) => format!("{name}/float"),
            (false, false) => name.to_owned(),
        }
    }

    /// Returns the name of a value in 16 bits or in float32, and adds the node or the constant of that name
    /// if it does not exist yet.
    fn taken(&mut self, name: &'a str, is_half: bool) -> Result<String> {
        let Some(value) = self.values.get(name).copied() else {
            return Ok(name.to_owned());
        };
        let taken = self.named(name, is_half);
        if !self.there.insert(taken.clone()) {
            return Ok(taken);
        }
        match (self.tensors.get(name).copied(), is_half) {
            (Some(tensor), false) => self.keep(name, tensor)?,
            (Some(tensor), true) => self.halve(name, tensor, &taken)?,
            (None, is_half) => {
                // A computed value exists in one of both types.
                let other = self.named(name, value == Value::Half);
                if is_half {
                    self.note_half(name);
                }
                let to = if is_half {
                    self.plan.half.element()
                } else {
                    FLOAT
                };
                let to = [Attribute::Integer("to", to)];
                self.add(node("Cast", &[&other], &[&taken], &to));
            }
        }
        Ok(taken)
    }

    /// Adds a constant as it is.
    fn keep(&mut self, name: &str, constant: &[u8]) -> Result<()> {
        let (shape, kind) = (
            shape_of(constant),
            number_of(constant, 2).unwrap_or_default(),
        );
        let is_raw = bytes_of(constant, 9).is_some() || bytes_of(constant, 13).is_some();
        if is_raw {
            let content = content(constant, &mut self.read)?;
            field(
                &mut self.constants,
                5,
                &tensor(name, kind, &shape, &content),
            );
            return Ok(());
        }
        let mut named = Vec::new();
        for (number, _, whole) in whole_fields(constant) {
            if number != 8 {
                named.extend_from_slice(whole);
            }
        }
        field(&mut named, 8, name.as_bytes());
        field(&mut self.constants, 5, &named);
        Ok(())
    }

    /// Adds a constant in 16 bits.
    fn halve(&mut self, name: &str, constant: &[u8], halved: &str) -> Result<()> {
        let wrong = |what: String| Error::data(format!("tensor {name:?}: {what}"));
        let shape = shape_of(constant);
        let values = floats(&content(constant, &mut self.read)?);
        if values.len() != elements(&shape).map_err(wrong)? {
            return Err(wrong("has another length than its shape".to_owned()));
        }
        let bytes = self.plan.half.bytes(&values);
        let halved = tensor(halved, self.plan.half.element(), &shape, &bytes);
        field(&mut self.constants, 5, &halved);
        Ok(())
    }

    /// Returns the new graph: the same outputs, and the input of pixels in bytes. Descriptions of
    /// intermediate values are left out.
    fn finish(&mut self, graph: &'a [u8]) -> Result<Vec<u8>> {
        let outputs = fields(graph).filter(|(number, _)| *number == 12);
        for (_, output) in outputs {
            self.taken(text(bytes_of(output, 1).unwrap_or_default()), false)?;
        }
        let mut finished = std::mem::take(&mut self.nodes);
        let names: BTreeSet<&str> = initializers(graph).into_keys().collect();
        for (number, value, whole) in whole_fields(graph) {
            let name = || text(bytes_of(value, 1).unwrap_or_default());
            let pixels = self.plan.pixels.as_ref();
            let pixels = pixels.filter(|pixels| number == 11 && pixels.input == name());
            match number {
                1 | 13 => {}
                5 if number_of(value, 2) == Some(FLOAT) => {}
                5 => self.keep(text(bytes_of(value, 8).unwrap_or_default()), value)?,
                11 if names.contains(name()) => {}
                11 if pixels.is_some() => field(&mut finished, 11, &of_bytes(value)),
                _ => finished.extend_from_slice(whole),
            }
        }
        finished.append(&mut self.constants);
        Ok(finished)
    }
}

/// Whether the further results of an operator are not numbers.
fn has_indices(operator: &str) -> bool {
    matches!(operator, "Dropout" | "MaxPool" | "TopK" | "Unique")
}

fn shape_of(tensor: &[u8]) -> Vec<usize> {
    numbers_of(tensor, 1)
        .iter()
        .map(|&size| size as usize)
        .collect()
}

/// Returns a `ValueInfoProto` of one float32 number.
fn scalar(name: &str) -> Vec<u8> {
    let (mut tensor, mut kind, mut value) = (Vec::new(), Vec::new(), Vec::new());
    number(&mut tensor, 1, FLOAT);
    field(&mut tensor, 2, &[]);
    field(&mut kind, 1, &tensor);
    field(&mut value, 1, name.as_bytes());
    field(&mut value, 2, &kind);
    value
}

/// Returns the type of a `ValueInfoProto`'s numbers.
fn element_of(value: &[u8]) -> Option<u64> {
    number_of(bytes_of(bytes_of(value, 2)?, 1)?, 1)
}

/// Returns a `ValueInfoProto` with bytes for numbers.
fn of_bytes(value: &[u8]) -> Vec<u8> {
    let kind = bytes_of(value, 2).unwrap_or_default();
    let old = bytes_of(kind, 1).unwrap_or_default();
    let (mut tensor, mut kind, mut changed) = (Vec::new(), Vec::new(), Vec::new());
    number(&mut tensor, 1, BYTE);
    if let Some(shape) = bytes_of(old, 2) {
        field(&mut tensor, 2, shape);
    }
    field(&mut kind, 1, &tensor);
    field(&mut changed, 1, bytes_of(value, 1).unwrap_or_default());
    field(&mut changed, 2, &kind);
    changed
}
