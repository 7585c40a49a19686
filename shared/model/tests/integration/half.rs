//! Graphs in 16 bits: what they compute, and what stays in float32.

use sluice_manifest::{Class, Error, Result};
use sluice_model::{Model, Precision, Ranges, precisions};
use sluice_store::{Location, Storage};
use sluice_testkit::onnx::{
    FLOAT32, Tensor, Weights, graph_with, int, integers, ints, node, node_of, weights,
};

use crate::place::SPEC as PLAIN;

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
        self.try_find(precision).unwrap()
    }

    fn refused(&self, precision: Precision) -> Error {
        self.try_find(precision).map(drop).unwrap_err()
    }

    fn try_find(&self, precision: Precision) -> Result<Model> {
        let model = format!("{}/", Self::at("m"));
        Model::find(&self.0, &model, &Self::at("none"), precision)
    }

    /// Makes the file of float16 after other images ran. Returns what is too large for it.
    fn too_large(&self, feed: impl FnOnce(&mut Ranges) -> Result<()>) -> Vec<String> {
        let model = self.find(Precision::Float32);
        let made = model.quantize(&self.0, Precision::Float16, None, feed);
        made.unwrap().too_large
    }

    fn run(&self, precision: Precision, pixels: &[f32]) -> Vec<f32> {
        let mut session = self.find(precision).session(1).unwrap();
        session.run(&[1, 3, 2, 2], pixels).unwrap()
    }

    fn made(&self, precision: Precision) -> Vec<u8> {
        self.find(Precision::Float32)
            .quantize(&self.0, precision, None, |_| Ok(()))
            .unwrap();
        self.file(precision)
    }

    fn file(&self, precision: Precision) -> Vec<u8> {
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
        let error = model
            .quantize(&place.0, precision, None, |_| Ok(()))
            .unwrap_err();
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

/// Returns a place with a graph of these nodes, from four numbers `start` to four numbers `end`. Before
/// them is a product that is in float16 in any case, after them the projection, which is not.
fn plain(middle: &[Vec<u8>], mut constants: Vec<Vec<u8>>) -> Place {
    let first = [
        node_of("Mul", &["pixel_values", "least"], "small", &[]),
        node("Flatten", "small", "flat", &[]),
        node_of("MatMul", &["flat", "other"], "start", &[]),
    ];
    let last = [node_of(
        "MatMul",
        &["end", "projection"],
        "image_embeds",
        &[],
    )];
    let nodes = [&first[..], middle, &last].concat();
    constants.push(weights("least", &[1], Weights::Inside(&[0.001])));
    constants.push(weights(
        "other",
        &[12, 4],
        Weights::Inside(&numbers(48, 1.0)),
    ));
    constants.push(weights(
        "projection",
        &[4, 4],
        Weights::Inside(&numbers(16, 1.0)),
    ));
    let input = Tensor("pixel_values", FLOAT32, &["n", "3", "2", "2"]);
    let output = Tensor("image_embeds", FLOAT32, &["n", "4"]);
    let place = Place::new(graph_with(&nodes, &constants, &[input], &[output]));
    let store = place.0.open(&Place::at("m")).unwrap();
    store.put("model.toml", PLAIN).unwrap();
    place
}

fn assert_near(place: &Place, what: &str) {
    let pixels: Vec<f32> = (0..12).map(|i| (i * 73 % 256) as f32).collect();
    let exact = place.run(Precision::Float32, &pixels);
    let half = place.run(Precision::Float16, &pixels);
    assert!(cosine(&exact, &half) > 0.9999, "{what}: {exact:?} {half:?}");
}

#[test]
fn constants_that_float16_cannot_hold_stay_in_float32() {
    let (large, bias) = (numbers(16, 200_000.0), [1.0, 2.0, 3.0, 4.0]);
    for operator in ["MatMul", "Gemm", "Mul", "Add"] {
        let inputs: &[&str] = match operator {
            "Gemm" => &["start", "large", "bias"],
            _ => &["start", "large"],
        };
        let sizes: &[u64] = if operator.len() == 3 { &[4] } else { &[4, 4] };
        let count = sizes.iter().product::<u64>() as usize;
        let nodes = [
            node_of(operator, inputs, "huge", &[]),
            node_of("Mul", &["huge", "small_again"], "end", &[]),
        ];
        let constants = vec![
            weights("large", sizes, Weights::Inside(&large[..count])),
            weights("bias", &[4], Weights::Inside(&bias)),
            weights("small_again", &[1], Weights::Inside(&[1e-5])),
        ];
        let place = plain(&nodes, constants);
        let too_large = place.too_large(|_| Ok(()));
        assert!(too_large.contains(&"large".to_owned()), "{operator}");
        let made = place.file(Precision::Float16);
        assert!(has(&made, "other/half"), "{operator}");
        assert!(!has(&made, "large/half"), "{operator}");
        assert_near(&place, operator);
    }
}

#[test]
fn masks_are_clamped_and_attention_stays_in_float16() {
    for mask in [f32::MIN, f32::NEG_INFINITY, -1e9] {
        let nodes = [
            node_of("Add", &["start", "mask"], "masked", &[]),
            node("Softmax", "masked", "attention", &[int("axis", 1)]),
            node_of("MatMul", &["attention", "last"], "end", &[]),
        ];
        let constants = vec![
            weights("mask", &[4], Weights::Inside(&[0.0, mask, 0.0, mask])),
            weights("last", &[4, 4], Weights::Inside(&numbers(16, 1.0))),
        ];
        let place = plain(&nodes, constants);
        assert_eq!(place.too_large(|_| Ok(())), [""; 0]);
        let made = place.file(Precision::Float16);
        assert!(has(&made, "mask/half") && has(&made, "attention/half"));
        assert_near(&place, "masks");
    }
}

/// ONNX Runtime's kernels for CPUs compute float16 in float32: what overflows on a GPU does not there.
#[test]
fn values_that_overflow_stay_in_float32_also_where_only_some_images_have_them() {
    let place = || {
        let nodes = [
            node_of("MatMul", &["start", "up"], "middle", &[]),
            node_of("Mul", &["middle", "down"], "end", &[]),
        ];
        let constants = vec![
            weights("up", &[4, 4], Weights::Inside(&numbers(16, 5000.0))),
            weights("down", &[1], Weights::Inside(&[1e-4])),
        ];
        plain(&nodes, constants)
    };
    let calm = place();
    assert_eq!(calm.too_large(|_| Ok(())), [""; 0]);
    assert!(has(&calm.file(Precision::Float16), "up/half"));
    let place = place();
    let pixels: Vec<f32> = (0..24).map(|i| (i % 12) as f32 * 50_000.0).collect();
    let too_large = place.too_large(|ranges| ranges.feed(&[2, 3, 2, 2], &pixels));
    assert_eq!(too_large, ["middle"]);
    let made = place.file(Precision::Float16);
    assert!(has(&made, "other/half") && !has(&made, "up/half"));
    assert_near(&place, "values");
}

#[test]
fn a_file_of_earlier_weights_is_refused_and_made_again() {
    for source in ["model.onnx", "onnx/model.onnx"] {
        let place = Place(Storage::default());
        let store = place.0.create(&Place::at("m")).unwrap();
        store.put(source, encoder()).unwrap();
        store.put("model.toml", SPEC).unwrap();
        for precision in [Precision::Float16, Precision::Bfloat16, Precision::Int8] {
            place.made(precision);
            place.find(precision);
        }
        // Another name of the producer: another file, the same graph.
        store
            .put(source, [encoder(), vec![2 << 3 | 2, 1, b'x']].concat())
            .unwrap();
        for precision in [Precision::Float16, Precision::Bfloat16, Precision::Int8] {
            let error = place.refused(precision);
            assert_eq!(error.class(), Class::Data);
            let (file, error) = (format!("m/model.{precision}.onnx"), error.to_string());
            let again = format!("--precision {precision}` makes it again");
            for part in [&file, &format!("m/{source}"), &again] {
                assert!(error.contains(part), "{part}: {error}");
            }
            place.made(precision);
            place.find(precision);
        }
    }
}

#[test]
fn a_folder_with_one_precision_runs_in_that_one() {
    let place = Place::new(encoder());
    let made = place.made(Precision::Float16);
    let store = place.0.open(&Place::at("m")).unwrap();
    store.delete("model.onnx").unwrap();
    let error = place.refused(Precision::Float32);
    assert_eq!(error.class(), Class::Usage);
    let error = error.to_string();
    assert!(error.contains("no model.onnx"), "{error}");
    assert!(error.contains("model.float16.onnx") && error.contains("--precision"));
    let model = format!("{}/", Place::at("m"));
    let found = precisions(&place.0, &model, &Place::at("none")).unwrap();
    assert_eq!(found, [Precision::Float16]);
    place.find(Precision::Float16).check().unwrap();

    store
        .put("model.float16.onnx", made[..made.len() / 2].to_vec())
        .unwrap();
    let error = place.refused(Precision::Float16);
    assert_eq!(error.class(), Class::Data);
    let error = error.to_string();
    assert!(
        error.contains("m/model.float16.onnx") && error.contains("makes it again"),
        "{error}"
    );
}
