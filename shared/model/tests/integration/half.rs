//! Graphs in 16 bits: what they compute, and what stays in float32.

use sluice_manifest::Class;
use sluice_model::{Model, Precision};
use sluice_store::{Location, Storage};
use sluice_testkit::onnx::{
    FLOAT32, Tensor, Weights, graph_with, int, integers, ints, node, node_of, weights,
};

/// Pixels from 0 to 255, brought to numbers around 0.
const SPEC: &str = "
    name = 'm'
    kind = 'embedder'
    [preprocess]
    resize = { exact = { width = 2, height = 2 } }
    filter = 'bilinear'
    mean = [0.5, 0.4, 0.3]
    std = [0.25, 0.3, 0.35]
";

fn numbers(count: usize, scale: f32) -> Vec<f32> {
    (0..count)
        .map(|i| (i as f32 * 0.73).sin() * scale)
        .collect()
}

/// A block of a transformer as exporters write it: a convolution that makes tokens, a normalisation, attention
/// with softmax, and a projection.
fn encoder() -> Vec<u8> {
    let nodes = [
        node("Shape", "pixel_values", "pixels_shape", &[]),
        node_of("Conv", &["pixel_values", "kernel"], "map", &[]),
        // The shape of what came in, as exporters ask for it.
        node_of(
            "Gather",
            &["pixels_shape", "first"],
            "rows",
            &[int("axis", 0)],
        ),
        node_of(
            "Concat",
            &["rows", "rest"],
            "tokens_shape",
            &[int("axis", 0)],
        ),
        node_of("Reshape", &["map", "tokens_shape"], "channels", &[]),
        node(
            "Transpose",
            "channels",
            "tokens",
            &[ints("perm", &[0, 2, 1])],
        ),
        node_of(
            "LayerNormalization",
            &["tokens", "gain", "shift"],
            "normal",
            &[],
        ),
        node_of("MatMul", &["normal", "query"], "q", &[]),
        node("Transpose", "q", "k", &[ints("perm", &[0, 2, 1])]),
        node_of("MatMul", &["q", "k"], "likeness", &[]),
        node("Softmax", "likeness", "attention", &[int("axis", 2)]),
        node_of("MatMul", &["attention", "normal"], "mixed", &[]),
        node_of("Add", &["tokens", "mixed"], "residual", &[]),
        node("Flatten", "residual", "flat", &[]),
        node_of("MatMul", &["flat", "projection"], "image_embeds", &[]),
    ];
    let constants = [
        weights("kernel", &[4, 3, 1, 1], Weights::Inside(&numbers(12, 0.6))),
        weights("gain", &[4], Weights::Inside(&[1.0, 0.9, 1.1, 1.2])),
        weights("shift", &[4], Weights::Inside(&[0.1, -0.1, 0.0, 0.2])),
        weights("query", &[4, 4], Weights::Inside(&numbers(16, 0.8))),
        weights("projection", &[16, 5], Weights::Inside(&numbers(80, 0.5))),
        integers("first", &[0]),
        integers("rest", &[4, 4]),
    ];
    let input = Tensor("pixel_values", FLOAT32, &["n", "3", "2", "2"]);
    let output = Tensor("image_embeds", FLOAT32, &["n", "5"]);
    graph_with(&nodes, &constants, &[input], &[output])
}

struct Place(Storage);

impl Place {
    fn new(onnx: Vec<u8>) -> Self {
        let place = Self(Storage::default());
        let store = place.0.create(&Self::at("m")).unwrap();
        store.put("model.onnx", onnx).unwrap();
        store.put("model.toml", SPEC).unwrap();
        place
    }

    fn at(name: &str) -> Location {
        Location::parse(&format!("memory://models/{name}")).unwrap()
    }

    fn find(&self, precision: Precision) -> Model {
        let model = format!("{}/", Self::at("m"));
        Model::find(&self.0, &model, &Self::at("none"), precision).unwrap()
    }

    fn made(&self, precision: Precision) -> Vec<u8> {
        self.find(Precision::Float32)
            .quantize(&self.0, precision, None)
            .unwrap();
        let file = format!("model.{precision}.onnx");
        self.0
            .open(&Self::at("m"))
            .unwrap()
            .get(&file)
            .unwrap()
            .to_vec()
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Whether an ONNX file has this text, such as the name of a value.
fn has(onnx: &[u8], text: &str) -> bool {
    onnx.windows(text.len())
        .any(|window| window == text.as_bytes())
}

#[test]
fn float16_takes_bytes_and_gives_nearly_the_same_embedding() {
    let place = Place::new(encoder());
    let onnx = place.made(Precision::Float16);
    let exact = place.find(Precision::Float32);
    let half = place.find(Precision::Float16);
    half.check().unwrap();
    half.verify().unwrap();
    assert!(half.takes_bytes() && !exact.takes_bytes());
    assert_ne!(exact.sha256, half.sha256);
    let pixels: Vec<u8> = (0..24).map(|i| (i * 73 % 256) as u8).collect();
    let preprocess = exact.spec.preprocess.as_ref().unwrap();
    let normal: Vec<f32> = pixels
        .iter()
        .enumerate()
        .map(|(i, &value)| {
            let channel = i / 4 % 3;
            ((f64::from(value) / 255.0 - preprocess.mean[channel]) / preprocess.std[channel]) as f32
        })
        .collect();
    let shape = [2, 3, 2, 2];
    let expected = exact.session(1).unwrap().run(&shape, &normal).unwrap();
    let found = half.session(1).unwrap().run(&shape, &pixels).unwrap();
    for (expected, found) in expected.chunks(5).zip(found.chunks(5)) {
        assert!(cosine(expected, found) > 0.9999, "{expected:?} {found:?}");
    }
    assert_ne!(expected, found);
    // The projection takes float32 and has its weights so.
    assert!(has(&onnx, "query/half") && has(&onnx, "projection") && !has(&onnx, "projection/half"));
    assert_eq!(place.made(Precision::Float16), onnx, "the same bytes");
}

#[test]
fn bfloat16_leaves_convolutions_in_float32() {
    let place = Place::new(encoder());
    let onnx = place.made(Precision::Bfloat16);
    assert!(has(&onnx, "query/half") && !has(&onnx, "kernel/half"));
    let model = place.find(Precision::Bfloat16);
    model.verify().unwrap();
    let error = model.place(
        sluice_model::Device::OpenVino,
        sluice_model::BatchSize::Auto,
    );
    assert_eq!(error.unwrap_err().class(), Class::Usage);
}

#[test]
fn a_model_in_float32_stays_and_one_without_products_is_refused() {
    let place = Place::new(encoder());
    let model = place.find(Precision::Float32);
    let refused = |model: &Model, precision| {
        let error = model.quantize(&place.0, precision, None).unwrap_err();
        assert_eq!(error.class(), Class::Usage);
        error.to_string()
    };
    assert!(refused(&model, Precision::Float32).contains("float32 already"));
    let nodes = [node("Flatten", "pixel_values", "image_embeds", &[])];
    let input = Tensor("pixel_values", FLOAT32, &["n", "3", "2", "2"]);
    let output = Tensor("image_embeds", FLOAT32, &["n", "12"]);
    let flat = Place::new(graph_with(&nodes, &[], &[input], &[output]));
    let model = flat.find(Precision::Float32);
    assert!(refused(&model, Precision::Float16).contains("no matrix product"));
}

/// As exporters write it, a node has the name of what it gives.
#[test]
fn an_output_that_is_computed_in_16_bits_is_given_in_float32() {
    let mut last = node("Flatten", "map", "image_embeds", &[]);
    last.extend([3 << 3 | 2, 12]);
    last.extend(b"image_embeds");
    let nodes = [
        node_of("Conv", &["pixel_values", "kernel"], "map", &[]),
        last,
    ];
    let kernel = weights("kernel", &[4, 3, 1, 1], Weights::Inside(&numbers(12, 0.6)));
    let input = Tensor("pixel_values", FLOAT32, &["n", "3", "2", "2"]);
    let output = Tensor("image_embeds", FLOAT32, &["n", "16"]);
    let place = Place::new(graph_with(&nodes, &[kernel], &[input], &[output]));
    place.made(Precision::Float16);
    place.find(Precision::Float16).check().unwrap();
}
