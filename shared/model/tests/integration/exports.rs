//! Preprocessing against what transformers, timm and open_clip make of the same pictures.
//!
//! `tests/models/table.py --references` wrote the references: for each configuration the bytes of the
//! pixels of three computed pictures, and what turns a byte into a number of the tensor.

use serde_json::Value;
use sluice_model::Model;
use sluice_pixels::RgbImage;
use sluice_testkit::onnx::{FLOAT32, Tensor, graph, node};

use crate::place::find;

const CASES: &str = include_str!("../references/cases.json");
const PIXELS: &[u8] = include_bytes!("../references/pixels.bin");

fn picture(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        [(x * 7 + y * 3) as u8, (x * x / 50 + y) as u8, (x ^ y) as u8]
    })
}

/// A graph that takes pictures of any size.
fn any_graph() -> Vec<u8> {
    graph(
        &[node("Flatten", "pixel_values", "image_embeds", &[])],
        &[Tensor("pixel_values", FLOAT32, &["n", "3", "h", "w"])],
        &[Tensor("image_embeds", FLOAT32, &["n", "d"])],
    )
}

fn described_by(files: &Value) -> sluice_manifest::Result<Model> {
    let onnx = any_graph();
    let texts: Vec<(&String, String)> = files
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, content)| (name, content.to_string()))
        .collect();
    let mut all: Vec<(&str, &[u8])> = vec![("model.onnx", &onnx)];
    all.extend(
        texts
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_bytes())),
    );
    find(&all)
}

fn numbers(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it.as_f64().unwrap())
        .collect()
}

#[test]
fn tensors_are_those_of_the_libraries() {
    let all: Value = serde_json::from_str(CASES).unwrap();
    let pictures: Vec<RgbImage> = all["pictures"]
        .as_array()
        .unwrap()
        .iter()
        .map(numbers)
        .map(|size| picture(size[0] as u32, size[1] as u32))
        .collect();
    let mut pixels = PIXELS;
    let mut wrong = Vec::new();
    for case in all["cases"].as_array().unwrap() {
        let model =
            described_by(&case["files"]).unwrap_or_else(|e| panic!("{}: {e}", case["name"]));
        let preprocess = model.spec.preprocess.unwrap();
        let shape: Vec<f64> = preprocess.tensor_shape(1)[1..]
            .iter()
            .map(|&it| it as f64)
            .collect();
        assert_eq!(shape, numbers(&case["shape"]), "{}", case["name"]);
        let (factor, summand) = (numbers(&case["factor"]), numbers(&case["summand"]));
        for image in &pictures {
            let mut tensor = vec![0.0; preprocess.tensor_len()];
            preprocess.tensor(image, &mut tensor);
            let (expected, rest) = pixels.split_at(tensor.len());
            pixels = rest;
            let plane = tensor.len() / 3;
            let number =
                |at: usize| f64::from(expected[at]) * factor[at / plane] + summand[at / plane];
            let steps =
                |at: usize| ((f64::from(tensor[at]) - number(at)) / factor[at / plane]).abs();
            let furthest = (0..tensor.len()).map(steps).fold(0.0, f64::max);
            if furthest > 1e-2 {
                let size = (image.width, image.height);
                wrong.push(format!("{} {size:?}: by {furthest:.2}", case["name"]));
            }
        }
    }
    assert!(pixels.is_empty());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_cannot_be_reproduced_is_refused_by_name() {
    let vit = |keys: &str| {
        format!(
            r#"{{"preprocessor_config.json": {{"image_processor_type": "ViTImageProcessor",
            "size": {{"height": 8, "width": 8}}, {keys}}}}}"#
        )
    };
    let processor = |text: &str| format!(r#"{{"preprocessor_config.json": {text}}}"#);
    let timm = |keys: &str| {
        format!(r#"{{"config.json": {{"pretrained_cfg": {{"input_size": [3, 8, 8], {keys}}}}}}}"#)
    };
    let cases = [
        (vit(r#""do_blur": true"#), "do_blur"),
        (vit(r#""do_pad": true"#), "do_pad"),
        (vit(r#""do_resize": false"#), "do_resize"),
        (vit(r#""resample": 5"#), "resample"),
        (vit(r#""image_mean": [0.5]"#), "image_mean"),
        (vit(r#""do_resize": null"#), "do_resize"),
        (vit(r#""resample": null"#), "resample"),
        (vit(r#""rescale_factor": null"#), "rescale_factor"),
        (
            processor(r#"{"image_processor_type": "ViTImageProcessorFast", "image_mean": null}"#),
            "image_mean",
        ),
        (
            processor(
                r#"{"image_processor_type": "ViTImageProcessorFast", "size": 8,
                "default_to_square": false}"#,
            ),
            "default_to_square",
        ),
        (
            processor(
                r#"{"image_processor_type": "CLIPImageProcessorFast", "size": 8, "crop_size": 8,
                "default_to_square": true}"#,
            ),
            "default_to_square",
        ),
        (vit(r#""rescale_factor": "x""#), "rescale_factor"),
        (
            processor(r#"{"image_processor_type": "DPTImageProcessor"}"#),
            "DPTImageProcessor",
        ),
        (
            processor(r#"{"size": 8, "resample": 3}"#),
            "image_processor_type",
        ),
        (
            processor(r#"{"image_processor_type": "SiglipImageProcessor", "size": 8}"#),
            "height and width",
        ),
        (
            processor(
                r#"{"image_processor_type": "CLIPImageProcessor", "do_center_crop": false,
                "size": {"shortest_edge": 8}}"#,
            ),
            "shortest edge",
        ),
        (
            processor(
                r#"{"image_processor_type": "CLIPImageProcessor",
                "size": {"shortest_edge": 8, "longest_edge": 9}}"#,
            ),
            "longest_edge",
        ),
        (
            processor(r#"{"image_processor_type": "CLIPImageProcessorFast", "resample": 1}"#),
            "resample",
        ),
        // 2^32 + 32 would be 32 in 32 bits.
        (vit(r#""size": 4294967328"#), "4294967328"),
        (vit(r#""size": -8"#), "-8"),
        (vit(r#""size": 0"#), "resize"),
        (vit(r#""size": 16385"#), "resize"),
        (vit(r#""size": {"height": 8, "width": 8.5}"#), "size.width"),
        (timm(r#""crop_mode": "border""#), "border"),
        (timm(r#""interpolation": "random""#), "random"),
        (timm(r#""sharpen": 2"#), "sharpen"),
        (timm(r#""input_size": [1, 8, 8]"#), "input_size"),
        (
            r#"{"open_clip_config.json": {"preprocess_cfg": {"resize_mode": "longest"}}}"#
                .to_owned(),
            "longest",
        ),
        (
            r#"{"open_clip_config.json": {},
            "config.json": {"pretrained_cfg": {"input_size": [3, 8, 8]}}}"#
                .to_owned(),
            "another preprocessing",
        ),
    ];
    for (files, named) in cases {
        let files = serde_json::from_str(&files).unwrap();
        let error = described_by(&files)
            .map(|it| it.spec)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(named) && error.contains("hint"),
            "{named}: {error}"
        );
    }
}

#[test]
fn null_is_false() {
    let preprocess = |class: &str, keys: &str| {
        let processor = format!(
            r#"{{"preprocessor_config.json": {{"image_processor_type": "{class}",
            "size": {{"height": 8, "width": 8}}, {keys}}}}}"#
        );
        let files = serde_json::from_str(&processor).unwrap();
        described_by(&files).unwrap().spec.preprocess.unwrap()
    };
    let named = ["ImageProcessor", "ImageProcessorFast"];
    for end in named {
        for class in ["ViT", "CLIP", "EfficientNet", "MobileViT"] {
            let class = format!("{class}{end}");
            for key in [
                "do_normalize",
                "do_rescale",
                "do_center_crop",
                "do_flip_channel_order",
                "include_top",
                "rescale_offset",
            ] {
                let with = |value: &str| preprocess(&class, &format!(r#""{key}": {value}"#));
                assert_eq!(with("null"), with("false"), "{class} {key}");
            }
        }
    }
    let with = |keys: &str| preprocess("ViTImageProcessor", keys);
    assert_ne!(with(r#""do_rescale": null"#), with(r#""do_rescale": true"#));
    assert_eq!(with(r#""image_mean": null"#), with(r#""do_rescale": true"#));
}

#[test]
fn defaults_depend_on_the_class_and_the_model_type() {
    let preprocess = |files: &str| {
        let files = serde_json::from_str(files).unwrap();
        described_by(&files).unwrap().spec
    };
    let named = preprocess(
        r#"{"preprocessor_config.json": {"size": 8, "resample": 3},
        "config.json": {"model_type": "swin"}}"#,
    );
    assert_eq!(named.preprocess.as_ref().unwrap().output_size(), (8, 8));
    assert_eq!(named.preprocess.unwrap().mean, [0.5; 3]);
    assert_eq!(named.pooling, Some(sluice_model::Pooling::Mean));
    let pooling = |model: &str| {
        preprocess(&format!(
            r#"{{"preprocessor_config.json": {{"image_processor_type": "ViTImageProcessor"}},
            "config.json": {{"model_type": "{model}"}}}}"#
        ))
        .pooling
    };
    for model in ["pvt", "dinov3_convnext"] {
        assert_eq!(pooling(model), Some(sluice_model::Pooling::Cls), "{model}");
    }
    for model in ["convnext", "convnextv2", "hiera", "poolformer", "vit_mae"] {
        assert_eq!(pooling(model), None, "{model}");
    }
    let large = preprocess(
        r#"{"preprocessor_config.json": {"image_processor_type": "ConvNextImageProcessor", "size": 384}}"#,
    );
    let large = large.preprocess.unwrap();
    assert_eq!((large.output_size(), large.crop), ((384, 384), None));
    let nested = preprocess(
        r#"{"processor_config.json": {"image_processor": {"image_processor_type": "ViTImageProcessor"}}}"#,
    );
    assert_eq!(nested.preprocess.unwrap().output_size(), (224, 224));
}
