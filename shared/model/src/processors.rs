//! The image processors of transformers: their defaults, and what a key of their configuration means.
//!
//! A configuration names its class (`image_processor_type`, formerly `feature_extractor_type`). The
//! same key means different things to different classes: an integer `size` is the shortest edge for
//! CLIP and a square for ViT; ConvNeXt divides it by `crop_pct`. Each class exists in two variants:
//! the original one resizes with Pillow, the one whose name ends in `Fast` with torchvision.
//!
//! Source: transformers 4.57, `models/*/image_processing_*.py` and `image_processing_utils_fast.py`.

use serde_json::Value;
use sluice_pixels::{Center, Channels, Crop, Filter, Preprocess, Resampler, Resize};

use crate::keys::{Keys, pixels};

/// `OPENAI_CLIP_MEAN` and `OPENAI_CLIP_STD`.
pub(crate) const CLIP: Normal = (
    [0.481_454_66, 0.457_827_5, 0.408_210_73],
    [0.268_629_54, 0.261_302_58, 0.275_777_11],
);
/// `IMAGENET_DEFAULT_MEAN` and `IMAGENET_DEFAULT_STD`.
pub(crate) const IMAGENET: Normal = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
/// `IMAGENET_STANDARD_MEAN` and `IMAGENET_STANDARD_STD`.
const HALF: Normal = ([0.5; 3], [0.5; 3]);

/// Mean and standard deviation of the channels.
pub(crate) type Normal = ([f64; 3], [f64; 3]);

/// A class of processors.
#[derive(Debug, Clone, Copy)]
struct Class {
    /// The name, without `ImageProcessor`.
    name: &'static str,
    size: Size,
    /// Pillow's number of the filter.
    resample: u64,
    /// Whether the class crops by default, and to which square; `None` if it never crops.
    crop: Option<(bool, u32)>,
    /// None: it never normalises.
    normal: Option<Normal>,
    /// Forms of `size` that the class takes.
    forms: Forms,
    rule: Rule,
}

/// A size where none is given.
#[derive(Debug, Clone, Copy)]
enum Size {
    Edge(u32),
    Square(u32),
}

/// Forms of `size` that a class takes, and what an integer means to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Forms {
    /// Height and width, or an integer for both.
    Square,
    /// The shortest edge, or an integer for it.
    Edge,
    /// The shortest edge, an integer for it, or height and width.
    Both,
    /// Height and width only.
    Pair,
}

/// What a class does in addition to resizing, cropping and normalising.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Plain,
    /// Below 384, resizes to `size / crop_pct` and crops; from 384 on, resizes to a square.
    ConvNext,
    /// Resizes to 256/224 of the shortest edge.
    Levit,
    /// Reverses the channels (`do_flip_channel_order`).
    MobileVit,
    /// Subtracts 1 (`rescale_offset`), and divides by the standard deviation again (`include_top`).
    EfficientNet,
}

use Forms::{Both, Edge, Pair, Square};

/// One class a line: name, `size`, `resample`, crop, mean and std, forms of `size`, rule.
#[rustfmt::skip]
static CLASSES: [Class; 14] = [
    class("CLIP",         Size::Edge(224),   3, Some((true, 224)),  Some(CLIP),     Both,   Rule::Plain),
    class("Siglip",       Size::Square(224), 3, None,               Some(HALF),     Pair,   Rule::Plain),
    class("ViT",          Size::Square(224), 2, None,               Some(HALF),     Square, Rule::Plain),
    class("DeiT",         Size::Square(256), 3, Some((true, 224)),  Some(HALF),     Square, Rule::Plain),
    class("Beit",         Size::Square(256), 3, Some((true, 224)),  Some(HALF),     Square, Rule::Plain),
    class("ConvNext",     Size::Edge(384),   2, None,               Some(HALF),     Edge,   Rule::ConvNext),
    class("Bit",          Size::Edge(224),   3, Some((true, 224)),  Some(CLIP),     Both,   Rule::Plain),
    class("EfficientNet", Size::Square(346), 0, Some((false, 289)), Some(HALF),     Square, Rule::EfficientNet),
    class("MobileNetV1",  Size::Edge(256),   2, Some((true, 224)),  Some(HALF),     Both,   Rule::Plain),
    class("MobileNetV2",  Size::Edge(256),   2, Some((true, 224)),  Some(HALF),     Both,   Rule::Plain),
    class("MobileViT",    Size::Edge(224),   2, Some((true, 256)),  None,           Both,   Rule::MobileVit),
    class("Levit",        Size::Edge(224),   3, Some((true, 224)),  Some(IMAGENET), Both,   Rule::Levit),
    class("Blip",         Size::Square(384), 3, None,               Some(CLIP),     Square, Rule::Plain),
    class("Pvt",          Size::Square(224), 2, None,               Some(IMAGENET), Square, Rule::Plain),
];

const fn class(
    name: &'static str,
    size: Size,
    resample: u64,
    crop: Option<(bool, u32)>,
    normal: Option<Normal>,
    forms: Forms,
    rule: Rule,
) -> Class {
    Class {
        name,
        size,
        resample,
        crop,
        normal,
        forms,
        rule,
    }
}

/// The class of a model type (`model_type` of `config.json`), for configurations that name none.
const CLASSES_OF_MODELS: [(&str, &[&str]); 12] = [
    (
        "CLIP",
        &[
            "clip",
            "clip_vision_model",
            "metaclip_2",
            "mlcd",
            "aimv2",
            "aimv2_vision_model",
        ],
    ),
    ("Siglip", &["siglip", "siglip_vision_model"]),
    (
        "ViT",
        &[
            "vit",
            "swin",
            "swinv2",
            "vit_mae",
            "vit_msn",
            "ijepa",
            "dinat",
            "nat",
            "swiftformer",
        ],
    ),
    ("DeiT", &["deit"]),
    ("Beit", &["beit", "data2vec-vision"]),
    (
        "ConvNext",
        &["convnext", "convnextv2", "resnet", "regnet", "cvt", "van"],
    ),
    ("Bit", &["bit", "dinov2", "hiera", "focalnet"]),
    ("EfficientNet", &["efficientnet", "align"]),
    ("MobileNetV1", &["mobilenet_v1"]),
    ("MobileNetV2", &["mobilenet_v2"]),
    ("MobileViT", &["mobilevit", "mobilevitv2"]),
    ("Levit", &["levit"]),
];

/// Keys that change no pixel, whatever their value.
const HARMLESS: [&str; 22] = [
    "image_processor_type",
    "feature_extractor_type",
    "processor_class",
    "_processor_class",
    "_valid_processor_keys",
    "transformers_version",
    "model_input_names",
    "do_convert_rgb",
    "input_data_format",
    "return_tensors",
    "device",
    "disable_grouping",
    // Read where `size` is a number.
    "default_to_square",
    "num_channels",
    "patch_size",
    "image_seq_length",
    // Keys of other classes, which a class ignores.
    "crop_pct",
    "crop_size",
    "do_center_crop",
    "do_flip_channel_order",
    "rescale_offset",
    "include_top",
];

/// A processor: a class in one of its variants.
#[derive(Debug)]
pub(crate) struct Processor {
    class: &'static Class,
    is_fast: bool,
}

impl Processor {
    /// Returns the processor of a class name such as `CLIPImageProcessorFast`.
    pub(crate) fn named(name: &str) -> Result<Self, String> {
        let (base, is_fast) = match name.strip_suffix("ImageProcessorFast") {
            Some(base) => (base, true),
            None => {
                let base = name.strip_suffix("FeatureExtractor");
                let base = base.or_else(|| name.strip_suffix("ImageProcessorPil"));
                let base = base.or_else(|| name.strip_suffix("ImageProcessor"));
                (base.unwrap_or(name), false)
            }
        };
        match CLASSES.iter().find(|class| class.name == base) {
            Some(class) => Ok(Self { class, is_fast }),
            None => Err(format!(
                "the image processor {name} is not known; known are those of {}",
                CLASSES.map(|class| class.name).join(", ")
            )),
        }
    }

    /// Returns the processor that transformers takes for a model type.
    pub(crate) fn of_model(model_type: &str) -> Option<Self> {
        let mut all = CLASSES_OF_MODELS.iter();
        let (class, _) = all.find(|(_, models)| models.contains(&model_type))?;
        Self::named(class).ok()
    }

    /// Reads a configuration.
    pub(crate) fn preprocess(&self, mut keys: Keys<'_>) -> Result<Preprocess, String> {
        if !keys.flag("do_resize", true)? {
            return Err("do_resize is false, but a model's input has one size".to_owned());
        }
        for padding in ["do_pad", "do_reduce_labels", "use_square_size"] {
            if keys.flag(padding, false)? {
                return Err(format!("{padding} is not supported"));
            }
        }
        let filter = self.filter(&mut keys)?;
        let (resize, crop) = self.geometry(&mut keys)?;
        let mut preprocess = Preprocess::new(resize, filter);
        preprocess.crop = crop;
        if self.is_fast {
            preprocess.resampler = Resampler::Torchvision;
            preprocess.center = match self.class.rule {
                Rule::ConvNext => Center::Torchvision,
                _ => Center::TransformersFast,
            };
        }
        self.normalize(&mut keys, &mut preprocess)?;
        keys.ignore(&HARMLESS);
        if keys.text("data_format", "channels_first")? != "channels_first" {
            return Err("data_format is not channels_first".to_owned());
        }
        keys.finish()?;
        Ok(preprocess)
    }

    /// Fails when a key that is needed is null. The original classes take their default for it, the
    /// fast ones fail.
    fn refuse_null(&self, keys: &Keys<'_>, key: &str) -> Result<(), String> {
        if self.is_fast && keys.is_null(key) {
            return Err(format!("{key} is null"));
        }
        Ok(())
    }

    fn filter(&self, keys: &mut Keys<'_>) -> Result<Filter, String> {
        if keys.is_null("resample") {
            return Err("resample is null".to_owned());
        }
        let number = match keys.get("resample") {
            None => Some(self.class.resample),
            Some(value) => value.as_u64(),
        };
        let filter = match number {
            Some(0) => Filter::Nearest,
            Some(1) => Filter::Lanczos,
            Some(2) => Filter::Bilinear,
            Some(3) => Filter::Bicubic,
            Some(4) => Filter::Box,
            _ => return Err("resample is no filter that is known".to_owned()),
        };
        match filter {
            Filter::Lanczos | Filter::Box if self.is_fast => Err(format!(
                "resample {} is not known to {}ImageProcessorFast",
                number.unwrap_or_default(),
                self.class.name
            )),
            filter => Ok(filter),
        }
    }

    fn geometry(&self, keys: &mut Keys<'_>) -> Result<(Resize, Option<Crop>), String> {
        let resize = self.size(keys)?;
        match (self.class.rule, resize) {
            (Rule::ConvNext, Resize::ShortestEdge(edge)) => self.conv_next(keys, edge),
            (Rule::Levit, Resize::ShortestEdge(edge)) => {
                let larger = (256.0 / 224.0 * f64::from(edge)) as u32;
                self.cropped(keys, Resize::ShortestEdge(larger))
            }
            _ => self.cropped(keys, resize),
        }
    }

    fn conv_next(&self, keys: &mut Keys<'_>, edge: u32) -> Result<(Resize, Option<Crop>), String> {
        let crop_pct = keys.number("crop_pct", 224.0 / 256.0)?;
        if self.is_fast && keys.flag("do_center_crop", false)? {
            return Err("do_center_crop is not supported with ConvNext".to_owned());
        }
        if edge >= 384 {
            let all = Resize::Exact {
                width: edge,
                height: edge,
            };
            return Ok((all, None));
        }
        self.refuse_null(keys, "crop_pct")?;
        let larger = (f64::from(edge) / crop_pct) as u32;
        if larger < edge {
            return Err(format!("crop_pct is {crop_pct}, expected at most 1"));
        }
        Ok((Resize::ShortestEdge(larger), Some(Crop::square(edge))))
    }

    /// Adds the crop from the middle.
    fn cropped(
        &self,
        keys: &mut Keys<'_>,
        resize: Resize,
    ) -> Result<(Resize, Option<Crop>), String> {
        let (crops, side) = match (self.class.crop, self.is_fast) {
            // The fast variant of BEiT has defaults of its own.
            (Some(_), true) if self.class.name == "Beit" => (false, Some(224)),
            (Some((crops, side)), _) => (crops, Some(side)),
            (None, true) => (false, None),
            (None, false) => return self.of_one_size(resize, None),
        };
        if !keys.flag("do_center_crop", crops)? {
            return self.of_one_size(resize, None);
        }
        self.refuse_null(keys, "crop_size")?;
        let crop = match keys.get("crop_size") {
            None => side.map(Crop::square),
            Some(value) => Some(crop(value)?),
        };
        match crop {
            Some(crop) => self.of_one_size(resize, Some(crop)),
            None => Err("do_center_crop is true, but crop_size is missing".to_owned()),
        }
    }

    /// Fails where pictures would have different sizes.
    fn of_one_size(
        &self,
        resize: Resize,
        crop: Option<Crop>,
    ) -> Result<(Resize, Option<Crop>), String> {
        match (resize, crop) {
            (Resize::ShortestEdge(_), None) => Err(
                "size is the shortest edge and nothing is cropped, but a model's input has one size"
                    .to_owned(),
            ),
            geometry => Ok(geometry),
        }
    }

    fn size(&self, keys: &mut Keys<'_>) -> Result<Resize, String> {
        let forms = match (self.class.forms, self.is_fast) {
            (Pair, true) => Both,
            (forms, _) => forms,
        };
        self.refuse_null(keys, "size")?;
        let Some(value) = keys.get("size") else {
            return Ok(match self.class.size {
                Size::Square(256) if self.is_fast && self.class.name == "Beit" => square(224),
                Size::Square(side) => square(side),
                Size::Edge(edge) => Resize::ShortestEdge(edge),
            });
        };
        if value.is_number() {
            let side = pixels("size", value)?;
            self.check_square(keys, forms == Square)?;
            return match forms {
                Square => Ok(square(side)),
                Edge | Both => Ok(Resize::ShortestEdge(side)),
                Pair => Err(self.wrong_size(value, "height and width")),
            };
        }
        let sizes = value.as_object().into_iter().flatten();
        let says = sizes.filter(|(_, size)| !size.is_null());
        let mut named: Vec<&str> = says.map(|(key, _)| key.as_str()).collect();
        named.sort_unstable();
        match (named.as_slice(), forms) {
            (["shortest_edge"], Edge | Both) => {
                let edge = pixels("size.shortest_edge", &value["shortest_edge"])?;
                Ok(Resize::ShortestEdge(edge))
            }
            // The base of the fast variants takes either form.
            (["shortest_edge"], Square) if self.is_fast => {
                let edge = pixels("size.shortest_edge", &value["shortest_edge"])?;
                Ok(Resize::ShortestEdge(edge))
            }
            (["height", "width"], Square | Both | Pair) => Ok(Resize::Exact {
                width: pixels("size.width", &value["width"])?,
                height: pixels("size.height", &value["height"])?,
            }),
            (_, Edge) => Err(self.wrong_size(value, "shortest_edge")),
            (_, Square | Pair) => Err(self.wrong_size(value, "height and width")),
            (_, Both) => Err(self.wrong_size(value, "shortest_edge, or height and width")),
        }
    }

    /// Fails where `default_to_square` makes a number of `size` something else than the class does. The
    /// original classes ignore that key.
    fn check_square(&self, keys: &mut Keys<'_>, is_square: bool) -> Result<(), String> {
        let stated = keys.flag("default_to_square", is_square)?;
        if self.is_fast && stated != is_square {
            return Err(format!(
                "default_to_square is {stated} and size a number; write size as height and width, or \
                as shortest_edge"
            ));
        }
        Ok(())
    }

    fn wrong_size(&self, value: &Value, expected: &str) -> String {
        let name = self.class.name;
        format!("size is {value}, but {name}ImageProcessor takes {expected}")
    }

    fn normalize(&self, keys: &mut Keys<'_>, preprocess: &mut Preprocess) -> Result<(), String> {
        let factor = keys.number("rescale_factor", 1.0 / 255.0)?;
        let rescales = keys.flag("do_rescale", true)?;
        if rescales && keys.is_null("rescale_factor") {
            return Err("rescale_factor is null".to_owned());
        }
        preprocess.rescale = if rescales { factor } else { 1.0 };
        let normalizes = keys.flag("do_normalize", true)?;
        let Some((mean, std)) = self.class.normal else {
            keys.ignore(&["image_mean", "image_std"]);
            if keys.flag("do_flip_channel_order", true)? {
                preprocess.channels = Channels::Bgr;
            }
            return Ok(());
        };
        let (mean, std) = (
            keys.channels("image_mean", mean)?,
            keys.channels("image_std", std)?,
        );
        if normalizes {
            self.refuse_null(keys, "image_mean")?;
            self.refuse_null(keys, "image_std")?;
            (preprocess.mean, preprocess.std) = (mean, std);
        }
        if self.class.rule == Rule::EfficientNet {
            // (x - offset - mean) / std / std, where each part is asked for.
            if rescales && keys.flag("rescale_offset", false)? {
                preprocess.mean = preprocess.mean.map(|mean| mean + 1.0);
            }
            if keys.flag("include_top", true)? {
                preprocess.std = std::array::from_fn(|at| preprocess.std[at] * std[at]);
            }
        }
        Ok(())
    }
}

fn square(side: u32) -> Resize {
    Resize::Exact {
        width: side,
        height: side,
    }
}

/// Reads `crop_size`: a number, or height and width.
fn crop(value: &Value) -> Result<Crop, String> {
    if value.is_number() {
        return Ok(Crop::square(pixels("crop_size", value)?));
    }
    match (value.get("width"), value.get("height")) {
        (Some(width), Some(height)) => Ok(Crop {
            width: pixels("crop_size.width", width)?,
            height: pixels("crop_size.height", height)?,
        }),
        _ => Err(format!("crop_size is {value}, expected height and width")),
    }
}
