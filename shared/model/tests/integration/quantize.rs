//! Weights in 8 bits: what becomes of matrix products, and what stays.

use sluice_manifest::{Class, Result};
use sluice_model::{Model, Precision};
use sluice_store::{Location, Storage};
use sluice_testkit::onnx::{FLOAT32, Tensor, Weights, graph_with, int, node, node_of, weights};

use crate::place::SPEC;

/// Numbers between -1 and 1, each column on a scale of its own.
fn matrix(rows: usize, columns: usize) -> Vec<f32> {
    let at = |i: usize| (i as f32 * 0.73).sin() * 0.1_f32.powi((i % columns % 3) as i32);
    (0..rows * columns).map(at).collect()
}

/// A product of the pixels and a matrix, then a layer whose weights are the same transposed.
fn encoder(first: Weights<'_>, second: Weights<'_>, bias: &[f32]) -> Vec<u8> {
    let nodes = [
        node("Flatten", "pixel_values", "flat", &[]),
        node_of("MatMul", &["flat", "first"], "hidden", &[]),
        node_of(
            "Gemm",
            &["hidden", "second", "bias"],
            "layer",
            &[int("transB", 1)],
        ),
        // A product of what is computed stays as it is, and so do weights that are used elsewhere.
        node_of("Mul", &["layer", "bias"], "image_embeds", &[]),
    ];
    let constants = [
        weights("first", &[12, 7], first),
        weights("second", &[5, 7], second),
        weights("bias", &[5], Weights::Inside(bias)),
    ];
    let input = Tensor("pixel_values", FLOAT32, &["n", "3", "2", "2"]);
    let output = Tensor("image_embeds", FLOAT32, &["n", "5"]);
    graph_with(&nodes, &constants, &[input], &[output])
}

/// A memory with a model.
struct Place(Storage);

impl Place {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let place = Self(Storage::default());
        let store = place.0.create(&place.at("m")).unwrap();
        for (name, content) in files {
            store.put(name, content.to_vec()).unwrap();
        }
        place
    }

    fn at(&self, name: &str) -> Location {
        Location::parse(&format!("memory://models/{name}")).unwrap()
    }

    fn find(&self, name: &str, precision: Precision) -> Result<Model> {
        let model = format!("{}/", self.at(name));
        Model::find(&self.0, &model, &self.at("none"), precision)
    }

    fn run(&self, name: &str, precision: Precision) -> Vec<f32> {
        let model = self.find(name, precision).unwrap();
        model.check().unwrap();
        let values: Vec<f32> = (0..24).map(|i| (i as f32 * 0.37).cos() * 3.0).collect();
        model
            .session(1)
            .unwrap()
            .run(&[2, 3, 2, 2], &values)
            .unwrap()
    }
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

#[test]
fn products_have_nearly_the_same_result_wherever_the_weights_are() {
    let (first, second) = (matrix(12, 7), matrix(5, 7));
    let bias = [1.0, -2.0, 0.5, 3.0, -1.0];
    let data = [vec![0; 16], bytes(&first), bytes(&second)].concat();
    let inside = encoder(Weights::Inside(&first), Weights::Inside(&second), &bias);
    let second_at = 16 + first.len() * 4;
    let outside = encoder(
        Weights::File("w.bin", 16, first.len() * 4),
        Weights::File("w.bin", second_at, second.len() * 4),
        &bias,
    );
    let mut found = Vec::new();
    for onnx in [&inside, &outside] {
        let files: [(&str, &[u8]); 3] = [
            ("model.toml", SPEC.as_bytes()),
            ("model.onnx", onnx),
            ("w.bin", &data),
        ];
        let place = Place::new(&files);
        let exact = place.run("m", Precision::Float32);
        let model = place.find("m", Precision::Float32).unwrap();
        let made = model
            .quantize(&place.0, Precision::Int8, None, |_| Ok(()))
            .unwrap();
        assert_eq!(made.products, 2);
        let near = place.run("m", Precision::Int8);
        // 7 bits of weights: some hundredths of the largest number, 24.
        for (exact, near) in exact.iter().zip(&near) {
            assert!((exact - near).abs() < 0.4, "{exact} {near}");
        }
        assert_ne!(exact, near);
        let other = place.at("other");
        model
            .quantize(&place.0, Precision::Int8, Some(&other), |_| Ok(()))
            .unwrap();
        assert_eq!(place.run("other", Precision::Int8), near);
        let store = place.0.open(&other).unwrap();
        let names: Vec<String> = store
            .list("")
            .unwrap()
            .into_iter()
            .map(|o| o.path)
            .collect();
        assert_eq!(names, ["model.int8.onnx", "model.toml"]);
        // The file states which one it was made of.
        let made = store.get("model.int8.onnx").unwrap();
        let at = made.len() - model.sha256.len();
        assert_eq!(made[at..], *model.sha256.as_bytes());
        found.push(made[..at].to_vec());
    }
    assert_eq!(found[0], found[1], "the same bytes");
}

#[test]
fn a_stated_hash_is_renewed_and_a_folder_of_the_hub_gets_the_file_where_it_is_sought() {
    let (first, second) = (matrix(12, 7), matrix(5, 7));
    let onnx = encoder(Weights::Inside(&first), Weights::Inside(&second), &[1.0; 5]);
    let stated = format!("sha256-int8 = 'outdated'\n{SPEC}");
    let place = Place::new(&[
        ("model.toml", stated.as_bytes()),
        ("onnx/model.onnx", &onnx),
    ]);
    let model = place.find("m", Precision::Float32).unwrap();
    model
        .quantize(&place.0, Precision::Int8, None, |_| Ok(()))
        .unwrap();
    let quantised = place.find("m", Precision::Int8).unwrap();
    quantised.verify().unwrap();
    assert_ne!(quantised.sha256, "outdated");
    place
        .find("m", Precision::Float32)
        .unwrap()
        .check()
        .unwrap();
}

#[test]
fn a_model_without_products_is_refused() {
    let nodes = [node("Flatten", "pixel_values", "image_embeds", &[])];
    let input = Tensor("pixel_values", FLOAT32, &["n", "3", "2", "2"]);
    let output = Tensor("image_embeds", FLOAT32, &["n", "12"]);
    let onnx = graph_with(&nodes, &[], &[input], &[output]);
    let place = Place::new(&[("model.toml", SPEC.as_bytes()), ("model.onnx", &onnx)]);
    let model = place.find("m", Precision::Float32).unwrap();
    let error = model
        .quantize(&place.0, Precision::Int8, None, |_| Ok(()))
        .unwrap_err();
    assert_eq!(error.class(), Class::Usage);
    let error = error.to_string();
    assert!(
        error.contains("model.onnx") && error.contains("hint"),
        "{error}"
    );
}
