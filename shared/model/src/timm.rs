//! The preprocessing of timm's models, from the `config.json` of their repositories.
//!
//! Source: timm 1.0, `data/config.py` (`resolve_data_config`) and `data/transforms_factory.py`
//! (`transforms_imagenet_eval`). The transforms are torchvision's, on Pillow images.

use serde_json::{Map, Value};
use sluice_pixels::{Center, Crop, Filter, Preprocess, Resize};

use crate::keys::{Keys, pixels};
use crate::processors::IMAGENET;

/// Keys that change no pixel.
const HARMLESS: [&str; 38] = [
    "url",
    "file",
    "hf_hub_id",
    "hf_hub_filename",
    "source",
    "architecture",
    "tag",
    "custom_load",
    "test_input_size",
    "min_input_size",
    "fixed_input_size",
    "test_crop_pct",
    "num_classes",
    "num_features",
    "global_pool",
    "label_offset",
    "label_names",
    "label_descriptions",
    "labels",
    "pool_size",
    "test_pool_size",
    "first_conv",
    "classifier",
    "license",
    "description",
    "origin_url",
    "paper_name",
    "paper_ids",
    "notes",
    "state_dict",
    "has_pool",
    "is_hub_pretrained",
    "model_args",
    "pretrained",
    "pruned",
    "test_time_pool",
    "model_type",
    "transformers_version",
];

/// Returns the part of a `config.json` that states the preprocessing, where it is timm's.
pub(crate) fn pretrained_cfg(config: &Map<String, Value>) -> Option<&Map<String, Value>> {
    let nested = config.get("pretrained_cfg").and_then(Value::as_object);
    // The old form has all keys at the top.
    let is_old = config.contains_key("architecture") && config.contains_key("input_size");
    nested.or(is_old.then_some(config))
}

/// Reads a `pretrained_cfg`.
pub(crate) fn preprocess(config: &Map<String, Value>) -> Result<Preprocess, String> {
    let mut keys = Keys::new(config);
    let (width, height) = match keys.get("input_size") {
        None => (224, 224),
        Some(value) => input_size(value)?,
    };
    let crop_pct = match keys.number("crop_pct", 0.875)? {
        0.0 => 0.875,
        crop_pct => crop_pct,
    };
    let scaled = |side: u32| (f64::from(side) / crop_pct).floor() as u32;
    let (wide, high) = (scaled(width), scaled(height));
    let resize = match keys.text("crop_mode", "center")? {
        "squash" => Resize::Exact {
            width: wide,
            height: high,
        },
        "center" if width == height => Resize::ShortestEdge(wide),
        "center" => return Err("input_size is not a square".to_owned()),
        other => return Err(format!("crop_mode {other:?} is not supported")),
    };
    let filter = match keys.text("interpolation", "bicubic")? {
        "nearest" => Filter::Nearest,
        "bilinear" => Filter::Bilinear,
        "" | "bicubic" => Filter::Bicubic,
        "box" => Filter::Box,
        "lanczos" => Filter::Lanczos,
        other => return Err(format!("interpolation {other:?} is not supported")),
    };
    let mut preprocess = Preprocess::new(resize, filter);
    preprocess.crop = Some(Crop { width, height });
    preprocess.center = Center::Torchvision;
    preprocess.mean = keys.channels("mean", IMAGENET.0)?;
    preprocess.std = keys.channels("std", IMAGENET.1)?;
    keys.ignore(&HARMLESS);
    keys.finish()?;
    Ok(preprocess)
}

/// Reads channels, height and width.
fn input_size(value: &Value) -> Result<(u32, u32), String> {
    match value.as_array().map(Vec::as_slice) {
        Some([channels, height, width]) if channels.as_u64() == Some(3) => {
            Ok((pixels("input_size", width)?, pixels("input_size", height)?))
        }
        _ => Err(format!(
            "input_size is {value}, expected 3, height and width"
        )),
    }
}
