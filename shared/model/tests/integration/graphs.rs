//! Graphs of many forms: inputs of text, other types and orders, fixed rows, outputs to be pooled.

use sluice_manifest::Result;
use sluice_model::{Kind, Model};
use sluice_testkit::onnx::{
    BOOL, FLOAT16, FLOAT32, INT64, Tensor, UINT8, Weights, graph, graph_with, int, integers, ints,
    node, node_of, node_with, weights,
};

use crate::place::{SPEC, find};

/// Two pictures, as tensors.
const TWO: [f32; 24] = {
    let mut values = [0.0; 24];
    let mut at = 0;
    while at < 24 {
        values[at] = at as f32;
        at += 1;
    }
    values
};

fn model(spec: &str, onnx: &[u8]) -> Result<Model> {
    find(&[("model.toml", spec.as_bytes()), ("model.onnx", onnx)])
}

/// Checks the model and runs it on as many pictures.
fn run(spec: &str, onnx: &[u8], values: &[f32]) -> Result<Vec<f32>> {
    let model = model(spec, onnx)?;
    model.check()?;
    let preprocess = model.spec.preprocess.as_ref().unwrap();
    let rows = values.len() / preprocess.tensor_len();
    model
        .session(1)?
        .run(&preprocess.tensor_shape(rows), values)
}

fn pixels<'a>(element: u64, sizes: &'a [&'a str]) -> Tensor<'a> {
    Tensor("pixel_values", element, sizes)
}

const ANY: [&str; 4] = ["n", "3", "2", "2"];

#[test]
fn text_inputs_are_fed_and_must_not_matter() {
    let inputs = [
        Tensor("input_ids", INT64, &["texts", "length"]),
        pixels(FLOAT32, &ANY),
    ];
    let outputs = [
        Tensor("text_embeds", INT64, &["texts", "length"]),
        Tensor("image_embeds", FLOAT32, &["n", "12"]),
    ];
    let apart = [
        node("Identity", "input_ids", "text_embeds", &[]),
        node("Flatten", "pixel_values", "image_embeds", &[]),
    ];
    let onnx = graph(&apart, &inputs, &outputs);
    assert_eq!(run(SPEC, &onnx, &TWO).unwrap(), TWO);
    let mixed = [
        node("Identity", "input_ids", "text_embeds", &[]),
        node("Cast", "input_ids", "numbers", &[int("to", FLOAT32)]),
        node("Flatten", "pixel_values", "flat", &[]),
        node_of("Add", &["flat", "numbers"], "image_embeds", &[]),
    ];
    let error = run(SPEC, &graph(&mixed, &inputs, &outputs), &TWO).unwrap_err();
    assert!(error.to_string().contains("depend on the text"), "{error}");
}

#[test]
fn half_precision_goes_in_and_comes_out() {
    let nodes = [node("Flatten", "pixel_values", "image_embeds", &[])];
    let outputs = [Tensor("image_embeds", FLOAT16, &["n", "12"])];
    let onnx = graph(&nodes, &[pixels(FLOAT16, &ANY)], &outputs);
    assert_eq!(run(SPEC, &onnx, &TWO).unwrap(), TWO);
}

#[test]
fn bytes_and_the_order_of_dimensions_are_read_from_the_graph() {
    let nodes = [
        node("Cast", "pixel_values", "numbers", &[int("to", FLOAT32)]),
        node("Flatten", "numbers", "image_embeds", &[]),
    ];
    let outputs = [Tensor("image_embeds", FLOAT32, &["n", "12"])];
    let input = pixels(UINT8, &["n", "2", "2", "3"]);
    let spec = SPEC
        .replace("rescale = 1.0", "rescale = 0.5")
        .replace("0.0, 0.0, 0.0", "9.0, 9.0, 9.0");
    let onnx = graph(&nodes, &[input], &outputs);
    assert_eq!(run(&spec, &onnx, &TWO).unwrap(), TWO);
    let preprocess = model(&spec, &onnx).unwrap().spec.preprocess.unwrap();
    assert_eq!(preprocess.tensor_shape(5), [5, 2, 2, 3]);
    assert_eq!((preprocess.rescale, preprocess.mean), (1.0, [0.0; 3]));
}

#[test]
fn a_fixed_number_of_rows_is_filled_up() {
    let nodes = [node("Flatten", "pixel_values", "image_embeds", &[])];
    for rows in ["1", "2", "4", "7"] {
        let outputs = [Tensor("image_embeds", FLOAT32, &[rows, "12"])];
        let onnx = graph(&nodes, &[pixels(FLOAT32, &[rows, "3", "2", "2"])], &outputs);
        let three = [&TWO[..], &TWO[..12]].concat();
        assert_eq!(run(SPEC, &onnx, &three).unwrap(), three, "{rows} rows");
    }
}

#[test]
fn many_vectors_are_pooled() {
    let maps = graph(
        &[node("Identity", "pixel_values", "last_hidden_state", &[])],
        &[pixels(FLOAT32, &ANY)],
        &[Tensor("last_hidden_state", FLOAT32, &ANY)],
    );
    let mean = [ints("axes", &[3]), int("keepdims", 0)];
    let tokens = graph(
        &[node(
            "ReduceMean",
            "pixel_values",
            "last_hidden_state",
            &mean,
        )],
        &[pixels(FLOAT32, &ANY)],
        &[Tensor("last_hidden_state", FLOAT32, &["n", "3", "2"])],
    );
    let spec = |pooling: &str| SPEC.replace("kind =", &format!("pooling = '{pooling}'\nkind ="));
    let one = &TWO[..12];
    assert_eq!(run(&spec("mean"), &maps, one).unwrap(), [1.5, 5.5, 9.5]);
    assert_eq!(run(&spec("cls"), &tokens, one).unwrap(), [0.5, 2.5]);
    assert_eq!(run(&spec("mean"), &tokens, one).unwrap(), [4.5, 6.5]);
    for (pooling, onnx) in [("none", &tokens), ("cls", &maps)] {
        let error = run(&spec(pooling), onnx, one).unwrap_err().to_string();
        assert!(
            error.contains("pooling") && error.contains("last_hidden_state"),
            "{error}"
        );
    }
    let error = run(SPEC, &tokens, one).unwrap_err().to_string();
    assert!(error.contains("pooling"), "{error}");
    assert_eq!(model(&spec("mean"), &maps).unwrap().spec.dimension, Some(3));
}

#[test]
fn a_size_that_does_not_fit_is_refused_before_the_work() {
    let nodes = [node("Flatten", "pixel_values", "image_embeds", &[])];
    let outputs = [Tensor("image_embeds", FLOAT32, &["n", "d"])];
    let onnx = graph(&nodes, &[pixels(FLOAT32, &["n", "3", "4", "4"])], &outputs);
    let error = model(SPEC, &onnx).map(drop).unwrap_err().to_string();
    assert!(error.contains("4x4") && error.contains("2x2"), "{error}");
    // The graph does not state the width, the sample shows it.
    let onnx = graph(&nodes, &[pixels(FLOAT32, &ANY)], &outputs);
    let spec = SPEC.replace("kind =", "dimension = 9\nkind =");
    let error = model(&spec, &onnx)
        .and_then(|model| model.check())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("12 values") && error.contains("projection"),
        "{error}"
    );
}

#[test]
fn random_graphs_are_refused_by_name() {
    let nodes = [
        node("RandomUniformLike", "pixel_values", "noise", &[]),
        node_of("Add", &["pixel_values", "noise"], "sum", &[]),
        node("Flatten", "sum", "image_embeds", &[]),
    ];
    let outputs = [Tensor("image_embeds", FLOAT32, &["n", "12"])];
    let onnx = graph(&nodes, &[pixels(FLOAT32, &ANY)], &outputs);
    let error = run(SPEC, &onnx, &TWO).unwrap_err().to_string();
    assert!(
        error.contains("RandomUniformLike") && error.contains("hint"),
        "{error}"
    );
    // A Dropout in training mode, and one that is not.
    for (training, is_refused) in [(1, true), (0, false)] {
        let half = weights("half", &[1], Weights::Inside(&[0.5]));
        let scalars = [
            half,
            integers("number", &[training]),
            integers("scalar", &[]),
        ];
        let nodes = [
            node_of("Reshape", &["half", "scalar"], "ratio", &[]),
            node_of("Reshape", &["number", "scalar"], "one", &[]),
            node("Cast", "one", "training", &[int("to", BOOL)]),
            node_of(
                "Dropout",
                &["pixel_values", "ratio", "training"],
                "some",
                &[],
            ),
            node("Flatten", "some", "image_embeds", &[]),
        ];
        let onnx = graph_with(&nodes, &scalars, &[pixels(FLOAT32, &ANY)], &outputs);
        match run(SPEC, &onnx, &TWO) {
            Ok(output) => assert!(!is_refused && output == TWO),
            Err(e) => assert!(is_refused && e.to_string().contains("Dropout"), "{e}"),
        }
    }
}

#[test]
fn a_model_is_checked_before_it_works() {
    let session = |model: Result<Model>| model?.session(1).map(drop);
    // Its embeddings depend on the text.
    let inputs = [
        Tensor("input_ids", INT64, &["n", "12"]),
        pixels(FLOAT32, &ANY),
    ];
    let outputs = [Tensor("image_embeds", FLOAT32, &["n", "12"])];
    let nodes = [
        node("Cast", "input_ids", "numbers", &[int("to", FLOAT32)]),
        node("Flatten", "pixel_values", "flat", &[]),
        node_of("Add", &["flat", "numbers"], "image_embeds", &[]),
    ];
    let error = session(model(SPEC, &graph(&nodes, &inputs, &outputs))).unwrap_err();
    assert!(error.to_string().contains("depend on the text"), "{error}");
    // Its numbers are not finite.
    let nodes = [
        node("Flatten", "pixel_values", "flat", &[]),
        node_of("Sub", &["flat", "flat"], "zero", &[]),
        node_of("Div", &["zero", "zero"], "image_embeds", &[]),
    ];
    let onnx = graph(&nodes, &[pixels(FLOAT32, &ANY)], &outputs);
    let error = session(model(SPEC, &onnx)).unwrap_err();
    assert!(error.to_string().contains("not finite"), "{error}");
    // It has fewer labels than outputs.
    let two = classifier(r#"{"id2label": {"0": "sfw", "1": "nsfw"}}"#);
    let error = session(two).unwrap_err();
    assert!(error.to_string().contains("2 labels"), "{error}");
}

#[test]
fn a_classifier_is_known_by_its_configuration() {
    let mean = [ints("axes", &[2, 3]), int("keepdims", 0)];
    let find = |output: &str, width: &str, config: &str| {
        let onnx = graph(
            &[node("ReduceMean", "pixel_values", output, &mean)],
            &[pixels(FLOAT32, &ANY)],
            &[Tensor(output, FLOAT32, &["n", width])],
        );
        let processor =
            br#"{"image_processor_type": "ViTImageProcessor", "size": {"height": 2, "width": 2}}"#;
        let config = config.as_bytes();
        let files: [(&str, &[u8]); 3] = [
            ("model.onnx", &onnx),
            ("preprocessor_config.json", processor),
            ("config.json", config),
        ];
        find(&files).unwrap().spec.kind
    };
    let labels = r#"{"architectures": ["ViTForImageClassification"],
        "id2label": {"0": "a", "1": "b", "2": "c"}}"#;
    let timm = r#"{"num_classes": 3}"#;
    for config in [labels, timm] {
        for (output, width) in [("output", "3"), ("linear_42", "w"), ("probs", "w")] {
            assert_eq!(
                find(output, width, config),
                Kind::Classifier,
                "{output} {width}"
            );
        }
        // The same checkpoint without its head.
        assert_eq!(find("pooler_output", "w", config), Kind::Embedder);
        assert_eq!(find("output", "4", config), Kind::Embedder);
    }
    let softmax = graph(
        &[
            node("ReduceMean", "pixel_values", "means", &mean),
            node("Softmax", "means", "probs", &[]),
        ],
        &[pixels(FLOAT32, &ANY)],
        &[Tensor("probs", FLOAT32, &["n", "3"])],
    );
    let spec = SPEC.replace(
        "kind = 'embedder'",
        "kind = 'classifier'\nactivation = 'softmax'\nscore = { column = 0 }",
    );
    let error = run(&spec, &softmax, &TWO).unwrap_err().to_string();
    assert!(error.contains("probabilities already"), "{error}");
    let plain = r#"{"architectures": ["ViTModel"]}"#;
    assert_eq!(find("output", "3", plain), Kind::Embedder);
}

/// A classifier whose three numbers are the means of the channels.
fn classifier(config: &str) -> Result<Model> {
    let mean = [ints("axes", &[2, 3]), int("keepdims", 0)];
    let onnx = graph(
        &[node("ReduceMean", "pixel_values", "logits", &mean)],
        &[pixels(FLOAT32, &ANY)],
        &[Tensor("logits", FLOAT32, &["n", "3"])],
    );
    let processor =
        br#"{"image_processor_type": "ViTImageProcessor", "size": {"height": 2, "width": 2}}"#;
    find(&[
        ("model.onnx", &onnx),
        ("preprocessor_config.json", processor),
        ("config.json", config.as_bytes()),
    ])
}

#[test]
fn a_classifier_needs_no_file_where_its_labels_say_enough() {
    let config = r#"{"id2label": {"0": "sfw", "1": "porn", "2": "hentai"}}"#;
    let model = classifier(config).unwrap();
    model.require(&[Kind::Classifier], "--model").unwrap();
    model.check().unwrap();
    let preprocess = model.spec.preprocess.as_ref().unwrap();
    let logits = [0.0, 1.0, 2.0];
    let tensor: Vec<f32> = logits.iter().flat_map(|&value| [value; 4]).collect();
    let output = model
        .session(1)
        .unwrap()
        .run(&preprocess.tensor_shape(1), &tensor)
        .unwrap();
    let score = model.spec.scores(output, 1).unwrap();
    let exp = logits.map(f32::exp);
    let expected = (exp[1] + exp[2]) / exp.iter().sum::<f32>();
    assert!(
        (score[0] - expected).abs() < 1e-6 && score.len() == 1,
        "{score:?}"
    );

    let error = model
        .require(&[Kind::Embedder], "--model")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("classifier") && error.contains("feature-extraction"),
        "{error}"
    );
    let generic = r#"{"id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}}"#;
    let model = classifier(generic).unwrap();
    let error = model
        .require(&[Kind::Classifier], "--model")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("LABEL_1") && error.contains("model.toml"),
        "{error}"
    );
    let two = classifier(r#"{"id2label": {"0": "sfw", "1": "nsfw"}}"#).unwrap();
    let error = two.check().unwrap_err().to_string();
    assert!(
        error.contains("3 values") && error.contains("2 labels"),
        "{error}"
    );
}

#[test]
fn rows_that_are_quantised_together_do_not_change_each_other() {
    let quantised = ["quantised", "scale", "zero"];
    for rows in ["n", "3"] {
        let onnx = graph(
            &[
                node_with("DynamicQuantizeLinear", &["pixel_values"], &quantised, &[]),
                node_of("DequantizeLinear", &quantised, "coarse", &[]),
                node("Flatten", "coarse", "image_embeds", &[]),
            ],
            &[pixels(FLOAT32, &[rows, "3", "2", "2"])],
            &[Tensor("image_embeds", FLOAT32, &[rows, "12"])],
        );
        let small: Vec<f32> = (0..12).map(|i| i as f32 / 10.0).collect();
        let large: Vec<f32> = (0..12).map(|i| i as f32 * 20.0).collect();
        let alone = run(SPEC, &onnx, &small).unwrap();
        let batch = [small.clone(), large.clone(), small].concat();
        let together = run(SPEC, &onnx, &batch).unwrap();
        assert_eq!(together[..12], alone);
        assert_eq!(together[24..], alone);
        assert_eq!(together[12..24], run(SPEC, &onnx, &large).unwrap());
    }
}
