//! What `--model` names, found and verified.

use std::io::Read;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sluice_manifest::{Error, Result, ScoreColumn};
use sluice_pixels::Preprocess;
use sluice_store::{Location, Store};

use crate::catalogue::named;
use crate::hugging_face;
use crate::onnx;
use crate::precision::Precision;
use crate::session::Session;
use crate::spec::{Kind, Score, Spec};

pub(crate) const ONNX: &str = "model.onnx";
pub(crate) const ONNX_INT8: &str = "model.int8.onnx";
pub(crate) const SPEC: &str = "model.toml";
const HUGGING_FACE: &str = "preprocessor_config.json";

/// A model: its spec, and its ONNX file's content.
#[derive(Debug, Clone)]
pub struct Model {
    /// How it is fed.
    pub spec: Spec,
    /// SHA-256 of the ONNX file (and of its external data); empty for measures. What a spec says
    /// is believed until [`Model::verify`] or [`Model::session`] looks.
    pub sha256: String,
    /// What its matrix products are computed in.
    pub precision: Precision,
    folder: Option<Store>,
}

/// What of a model can change an output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelSettings {
    /// The model's name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// SHA-256 of the ONNX file and its external data; empty for measures.
    pub sha256: String,
    /// What its matrix products are computed in.
    pub precision: Precision,
    /// How pixels become its input.
    pub preprocess: Option<Preprocess>,
    /// Name of the ONNX output.
    pub output: Option<String>,
    /// Columns of the output that are scores.
    pub columns: Vec<usize>,
}

impl Model {
    /// Finds what `--model` names: a model of the catalogue, which lies in the folder of models, or
    /// the URI of a folder with `model.onnx` and its spec.
    pub fn find(model: &str, cache: &Location, precision: Precision) -> Result<Self> {
        let known = named(model);
        if let Some(spec) = known
            && spec.kind == Kind::Measure
        {
            return Ok(Self {
                spec: spec.clone(),
                sha256: String::new(),
                precision,
                folder: None,
            });
        }
        let onnx = onnx_file(precision);
        let is_name = !model.contains('/');
        let location = match is_name {
            true => Location::parse(&format!("{cache}/{model}"))?,
            false => Location::parse(model)?,
        };
        let missing = || {
            let error = Error::usage(format!("model {model:?}: no {onnx} in {location}"));
            match (is_name, known) {
                _ if precision == Precision::Int8 => error.hint(format!("shared/model/convert/int8.py makes it of the {ONNX} in that folder")),
                (true, None) => error.hint("`sluice models list` names the models of the catalogue; a folder is named by a path with a slash"),
                (true, Some(spec)) => error.hint(format!(
                    "`sluice models pull {model} --from FOLDER_OR_FILE.onnx` puts it there; origin: {}",
                    spec.origin
                )),
                (false, _) => error,
            }
        };
        let folder = Store::open(&location).map_err(|_| missing())?;
        if folder.stat(onnx)?.is_none() {
            return Err(missing());
        }
        let spec = match spec_in(&folder, model)? {
            Some(spec) => spec,
            None => known.cloned().ok_or_else(|| {
                Error::usage(format!("{location}: neither {SPEC} nor {HUGGING_FACE}"))
            })?,
        };
        let sha256 = match spec.sha256_at(precision) {
            Some(stated) => stated.to_owned(),
            None => sha256_of(&folder, precision)?,
        };
        Ok(Self {
            spec,
            sha256,
            precision,
            folder: Some(folder),
        })
    }

    /// Fails when the ONNX file's content is not what its spec says.
    pub fn verify(&self) -> Result<()> {
        let (Some(folder), Some(expected)) = (&self.folder, self.spec.sha256_at(self.precision))
        else {
            return Ok(());
        };
        let found = sha256_of(folder, self.precision)?;
        if found == expected {
            return Ok(());
        }
        let onnx = folder.uri(onnx_file(self.precision));
        Err(Error::data(format!(
            "{onnx}: SHA-256 is {found}, the spec says {expected}"
        ))
        .hint("pull the model again"))
    }

    /// Checks the model before the work: the ONNX file is whole, as far as its own lengths say.
    /// Whether its bytes are those that the spec states is verified when the model is loaded.
    ///
    /// # Errors
    /// Data, when the file is cut or is not an ONNX file.
    pub fn check(&self) -> Result<()> {
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        let file = onnx_file(self.precision);
        let bytes = folder.stat(file)?.map_or(0, |info| info.bytes);
        let uri = folder.uri(file);
        onnx::check(bytes, |range| {
            let mut reader = folder.stretches(file, bytes);
            reader.want(range.clone());
            reader.skip_to(range.start)?;
            let mut head = vec![0; (range.end - range.start) as usize];
            reader
                .read_exact(&mut head)
                .map_err(|e| Error::of_io(e, &uri))?;
            Ok(head)
        })?
        .map_err(|wrong| {
            Error::data(format!("{uri}: not a whole ONNX file: {wrong}"))
                .hint("pull the model again")
        })
    }

    /// Returns what of the model can change an output, for fingerprints and cards.
    pub fn settings(&self) -> ModelSettings {
        ModelSettings {
            name: self.spec.name.clone(),
            kind: self.spec.kind,
            sha256: self.sha256.clone(),
            precision: self.precision,
            preprocess: self.spec.preprocess.clone(),
            output: self.spec.output.clone(),
            columns: self
                .spec
                .score_outputs()
                .map(|score| score.column)
                .collect(),
        }
    }

    /// Returns the columns of the scores that the model gives.
    pub fn score_columns(&self) -> Vec<ScoreColumn> {
        self.spec.score_outputs().map(Score::as_column).collect()
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

    /// Loads the model into ONNX Runtime with `threads` threads, and verifies it meanwhile.
    pub fn session(&self, threads: usize) -> Result<Session> {
        let folder = self
            .folder
            .as_ref()
            .ok_or_else(|| Error::bug(format!("model {:?} has no ONNX file", self.spec.name)))?;
        std::thread::scope(|scope| {
            let verified = scope.spawn(|| self.verify());
            let session = Session::load(folder, &self.spec, self.precision, threads);
            // Unwrap safety: a panic over there is a panic here.
            verified.join().expect("verifying does not panic")?;
            session
        })
    }
}

/// The ONNX file that holds a model's weights for a precision.
pub(crate) fn onnx_file(precision: Precision) -> &'static str {
    match precision {
        Precision::Float32 | Precision::Bfloat16 => ONNX,
        Precision::Int8 => ONNX_INT8,
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

/// The files that a precision loads: the ONNX file, then its external data, which int8 has none of.
pub(crate) fn files(folder: &Store, precision: Precision) -> Result<Vec<String>> {
    let mut files = vec![onnx_file(precision).to_owned()];
    if precision != Precision::Int8 {
        files.extend(data_files(folder, "")?);
    }
    Ok(files)
}

/// SHA-256 of the ONNX file followed by its external data.
pub(crate) fn sha256_of(folder: &Store, precision: Precision) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    for file in files(folder, precision)? {
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
