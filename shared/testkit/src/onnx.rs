//! Tiny ONNX models, written field by field: what they compute can be told in a sentence, so a
//! test knows what must come out.
//!
//! All take `pixel_values` of shape [N, 3, 8, 8], from pictures that are shrunk to 8x8.

/// A model: `model.onnx` and the `model.toml` beside it.
#[derive(Debug, Clone)]
pub struct TinyModel {
    /// The ONNX file.
    pub onnx: Vec<u8>,
    /// Its spec.
    pub spec: String,
}

/// Side of the models' input.
const SIDE: u32 = 8;

/// An encoder: the 192 values of the small picture, around a grey of 128. An even grey picture has
/// an embedding of length 0, which no picture may have.
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

/// A classifier: the logarithm of the mean distance of the values from those of a colour. Pictures
/// near the colour score low; one that is all of that colour has no finite score.
pub fn distance_from(name: &str, colour: [u8; 3], threshold: f32) -> TinyModel {
    classifier(name, colour, threshold, &[])
}

/// A classifier: [`distance_from`] with the other sign. Pictures near the colour score high.
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

/// `ModelProto`: IR version 8, opset 17.
fn model(nodes: &[Vec<u8>], (output, width): (&str, u64)) -> Vec<u8> {
    let mut graph = Vec::new();
    for node in nodes {
        graph.extend(field(1, node));
    }
    graph.extend(field(2, b"tiny"));
    let side = u64::from(SIDE);
    graph.extend(field(11, &value("pixel_values", &[3, side, side])));
    graph.extend(field(12, &value(output, &[width])));
    let opset = [field(1, b""), number(2, 17)].concat();
    [number(1, 8), field(7, &graph), field(8, &opset)].concat()
}

/// `ValueInfoProto`: float32 of shape [N, rest…].
fn value(name: &str, rest: &[u64]) -> Vec<u8> {
    let mut shape = field(1, &field(2, b"N"));
    for &size in rest {
        shape.extend(field(1, &number(1, size)));
    }
    let tensor = [number(1, 1), field(2, &shape)].concat();
    [field(1, name.as_bytes()), field(2, &field(1, &tensor))].concat()
}

/// `NodeProto`.
fn node(operation: &str, input: &str, output: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut node = [
        field(1, input.as_bytes()),
        field(2, output.as_bytes()),
        field(4, operation.as_bytes()),
    ]
    .concat();
    for attribute in attributes {
        node.extend(field(5, attribute));
    }
    node
}

/// `AttributeProto` of one integer.
fn int(name: &str, value: u64) -> Vec<u8> {
    [field(1, name.as_bytes()), number(3, value), number(20, 2)].concat()
}

/// `AttributeProto` of a list of integers.
fn ints(name: &str, values: &[u64]) -> Vec<u8> {
    let mut attribute = field(1, name.as_bytes());
    for &value in values {
        attribute.extend(number(8, value));
    }
    [attribute, number(20, 7)].concat()
}

/// A protobuf field of bytes.
fn field(tag: u64, content: &[u8]) -> Vec<u8> {
    let mut bytes = varint((tag << 3) | 2);
    bytes.extend(varint(content.len() as u64));
    bytes.extend_from_slice(content);
    bytes
}

/// A protobuf field of a number.
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
