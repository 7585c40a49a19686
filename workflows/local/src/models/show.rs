//! `sluice models list` and `show`: print facts about models.

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};
use sluice_harness::ToolContext;
use sluice_manifest::Error;
use sluice_model::{Kind, Model, Precision, Spec, named};
use sluice_pixels::{Preprocess, Resampler, Resize};
use sluice_store::{Location, Storage};

use super::{ModelState, all_names, is_cached, precisions_of};
use crate::text::{columns, shorten};

/// A model, and whether it is installed.
struct KnownModel {
    name: String,
    spec: Spec,
    state: ModelState,
}

impl KnownModel {
    /// Reads the facts about a model, but not its weights.
    fn look(storage: &Storage, name: &str, cache: &Location) -> Result<Self, Error> {
        let known = named(name);
        let built_in = known.filter(|spec| spec.kind == Kind::Measure);
        if let Some(spec) = built_in {
            return Ok(Self {
                name: name.to_owned(),
                spec: spec.clone(),
                state: ModelState::BuiltIn,
            });
        }
        let is_elsewhere = sluice_model::folder_of(name)?.is_none();
        let is_here = is_elsewhere || is_cached(storage, name, cache)?;
        let (spec, state) = match (is_here, known) {
            (false, Some(spec)) => (spec.clone(), ModelState::Missing),
            _ => match (find_first(storage, name, cache), known) {
                (Ok(model), _) => (model.spec, ModelState::Cached),
                (Err(e), Some(spec)) => {
                    (spec.clone(), ModelState::Broken(e.class(), e.to_string()))
                }
                (Err(e), None) => return Err(e),
            },
        };
        Ok(Self {
            name: name.to_owned(),
            spec,
            state,
        })
    }

    /// Returns all facts as JSON with stable keys.
    fn as_json(&self, heads: &[String]) -> Value {
        let spec = &self.spec;
        let source = spec.source.as_ref();
        json!({
            "name": self.name,
            "kind": spec.kind.as_str(),
            "here": !matches!(self.state, ModelState::Missing),
            "catalogue": named(&self.name).is_some(),
            "licence": spec.licence,
            "notice": source.and_then(|source| source.notice.as_ref()),
            "origin": spec.origin,
            "source": source.map(|source| &source.from),
            "revision": source.and_then(|source| source.revision()),
            "source_sha256": source.and_then(|source| source.sha256.as_ref()),
            "sha256": spec.sha256,
            "dimension": spec.dimension,
            "eps": spec.eps,
            "embedder": spec.embedder,
            "heads": heads,
            "preprocessing": spec.preprocess.as_ref().map(words),
            "scores": spec.score_outputs().collect::<Vec<_>>(),
        })
    }
}

/// Finds a model in the first precision that it has a file for. Logs a warning for each file of another
/// precision that cannot be used.
fn find_first(storage: &Storage, name: &str, cache: &Location) -> Result<Model, Error> {
    let precisions = precisions_of(storage, name, cache)?;
    let find = |precision: &Precision| Model::find(storage, name, cache, *precision);
    let mut found = precisions.iter().map(find);
    let first = found.next().unwrap_or_else(|| find(&Precision::Float32));
    for other in found.filter_map(Result::err) {
        tracing::warn!("{name}: {other}");
    }
    first
}

/// Reads the facts about all models: the catalogue's, and others in the folder of models.
fn look_at_all(cache: &Location, tool: &ToolContext<'_>) -> Result<Vec<KnownModel>, Error> {
    let storage = &tool.shared.storage;
    let mut all = Vec::new();
    for name in all_names(storage, cache)? {
        match KnownModel::look(storage, &name, cache) {
            Ok(known) => all.push(known),
            Err(e) => tracing::warn!("{name}: {e}"),
        }
    }
    Ok(all)
}

/// Returns the names of the heads that score the vectors of an embedder.
fn heads_of(embedder: &Spec, all: &[KnownModel]) -> Vec<String> {
    let fits = |known: &&KnownModel| {
        known.spec.kind == Kind::Head
            && embedder.kind == Kind::Embedder
            && known.spec.embedder.as_deref() == Some(&embedder.name)
    };
    all.iter()
        .filter(fits)
        .map(|known| known.name.clone())
        .collect()
}

/// Lists models.
///
/// # Errors
/// Returns a storage error when the folder of models cannot be listed.
pub(super) fn list(cache: &Location, as_json: bool, tool: &mut ToolContext<'_>) -> Result<()> {
    let all = look_at_all(cache, tool)?;
    let head = ["name", "kind", "here", "dimension", "licence", "from"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for known in &all {
        let spec = &known.spec;
        if as_json {
            let line = known.as_json(&heads_of(spec, &all));
            writeln!(tool.out, "{line}")?;
            continue;
        }
        let kind = match &spec.embedder {
            Some(embedder) => format!("{} of {embedder}", spec.kind.as_str()),
            None => spec.kind.as_str().to_owned(),
        };
        let from = match spec.origin.as_str() {
            "" => spec.source.as_ref().map_or("", |source| &source.from),
            origin => origin,
        };
        rows.push(vec![
            known.name.clone(),
            kind,
            known.state.words().to_owned(),
            spec.dimension
                .map_or("-".to_owned(), |dimension| dimension.to_string()),
            spec.licence.clone(),
            shorten(from, 72),
        ]);
    }
    if !as_json {
        write!(tool.out, "{}", columns(&rows, &[3], ""))?;
        writeln!(tool.out, "\nthe folder of models: {cache}")?;
    }
    Ok(())
}

/// Shows a model.
///
/// # Errors
/// Usage, when there is no such model; or a storage error.
pub(super) fn show(
    name: &str,
    cache: &Location,
    as_json: bool,
    tool: &mut ToolContext<'_>,
) -> Result<()> {
    let known = KnownModel::look(&tool.shared.storage, name, cache)?;
    let heads = match known.spec.kind {
        Kind::Embedder => heads_of(&known.spec, &look_at_all(cache, tool)?),
        _ => Vec::new(),
    };
    if as_json {
        let json = known.as_json(&heads);
        writeln!(tool.out, "{json}")?;
        return Ok(());
    }
    let rows = facts(&known, &heads);
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(what, text)| vec![what.to_owned(), text])
        .collect();
    write!(tool.out, "{}", columns(&rows, &[], ""))?;
    if let ModelState::Broken(class, why) = &known.state {
        return Err(Error::new(*class, format!("{name}: {why}")).into());
    }
    Ok(())
}

/// Returns the facts that `show` prints. Unknown ones are empty.
fn facts(known: &KnownModel, heads: &[String]) -> Vec<(&'static str, String)> {
    let spec = &known.spec;
    let source = spec.source.as_ref();
    let of_source = |part: fn(&sluice_model::PublishedFile) -> Option<String>| {
        source.and_then(part).unwrap_or_default()
    };
    let mut rows = vec![
        ("name", known.name.clone()),
        ("kind", spec.kind.as_str().to_owned()),
        ("here", known.state.words().to_owned()),
        ("licence", spec.licence.clone()),
        ("notice", of_source(|source| source.notice.clone())),
        ("origin", spec.origin.clone()),
        ("source", of_source(|source| Some(source.from.clone()))),
        (
            "revision",
            of_source(|source| source.revision().map(str::to_owned)),
        ),
        ("its SHA-256", of_source(|source| source.sha256.clone())),
        ("SHA-256", spec.sha256.clone().unwrap_or_default()),
        (
            "dimension",
            spec.dimension
                .map(|dimension| dimension.to_string())
                .unwrap_or_default(),
        ),
        (
            "eps",
            spec.eps.map(|eps| eps.to_string()).unwrap_or_default(),
        ),
        ("pooling", word(spec.pooling)),
        ("activation", word(spec.activation)),
        ("labels", spec.labels.join(", ")),
        ("embedder", spec.embedder.clone().unwrap_or_default()),
        ("heads", heads.join(", ")),
        (
            "preprocessing",
            spec.preprocess.as_ref().map(words).unwrap_or_default(),
        ),
    ];
    for score in spec.score_outputs() {
        let [low, high] = score.range;
        let keep = word(Some(score.keep));
        let threshold = match score.threshold {
            Some(threshold) => format!(", kept {keep} {threshold}"),
            None => String::new(),
        };
        rows.push((
            "score",
            format!("{}: {low} to {high}{threshold}", score.name),
        ));
    }
    rows
}

/// Returns a value as `model.toml` writes it.
fn word(value: Option<impl Serialize>) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

/// Returns a description of the preprocessing on one line.
fn words(preprocess: &Preprocess) -> String {
    let library = match preprocess.resampler {
        Resampler::Pillow => "",
        Resampler::Torchvision => " as torchvision does it",
    };
    let filter = format!("{:?}", preprocess.filter).to_lowercase() + library;
    let resize = match &preprocess.resize {
        Resize::ShortestEdge(edge) => format!("shortest edge to {edge} ({filter})"),
        Resize::Exact { width, height } => format!("stretched to {width}x{height} ({filter})"),
    };
    let crop = preprocess
        .crop
        .map(|crop| format!("centre {}x{}", crop.width, crop.height));
    let jpeg = preprocess.jpeg_round_trip;
    let jpeg = jpeg.map(|quality| format!("through a JPEG of quality {quality}"));
    let rescale = if (1.0 / preprocess.rescale - 255.0).abs() < 1e-9 {
        "1/255".to_owned()
    } else {
        preprocess.rescale.to_string()
    };
    let channels = format!("{:?}", preprocess.channels).to_uppercase();
    let numbers = format!(
        "{channels} times {rescale}, mean {:?}, std {:?}",
        preprocess.mean, preprocess.std
    );
    let layout = format!("{:?}", preprocess.layout).to_uppercase();
    let parts = [Some(resize), crop, jpeg, Some(numbers), Some(layout)];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
