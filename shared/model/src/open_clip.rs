//! The preprocessing of open_clip's models, from their `open_clip_config.json`.
//!
//! Source: open_clip 3.2, `factory.py` (the image size is the vision tower's) and `transform.py`
//! (`image_transform`). The transforms are torchvision's, on Pillow images.

use serde_json::{Map, Value};
use sluice_pixels::{Center, Crop, Filter, Preprocess, Resize};

use crate::keys::{Keys, pixels};
use crate::processors::CLIP;

/// Reads an `open_clip_config.json`.
pub(crate) fn preprocess(config: &Map<String, Value>) -> Result<Preprocess, String> {
    let empty = Map::new();
    let part = config.get("preprocess_cfg").and_then(Value::as_object);
    let mut keys = Keys::new(part.unwrap_or(&empty));
    let vision = config
        .get("model_cfg")
        .and_then(|model| model.get("vision_cfg"));
    let stated = keys.get("size");
    let size = vision
        .and_then(|vision| vision.get("image_size"))
        .or(stated);
    let (width, height) = match size {
        None => (224, 224),
        Some(value) => image_size(value)?,
    };
    let (resize, crop) = match keys.text("resize_mode", "shortest")? {
        "squash" => (Resize::Exact { width, height }, None),
        "shortest" if width == height => (Resize::ShortestEdge(width), Some(Crop::square(width))),
        "shortest" => return Err("image_size is not a square".to_owned()),
        other => return Err(format!("resize_mode {other:?} is not supported")),
    };
    let filter = match keys.text("interpolation", "bicubic")? {
        "bilinear" => Filter::Bilinear,
        // At inference open_clip takes bicubic for "random".
        "bicubic" | "random" => Filter::Bicubic,
        other => return Err(format!("interpolation {other:?} is not supported")),
    };
    if keys.text("mode", "RGB")? != "RGB" {
        return Err("mode is not RGB".to_owned());
    }
    let mut preprocess = Preprocess::new(resize, filter);
    preprocess.crop = crop;
    preprocess.center = Center::Torchvision;
    preprocess.mean = keys.channels("mean", CLIP.0)?;
    preprocess.std = keys.channels("std", CLIP.1)?;
    keys.ignore(&["fill_color"]);
    keys.finish()?;
    Ok(preprocess)
}

/// Reads a number of pixels, or height and width.
fn image_size(value: &Value) -> Result<(u32, u32), String> {
    match value.as_array().map(Vec::as_slice) {
        None => {
            let side = pixels("image_size", value)?;
            Ok((side, side))
        }
        Some([height, width]) => Ok((pixels("image_size", width)?, pixels("image_size", height)?)),
        Some(_) => Err(format!("image_size is {value}, expected height and width")),
    }
}
