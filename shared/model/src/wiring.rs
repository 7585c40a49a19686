//! How a graph is fed and read: what its inputs and outputs say, and what the spec adds.
//!
//! - *Pixels* go to the input that the spec names, or `pixel_values`, or the first one with four
//!   dimensions. Its type, the order of its dimensions, its size and a fixed number of rows are taken
//!   from the graph.
//! - *Text* inputs of models that compare images and texts are fed zeros: integers of any shape. A test
//!   run makes sure that the output does not depend on them.
//! - *The output* is the one that the spec names, else the first of [`EMBEDDINGS`] (or [`SCORES`]) that
//!   the graph has, else the only one.

use sluice_manifest::{Error, Result};
use sluice_pixels::{Layout, Preprocess};

use crate::onnx::{Contents, Dimension, Value};
use crate::spec::{Kind, Pooling, Spec};

/// Outputs that hold an embedding, best first.
pub(crate) const EMBEDDINGS: [&str; 10] = [
    "image_embeds",
    "pooler_output",
    "embedding",
    "embeddings",
    "image_embedding",
    "image_embeddings",
    "image_features",
    "features",
    "sentence_embedding",
    "last_hidden_state",
];
/// Outputs that hold scores, best first.
pub(crate) const SCORES: [&str; 6] = [
    "logits",
    "scores",
    "score",
    "probabilities",
    "probs",
    "output",
];

/// How a graph is fed and read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wiring {
    /// The input of pixels or embeddings.
    pub input: String,
    /// The type of its numbers.
    pub element: Element,
    /// Rows that the graph takes at once, where it takes no other number.
    pub rows: Option<usize>,
    /// Whether rows of one run have an influence on each other, so that each needs a run of its own.
    pub is_alone: bool,
    /// Inputs that are fed with a constant.
    pub text: Vec<Text>,
    pub output: String,
    pub pooling: Option<Pooling>,
}

/// The type of an input's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    Float32,
    Float16,
    /// Pixels as they are, from 0 to 255.
    Uint8,
}

/// An input of text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Text {
    pub name: String,
    pub is_wide: bool,
    /// Sizes; none where it is that of the rows.
    pub shape: Vec<Option<usize>>,
}

impl Element {
    fn of(value: &Value) -> Result<Self, String> {
        match value.element {
            None | Some(1) => Ok(Element::Float32),
            Some(10) => Ok(Element::Float16),
            Some(2) => Ok(Element::Uint8),
            Some(other) => Err(format!(
                "input {:?} has type {}, expected float32, float16 or uint8",
                value.name,
                type_name(other)
            )),
        }
    }
}

/// Whether an input takes pixels as they are, from 0 to 255.
pub(crate) fn is_of_bytes(input: &Value) -> bool {
    Element::of(input) == Ok(Element::Uint8)
}

/// `TensorProto.DataType`.
fn type_name(element: u64) -> String {
    let name = match element {
        3 => "int8",
        6 => "int32",
        7 => "int64",
        9 => "bool",
        11 => "float64",
        16 => "bfloat16",
        other => return format!("number {other}"),
    };
    name.to_owned()
}

impl Wiring {
    /// Returns how the graph of `uri` is fed and read.
    ///
    /// # Errors
    /// Usage, when an input cannot be fed, or it is not clear which output is meant.
    pub(crate) fn of(spec: &Spec, graph: &Contents, uri: &str) -> Result<Self> {
        let wrong = |what: String| Error::usage(format!("{uri}: {what}"));
        let input = main_input(spec, graph).map_err(wrong)?;
        let others = graph.inputs.iter().filter(|other| other.name != input.name);
        let text: Result<Vec<Text>, String> = others.map(|other| text_of(other, input)).collect();
        let text = text.map_err(|what| {
            wrong(what).hint("export the image encoder alone, or without that input")
        })?;
        let output = output_of(spec, graph).map_err(wrong)?;
        let rows = input.size(0).filter(|rows| *rows > 0);
        Ok(Self {
            element: Element::of(input).map_err(wrong)?,
            rows: rows.map(|rows| rows as usize),
            is_alone: graph.quantizes_batches,
            input: input.name.clone(),
            text,
            output: output.name.clone(),
            pooling: spec.pooling,
        })
    }
}

fn named<'a>(values: &'a [Value], name: &str, what: &str) -> Result<&'a Value, String> {
    let found = values.iter().find(|value| value.name == name);
    found.ok_or_else(|| format!("no {what} {name:?}; there are {}", names(values)))
}

fn names(values: &[Value]) -> String {
    let names: Vec<&str> = values.iter().map(|value| value.name.as_str()).collect();
    names.join(", ")
}

/// Returns the input of pixels or embeddings.
pub(crate) fn main_input<'a>(spec: &Spec, graph: &'a Contents) -> Result<&'a Value, String> {
    let inputs = &graph.inputs;
    if let Some(name) = &spec.input {
        return named(inputs, name, "input");
    }
    let usual = inputs.iter().find(|input| input.name == "pixel_values");
    let rank = match spec.kind {
        Kind::Head => 2,
        Kind::Embedder | Kind::Classifier | Kind::Measure => 4,
    };
    let fits = inputs.iter().find(|input| input.rank() == Some(rank));
    let found = usual.or(fits).or(inputs.first());
    found.ok_or_else(|| "the model has no input".to_owned())
}

/// Returns how an additional input of integers is fed.
fn text_of(value: &Value, main: &Value) -> Result<Text, String> {
    let is_wide = match value.element {
        Some(7) => true,
        Some(6) => false,
        element => {
            let name = element.map_or("no known type".to_owned(), type_name);
            return Err(format!("input {:?} ({name}) cannot be fed", value.name));
        }
    };
    let rows = main.shape.as_ref().and_then(|shape| shape.first());
    let size = |dimension: &Dimension| match dimension {
        Dimension::Size(size) => Some(*size as usize),
        named @ Dimension::Name(_) if Some(named) == rows => None,
        Dimension::Name(_) | Dimension::Unknown => Some(1),
    };
    Ok(Text {
        name: value.name.clone(),
        is_wide,
        shape: value.shape.iter().flatten().map(size).collect(),
    })
}

/// Returns the output that is read.
pub(crate) fn output_of<'a>(spec: &Spec, graph: &'a Contents) -> Result<&'a Value, String> {
    let outputs = &graph.outputs;
    if let Some(name) = &spec.output {
        return named(outputs, name, "output");
    }
    let usual: &[&str] = match spec.kind {
        Kind::Embedder => &EMBEDDINGS,
        Kind::Head | Kind::Classifier | Kind::Measure => &SCORES,
    };
    let mut usual = usual.iter();
    let found = usual.find_map(|name| outputs.iter().find(|output| output.name == *name));
    match (found, outputs.as_slice()) {
        (Some(output), _) => Ok(output),
        (None, [only]) => Ok(only),
        (None, []) => Err("the model has no output".to_owned()),
        (None, _) => Err(format!(
            "several outputs, none of a usual name: {}; name one in model.toml",
            names(outputs)
        )),
    }
}

/// Adapts a preprocessing to the graph's input of pixels.
///
/// # Errors
/// What does not fit.
pub(crate) fn fit(preprocess: &mut Preprocess, input: &Value) -> Result<(), String> {
    if Element::of(input)? == Element::Uint8 {
        (preprocess.rescale, preprocess.mean, preprocess.std) = (1.0, [0.0; 3], [1.0; 3]);
    }
    let name = &input.name;
    match input.rank() {
        None => return Ok(()),
        Some(4) => {}
        Some(rank) => {
            return Err(format!("input {name:?} has {rank} dimensions, expected 4"));
        }
    }
    let (second, last) = (input.size(1), input.size(3));
    match (second == Some(3), last == Some(3)) {
        (true, false) => preprocess.layout = Layout::Nchw,
        (false, true) => preprocess.layout = Layout::Nhwc,
        _ => {}
    }
    let channels = match preprocess.layout {
        Layout::Nchw => second,
        Layout::Nhwc => last,
    };
    if let Some(channels) = channels.filter(|channels| *channels != 3) {
        return Err(format!(
            "input {name:?} has {channels} channels, expected 3"
        ));
    }
    let (height, width) = match preprocess.layout {
        Layout::Nchw => (input.size(2), last),
        Layout::Nhwc => (input.size(1), input.size(2)),
    };
    let (wide, high) = preprocess.output_size();
    let fits = |stated: Option<u64>, side: u32| stated.is_none_or(|it| it == u64::from(side));
    if fits(height, high) && fits(width, wide) {
        return Ok(());
    }
    let shown = |side: Option<u64>| side.map_or("any".to_owned(), |side| side.to_string());
    Err(format!(
        "input {name:?} takes {}x{} pixels, the preprocessing makes {high}x{wide}",
        shown(height),
        shown(width)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_pixels::{Filter, Resize};

    fn value(name: &str, element: u64, shape: &[&str]) -> Value {
        let dimension = |text: &&str| match text.parse() {
            Ok(size) => Dimension::Size(size),
            Err(_) => Dimension::Name((*text).to_owned()),
        };
        Value {
            name: name.to_owned(),
            element: Some(element),
            shape: Some(shape.iter().map(dimension).collect()),
        }
    }

    fn graph(inputs: Vec<Value>, outputs: &[&str]) -> Contents {
        Contents {
            inputs,
            outputs: outputs
                .iter()
                .map(|name| value(name, 1, &["n", "8"]))
                .collect(),
            ..Contents::default()
        }
    }

    fn wire(kind: Kind, graph: &Contents) -> Result<Wiring> {
        Wiring::of(&Spec::new("x", kind), graph, "x")
    }

    #[test]
    fn text_inputs_are_constants() {
        let inputs = vec![
            value("input_ids", 7, &["texts", "length"]),
            value("pixel_values", 10, &["4", "3", "8", "8"]),
            value("attention_mask", 6, &["texts", "77"]),
        ];
        let graph = graph(inputs, &["logits_per_image", "text_embeds", "image_embeds"]);
        let wiring = wire(Kind::Embedder, &graph).unwrap();
        assert_eq!(
            (wiring.input.as_str(), wiring.output.as_str()),
            ("pixel_values", "image_embeds")
        );
        assert_eq!((wiring.element, wiring.rows), (Element::Float16, Some(4)));
        let shapes: Vec<_> = wiring
            .text
            .iter()
            .map(|it| (it.is_wide, it.shape.clone()))
            .collect();
        assert_eq!(shapes[0], (true, vec![Some(1), Some(1)]));
        assert_eq!(shapes[1], (false, vec![Some(1), Some(77)]));
    }

    #[test]
    fn what_cannot_be_fed_or_chosen_is_named() {
        let pixels = || value("x", 1, &["n", "3", "8", "8"]);
        let refused = |kind, graph: &Contents| wire(kind, graph).unwrap_err().to_string();
        let mask = graph(
            vec![pixels(), value("pixel_mask", 9, &["n", "8", "8"])],
            &["y"],
        );
        assert!(refused(Kind::Embedder, &mask).contains("pixel_mask"));
        let double = graph(vec![value("x", 11, &["n", "3", "8", "8"])], &["y"]);
        assert!(refused(Kind::Embedder, &double).contains("float64"));
        let two = graph(vec![pixels()], &["a", "b"]);
        assert!(refused(Kind::Embedder, &two).contains("a, b"));
        let one = graph(vec![pixels()], &["a"]);
        assert_eq!(wire(Kind::Embedder, &one).unwrap().output, "a");
        let both = graph(vec![pixels()], &["last_hidden_state", "logits"]);
        assert_eq!(
            wire(Kind::Embedder, &both).unwrap().output,
            "last_hidden_state"
        );
        assert_eq!(wire(Kind::Classifier, &both).unwrap().output, "logits");
    }

    #[test]
    fn preprocessing_follows_the_graph() {
        let exact = Resize::Exact {
            width: 8,
            height: 6,
        };
        let fitted = |element, shape: &[&str]| {
            let mut preprocess = Preprocess::new(exact, Filter::Bicubic);
            fit(&mut preprocess, &value("x", element, shape)).map(|()| preprocess)
        };
        assert_eq!(
            fitted(1, &["n", "3", "6", "8"]).unwrap().layout,
            Layout::Nchw
        );
        assert_eq!(
            fitted(1, &["n", "6", "8", "3"]).unwrap().layout,
            Layout::Nhwc
        );
        assert_eq!(
            fitted(1, &["n", "c", "h", "w"]).unwrap().layout,
            Layout::Nchw
        );
        assert_eq!(fitted(2, &["n", "h", "w", "3"]).unwrap().rescale, 1.0);
        assert!(
            fitted(1, &["n", "1", "6", "8"])
                .unwrap_err()
                .contains("1 channels")
        );
        assert!(
            fitted(1, &["n", "3", "8", "8"])
                .unwrap_err()
                .contains("8x8")
        );
        assert!(
            fitted(1, &["n", "48"])
                .unwrap_err()
                .contains("2 dimensions")
        );
    }
}
