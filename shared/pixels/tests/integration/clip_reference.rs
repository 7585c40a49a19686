//! Compares preprocessed pixels with transformers' CLIP processor and the EfficientNet-Lite0
//! reference. They are equal, including lossy formats: Pillow and this crate decode JPEG with
//! libjpeg-turbo, and the WebP decoder matches libwebp.

use sluice_pixels::{Limits, Preprocess, RgbImage, decode};

use crate::npy::Npy;

const CLIP: &str = r#"
    resize = { shortest-edge = 224 }
    filter = "bicubic"
    crop = { width = 224, height = 224 }
    mean = [0.48145466, 0.4578275, 0.40821073]
    std = [0.26862954, 0.26130258, 0.27577711]
"#;

const EFFICIENTNET_LITE0: &str = r#"
    resize = { shortest-edge = 256 }
    filter = "bicubic"
    crop = { width = 224, height = 224 }
    rescale = 1.0
    mean = [127.0, 127.0, 127.0]
    std = [128.0, 128.0, 128.0]
"#;

fn spec(text: &str) -> Preprocess {
    let spec: Preprocess = toml::from_str(text).unwrap();
    assert_eq!(spec.validate(), Ok(()));
    let again = toml::to_string(&spec).unwrap();
    assert_eq!(toml::from_str::<Preprocess>(&again).unwrap(), spec);
    spec
}

/// Returns the name of every row, and the image to preprocess.
fn rows(fixtures: &std::path::Path) -> Vec<(String, Option<RgbImage>)> {
    let folder = fixtures.join("clip-reference");
    let index = std::fs::read_to_string(folder.join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    let items = index["items"].as_array().unwrap();
    items
        .iter()
        .enumerate()
        .map(|(row, item)| {
            assert_eq!(item["row"], row);
            let name = item["name"].as_str().unwrap();
            let bytes = std::fs::read(folder.join(item["file"].as_str().unwrap())).unwrap();
            let decoded = decode(&bytes, &Limits::default()).unwrap();
            assert_eq!(decoded.image.width, item["stored_width"], "{name}");
            assert_eq!(decoded.image.height, item["stored_height"], "{name}");
            let image = match (item["exif_applied"].as_bool(), item["alpha"].as_str()) {
                (_, Some("dropped")) => None, // transformers 4's rule, not ours
                (Some(true), _) => Some(decoded.upright()),
                _ => Some(decoded.image),
            };
            (name.to_owned(), image)
        })
        .collect()
}

fn compare(spec: &Preprocess, reference: &Npy, rows: &[(String, Option<RgbImage>)]) {
    assert_eq!(reference.shape[0], rows.len());
    let mut failed = Vec::new();
    let mut compared = 0;
    for (row, (name, image)) in rows.iter().enumerate() {
        let Some(image) = image else { continue };
        compared += 1;
        let got = spec.pixels(image);
        assert_eq!((got.width, got.height), spec.output_size());
        let want = reference.pixels(row);
        let differences = || got.data.iter().zip(&want).map(|(a, b)| a.abs_diff(*b));
        if let Some(largest) = differences().filter(|&d| d > 0).max() {
            let count = differences().filter(|&d| d > 0).count();
            failed.push(format!("{name}: {count} values differ, by up to {largest}"));
        }
    }
    assert_eq!(compared, 31); // 33 rows, two of them with alpha dropped
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn clip_pixels_are_the_processors_own() {
    let Some(fixtures) = sluice_testkit::fixtures() else {
        return;
    };
    let reference = Npy::read(&fixtures.join("clip-reference/preprocessed_u8.npy"));
    compare(&spec(CLIP), &reference, &rows(&fixtures));
}

#[test]
fn efficientnet_pixels_are_the_references() {
    let Some(fixtures) = sluice_testkit::fixtures() else {
        return;
    };
    let file = "reference-scores/effnet_lite0_preprocessed_u8.npy";
    let reference = Npy::read(&fixtures.join(file));
    compare(&spec(EFFICIENTNET_LITE0), &reference, &rows(&fixtures));
}
