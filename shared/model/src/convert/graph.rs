//! ONNX files, field by field. Numbers of fields are those of `onnx.proto`.

use super::Tensor;

/// IR version 8 with opset 13: old enough for every runtime.
const IR_VERSION: u64 = 8;
const OPSET: u64 = 13;
/// Types of `TensorProto`.
pub(super) const FLOAT: u64 = 1;
pub(super) const SIGNED_BYTE: u64 = 3;
const INTEGER: u64 = 7;

/// A graph under construction: one input, one output, both of float32 with a free number of rows.
pub(super) struct Graph {
    opset: u64,
    nodes: Vec<u8>,
    constants: Vec<u8>,
    /// Whether nodes state the (default) domain of their operator.
    states_domain: bool,
}

impl Default for Graph {
    fn default() -> Self {
        Self::of_opset(OPSET)
    }
}

/// An attribute of a node.
pub(super) enum Attribute<'a> {
    Integer(&'a str, u64),
    Integers(&'a str, &'a [u64]),
    Float(&'a str, f32),
}

impl Graph {
    /// Returns an empty graph of an opset.
    pub(super) fn of_opset(opset: u64) -> Self {
        Self {
            opset,
            nodes: Vec::new(),
            constants: Vec::new(),
            states_domain: false,
        }
    }

    /// Returns a graph whose nodes state the domain of their operator, which is the default one.
    pub(super) fn with_domain() -> Self {
        Self {
            states_domain: true,
            ..Self::default()
        }
    }

    /// Adds a constant.
    pub(super) fn constant(&mut self, name: &str, tensor: &Tensor) {
        let values = tensor.values.iter();
        let bytes: Vec<u8> = values.flat_map(|value| value.to_le_bytes()).collect();
        self.tensor(name, FLOAT, &tensor.shape, &bytes);
    }

    /// Adds a constant vector of integers.
    pub(super) fn integers(&mut self, name: &str, values: &[i64]) {
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.tensor(name, INTEGER, &[values.len()], &bytes);
    }

    fn tensor(&mut self, name: &str, kind: u64, shape: &[usize], bytes: &[u8]) {
        field(&mut self.constants, 5, &tensor(name, kind, shape, bytes));
    }

    /// Adds a node, named after its output.
    pub(super) fn node(
        &mut self,
        operator: &str,
        inputs: &[&str],
        output: &str,
        attributes: &[Attribute<'_>],
    ) {
        let mut node = node(operator, inputs, &[output], attributes);
        if self.states_domain {
            field(&mut node, 7, b"");
        }
        field(&mut self.nodes, 1, &node);
    }

    /// Returns the ONNX file. Shapes are without the number of rows.
    pub(super) fn finish(
        self,
        name: &str,
        input: (&str, &[usize]),
        output: (&str, &[usize]),
        metadata: &[(&str, &str)],
    ) -> Vec<u8> {
        let mut graph = self.nodes;
        field(&mut graph, 2, name.as_bytes());
        graph.extend(self.constants);
        field(&mut graph, 11, &value(input.0, input.1));
        field(&mut graph, 12, &value(output.0, output.1));
        let mut opset = Vec::new();
        field(&mut opset, 1, b"");
        number(&mut opset, 2, self.opset);
        let mut model = Vec::new();
        number(&mut model, 1, IR_VERSION);
        field(&mut model, 2, b"sluice");
        field(&mut model, 7, &graph);
        field(&mut model, 8, &opset);
        with_metadata(model, metadata)
    }
}

/// Returns an ONNX file with further entries of metadata (`ModelProto.metadata_props`).
pub(crate) fn with_metadata(mut model: Vec<u8>, entries: &[(&str, &str)]) -> Vec<u8> {
    for (key, text) in entries {
        let mut entry = Vec::new();
        field(&mut entry, 1, key.as_bytes());
        field(&mut entry, 2, text.as_bytes());
        field(&mut model, 14, &entry);
    }
    model
}

/// Returns a `TensorProto`: sizes, type, name, numbers.
pub(super) fn tensor(name: &str, kind: u64, shape: &[usize], bytes: &[u8]) -> Vec<u8> {
    let mut proto = Vec::with_capacity(bytes.len() + name.len() + 64);
    for &size in shape {
        number(&mut proto, 1, size as u64);
    }
    number(&mut proto, 2, kind);
    field(&mut proto, 8, name.as_bytes());
    field(&mut proto, 9, bytes);
    proto
}

/// Returns a `NodeProto`, named after its first output.
pub(super) fn node(
    operator: &str,
    inputs: &[&str],
    outputs: &[&str],
    attributes: &[Attribute<'_>],
) -> Vec<u8> {
    let mut node = Vec::new();
    for input in inputs {
        field(&mut node, 1, input.as_bytes());
    }
    for output in outputs {
        field(&mut node, 2, output.as_bytes());
    }
    field(&mut node, 3, outputs[0].as_bytes());
    field(&mut node, 4, operator.as_bytes());
    for attribute in attributes {
        field(&mut node, 5, &attribute.proto());
    }
    node
}

impl Attribute<'_> {
    /// `AttributeProto`: name, value, type.
    fn proto(&self) -> Vec<u8> {
        let mut proto = Vec::new();
        match self {
            Self::Integer(name, value) => {
                field(&mut proto, 1, name.as_bytes());
                number(&mut proto, 3, *value);
                number(&mut proto, 20, 2);
            }
            Self::Integers(name, values) => {
                field(&mut proto, 1, name.as_bytes());
                for value in *values {
                    number(&mut proto, 8, *value);
                }
                number(&mut proto, 20, 7);
            }
            Self::Float(name, value) => {
                field(&mut proto, 1, name.as_bytes());
                varint(&mut proto, 2 << 3 | 5);
                proto.extend(value.to_le_bytes());
                number(&mut proto, 20, 1);
            }
        }
        proto
    }
}

/// `ValueInfoProto`: float32 of shape [N, …].
fn value(name: &str, sizes: &[usize]) -> Vec<u8> {
    let (mut shape, mut rows) = (Vec::new(), Vec::new());
    field(&mut rows, 2, b"N");
    field(&mut shape, 1, &rows);
    for &size in sizes {
        let mut dimension = Vec::new();
        number(&mut dimension, 1, size as u64);
        field(&mut shape, 1, &dimension);
    }
    let (mut tensor, mut kind, mut value) = (Vec::new(), Vec::new(), Vec::new());
    number(&mut tensor, 1, FLOAT);
    field(&mut tensor, 2, &shape);
    field(&mut kind, 1, &tensor);
    field(&mut value, 1, name.as_bytes());
    field(&mut value, 2, &kind);
    value
}

/// Appends a field of bytes.
pub(super) fn field(message: &mut Vec<u8>, tag: u64, content: &[u8]) {
    varint(message, tag << 3 | 2);
    varint(message, content.len() as u64);
    message.extend_from_slice(content);
}

/// Appends a field of a number.
pub(super) fn number(message: &mut Vec<u8>, tag: u64, value: u64) {
    varint(message, tag << 3);
    varint(message, value);
}

fn varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}
