//! What `--model` names.

mod check;

use serde::{Deserialize, Serialize};
use sluice_manifest::{Class, Error, Result, ScoreColumn};
use sluice_pixels::Preprocess;
use sluice_store::{Location, Storage};

use crate::cache::{folder_of, is_of_hub, location_of};
use crate::catalogue::named;
use crate::exports;
use crate::layout::{DESCRIPTIONS, Files, MADE, ONNX_BFLOAT16, SPEC, onnx_file};
use crate::onnx::{self, Contents, Origin};
use crate::placement::Placement;
use crate::precision::Precision;
use crate::spec::{Activation, Kind, Pooling, ScoreSpec, Spec};
use crate::weights::{contents, is_inside, sha256_of_graph};
use crate::wiring;

/// A model: its spec, and its ONNX file's content.
#[derive(Debug, Clone)]
pub struct Model {
    /// How it is fed.
    pub spec: Spec,
    /// SHA-256 of the ONNX file (and of its external data); empty for measures. One that the spec
    /// states is not verified before [`Model::verify`] or [`Model::session`].
    pub sha256: String,
    /// What its matrix products are computed in.
    pub precision: Precision,
    /// Where it runs.
    pub placement: Placement,
    /// None for measures.
    pub(crate) files: Option<Files>,
    pub(crate) graph: Contents,
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
    /// How an output of many vectors becomes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,
    /// What is done with the output's numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
    /// Columns of the output that are scores.
    pub columns: Vec<ScoreColumns>,
}

/// The columns of an output that make a score.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ScoreColumns {
    /// One column.
    One(usize),
    /// The sum of several.
    Sum(Vec<usize>),
}

impl From<Vec<usize>> for ScoreColumns {
    fn from(columns: Vec<usize>) -> Self {
        match columns.as_slice() {
            [one] => Self::One(*one),
            _ => Self::Sum(columns),
        }
    }
}

impl Model {
    /// Finds what `--model` names: a model of the catalogue, in the folder of models, or the URI of an
    /// ONNX file or of a folder with one, and of what describes it.
    ///
    /// # Errors
    /// Usage, when there is no such model, or it cannot be fed as it was trained; data, when the ONNX
    /// file is cut or is none; of storage.
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
                placement: Placement::default(),
                files: None,
                graph: Contents::default(),
            });
        }
        let is_name = folder_of(model)?.is_some();
        let location = location_of(model, cache)?;
        let files = locate(storage, model, &location, precision)?;
        let make = format!("`sluice models quantize {model} --precision {precision}");
        let Some(files) = files else {
            let onnx = onnx_file(precision);
            let error = Error::usage(format!("model {model:?}: no {onnx} in {location}"));
            let others = precisions(storage, model, cache)?;
            return Err(match (is_name, known) {
                _ if matches!(precision, Precision::Int8 | Precision::Float16) => {
                    error.hint(format!("{make} --input DATA` makes it"))
                }
                _ if !others.is_empty() => {
                    let others: Vec<&str> = others.iter().map(|it| onnx_file(*it)).collect();
                    error.hint(format!(
                        "it has {}, which runs with --precision",
                        others.join(" and ")
                    ))
                }
                (true, None) if !model.contains('/') => error.hint("`sluice models list` names the models of the catalogue; a folder is named by a path with a slash"),
                (true, _) => error.hint(format!(
                    "`sluice models pull {model}` puts it there (`sluice run --pull` does so before the run)"
                )),
                (false, _) => error,
            });
        };
        let again = if MADE.contains(&files.onnx.as_str()) {
            format!("{make}` makes it again")
        } else {
            "pull the model again".to_owned()
        };
        let graph = contents(&files.folder, &files.onnx)?.map_err(|wrong| {
            Error::data(format!("{}: not a whole ONNX file: {wrong}", files.uri())).hint(&*again)
        })?;
        let mut spec = described(&files, &graph, known)?;
        check_origin(storage, &files, &spec, &graph).map_err(|e| e.hint(&*again))?;
        // Models that an earlier version pulled do not state it.
        spec.eps = spec.eps.or_else(|| known.and_then(|known| known.eps));
        fit(&mut spec, &graph).map_err(|what| {
            let uri = files.uri();
            Error::usage(format!("{uri}: {what}"))
        })?;
        let sha256 = match spec.sha256_of(&files.onnx) {
            Some(stated) => stated.to_owned(),
            None => sha256_of_graph(&files.folder, &files.onnx, &graph)?,
        };
        Ok(Self {
            spec,
            sha256,
            precision,
            placement: Placement::default(),
            files: Some(files),
            graph,
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
            pooling: self.spec.pooling,
            activation: self.spec.activation,
            columns: self.spec.columns().into_iter().map(Into::into).collect(),
        }
    }

    /// Returns the columns of the scores that the model gives.
    pub fn score_columns(&self) -> Vec<ScoreColumn> {
        self.spec
            .score_outputs()
            .map(ScoreSpec::as_column)
            .collect()
    }

    /// Checks that the model is of one of the kinds; `flag` named it.
    ///
    /// # Errors
    /// Usage, when it is of another kind, or a classifier without a score.
    pub fn require(&self, kinds: &[Kind], flag: &str) -> Result<()> {
        let name = &self.spec.name;
        if !kinds.contains(&self.spec.kind) {
            let kinds: Vec<_> = kinds.iter().map(|kind| kind.as_str()).collect();
            let found = self.spec.kind.as_str();
            let error = Error::usage(format!(
                "{flag} {name}: a model of kind {found:?}, expected {}",
                kinds.join(" or ")
            ));
            return Err(match self.spec.kind {
                Kind::Classifier => error.hint(
                    "export the model without its classification head, such as with \
                    `optimum-cli export onnx --task feature-extraction`",
                ),
                Kind::Embedder => error.hint(
                    "a classifier has an output \"logits\", or architectures that end in \
                    ForImageClassification in its config.json; of another one a model.toml says \
                    kind = \"classifier\"",
                ),
                _ => error,
            });
        }
        if self.spec.kind == Kind::Classifier && self.score_columns().is_empty() {
            return Err(Error::usage(format!(
                "{flag} {name}: it is not clear which of its labels is the score: {}",
                shown(&self.spec.labels)
            ))
            .hint("write a model.toml with [score] and column, labels and activation"));
        }
        Ok(())
    }
}

/// Returns labels for people.
fn shown(labels: &[String]) -> String {
    match labels.len() {
        0 => "they have no names".to_owned(),
        1..=10 => labels.join(", "),
        many => format!("{}, … ({many} of them)", labels[..10].join(", ")),
    }
}

/// Returns the precisions for which a model has an ONNX file of its own, which may be broken.
///
/// # Errors
/// Usage, when `model` is no name, path or URI; of storage.
pub fn precisions(storage: &Storage, model: &str, cache: &Location) -> Result<Vec<Precision>> {
    let location = location_of(model, cache)?;
    let mut found = Vec::new();
    for precision in Precision::ALL {
        let is_there = match locate(storage, model, &location, precision) {
            Ok(None) => false,
            // Without a file of its own OpenVINO runs model.onnx.
            Ok(Some(files)) => precision != Precision::Bfloat16 || files.onnx == ONNX_BFLOAT16,
            // Several files, and none of a usual name.
            Err(e) if e.class() == Class::Usage => precision == Precision::Float32,
            Err(e) => return Err(e),
        };
        found.extend(is_there.then_some(precision));
    }
    Ok(found)
}

fn locate(
    storage: &Storage,
    model: &str,
    location: &Location,
    precision: Precision,
) -> Result<Option<Files>> {
    let files = Files::locate(storage, location, precision)?;
    // In the folder of a repository may be other models, of folders of that repository.
    Ok(files.filter(|it| !is_of_hub(model) || it.folder.location() == location))
}

/// Checks that an ONNX file was made of the file that is in the model's folder now.
fn check_origin(storage: &Storage, files: &Files, spec: &Spec, graph: &Contents) -> Result<()> {
    let root = files.root();
    let origin = graph.origin.as_ref().filter(|it| is_inside(&it.file));
    let Some(Origin { file, sha256 }) = origin else {
        return Ok(());
    };
    if root.stat(file)?.is_none() {
        return Ok(());
    }
    let (folder, name) = match file.rsplit_once('/') {
        Some((inner, name)) => (storage.open(&Location::parse(&root.uri(inner))?)?, name),
        None => (root.clone(), file.as_str()),
    };
    let now = match spec.sha256_of(name) {
        Some(stated) => stated.to_owned(),
        None => {
            let graph = contents(&folder, name)?.unwrap_or_default();
            sha256_of_graph(&folder, name, &graph)?
        }
    };
    if now == *sha256 {
        return Ok(());
    }
    let (uri, source) = (files.uri(), folder.uri(name));
    Err(Error::data(format!(
        "{uri}: it was made of another file than {source}: of one with SHA-256 {sha256}, now it is {now}"
    )))
}

/// Returns the spec that the model's files state, or the catalogue's.
fn described(files: &Files, graph: &Contents, known: Option<&Spec>) -> Result<Spec> {
    if let Some(spec) = written(files)? {
        return Ok(spec);
    }
    match (exports::spec(files, graph)?, known) {
        (None, Some(known)) => Ok(known.clone()),
        (Some(spec), None) => Ok(spec),
        // A file cannot say what only the catalogue knows.
        (Some(spec), Some(known)) => Ok(Spec {
            preprocess: spec.preprocess,
            ..known.clone()
        }),
        (None, None) => Err(Error::usage(format!(
            "{}: nothing states the preprocessing: there is none of {}, or a config.json with \
            pretrained_cfg (timm)",
            files.uri(),
            DESCRIPTIONS[..DESCRIPTIONS.len() - 1].join(", ")
        ))
        .hint("write a model.toml, or export with the library's own files")),
    }
}

/// Returns the spec of a `model.toml`.
fn written(files: &Files) -> Result<Option<Spec>> {
    let Some(description) = files.description(SPEC)? else {
        return Ok(None);
    };
    let place = &description.uri;
    let text = std::str::from_utf8(&description.content)
        .map_err(|e| Error::usage(format!("{place}: {e}")))?;
    Spec::parse(text, place).map(Some)
}

/// Brings a spec in line with the graph.
fn fit(spec: &mut Spec, graph: &Contents) -> Result<(), String> {
    if graph.inputs.is_empty() {
        return Ok(());
    }
    let input = wiring::main_input(spec, graph)?;
    if let Some(preprocess) = &mut spec.preprocess {
        wiring::fit(preprocess, input)?;
        let valid = preprocess.validate();
        valid.map_err(|e| e.to_string())?;
    }
    let stated = match spec.kind {
        Kind::Embedder => wiring::output_of(spec, graph).ok().and_then(width_of),
        Kind::Head => input.width(),
        Kind::Classifier | Kind::Measure => None,
    };
    let stated = stated.and_then(|width| usize::try_from(width).ok());
    match (spec.kind, spec.dimension, stated) {
        (Kind::Head, Some(dimension), Some(stated)) if dimension != stated => Err(format!(
            "input {:?} takes {stated} values, the spec says {dimension}",
            input.name
        )),
        (_, None, stated) => {
            spec.dimension = stated.filter(|width| *width > 0);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Returns how many numbers an output has for each image, where the graph states it.
fn width_of(output: &onnx::Value) -> Option<u64> {
    match output.rank() {
        Some(4) if output.size(1) != Some(1) => output.size(1),
        Some(0 | 1) => Some(1),
        _ => output.width(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::ONNX;

    const HEAD: &str = "name = 'x'\nkind = 'head'\nembedder = 'e'\n[score]\nrange = [0, 1]\n";

    /// A field of bytes.
    fn of(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, content.len() as u8], content].concat()
    }

    /// A model with weights in a file, and an output of so many values.
    fn model(location: &str, width: u8) -> Vec<u8> {
        let entry = [of(1, b"location"), of(2, location.as_bytes())].concat();
        let sizes = [of(1, b""), of(1, &[0x08, width])].concat();
        let shape = of(2, &sizes);
        let value = |name: &[u8], shape: &[u8]| [of(1, name), of(2, &of(1, shape))].concat();
        let graph = [
            of(5, &of(13, &entry)),
            of(11, &value(b"in", &[])),
            of(12, &value(b"out", &shape)),
        ];
        let graph = graph.concat();
        of(7, &graph)
    }

    fn put(storage: &Storage, files: &[(&str, &[u8])]) {
        let location = Location::parse("memory://models/m").unwrap();
        let folder = storage.create(&location).unwrap();
        for (file, content) in files {
            folder.put(file, content.to_vec()).unwrap();
        }
    }

    fn check(model: &Model) -> Result<()> {
        model.check_graph(model.files.as_ref().unwrap())
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
            check(&find(&storage).unwrap()).unwrap();
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
            let refused = find(&head(file, 1, HEAD)).and_then(|model| check(&model));
            let error = refused.unwrap_err().to_string();
            assert!(error.contains(file) && error.contains("hint"), "{error}");
        }
    }

    #[test]
    fn outputs_that_are_too_narrow_are_refused() {
        for (width, column, fits) in [(0, 0, false), (1, 0, true), (1, 1, false), (2, 1, true)] {
            let storage = head("w", width, &format!("{HEAD}column = {column}\n"));
            put(&storage, &[("w", b"one")]);
            let checked = check(&find(&storage).unwrap());
            assert_eq!(checked.is_ok(), fits, "{width} {column}");
        }
    }
}
