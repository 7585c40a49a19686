//! Nodes of an ONNX graph.

use std::collections::BTreeMap;

use crate::convert::graph::field;
use crate::convert::quantize::{text, texts};
use crate::onnx::{bytes_of, fields, whole_fields};

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
    pub fn of(bytes: &'a [u8]) -> Self {
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

    pub fn attribute(&self, name: &str) -> Option<&'a [u8]> {
        let mut attributes = self.attributes();
        attributes.find(|attribute| bytes_of(attribute, 1) == Some(name.as_bytes()))
    }

    /// Whether it has graphs of its own, as branches and loops have.
    pub fn has_graph(&self) -> bool {
        let mut attributes = self.attributes();
        attributes.any(|attribute| bytes_of(attribute, 6).or(bytes_of(attribute, 11)).is_some())
    }

    /// Returns the node with other names of inputs and outputs and without a name of its own, which an
    /// added node may have.
    pub fn renamed(&self, inputs: &[String], outputs: &[String]) -> Vec<u8> {
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
