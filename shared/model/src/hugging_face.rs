//! The spec of a Hugging Face export, from its `preprocessor_config.json`.
//!
//! The fields are those of transformers' image processors (`size`, `crop_size`, `resample`, `do_*`,
//! `image_mean`, `image_std`, `rescale_factor`); `resample` counts Pillow's filters.

use serde::Deserialize;
use serde_json::Value;
use sluice_manifest::{Error, Result};
use sluice_pixels::{Channels, Crop, Filter, Layout, Preprocess, Resize};

use crate::spec::{Kind, Spec};

#[derive(Deserialize)]
struct Config {
    do_resize: Option<bool>,
    size: Option<Value>,
    resample: Option<u32>,
    do_center_crop: Option<bool>,
    crop_size: Option<Value>,
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
    let side = |name: &str, value: &Value| {
        let side = value.as_u64().and_then(|side| u32::try_from(side).ok());
        side.ok_or_else(|| wrong(&format!("{name} is {value}, expected a number of pixels")))
    };
    let sides = |name: &str, value: &Value| match (value.get("width"), value.get("height")) {
        (Some(width), Some(height)) => Ok((
            side(&format!("{name}.width"), width)?,
            side(&format!("{name}.height"), height)?,
        )),
        _ => Err(wrong(&format!("{name} is of no known form"))),
    };
    let size = config.size.ok_or_else(|| wrong("size is missing"))?;
    let resize = match size.get("shortest_edge") {
        Some(edge) => Resize::ShortestEdge(side("size.shortest_edge", edge)?),
        None if size.is_number() => Resize::ShortestEdge(side("size", &size)?),
        None => {
            let (width, height) = sides("size", &size)?;
            Resize::Exact { width, height }
        }
    };
    let crop = match (&config.crop_size, config.do_center_crop) {
        (Some(crop), Some(true) | None) if crop.is_number() => {
            Some(Crop::square(side("crop_size", crop)?))
        }
        (Some(crop), Some(true) | None) => {
            let (width, height) = sides("crop_size", crop)?;
            Some(Crop { width, height })
        }
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
    fn numbers_out_of_range_are_refused() {
        let of = |size: &str, crop: &str| {
            let json = format!(
                r#"{{"size": {size}, "crop_size": {crop}, "resample": 3, "rescale_factor": 0.5}}"#
            );
            spec(json.as_bytes(), "x", "x")
                .map(|_| ())
                .map_err(|e| e.to_string())
        };
        assert_eq!(of("8", "8"), Ok(()));
        assert_eq!(
            of(r#"{"shortest_edge": 8}"#, r#"{"width": 8, "height": 4}"#),
            Ok(())
        );
        // 2^32 + 32 would be 32 as 32 bits.
        for wrong in ["4294967328", "-8", "0", "1e300", "8.5", "16385"] {
            for (size, crop) in [
                (wrong.to_owned(), "8".to_owned()),
                ("8".to_owned(), wrong.to_owned()),
                (format!(r#"{{"shortest_edge": {wrong}}}"#), "8".to_owned()),
                (
                    format!(r#"{{"width": {wrong}, "height": 8}}"#),
                    "8".to_owned(),
                ),
                (
                    format!(r#"{{"width": 8, "height": {wrong}}}"#),
                    "8".to_owned(),
                ),
                (
                    "8".to_owned(),
                    format!(r#"{{"width": 8, "height": {wrong}}}"#),
                ),
                (
                    "8".to_owned(),
                    format!(r#"{{"width": {wrong}, "height": 8}}"#),
                ),
            ] {
                assert!(of(&size, &crop).is_err(), "size {size}, crop_size {crop}");
            }
        }
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
