//! What `--model` names, found and verified.

use std::io::Read;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sluice_manifest::{Error, Result, ScoreColumn};
use sluice_pixels::Preprocess;
use sluice_store::{Location, Storage, Store};

use crate::catalogue::named;
use crate::hugging_face;
use crate::onnx::{self, Contents};
use crate::precision::Precision;
use crate::session::{Session, output_of};
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
    pub fn find(
        storage: &Storage,
        model: &str,
        cache: &Location,
        precision: Precision,
    ) -> Result<Self> {
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
        let folder = storage.open_if_there(&location)?.ok_or_else(missing)?;
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

    /// Checks the model before the work: the ONNX file is whole, as far as its own lengths say, the
    /// files of its external data are there, and its output is as wide as the spec needs it. Whether
    /// its bytes are those that the spec states is verified when the model is loaded.
    ///
    /// # Errors
    /// Data, when the file is cut or is not an ONNX file, or external data are missing; usage, when the
    /// output does not fit.
    pub fn check(&self) -> Result<()> {
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        let onnx = onnx_file(self.precision);
        let uri = folder.uri(onnx);
        let contents = contents(folder, onnx)?.map_err(|wrong| {
            Error::data(format!("{uri}: not a whole ONNX file: {wrong}"))
                .hint("pull the model again")
        })?;
        external(folder, &contents, onnx)?;
        self.check_width(&contents, &uri)
    }

    /// Checks the width of the output, where the ONNX file states it.
    fn check_width(&self, contents: &Contents, uri: &str) -> Result<()> {
        let names: Vec<&str> = contents.outputs.iter().map(|(name, _)| &**name).collect();
        let chosen = output_of(&self.spec, &names);
        let chosen = contents
            .outputs
            .iter()
            .find(|(name, _)| Some(&**name) == chosen);
        let Some((name, Some(width))) = chosen else {
            return Ok(());
        };
        let columns = self
            .spec
            .score_outputs()
            .map(|score| score.column as u64 + 1);
        let needed = columns.max().unwrap_or(1);
        match *width >= needed {
            true => Ok(()),
            false => Err(Error::usage(format!(
                "{uri}: output {name:?} has {width} values, at least {needed} are needed"
            ))
            .hint("name the right output and columns in model.toml")),
        }
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
            let verified = std::thread::Builder::new().spawn_scoped(scope, || self.verify());
            let verified = verified.map_err(|e| Error::not_started("a thread", &e))?;
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

/// Returns what an ONNX file says of itself. The inner error says what is wrong with the file.
fn contents(folder: &Store, onnx: &str) -> Result<Result<Contents, String>> {
    let bytes = folder.stat(onnx)?.map_or(0, |info| info.bytes);
    onnx::contents(bytes, |range| {
        let mut reader = folder.stretches(onnx, bytes);
        reader.want(range.clone());
        reader.skip_to(range.start)?;
        let mut window = vec![0; (range.end - range.start) as usize];
        let read = reader.read_exact(&mut window);
        read.map_err(|e| Error::of_io(e, &folder.uri(onnx)))?;
        Ok(window)
    })
}

/// Returns the files that hold tensors of an ONNX file, in order of their names.
///
/// # Errors
/// Data, when one is missing or not in the folder.
fn external(folder: &Store, contents: &Contents, onnx: &str) -> Result<Vec<String>> {
    for file in &contents.external {
        let mut parts = Path::new(file).components();
        let is_inside = parts.all(|part| matches!(part, Component::Normal(_)));
        let wrong = match file.is_empty() || !is_inside {
            true => "is not in the model's folder",
            false if folder.stat(file)?.is_none() => "does not exist",
            false => continue,
        };
        let uri = folder.uri(onnx);
        return Err(
            Error::data(format!("{uri}: has weights in {file:?}, which {wrong}"))
                .hint("pull the model again, with its external data beside it"),
        );
    }
    Ok(contents.external.iter().cloned().collect())
}

/// The files of external data that an ONNX file names, under any name; of a broken file none.
pub(crate) fn data_files(folder: &Store, onnx: &str) -> Result<Vec<String>> {
    let contents = contents(folder, onnx)?.unwrap_or_default();
    external(folder, &contents, onnx)
}

/// The files that a precision loads: the ONNX file, then its external data.
pub(crate) fn files(folder: &Store, precision: Precision) -> Result<Vec<String>> {
    let onnx = onnx_file(precision);
    let mut files = vec![onnx.to_owned()];
    files.extend(data_files(folder, onnx)?);
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

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "name = 'x'\nkind = 'head'\nembedder = 'e'\n[score]\nrange = [0, 1]\n";

    /// A field of bytes.
    fn of(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, content.len() as u8], content].concat()
    }

    /// A model with weights in a file, and an output of so many values.
    fn model(location: &str, width: u8) -> Vec<u8> {
        let entry = [of(1, b"location"), of(2, location.as_bytes())].concat();
        let shape = of(2, &of(1, &[0x08, width]));
        let output = [of(1, b"out"), of(2, &of(1, &shape))].concat();
        let graph = [of(5, &of(13, &entry)), of(12, &output)].concat();
        of(7, &graph)
    }

    fn put(storage: &Storage, files: &[(&str, &[u8])]) {
        let location = Location::parse("memory://models/m").unwrap();
        let folder = storage.create(&location).unwrap();
        for (file, content) in files {
            folder.put(file, content.to_vec()).unwrap();
        }
    }

    fn find(storage: &Storage) -> Result<Model> {
        let cache = Location::parse("memory://none").unwrap();
        Model::find(storage, "memory://models/m", &cache, Precision::Float32)
    }

    /// A folder with a head whose weights are in a file.
    fn head(file: &str, width: u8, spec: &str) -> Storage {
        let storage = Storage::default();
        let onnx = model(file, width);
        put(&storage, &[(ONNX, &onnx), (SPEC, spec.as_bytes())]);
        storage
    }

    #[test]
    fn external_data_of_any_name_are_part_of_the_hash() {
        for file in ["weights.bin", "model.onnx.data", "deep/w", "a b"] {
            let storage = head(file, 1, HEAD);
            put(&storage, &[(file, b"one")]);
            let settings = || find(&storage).unwrap().settings();
            let first = settings();
            find(&storage).unwrap().check().unwrap();
            put(&storage, &[("unused.data", b"x"), ("README.md", b"x")]);
            assert_eq!(settings(), first, "{file}");
            put(&storage, &[(file, b"two")]);
            assert_ne!(settings(), first, "{file}");
        }
    }

    #[test]
    fn words_about_a_model_are_not_part_of_its_settings() {
        let storage = head("w", 1, HEAD);
        put(&storage, &[("w", b"one")]);
        let first = find(&storage).unwrap().settings();
        let words = format!("licence = 'MIT'\norigin = 'elsewhere'\n{HEAD}");
        put(&storage, &[(SPEC, words.as_bytes())]);
        assert_eq!(find(&storage).unwrap().settings(), first);
    }

    #[test]
    fn data_that_are_missing_or_elsewhere_are_refused() {
        for file in ["gone", "../w", "/etc/passwd", ""] {
            let refused = find(&head(file, 1, HEAD)).and_then(|model| model.check());
            let error = refused.unwrap_err().to_string();
            assert!(error.contains(file) && error.contains("hint"), "{error}");
        }
    }

    #[test]
    fn outputs_that_are_too_narrow_are_refused() {
        for (width, column, fits) in [(0, 0, false), (1, 0, true), (1, 1, false), (2, 1, true)] {
            let storage = head("w", width, &format!("{HEAD}column = {column}\n"));
            put(&storage, &[("w", b"one")]);
            let checked = find(&storage).unwrap().check();
            assert_eq!(checked.is_ok(), fits, "{width} {column}");
        }
    }
}
