//! Nodes of an ONNX graph.

use std::collections::BTreeMap;

use crate::convert::floats;
use crate::convert::graph::{FLOAT, field};
use crate::convert::quantize::{text, texts};
use crate::onnx::{bytes_of, fields, number_of, whole_fields};

/// Operators that may be between the final projection and the output.
const AFTER_PROJECTION: [&str; 13] = [
    "Add",
    "Cast",
    "Div",
    "Flatten",
    "Identity",
    "Mul",
    "Reshape",
    "Sigmoid",
    "Softmax",
    "Squeeze",
    "Tanh",
    "Transpose",
    "Unsqueeze",
];

/// A node of the graph.
pub(super) struct Node<'a> {
    bytes: &'a [u8],
    pub operator: &'a str,
    pub inputs: Vec<&'a str>,
    pub outputs: Vec<&'a str>,
}

impl<'a> Node<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        let domain = text(bytes_of(bytes, 7).unwrap_or_default());
        let operator = text(bytes_of(bytes, 4).unwrap_or_default());
        Self {
            bytes,
            // Operators of other domains are unknown.
            operator: if matches!(domain, "" | "ai.onnx") {
                operator
            } else {
                ""
            },
            inputs: texts(bytes, 1),
            outputs: texts(bytes, 2),
        }
    }

    fn attributes(&self) -> impl Iterator<Item = &'a [u8]> {
        fields(self.bytes)
            .filter(|(number, _)| *number == 5)
            .map(|(_, attribute)| attribute)
    }

    pub(super) fn attribute(&self, name: &str) -> Option<&'a [u8]> {
        let mut attributes = self.attributes();
        attributes.find(|attribute| bytes_of(attribute, 1) == Some(name.as_bytes()))
    }

    /// Returns the float32 numbers that a Constant or a ConstantOfShape gives, without their number; `None`
    /// if they are of another type.
    pub(super) fn floats(&self) -> Option<Vec<f32>> {
        let one = self
            .attribute("value_float")
            .map(|value| bytes_of(value, 2));
        let several = self
            .attribute("value_floats")
            .map(|value| bytes_of(value, 7));
        if let Some(bytes) = one.or(several) {
            return Some(floats(bytes.unwrap_or_default()));
        }
        let value = self.attribute("value").and_then(|value| bytes_of(value, 5));
        let Some(tensor) = value else {
            // A ConstantOfShape without a value gives zeros.
            return (self.operator == "ConstantOfShape").then(Vec::new);
        };
        let is_float = number_of(tensor, 2) == Some(FLOAT);
        let content = bytes_of(tensor, 9).or(bytes_of(tensor, 4));
        is_float.then(|| floats(content.unwrap_or_default()))
    }

    /// Whether it has graphs of its own, as branches and loops have.
    pub(super) fn has_graph(&self) -> bool {
        let mut attributes = self.attributes();
        attributes.any(|attribute| bytes_of(attribute, 6).or(bytes_of(attribute, 11)).is_some())
    }

    /// Returns the node with other names of inputs and outputs and without a name of its own, which an
    /// added node may have.
    pub(super) fn renamed(&self, inputs: &[String], outputs: &[String]) -> Vec<u8> {
        let mut renamed = Vec::with_capacity(self.bytes.len());
        for (number, names) in [(1, inputs), (2, outputs)] {
            names
                .iter()
                .for_each(|name| field(&mut renamed, number, name.as_bytes()));
        }
        for (number, _, whole) in whole_fields(self.bytes) {
            if !matches!(number, 1..=3) {
                renamed.extend_from_slice(whole);
            }
        }
        renamed
    }
}

/// Returns the last matrix product before the output, if the output depends on its result only.
pub(super) fn projection(
    nodes: &[Node<'_>],
    output: &str,
    tensors: &BTreeMap<&str, &[u8]>,
) -> Option<usize> {
    let mut name = output;
    loop {
        let index = nodes
            .iter()
            .rposition(|node| node.outputs.contains(&name))?;
        let node = &nodes[index];
        if matches!(node.operator, "MatMul" | "Gemm") {
            return Some(index);
        }
        let is_constant = |name: &str| tensors.contains_key(name);
        let computed: Vec<&str> = node
            .inputs
            .iter()
            .copied()
            .filter(|name| !is_constant(name))
            .collect();
        name = match (node.operator, computed.as_slice()) {
            // A division by the length.
            ("Div", [first, ..]) => first,
            (operator, [only]) if AFTER_PROJECTION.contains(&operator) => only,
            ("Reshape" | "Flatten", [first, ..]) => first,
            _ => return None,
        };
    }
}
