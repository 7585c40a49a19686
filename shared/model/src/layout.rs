//! The layouts in which models come: where the ONNX file is, and where the files are that describe it.
//!
//! `--model` names a folder or an ONNX file. In a folder these are tried in order: `model.onnx`,
//! `vision_model.onnx`, `onnx/vision_model.onnx`, `onnx/model.onnx`, and the only other ONNX file that
//! is not a text encoder. The files that describe the model are in the ONNX file's folder; for a file named by
//! its path, and for a folder `onnx`, they may also be one folder above.

use sluice_manifest::{Error, Result};
use sluice_store::{Location, Storage, Store};

use crate::precision::Precision;

pub(crate) const ONNX: &str = "model.onnx";
pub(crate) const ONNX_INT8: &str = "model.int8.onnx";
pub(crate) const ONNX_FLOAT16: &str = "model.float16.onnx";
pub(crate) const ONNX_BFLOAT16: &str = "model.bfloat16.onnx";
/// ONNX files that are made of `model.onnx` for other precisions.
pub(crate) const MADE: [&str; 3] = [ONNX_INT8, ONNX_FLOAT16, ONNX_BFLOAT16];
/// Names of ONNX files in float16, best first: ours, and those of the Hub's exports.
const FLOAT16_FILES: [&str; 5] = [
    ONNX_FLOAT16,
    "model_fp16.onnx",
    "vision_model_fp16.onnx",
    "onnx/vision_model_fp16.onnx",
    "onnx/model_fp16.onnx",
];
pub(crate) const SPEC: &str = "model.toml";
/// The Hub's folder of exports.
const HUB: &str = "onnx";
/// Files that describe a model, in the order in which they are believed.
pub(crate) const DESCRIPTIONS: [&str; 5] = [
    SPEC,
    "preprocessor_config.json",
    "processor_config.json",
    "open_clip_config.json",
    "config.json",
];

/// Names of ONNX files, best first. `onnx/vision_model.onnx` is the image tower of the model that
/// `onnx/model.onnx` has with its text tower.
pub(crate) const ONNX_FILES: [&str; 4] = [
    ONNX,
    "vision_model.onnx",
    "onnx/vision_model.onnx",
    "onnx/model.onnx",
];

/// Returns the ONNX file that is made of `model.onnx` for a precision.
pub(crate) fn onnx_file(precision: Precision) -> &'static str {
    match precision {
        Precision::Float32 => ONNX,
        Precision::Float16 => ONNX_FLOAT16,
        Precision::Bfloat16 => ONNX_BFLOAT16,
        Precision::Int8 => ONNX_INT8,
    }
}

/// Where a model's files are.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    /// The folder of the ONNX file. Its external data are there, too.
    pub folder: Store,
    /// The ONNX file's name.
    pub onnx: String,
    /// The model's name, from its location.
    pub name: String,
    /// The folder above, where it may hold what describes the model.
    above: Option<Store>,
}

/// A file that describes a model.
pub(crate) struct Description {
    pub content: Vec<u8>,
    pub uri: String,
}

impl Files {
    /// Finds the ONNX file of a model for a precision. None: there is no such folder or file.
    ///
    /// # Errors
    /// Usage, when there are several and none has a usual name; of storage.
    pub(crate) fn locate(
        storage: &Storage,
        location: &Location,
        precision: Precision,
    ) -> Result<Option<Self>> {
        match location.split() {
            Some((folder, file)) if file.ends_with(".onnx") => {
                Self::of_file(storage, &folder, file)
            }
            _ => Self::of_folder(storage, location, precision),
        }
    }

    fn of_file(storage: &Storage, location: &Location, onnx: String) -> Result<Option<Self>> {
        let Some(folder) = storage.open_if_there(location)? else {
            return Ok(None);
        };
        if folder.stat(&onnx)?.is_none() {
            return Ok(None);
        }
        let stem = onnx.trim_end_matches(".onnx");
        let is_usual = ["model", "vision_model"]
            .iter()
            .any(|it| stem.starts_with(it));
        let name = if is_usual {
            name_of(location)
        } else {
            stem.to_owned()
        };
        let above = match location.split() {
            Some((above, _)) => storage.open_if_there(&above)?,
            None => None,
        };
        Ok(Some(Self {
            folder,
            name,
            onnx,
            above,
        }))
    }

    fn of_folder(
        storage: &Storage,
        location: &Location,
        precision: Precision,
    ) -> Result<Option<Self>> {
        let Some(folder) = storage.open_if_there(location)? else {
            return Ok(None);
        };
        let Some(path) = onnx_in(&folder, precision)? else {
            return Ok(None);
        };
        let Some(onnx) = path.strip_prefix("onnx/") else {
            return Ok(Some(Self {
                above: above_hub(storage, location)?,
                name: name_of(location),
                onnx: path,
                folder,
            }));
        };
        let inner = Location::parse(&folder.uri(HUB))?;
        Ok(Some(Self {
            folder: storage.open(&inner)?,
            onnx: onnx.to_owned(),
            name: name_of(location),
            above: Some(folder),
        }))
    }

    /// Returns a file that describes the model, the nearest of that name.
    ///
    /// # Errors
    /// Of storage.
    pub(crate) fn description(&self, name: &str) -> Result<Option<Description>> {
        for folder in [Some(&self.folder), self.above.as_ref()]
            .into_iter()
            .flatten()
        {
            if let Some(content) = folder.get_if_there(name)? {
                return Ok(Some(Description {
                    content: content.to_vec(),
                    uri: folder.uri(name),
                }));
            }
        }
        Ok(None)
    }

    /// Returns the folder of the model, where its ONNX file may be in a folder `onnx`.
    pub(crate) fn root(&self) -> &Store {
        let is_hub = |location: &Location| location.split().is_some_and(|(_, name)| name == HUB);
        match &self.above {
            Some(above) if is_hub(self.folder.location()) => above,
            _ => &self.folder,
        }
    }

    /// Returns the ONNX file's path from the model's folder.
    pub(crate) fn path_from_root(&self) -> String {
        if self.root().location() == self.folder.location() {
            self.onnx.clone()
        } else {
            format!("{HUB}/{}", self.onnx)
        }
    }

    /// Returns the ONNX file's URI.
    pub(crate) fn uri(&self) -> String {
        self.folder.uri(&self.onnx)
    }
}

/// Opens the folder above a folder called `onnx`.
fn above_hub(storage: &Storage, location: &Location) -> Result<Option<Store>> {
    match location.split() {
        Some((above, name)) if name == HUB => storage.open_if_there(&above),
        _ => Ok(None),
    }
}

/// Returns the path of a folder's ONNX file.
fn onnx_in(folder: &Store, precision: Precision) -> Result<Option<String>> {
    let made = onnx_file(precision);
    let usual = match precision {
        Precision::Float32 => ONNX_FILES.to_vec(),
        Precision::Float16 => FLOAT16_FILES.to_vec(),
        Precision::Bfloat16 => [&[made], ONNX_FILES.as_slice()].concat(),
        Precision::Int8 => vec![made],
    };
    for path in usual {
        if folder.stat(path)?.is_some() {
            return Ok(Some(path.to_owned()));
        }
    }
    match precision {
        Precision::Int8 | Precision::Float16 => Ok(None),
        Precision::Float32 | Precision::Bfloat16 => only_one(folder),
    }
}

/// Returns the only ONNX file of a folder that something describes.
fn only_one(folder: &Store) -> Result<Option<String>> {
    let mut is_described = false;
    for description in DESCRIPTIONS {
        is_described |= folder.stat(description)?.is_some();
    }
    if !is_described {
        return Ok(None);
    }
    let is_encoder = |path: &str| {
        let file = path.strip_prefix("onnx/").unwrap_or(path);
        file.ends_with(".onnx") && !file.contains('/') && !file.starts_with("text_model")
    };
    let listed = folder.list("")?.into_iter().map(|object| object.path);
    // A file that was made for another precision does not run in float32.
    let is_made = |path: &str| MADE.contains(&path) || FLOAT16_FILES.contains(&path);
    let listed = listed.filter(|path| is_encoder(path) && !is_made(path));
    let mut files: Vec<String> = listed.collect();
    if files.iter().any(|path| path.contains("vision_model")) {
        files.retain(|path| path.contains("vision_model"));
    }
    match files.as_slice() {
        [] | [_] => Ok(files.pop()),
        _ => Err(Error::usage(format!(
            "{}: several ONNX files: {}",
            folder.location(),
            files.join(", ")
        ))
        .hint("name one of them: --model FOLDER/FILE.onnx")),
    }
}

/// Returns a model's name by its folder. The Hub's cache calls a folder `models--OWNER--NAME`, with
/// `snapshots/REVISION` in it.
fn name_of(location: &Location) -> String {
    let path = location.to_string();
    let mut parts = path.split('/').rev().filter(|part| !part.is_empty());
    let hub = path.split('/').rev().find_map(|part| {
        let rest = part.strip_prefix("models--")?;
        Some(rest.rsplit("--").next().unwrap_or(rest))
    });
    let folder = parts.find(|part| *part != HUB);
    let is_snapshot = path.contains("/snapshots/");
    let name = hub.filter(|_| is_snapshot).or(folder);
    name.unwrap_or(&path).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locate(files: &[&str], model: &str) -> Result<Option<Files>> {
        let storage = Storage::default();
        let root = storage.create(&Location::parse("memory://layouts")?)?;
        for file in files {
            root.put(file, file.as_bytes().to_vec())?;
        }
        let location = Location::parse(&format!("memory://layouts/{model}"))?;
        Files::locate(&storage, &location, Precision::Float32)
    }

    fn found(files: &[&str], model: &str) -> (String, String) {
        let files = locate(files, model).unwrap().unwrap();
        (files.uri(), files.name)
    }

    #[test]
    fn layouts_are_found_in_a_documented_order() {
        let hub = [
            "m/onnx/model.onnx",
            "m/onnx/model_fp16.onnx",
            "m/config.json",
        ];
        for (files, model, onnx) in [
            (
                &["m/model.onnx", "m/onnx/model.onnx"][..],
                "m",
                "m/model.onnx",
            ),
            (&hub[..], "m", "m/onnx/model.onnx"),
            (&hub[..], "m/onnx", "m/onnx/model.onnx"),
            (&hub[..], "m/onnx/model_fp16.onnx", "m/onnx/model_fp16.onnx"),
            (
                &["m/vision_model.onnx", "m/text_model.onnx"][..],
                "m",
                "m/vision_model.onnx",
            ),
            (
                &["m/onnx/vision_model.onnx", "m/onnx/model.onnx"][..],
                "m",
                "m/onnx/vision_model.onnx",
            ),
            (&["m/other.onnx", "m/config.json"][..], "m", "m/other.onnx"),
        ] {
            let expected = (format!("memory://layouts/{onnx}"), "m".to_owned());
            assert_eq!(found(files, model), expected, "{files:?}");
        }
        assert_eq!(found(&["m/mine.onnx"], "m/mine.onnx").1, "mine");
        assert!(locate(&["m/other.onnx"], "m").unwrap().is_none());
        let several = ["m/a.onnx", "m/b.onnx", "m/config.json"];
        let error = locate(&several, "m").unwrap_err().to_string();
        assert!(
            error.contains("a.onnx, b.onnx") && error.contains("hint"),
            "{error}"
        );
    }

    #[test]
    fn a_snapshot_has_the_name_of_its_model() {
        let snapshot = "models--openai--clip-vit-base-patch32/snapshots/3d74acf9";
        let (_, name) = found(&[&format!("{snapshot}/onnx/model.onnx")], snapshot);
        assert_eq!(name, "clip-vit-base-patch32");
    }

    #[test]
    fn descriptions_are_beside_or_above() {
        let files = [
            "m/onnx/model.onnx",
            "m/onnx/config.json",
            "m/preprocessor_config.json",
            "m/config.json",
        ];
        for model in ["m", "m/onnx", "m/onnx/model.onnx"] {
            let files = locate(&files, model).unwrap().unwrap();
            let uri = |name: &str| files.description(name).unwrap().map(|it| it.uri);
            assert!(
                uri("preprocessor_config.json")
                    .unwrap()
                    .ends_with("/m/preprocessor_config.json")
            );
            assert!(uri("config.json").unwrap().ends_with("/m/onnx/config.json"));
            assert_eq!(uri("model.toml"), None);
        }
        let plain = locate(&["a/model.onnx", "config.json"], "a")
            .unwrap()
            .unwrap();
        assert!(plain.description("config.json").unwrap().is_none());
    }
}
