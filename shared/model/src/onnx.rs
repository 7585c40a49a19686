//! The description in an ONNX file: whether it is whole, which other files hold its tensors, and the
//! names, types and shapes of its inputs and outputs.
//!
//! An ONNX file is a Protocol Buffers message: fields of a key and a value, some of which are messages.
//! The messages that lead to tensors and outputs are walked; all else, weights above all, is passed
//! over by its length. So a cut file, a web page or a pointer of Git LFS is found out, and a gigabyte of
//! weights takes some megabytes of reading. Numbers of fields are those of `onnx.proto`.

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;

/// Bytes that are read at once.
const WINDOW: u64 = 16 << 10;
/// Most bytes of a field's key and length.
const HEAD: u64 = 20;
/// Most bytes of a name, an entry of external data, or the description of an input or output.
const SMALL: u64 = 16 << 10;
/// Fields that are walked, at most; models have some for each of their nodes and tensors.
const FIELDS: usize = 10_000_000;
/// Messages inside of each other, at most: graphs in nodes of graphs.
const DEPTH: usize = 50;

/// The description in an ONNX file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    /// The files that hold tensors, as paths from the ONNX file's folder.
    pub external: BTreeSet<String>,
    /// The inputs of the model that have no value in the file.
    pub inputs: Vec<Value>,
    /// The outputs of the model.
    pub outputs: Vec<Value>,
    /// Whether it quantises activations at run time, with one scale for all rows of a batch.
    pub quantizes_batches: bool,
    /// An operator whose output is random, where there is one.
    pub random: Option<String>,
    /// Whether it has a Dropout with an input for training mode.
    pub has_dropout: bool,
    /// The file that it was made of by `sluice models quantize`.
    pub origin: Option<Origin>,
}

/// The file that an ONNX file was made of, as its metadata state it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Its path from the model's folder.
    pub file: String,
    /// SHA-256 of it and of its external data.
    pub sha256: String,
}

impl Origin {
    const FILE: &str = "sluice.made-of";
    const SHA256: &str = "sluice.made-of.sha256";

    /// Returns the entries of the metadata.
    pub(crate) fn entries(&self) -> [(&str, &str); 2] {
        [(Self::FILE, &self.file), (Self::SHA256, &self.sha256)]
    }

    /// Returns the part that an entry of the metadata states.
    fn part(&mut self, key: &str) -> Option<&mut String> {
        match key {
            Self::FILE => Some(&mut self.file),
            Self::SHA256 => Some(&mut self.sha256),
            _ => None,
        }
    }
}

/// Operators whose output is random.
const RANDOM: [&[u8]; 6] = [
    b"RandomUniform",
    b"RandomUniformLike",
    b"RandomNormal",
    b"RandomNormalLike",
    b"Multinomial",
    b"Bernoulli",
];
/// Inputs of a Dropout; the last one is the training mode.
const DROPOUT_INPUTS: usize = 3;

/// An input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Value {
    pub name: String,
    /// The number of `TensorProto.DataType`.
    pub element: Option<u64>,
    pub shape: Option<Vec<Dimension>>,
}

/// A dimension of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Dimension {
    Size(u64),
    /// Any size; dimensions with the same name have the same size.
    Name(String),
    Unknown,
}

impl Dimension {
    /// Returns the size, where it is a number.
    pub(crate) fn size(&self) -> Option<u64> {
        match self {
            Dimension::Size(size) => Some(*size),
            Dimension::Name(_) | Dimension::Unknown => None,
        }
    }
}

impl Value {
    /// Returns the number of dimensions, where it is known.
    pub(crate) fn rank(&self) -> Option<usize> {
        self.shape.as_ref().map(Vec::len)
    }

    /// Returns the size of a dimension, where it is a number.
    pub(crate) fn size(&self, dimension: usize) -> Option<u64> {
        self.shape.as_ref()?.get(dimension)?.size()
    }

    /// Returns the size of the last dimension, where it is a number.
    pub(crate) fn width(&self) -> Option<u64> {
        self.shape.as_ref()?.last()?.size()
    }
}

/// Messages that are walked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Message {
    Model,
    Training,
    /// The graph of the model.
    Main,
    Graph,
    Function,
    Node,
    Attribute,
    Sparse,
    Tensor,
    /// A tensor that gives an input of the model its value.
    Initializer,
}

/// What a field of a message is to the walk.
enum Field {
    Message(Message),
    /// `TensorProto.external_data`: an entry of key and value.
    External,
    /// `GraphProto.input`.
    Input,
    /// `GraphProto.output`.
    Output,
    /// `TensorProto.name` of an initializer.
    Name,
    /// `NodeProto.input`.
    NodeInput,
    /// `NodeProto.op_type`.
    Operation,
    /// `ModelProto.metadata_props`: an entry of key and value.
    Metadata,
    Other,
}

impl Message {
    fn field(self, number: u64) -> Field {
        use Message::{
            Attribute, Function, Graph, Initializer, Main, Model, Node, Sparse, Tensor, Training,
        };
        match (self, number) {
            (Model, 7) => Field::Message(Main),
            (Model, 14) => Field::Metadata,
            (Model, 20) => Field::Message(Training),
            (Model, 25) => Field::Message(Function),
            (Training, 1 | 2) | (Attribute, 6 | 11) => Field::Message(Graph),
            (Main | Graph, 1) | (Function, 7) => Field::Message(Node),
            (Main, 5) => Field::Message(Initializer),
            (Graph, 5) | (Attribute, 5 | 10) | (Sparse, 1 | 2) => Field::Message(Tensor),
            (Main | Graph, 15) | (Attribute, 22 | 23) => Field::Message(Sparse),
            (Node, 1) => Field::NodeInput,
            (Node, 4) => Field::Operation,
            (Node, 5) | (Function, 11) => Field::Message(Attribute),
            (Main, 11) => Field::Input,
            (Main, 12) => Field::Output,
            (Initializer, 8) => Field::Name,
            (Tensor | Initializer, 13) => Field::External,
            _ => Field::Other,
        }
    }
}

/// Why a walk ended.
enum Stop<E> {
    /// What is wrong with the file.
    File(String),
    /// An error of reading.
    Read(E),
}

/// Reads a file of `bytes` bytes, of which `read` returns ranges. The inner error is about the
/// file, the outer one is of `read`.
pub(crate) fn contents<E>(
    bytes: u64,
    read: impl FnMut(Range<u64>) -> Result<Vec<u8>, E>,
) -> Result<Result<Contents, String>, E> {
    let mut walk = Walk {
        read,
        window: (0, Vec::new()),
        bytes,
        has_graph: false,
        fields: 0,
        initializers: HashSet::new(),
        inputs: 0,
        contents: Contents::default(),
    };
    match walk.message(Message::Model, 0..bytes, 0) {
        Ok(()) if walk.has_graph => Ok(Ok(walk.finish())),
        Ok(()) => Ok(Err("it has no graph".to_owned())),
        Err(Stop::File(wrong)) => Ok(Err(wrong)),
        Err(Stop::Read(e)) => Err(e),
    }
}

struct Walk<R> {
    read: R,
    /// The bytes at hand, and where they begin.
    window: (u64, Vec<u8>),
    bytes: u64,
    has_graph: bool,
    fields: usize,
    /// Names of tensors that have a value.
    initializers: HashSet<String>,
    /// Inputs of the node that is read, so far.
    inputs: usize,
    contents: Contents,
}

impl<E, R: FnMut(Range<u64>) -> Result<Vec<u8>, E>> Walk<R> {
    fn finish(mut self) -> Contents {
        let has_value = |value: &Value| self.initializers.contains(&value.name);
        self.contents.inputs.retain(|value| !has_value(value));
        self.contents
    }

    fn message(
        &mut self,
        message: Message,
        range: Range<u64>,
        depth: usize,
    ) -> Result<(), Stop<E>> {
        let wrong = |what: String| Err(Stop::File(what));
        if depth > DEPTH {
            return wrong(format!(
                "it has more than {DEPTH} messages inside of each other"
            ));
        }
        let mut at = range.start;
        while at < range.end {
            self.fields += 1;
            if self.fields > FIELDS {
                return wrong("it has too many fields".to_owned());
            }
            let head = self.slice(at..range.end.min(at + HEAD))?;
            let Some((number, value)) = field(head) else {
                return wrong(format!("byte {at} is not the start of a field"));
            };
            let end = at.checked_add(value.end).filter(|end| *end <= range.end);
            let Some(end) = end else {
                let bytes = self.bytes;
                return wrong(format!(
                    "it has {bytes} bytes, and a field at byte {at} is longer"
                ));
            };
            self.field(message, number, at + value.start..end, depth)?;
            at = end;
        }
        Ok(())
    }

    fn field(
        &mut self,
        message: Message,
        number: u64,
        value: Range<u64>,
        depth: usize,
    ) -> Result<(), Stop<E>> {
        match message.field(number) {
            Field::Message(inner) => {
                self.has_graph |= inner == Message::Main;
                if inner == Message::Node {
                    self.inputs = 0;
                }
                self.message(inner, value, depth + 1)
            }
            Field::Other => Ok(()),
            _ if value.end - value.start > SMALL => Ok(()),
            small => {
                let bytes = self.slice(value)?.to_vec();
                self.small(&small, &bytes);
                Ok(())
            }
        }
    }

    fn small(&mut self, field: &Field, bytes: &[u8]) {
        match field {
            Field::External => {
                let (key, value) = (bytes_of(bytes, 1), bytes_of(bytes, 2));
                let location = value.filter(|_| key == Some(b"location"));
                self.contents.external.extend(location.map(text));
            }
            Field::Input => self.contents.inputs.extend(value(bytes)),
            Field::Output => self.contents.outputs.extend(value(bytes)),
            Field::Name => {
                self.initializers.insert(text(bytes));
            }
            Field::NodeInput => self.inputs += 1,
            Field::Operation => self.operation(bytes),
            Field::Metadata => {
                let [key, value] = [1, 2].map(|number| bytes_of(bytes, number).map(text));
                let mut origin = self.contents.origin.take().unwrap_or_default();
                if let Some(part) = origin.part(&key.unwrap_or_default()) {
                    *part = value.unwrap_or_default();
                }
                self.contents.origin = Some(origin).filter(|it| *it != Origin::default());
            }
            Field::Message(_) | Field::Other => {}
        }
    }

    /// Notes an operator. Every library writes a node's inputs before it.
    fn operation(&mut self, name: &[u8]) {
        // DynamicQuantizeLinear, and what ONNX Runtime fuses it with.
        self.contents.quantizes_batches |= name.starts_with(b"DynamicQuantize");
        self.contents.has_dropout |= name == b"Dropout" && self.inputs == DROPOUT_INPUTS;
        if RANDOM.contains(&name) {
            self.contents.random.get_or_insert(text(name));
        }
    }

    /// Returns bytes of the file, no more than a window.
    fn slice(&mut self, range: Range<u64>) -> Result<&[u8], Stop<E>> {
        let (start, held) = &self.window;
        if range.start < *start || range.end > start + held.len() as u64 {
            let window = range.start..self.bytes.min(range.start + WINDOW);
            let held = (self.read)(window).map_err(Stop::Read)?;
            self.window = (range.start, held);
        }
        let (start, held) = &self.window;
        let inner = (range.start - start) as usize..(range.end - start) as usize;
        held.get(inner)
            .ok_or_else(|| Stop::File("it is shorter than it was".to_owned()))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Reads a `ValueInfoProto`.
fn value(value: &[u8]) -> Option<Value> {
    let tensor = bytes_of(value, 2).and_then(|kind| bytes_of(kind, 1));
    let shape = tensor.and_then(|tensor| bytes_of(tensor, 2));
    let dimensions = |shape| fields(shape).filter(|(number, _)| *number == 1);
    Some(Value {
        name: text(bytes_of(value, 1)?),
        element: tensor.and_then(|tensor| number_of(tensor, 1)),
        shape: shape.map(|shape| dimensions(shape).map(|(_, it)| dimension(it)).collect()),
    })
}

fn dimension(bytes: &[u8]) -> Dimension {
    match (number_of(bytes, 1), bytes_of(bytes, 2)) {
        (Some(size), _) => Dimension::Size(size),
        (None, Some(name)) if !name.is_empty() => Dimension::Name(text(name)),
        _ => Dimension::Unknown,
    }
}

/// Returns the first field with this number, as a number.
pub(crate) fn number_of(message: &[u8], number: u64) -> Option<u64> {
    Some(varint(bytes_of(message, number)?)?.0)
}

/// Returns the bytes of the first field with this number.
pub(crate) fn bytes_of(message: &[u8], number: u64) -> Option<&[u8]> {
    let found = fields(message).find(|(found, _)| *found == number);
    found.map(|(_, value)| value)
}

/// Returns the fields of a message that is at hand, up to the first that is broken.
pub(crate) fn fields(message: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    whole_fields(message).map(|(number, value, _)| (number, value))
}

/// Returns the fields of a message as [`fields`] does, each also with its key.
pub(crate) fn whole_fields(mut rest: &[u8]) -> impl Iterator<Item = (u64, &[u8], &[u8])> {
    std::iter::from_fn(move || {
        let (number, value) = field(rest)?;
        let whole = rest.get(..usize::try_from(value.end).ok()?)?;
        rest = &rest[whole.len()..];
        Some((number, &whole[value.start as usize..], whole))
    })
}

/// Returns the numbers of all fields with this number, whether they are packed or not.
pub(crate) fn numbers_of(message: &[u8], number: u64) -> Vec<u64> {
    let mut numbers = Vec::new();
    for (_, mut rest) in fields(message).filter(|(found, _)| *found == number) {
        while let Some((value, digits)) = varint(rest) {
            numbers.push(value);
            rest = &rest[digits..];
        }
    }
    numbers
}

/// Returns a field's number and the range of its value, counted from its key; none where the bytes are
/// no field of a model.
fn field(head: &[u8]) -> Option<(u64, Range<u64>)> {
    let (key, key_length) = varint(head)?;
    let rest = &head[key_length..];
    let (start, length) = match key & 7 {
        0 => (key_length, varint(rest)?.1 as u64),
        1 => (key_length, 8),
        2 => {
            let (length, digits) = varint(rest)?;
            (key_length + digits, length)
        }
        5 => (key_length, 4),
        _ => return None,
    };
    let (number, start) = (key >> 3, start as u64);
    let end = start.checked_add(length)?;
    (1..=100).contains(&number).then_some((number, start..end))
}

/// Returns a number of seven bits a byte and its bytes.
pub(crate) fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index as u32).min(63);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Contents, String> {
        let read = |range: Range<u64>| -> Result<Vec<u8>, ()> {
            Ok(bytes[range.start as usize..range.end as usize].to_vec())
        };
        contents(bytes.len() as u64, read).unwrap()
    }

    /// A field of bytes, with two digits for its key and for its length.
    fn of(number: u8, content: &[u8]) -> Vec<u8> {
        let key = usize::from(number) << 3 | 2;
        let digits = |value: usize| [(value & 0x7f) as u8 | 0x80, (value >> 7) as u8];
        [&digits(key), &digits(content.len()), content].concat()
    }

    fn external(location: &str) -> Vec<u8> {
        let entry = |key: &str, value: &str| {
            of(
                13,
                &[of(1, key.as_bytes()), of(2, value.as_bytes())].concat(),
            )
        };
        [entry("offset", "4096"), entry("location", location)].concat()
    }

    #[test]
    fn whole_models_pass_and_cut_ones_do_not() {
        // ir_version 8, producer "x", a graph with 300 bytes of an unknown field.
        let graph = of(99, &[7; 300]);
        let model = [&[0x08, 8, 0x12, 1, b'x'][..], &of(7, &graph)].concat();
        read(&model).unwrap();
        for length in [0, 1, 5, 8, model.len() - 1] {
            assert!(read(&model[..length]).is_err(), "{length}");
        }
        assert!(read(b"version https://git-lfs.github.com/spec/v1").is_err());
        assert!(read(b"<!doctype html><html></html>").is_err());
    }

    #[test]
    fn files_of_tensors_are_found_wherever_a_tensor_is() {
        let tensor = |location| [of(8, b"name"), external(location)].concat();
        let node = |attribute: Vec<u8>| of(1, &of(5, &attribute));
        let inner = of(5, &tensor("in a graph of a node"));
        let graph = [
            of(5, &tensor("weights.bin")),
            of(5, &[of(9, &[1; 200]), of(8, b"location")].concat()),
            node(of(5, &tensor("in a node"))),
            node(of(6, &inner)),
            of(15, &of(1, &tensor("sparse"))),
        ];
        let function = of(25, &of(7, &of(5, &of(10, &tensor("in a function")))));
        let model = [of(7, &graph.concat()), function].concat();
        let found = read(&model).unwrap().external;
        let expected = [
            "weights.bin",
            "in a node",
            "in a graph of a node",
            "sparse",
            "in a function",
        ];
        assert_eq!(found, expected.map(str::to_owned).into());
    }

    #[test]
    fn inputs_and_outputs_have_names_types_and_shapes() {
        let value = |field: u8, name: &str, shape: &[u8]| {
            let kind = of(1, &[&[0x08, 10][..], &of(2, shape)].concat());
            of(field, &[of(1, name.as_bytes()), of(2, &kind)].concat())
        };
        let rows = of(1, &of(2, b"N"));
        let size = |size: u8| of(1, &[0x08, size]);
        let graph = [
            value(11, "pixels", &[rows.clone(), size(3)].concat()),
            value(11, "weight", &size(9)),
            of(5, &of(8, b"weight")),
            value(12, "wide", &[rows.clone(), of(1, b""), size(96)].concat()),
            value(12, "scalar", b""),
            of(12, &of(1, b"shapeless")),
        ];
        let found = read(&of(7, &graph.concat())).unwrap();
        let named = || Dimension::Name("N".to_owned());
        let value = |name: &str, shape: Vec<Dimension>| Value {
            name: name.to_owned(),
            element: Some(10),
            shape: Some(shape),
        };
        assert_eq!(
            found.inputs,
            [value("pixels", vec![named(), Dimension::Size(3)])]
        );
        let wide = vec![named(), Dimension::Unknown, Dimension::Size(96)];
        assert_eq!(found.outputs[0], value("wide", wide));
        assert_eq!(found.outputs[1], value("scalar", Vec::new()));
        assert_eq!(
            (found.outputs[2].rank(), found.outputs[2].element),
            (None, None)
        );
    }

    #[test]
    fn graphs_inside_of_each_other_end_somewhere() {
        let mut graph = of(2, b"x");
        for _ in 0..DEPTH {
            graph = of(1, &of(5, &of(6, &graph)));
        }
        assert!(read(&of(7, &graph)).is_err());
    }
}
