//! The spec of a model as its ecosystem publishes it, from the files that describe it.
//!
//! Preprocessing is stated by the first of `preprocessor_config.json`, `processor_config.json`,
//! `open_clip_config.json` and timm's `config.json`. `config.json` adds the model's type, which decides
//! how an output of many vectors is pooled, and the labels of a classifier.

use serde_json::{Map, Value};
use sluice_manifest::{Error, Result};
use sluice_pixels::Preprocess;

use crate::keys::Keys;
use crate::labels;
use crate::layout::{Description, Files};
use crate::onnx::Contents;
use crate::processors::Processor;
use crate::spec::{Activation, Kind, Pooling, Spec};
use crate::wiring::{EMBEDDINGS, output_of};
use crate::{open_clip, timm};

type Object = Map<String, Value>;

/// Model types whose image is the first vector of `last_hidden_state`.
const FIRST: [&str; 9] = [
    "vit",
    "deit",
    "dinov2",
    "dinov2_with_registers",
    "dinov3_vit",
    "dinov3_convnext",
    "vit_msn",
    "dinov3",
    "pvt",
];
/// Model types whose image is the mean of `last_hidden_state`. ConvNeXt, Hiera and PoolFormer are
/// not listed: they normalise the mean with weights that such an export does not have.
const MEAN: [&str; 13] = [
    "swin",
    "swinv2",
    "ijepa",
    "levit",
    "resnet",
    "regnet",
    "bit",
    "efficientnet",
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilevit",
    "mobilevitv2",
    "focalnet",
];

/// Returns the spec that a model's own files state; none where they state no preprocessing.
///
/// # Errors
/// Usage, when a file cannot be parsed, or states what cannot be reproduced exactly.
pub(crate) fn spec(files: &Files, graph: &Contents) -> Result<Option<Spec>> {
    let config = match files.description("config.json")? {
        Some(config) => object(&config)?,
        None => Object::new(),
    };
    let Some(preprocess) = preprocess(files, &config)? else {
        return Ok(None);
    };
    let valid = preprocess.validate();
    valid.map_err(|e| refused(&files.uri())(e.to_string()))?;
    let mut spec = Spec::new(&files.name, Kind::Embedder);
    spec.origin = "exported model".to_owned();
    spec.preprocess = Some(preprocess);
    spec.pooling = pooling(&config);
    if is_classifier(&config, graph) {
        classify(&mut spec, &config);
    }
    Ok(Some(spec))
}

fn object(description: &Description) -> Result<Object> {
    serde_json::from_slice(&description.content)
        .map_err(|e| Error::usage(format!("{}: {e}", description.uri)))
}

/// Returns an error that names the file with an unusable setting.
fn refused(uri: &str) -> impl Fn(String) -> Error {
    move |what| {
        Error::usage(format!("{uri}: {what}"))
            .hint("write a model.toml beside the ONNX file, with the preprocessing as you know it")
    }
}

fn preprocess(files: &Files, config: &Object) -> Result<Option<Preprocess>> {
    for name in ["preprocessor_config.json", "processor_config.json"] {
        let Some(description) = files.description(name)? else {
            continue;
        };
        let all = object(&description)?;
        let nested = all.get("image_processor").and_then(Value::as_object);
        let processor = match (name, nested) {
            (_, Some(nested)) => nested,
            ("preprocessor_config.json", None) => &all,
            // It describes a tokenizer's part only.
            _ => continue,
        };
        let read = by_processor(processor, config).map_err(refused(&description.uri))?;
        return Ok(Some(read));
    }
    let theirs = match files.description("open_clip_config.json")? {
        Some(description) => {
            let read = open_clip::preprocess(&object(&description)?);
            Some(read.map_err(refused(&description.uri))?)
        }
        None => None,
    };
    let uri = || files.folder.uri("config.json");
    let timms = match timm::pretrained_cfg(config) {
        Some(part) => Some(timm::preprocess(part).map_err(refused(&uri()))?),
        None => None,
    };
    match (&theirs, &timms) {
        (Some(theirs), Some(timms)) if theirs != timms => Err(refused(&uri())(
            "states another preprocessing than open_clip_config.json; \
            remove the file of the library that the model was not exported with"
                .to_owned(),
        )),
        _ => Ok(theirs.or(timms)),
    }
}

/// Reads the configuration of an image processor of transformers.
fn by_processor(processor: &Object, config: &Object) -> Result<Preprocess, String> {
    let class = ["image_processor_type", "feature_extractor_type"];
    let class = class.iter().find_map(|key| processor.get(*key)?.as_str());
    if class == Some("TimmWrapperImageProcessor") {
        let part = timm::pretrained_cfg(processor).or(timm::pretrained_cfg(config));
        return timm::preprocess(part.ok_or("pretrained_cfg is missing")?);
    }
    let processor_of = |model: &str| Processor::of_model(model);
    let found = match (class, model_type(config)) {
        (Some(class), _) => Processor::named(class)?,
        (None, Some(model)) => processor_of(model).ok_or_else(|| {
            format!("image_processor_type is missing, and none is known for {model}")
        })?,
        (None, None) => {
            return Err(
                "image_processor_type is missing, and the same keys mean different things to \
                different processors"
                    .to_owned(),
            );
        }
    };
    found.preprocess(Keys::new(processor))
}

fn model_type(config: &Object) -> Option<&str> {
    config.get("model_type").and_then(Value::as_str)
}

fn pooling(config: &Object) -> Option<Pooling> {
    let model = model_type(config)?;
    match (FIRST.contains(&model), MEAN.contains(&model)) {
        (true, _) => Some(Pooling::Cls),
        (_, true) => Some(Pooling::Mean),
        _ => None,
    }
}

/// Whether the graph gives a number for each label, and no embedding.
fn is_classifier(config: &Object, graph: &Contents) -> bool {
    let has = |name: &str| graph.outputs.iter().any(|output| output.name == name);
    if EMBEDDINGS.into_iter().any(has) {
        return false;
    }
    // Where the graph states no width, the number of labels is what the output is taken for.
    has("logits")
        || classes(config).is_some_and(|classes| {
            let only = output_of(&Spec::new("", Kind::Embedder), graph).ok();
            only.is_some_and(|output| output.width().is_none_or(|width| width == classes))
        })
}

/// Returns the number of labels if the configuration is that of a classifier.
fn classes(config: &Object) -> Option<u64> {
    /// What transformers leaves out of `config.json`.
    const DEFAULT: u64 = 2;
    let names = config.get("architectures").and_then(Value::as_array);
    let is_classifier = |name: &Value| {
        let name = name.as_str().unwrap_or_default();
        name.ends_with("ForImageClassification")
    };
    if names.is_some_and(|names| names.iter().any(is_classifier)) {
        let labels = config.get("id2label").and_then(Value::as_object);
        return Some(labels.map_or(DEFAULT, |labels| labels.len() as u64));
    }
    let timms = config.get("num_classes").and_then(Value::as_u64);
    timms.filter(|classes| *classes > 0)
}

/// Makes a classifier of the spec, whose scores are read from its labels.
fn classify(spec: &mut Spec, config: &Object) {
    spec.kind = Kind::Classifier;
    spec.pooling = None;
    spec.labels = labels_of(config);
    let activation = match config.get("problem_type").and_then(Value::as_str) {
        // A number without a scale.
        Some("regression") => return,
        Some("multi_label_classification") => Activation::Sigmoid,
        _ if spec.labels.len() == 1 => return,
        _ => Activation::Softmax,
    };
    spec.activation = Some(activation);
    let mut scores = labels::scores(&spec.labels, activation);
    match scores.len() {
        1 => spec.score = scores.pop(),
        _ => spec.scores = scores,
    }
}

/// Returns the labels in the order of the output's columns.
fn labels_of(config: &Object) -> Vec<String> {
    let texts = |values: &Vec<Value>| -> Option<Vec<String>> {
        values
            .iter()
            .map(|it| it.as_str().map(str::to_owned))
            .collect()
    };
    if let Some(labels) = config.get("id2label").and_then(Value::as_object) {
        let in_order = (0..labels.len()).map(|id| labels.get(&id.to_string()).cloned());
        let in_order: Option<Vec<Value>> = in_order.collect();
        return in_order.as_ref().and_then(texts).unwrap_or_default();
    }
    let part = timm::pretrained_cfg(config);
    let named = ["label_names", "labels"].into_iter().find_map(|key| {
        let list = config.get(key).or_else(|| part?.get(key))?;
        list.as_array().and_then(texts)
    });
    named.unwrap_or_default()
}
