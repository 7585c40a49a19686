//! The spec of a Hugging Face export, from its `preprocessor_config.json`.
//!
//! The fields are those of transformers' image processors (`size`, `crop_size`, `resample`, `do_*`,
//! `image_mean`, `image_std`, `rescale_factor`); `resample` counts Pillow's filters.

use serde::Deserialize;
use sluice_manifest::{Error, Result};
use sluice_pixels::{Channels, Crop, Filter, Layout, Preprocess, Resize};

use crate::spec::{Kind, Spec};

#[derive(Deserialize)]
struct Config {
    do_resize: Option<bool>,
    size: Option<serde_json::Value>,
    resample: Option<u32>,
    do_center_crop: Option<bool>,
    crop_size: Option<serde_json::Value>,
    do_rescale: Option<bool>,
    rescale_factor: Option<f64>,
    do_normalize: Option<bool>,
    image_mean: Option<[f64; 3]>,
    image_std: Option<[f64; 3]>,
}

/// Makes the spec of an embedder called `name`; `place` names the file in errors.
pub(crate) fn spec(json: &[u8], name: &str, place: &str) -> Result<Spec> {
    let wrong = |what: &str| {
        Error::usage(format!("{place}: {what}")).hint("write a model.toml beside the ONNX file")
    };
    let config: Config = serde_json::from_slice(json).map_err(|e| wrong(&e.to_string()))?;
    if config.do_resize == Some(false) {
        return Err(wrong(
            "do_resize is false, but a model's input has one size",
        ));
    }
    let number = |value: &serde_json::Value, key: &str| value.get(key)?.as_u64()?.try_into().ok();
    let size = config.size.ok_or_else(|| wrong("size is missing"))?;
    let resize = match (size.as_u64(), number(&size, "shortest_edge")) {
        (Some(edge), _) => Resize::ShortestEdge(edge as u32),
        (None, Some(edge)) => Resize::ShortestEdge(edge),
        (None, None) => Resize::Exact {
            width: number(&size, "width").ok_or_else(|| wrong("size is of no known form"))?,
            height: number(&size, "height").ok_or_else(|| wrong("size is of no known form"))?,
        },
    };
    let crop = match (&config.crop_size, config.do_center_crop) {
        (Some(crop), Some(true) | None) => Some(match crop.as_u64() {
            Some(side) => Crop::square(side as u32),
            None => Crop {
                width: number(crop, "width")
                    .ok_or_else(|| wrong("crop_size is of no known form"))?,
                height: number(crop, "height")
                    .ok_or_else(|| wrong("crop_size is of no known form"))?,
            },
        }),
        _ => None,
    };
    let filter = match config.resample {
        Some(2) => Filter::Bilinear,
        Some(3) => Filter::Bicubic,
        Some(1) => Filter::Lanczos,
        other => return Err(wrong(&format!("resample {other:?} is not known"))),
    };
    let normalize = config.do_normalize != Some(false);
    let rescale = config.do_rescale != Some(false);
    let spec = Spec {
        name: name.to_owned(),
        kind: Kind::Embedder,
        licence: String::new(),
        origin: "Hugging Face export".to_owned(),
        sha256: None,
        sha256_int8: None,
        input: None,
        output: None,
        dimension: None,
        embedder: None,
        preprocess: Some(Preprocess {
            resize,
            filter,
            crop,
            jpeg_round_trip: None,
            rescale: if rescale {
                config.rescale_factor.unwrap_or(1.0 / 255.0)
            } else {
                1.0
            },
            mean: config.image_mean.filter(|_| normalize).unwrap_or([0.0; 3]),
            std: config.image_std.filter(|_| normalize).unwrap_or([1.0; 3]),
            layout: Layout::Nchw,
            channels: Channels::Rgb,
        }),
        score: None,
        scores: Vec::new(),
    };
    spec.check(place)?;
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clips_config_gives_clips_spec() {
        let json = r#"{"crop_size": {"height": 224, "width": 224}, "do_center_crop": true,
            "do_convert_rgb": true, "do_normalize": true, "do_resize": true,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "image_processor_type": "CLIPImageProcessor", "resample": 3, "size": {"shortest_edge": 224}}"#;
        let ours = crate::catalogue::named("clip-vit-l14").unwrap();
        let theirs = spec(json.as_bytes(), "x", "x").unwrap();
        assert_eq!(theirs.preprocess, ours.preprocess);
    }

    #[test]
    fn siglips_config_stretches() {
        let json = r#"{"do_resize": true, "size": {"height": 384, "width": 384}, "resample": 3,
            "rescale_factor": 0.00392156862745098, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}"#;
        let preprocess = spec(json.as_bytes(), "x", "x").unwrap().preprocess.unwrap();
        assert_eq!(
            preprocess.resize,
            Resize::Exact {
                width: 384,
                height: 384
            }
        );
        assert_eq!(preprocess.crop, None);
    }
}
