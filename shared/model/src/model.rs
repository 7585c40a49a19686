//! What `--model` names, found and verified.

use std::io::Read;

use sha2::{Digest, Sha256};
use sluice_manifest::{Error, Result};
use sluice_store::{Location, Store};

use crate::catalogue::named;
use crate::hugging_face;
use crate::session::Session;
use crate::spec::{Kind, Spec};

pub(crate) const ONNX: &str = "model.onnx";
pub(crate) const SPEC: &str = "model.toml";
const HUGGING_FACE: &str = "preprocessor_config.json";

/// A model: its spec, and its ONNX file's content.
#[derive(Debug, Clone)]
pub struct Model {
    /// How it is fed.
    pub spec: Spec,
    /// SHA-256 of the ONNX file (and of its external data); empty for measures.
    pub sha256: String,
    folder: Option<Store>,
}

impl Model {
    /// Finds what `--model` names: a model of the catalogue, which lies in the folder of models, or
    /// the URI of a folder with `model.onnx` and its spec.
    pub fn find(model: &str, cache: &Location) -> Result<Self> {
        let known = named(model);
        if let Some(spec) = known
            && spec.kind == Kind::Measure
        {
            return Ok(Self {
                spec: spec.clone(),
                sha256: String::new(),
                folder: None,
            });
        }
        let is_name = !model.contains('/');
        let location = match is_name {
            true => Location::parse(&format!("{cache}/{model}"))?,
            false => Location::parse(model)?,
        };
        let missing = || {
            let error = Error::usage(format!("model {model:?}: no {ONNX} in {location}"));
            match (is_name, known) {
                (true, None) => error.hint("`sluice models list` names the models of the catalogue; a folder is named by a path with a slash"),
                (true, Some(spec)) => error.hint(format!(
                    "`sluice models pull {model} --from FOLDER_OR_FILE.onnx` puts it there; origin: {}",
                    spec.origin
                )),
                (false, _) => error,
            }
        };
        let folder = Store::open(&location).map_err(|_| missing())?;
        if folder.stat(ONNX)?.is_none() {
            return Err(missing());
        }
        let spec = match spec_in(&folder, model)? {
            Some(spec) => spec,
            None => known.cloned().ok_or_else(|| {
                Error::usage(format!("{location}: neither {SPEC} nor {HUGGING_FACE}"))
            })?,
        };
        let sha256 = sha256_of(&folder)?;
        if let Some(expected) = &spec.sha256
            && *expected != sha256
        {
            return Err(Error::data(format!(
                "{}: SHA-256 is {sha256}, the spec says {expected}",
                folder.uri(ONNX)
            ))
            .hint("pull the model again"));
        }
        Ok(Self {
            spec,
            sha256,
            folder: Some(folder),
        })
    }

    /// What of the model can change an output, for fingerprints and cards.
    pub fn settings(&self) -> serde_json::Value {
        serde_json::json!({
            "name": self.spec.name,
            "kind": self.spec.kind,
            "sha256": self.sha256,
            "licence": self.spec.licence,
            "origin": self.spec.origin,
            "preprocess": self.spec.preprocess,
            "output": self.spec.output,
            "score_column": self.spec.score.as_ref().map(|score| score.column),
        })
    }

    /// Fails unless the model is of one of the kinds; `flag` named it.
    pub fn require(&self, kinds: &[Kind], flag: &str) -> Result<()> {
        if kinds.contains(&self.spec.kind) {
            return Ok(());
        }
        let kinds: Vec<_> = kinds.iter().map(|kind| kind.as_str()).collect();
        Err(Error::usage(format!(
            "{flag} {}: a model of kind {:?}, expected {}",
            self.spec.name,
            self.spec.kind.as_str(),
            kinds.join(" or ")
        )))
    }

    /// Loads the model into ONNX Runtime with `threads` threads.
    pub fn session(&self, threads: usize) -> Result<Session> {
        let folder = self
            .folder
            .as_ref()
            .ok_or_else(|| Error::bug(format!("model {:?} has no ONNX file", self.spec.name)))?;
        Session::load(folder, &self.spec, threads)
    }
}

/// The spec that lies beside the ONNX file.
pub(crate) fn spec_in(folder: &Store, model: &str) -> Result<Option<Spec>> {
    if let Some(text) = folder.get_if_there(SPEC)? {
        let place = folder.uri(SPEC);
        let text = std::str::from_utf8(&text).map_err(|e| Error::usage(format!("{place}: {e}")))?;
        return Spec::parse(text, &place).map(Some);
    }
    let Some(json) = folder.get_if_there(HUGGING_FACE)? else {
        return Ok(None);
    };
    let name = model
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or(model);
    hugging_face::spec(&json, name, &folder.uri(HUGGING_FACE)).map(Some)
}

/// The files of external data beside an ONNX file whose names begin with `prefix`, sorted.
/// Exporters call them `<name>.onnx.data` or `<name>.onnx_data`.
pub(crate) fn data_files(folder: &Store, prefix: &str) -> Result<Vec<String>> {
    let files = folder.list("")?.into_iter().map(|object| object.path);
    let data = |file: &String| file.ends_with(".data") || file.ends_with("_data");
    Ok(files
        .filter(|file| file.starts_with(prefix) && data(file))
        .collect())
}

/// SHA-256 of the ONNX file followed by its external data.
pub(crate) fn sha256_of(folder: &Store) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let files = [ONNX.to_owned()].into_iter().chain(data_files(folder, "")?);
    for file in files {
        let mut reader = folder.reader(&file)?;
        loop {
            let count = reader
                .read(&mut buffer)
                .map_err(|e| Error::of_io(e, &folder.uri(&file)))?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
        }
    }
    Ok(hex::encode(hasher.finalize()))
}
