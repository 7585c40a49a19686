//! Tiny ONNX models, written field by field. What they compute can be described in a sentence, so a
//! test knows the expected result.
//!
//! All but [`graph`] take `pixel_values` of shape [N, 3, 8, 8], from images shrunk to 8x8.

/// A model: `model.onnx` and its `model.toml`.
#[derive(Debug, Clone)]
pub struct TinyModel {
    /// The content of the ONNX file.
    pub onnx: Vec<u8>,
    /// The content of `model.toml`.
    pub spec: String,
}

/// The side of the models' input.
const SIDE: u32 = 8;

/// Returns an encoder: the 192 values of the small image, relative to a grey of 128. A uniform grey
/// image has an embedding of length 0, which is invalid.
pub fn embedder(name: &str) -> TinyModel {
    let nodes = [node("Flatten", "pixel_values", "image_embeds", &[])];
    TinyModel {
        onnx: model(&nodes, ("image_embeds", 192)),
        spec: format!(
            "name = {name:?}\nkind = \"embedder\"\ndimension = 192\n{}",
            preprocess([128; 3])
        ),
    }
}

/// Returns a classifier: the logarithm of the mean distance of the values from a colour. Images
/// near the colour score low; one that has only this colour has no finite score.
pub fn distance_from(name: &str, colour: [u8; 3], threshold: f32) -> TinyModel {
    classifier(name, colour, threshold, &[])
}

/// Returns a classifier: [`distance_from`] with the opposite sign. Images near the colour score
/// high.
pub fn likeness_to(name: &str, colour: [u8; 3], threshold: f32) -> TinyModel {
    classifier(
        name,
        colour,
        threshold,
        &[node("Neg", "logarithm", "score", &[])],
    )
}

fn classifier(name: &str, colour: [u8; 3], threshold: f32, last: &[Vec<u8>]) -> TinyModel {
    let logarithm = match last {
        [] => "score",
        _ => "logarithm",
    };
    let mean = [ints("axes", &[1]), int("keepdims", 1)];
    let mut nodes = vec![
        node("Flatten", "pixel_values", "values", &[]),
        node("Abs", "values", "distances", &[]),
        node("ReduceMean", "distances", "mean", &mean),
        node("Log", "mean", logarithm, &[]),
    ];
    nodes.extend_from_slice(last);
    TinyModel {
        onnx: model(&nodes, ("score", 1)),
        spec: format!(
            "name = {name:?}\nkind = \"classifier\"\n{}\n[score]\nrange = [-6.0, 6.0]\nthreshold = {threshold:?}\n",
            preprocess(colour)
        ),
    }
}

fn preprocess(mean: [u8; 3]) -> String {
    let [r, g, b] = mean.map(f64::from);
    format!(
        "\n[preprocess]\nresize = {{ exact = {{ width = {SIDE}, height = {SIDE} }} }}\nfilter = \"bilinear\"\n\
        rescale = 1.0\nmean = [{r:?}, {g:?}, {b:?}]\n"
    )
}

fn model(nodes: &[Vec<u8>], (output, width): (&str, u64)) -> Vec<u8> {
    let (side, width) = (SIDE.to_string(), width.to_string());
    let input = Tensor("pixel_values", FLOAT32, &["N", "3", &side, &side]);
    graph(nodes, &[input], &[Tensor(output, FLOAT32, &["N", &width])])
}

/// `TensorProto.DataType` of float32.
pub const FLOAT32: u64 = 1;
/// `TensorProto.DataType` of bytes.
pub const UINT8: u64 = 2;
/// `TensorProto.DataType` of integers, such as token ids.
pub const INT64: u64 = 7;
/// True and false.
pub const BOOL: u64 = 9;
/// Half precision.
pub const FLOAT16: u64 = 10;

/// An input or output: its name, its type, and its sizes. A size that is not a number is dynamic.
#[derive(Debug, Clone, Copy)]
pub struct Tensor<'a>(pub &'a str, pub u64, pub &'a [&'a str]);

/// Returns an ONNX file with these nodes: IR version 8, opset 17.
pub fn graph(nodes: &[Vec<u8>], inputs: &[Tensor<'_>], outputs: &[Tensor<'_>]) -> Vec<u8> {
    graph_with(nodes, &[], inputs, outputs)
}

/// Returns an ONNX file like [`graph`], with constants created by [`weights`].
pub fn graph_with(
    nodes: &[Vec<u8>],
    constants: &[Vec<u8>],
    inputs: &[Tensor<'_>],
    outputs: &[Tensor<'_>],
) -> Vec<u8> {
    let mut graph: Vec<u8> = nodes.iter().flat_map(|node| field(1, node)).collect();
    graph.extend(field(2, b"tiny"));
    graph.extend(constants.iter().flat_map(|tensor| field(5, tensor)));
    graph.extend(inputs.iter().flat_map(|input| field(11, &value(*input))));
    graph.extend(outputs.iter().flat_map(|output| field(12, &value(*output))));
    let opset = [field(1, b""), number(2, 17)].concat();
    [number(1, 8), field(7, &graph), field(8, &opset)].concat()
}

/// The location of a constant's values.
#[derive(Debug, Clone, Copy)]
pub enum Weights<'a> {
    /// In the ONNX file.
    Inside(&'a [f32]),
    /// In another file: its name, the offset and the length in bytes.
    File(&'a str, usize, usize),
}

/// Returns a `TensorProto` of float32 values.
pub fn weights(name: &str, sizes: &[u64], values: Weights<'_>) -> Vec<u8> {
    let mut tensor: Vec<u8> = sizes.iter().flat_map(|&size| number(1, size)).collect();
    tensor.extend(number(2, FLOAT32));
    tensor.extend(field(8, name.as_bytes()));
    match values {
        Weights::Inside(values) => {
            let bytes: Vec<u8> = values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect();
            tensor.extend(field(9, &bytes));
        }
        Weights::File(file, offset, length) => {
            let (offset, length) = (offset.to_string(), length.to_string());
            let entries = [("location", file), ("offset", &offset), ("length", &length)];
            for (key, value) in entries {
                let entry = [field(1, key.as_bytes()), field(2, value.as_bytes())];
                tensor.extend(field(13, &entry.concat()));
            }
            tensor.extend(number(14, 1));
        }
    }
    tensor
}

/// Returns a `TensorProto` of 64-bit integers.
pub fn integers(name: &str, values: &[i64]) -> Vec<u8> {
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let sizes = number(1, values.len() as u64);
    [
        sizes,
        number(2, INT64),
        field(8, name.as_bytes()),
        field(9, &bytes),
    ]
    .concat()
}

/// Returns a `ValueInfoProto`.
fn value(Tensor(name, element, sizes): Tensor<'_>) -> Vec<u8> {
    let dimension = |size: &&str| match size.parse() {
        Ok(size) => field(1, &number(1, size)),
        Err(_) => field(1, &field(2, size.as_bytes())),
    };
    let shape: Vec<u8> = sizes.iter().flat_map(dimension).collect();
    let tensor = [number(1, element), field(2, &shape)].concat();
    [field(1, name.as_bytes()), field(2, &field(1, &tensor))].concat()
}

/// Returns a `NodeProto` with one input.
pub fn node(operation: &str, input: &str, output: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    node_of(operation, &[input], output, attributes)
}

/// Returns a `NodeProto` with several inputs.
pub fn node_of(operation: &str, inputs: &[&str], output: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    node_with(operation, inputs, &[output], attributes)
}

/// Returns a `NodeProto` with several inputs and outputs.
pub fn node_with(
    operation: &str,
    inputs: &[&str],
    outputs: &[&str],
    attributes: &[Vec<u8>],
) -> Vec<u8> {
    let inputs = inputs.iter().map(|input| field(1, input.as_bytes()));
    let outputs = outputs.iter().map(|output| field(2, output.as_bytes()));
    let mut node: Vec<u8> = inputs.chain(outputs).flatten().collect();
    node.extend(field(4, operation.as_bytes()));
    for attribute in attributes {
        node.extend(field(5, attribute));
    }
    node
}

/// Returns an `AttributeProto` of one integer.
pub fn int(name: &str, value: u64) -> Vec<u8> {
    [field(1, name.as_bytes()), number(3, value), number(20, 2)].concat()
}

/// Returns an `AttributeProto` of a list of integers.
pub fn ints(name: &str, values: &[u64]) -> Vec<u8> {
    let mut attribute = field(1, name.as_bytes());
    for &value in values {
        attribute.extend(number(8, value));
    }
    [attribute, number(20, 7)].concat()
}

/// Encodes a protobuf field of bytes.
fn field(tag: u64, content: &[u8]) -> Vec<u8> {
    let mut bytes = varint((tag << 3) | 2);
    bytes.extend(varint(content.len() as u64));
    bytes.extend_from_slice(content);
    bytes
}

/// Encodes a protobuf field of a number.
fn number(tag: u64, value: u64) -> Vec<u8> {
    let mut bytes = varint(tag << 3);
    bytes.extend(varint(value));
    bytes
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
