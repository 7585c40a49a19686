//! `sluice models pull`: installs a model by its name.

use std::path::Path;

use anyhow::Result;
use sluice_harness::ToolContext;
use sluice_manifest::{Class, Error};
use sluice_model::{Installed, Kind, Model, Precision, install, named};
use sluice_store::{Location, Storage};

use super::fetch::{Fetched, ModelLocation, ModelRequest, downloads, fetch};

/// Installs the model `name` in the folder of models, and prints its properties.
///
/// # Errors
/// Usage, when the name is unknown and no source is given, or the model does not match its name;
/// the errors of [`fetch`]; or a storage error.
pub(super) fn pull(
    name: &str,
    from: Option<&str>,
    cache: &Location,
    tool: &mut ToolContext<'_>,
) -> Result<()> {
    let storage = &tool.shared.storage;
    let request = request(name, from)?;
    if request.is_catalogued && is_up_to_date(storage, &request, cache)? {
        writeln!(tool.out, "{name}: {cache}/{name} is up to date")?;
        return Ok(());
    }
    let url = match &request.place {
        ModelLocation::Url(url) => Some(downloads(url)),
        _ => None,
    };
    let temporary = tempfile::tempdir().map_err(|e| Error::of_io(e, "a temporary folder"))?;
    let fetched = fetch(
        storage,
        &request,
        url.as_deref().unwrap_or(temporary.path()),
    )?;
    let staging = temporary.path().join("staging");
    let staging = Location::parse(&staging.to_string_lossy())?;
    let installed = install(storage, cache, &fetched.candidate, &staging)?;
    if let Some(folder) = url {
        remove(&folder);
    }
    report(name, cache, &fetched, &installed, tool)
}

/// Installs the models of a pipeline that are not in the folder of models and have a known source.
///
/// # Errors
/// The errors of [`pull`].
pub fn pull_missing(models: &[(String, Location)], tool: &mut ToolContext<'_>) -> Result<()> {
    for (name, cache) in missing(models, &tool.shared.storage)? {
        let mut words = Vec::new();
        let mut inner = ToolContext {
            shared: tool.shared.clone(),
            out: &mut words,
            err: &mut *tool.err,
            result: None,
            up_to_date: false,
        };
        pull(name, None, cache, &mut inner)?;
        tool.err.write_all(&words)?;
    }
    Ok(())
}

/// Returns the models of a pipeline that [`pull_missing`] would install.
///
/// # Errors
/// Usage, when a head does not fit any model of the pipeline; or a storage error.
pub fn missing<'a>(
    models: &'a [(String, Location)],
    storage: &Storage,
) -> Result<Vec<(&'a str, &'a Location)>> {
    let mut missing = Vec::new();
    for (name, cache) in models {
        let is_known = match named(name) {
            Some(spec) => spec.kind != Kind::Measure,
            None => {
                ModelLocation::parse(name).is_ok_and(|place| matches!(place, ModelLocation::Hub(_)))
            }
        };
        if is_known && !super::is_cached(storage, name, cache)? {
            refuse_unfit(name, models)?;
            missing.push((name.as_str(), cache));
        }
    }
    Ok(missing)
}

/// Refuses a head of the catalogue whose embedder is not among the models. A model given as a path
/// may be any embedder.
fn refuse_unfit(name: &str, models: &[(String, Location)]) -> Result<(), Error> {
    let Some(embedder) = named(name).and_then(|spec| spec.embedder.as_deref()) else {
        return Ok(());
    };
    let may_be = |model: &str| {
        model == embedder || sluice_model::folder_of(model).is_ok_and(|folder| folder.is_none())
    };
    if models.iter().any(|(model, _)| may_be(model)) {
        return Ok(());
    }
    Err(Error::usage(format!(
        "model {name:?} takes embeddings of {embedder:?}, which no step of the pipeline computes"
    ))
    .hint("choose a model for the embedder, or remove its step; nothing was pulled"))
}

fn request<'a>(name: &'a str, from: Option<&str>) -> Result<ModelRequest<'a>, Error> {
    if sluice_model::folder_of(name)?.is_none() {
        return Err(
            Error::usage("expected a name without slashes, or hf://ORG/NAME")
                .hint("`sluice models pull NAME --from URI` pulls a model from anywhere"),
        );
    }
    let spec = named(name);
    if let Some(spec) = spec
        && spec.kind == Kind::Measure
    {
        return Err(Error::usage(format!(
            "{name}: built in, there is nothing to pull"
        )));
    }
    let known = spec.and_then(|spec| spec.source.as_ref());
    let place = match (from, known) {
        (Some(from), _) => ModelLocation::parse(from)?,
        (None, Some(source)) => ModelLocation::parse(&source.from)?,
        (None, None) => match ModelLocation::parse(name)? {
            place @ ModelLocation::Hub(_) => place,
            _ => {
                return Err(Error::usage(format!("{name:?} is not in the catalogue"))
                    .hint("`sluice models list` lists the catalogue; for others, pass --from hf://ORG/NAME, https://…, s3://… or a folder"));
            }
        },
    };
    Ok(ModelRequest {
        name,
        place,
        known,
        is_catalogued: from.is_none() && known.is_some(),
    })
}

/// Whether the folder of models has an undamaged copy of the catalogue's model.
fn is_up_to_date(
    storage: &Storage,
    request: &ModelRequest<'_>,
    cache: &Location,
) -> Result<bool, Error> {
    let checked = Model::find(storage, request.name, cache, Precision::Float32)
        .and_then(|model| model.verify().map(|()| model));
    match checked {
        Ok(model) => {
            let source = model.spec.source.as_ref();
            Ok(model.spec.sha256.is_some() && source == request.known)
        }
        Err(e) if matches!(e.class(), Class::Transient | Class::Stopped) => Err(e),
        Err(_) => Ok(false),
    }
}

fn report(
    name: &str,
    cache: &Location,
    fetched: &Fetched,
    installed: &Installed,
    tool: &mut ToolContext<'_>,
) -> Result<()> {
    let spec = &installed.spec;
    let source = &fetched.candidate.source;
    let folder = sluice_model::folder_of(name)?.unwrap_or_default();
    writeln!(tool.out, "{name}: {cache}/{folder}")?;
    let sha256 = source.sha256.as_deref().unwrap_or_default();
    let words = fetched.stated.words();
    let licence = match spec.licence.as_str() {
        "" => "not stated",
        licence => licence,
    };
    let checked = match installed.computed {
        Some(numbers) => format!("one input through the model gives {numbers} numbers"),
        None => "not run: ONNX Runtime is not found (ORT_DYLIB_PATH)".to_owned(),
    };
    for (what, text) in [
        ("from", source.from.as_str()),
        ("SHA-256", &format!("{sha256} ({words})")),
        ("licence", licence),
        ("checked", &checked),
    ] {
        writeln!(tool.out, "  {what:<8} {text}")?;
    }
    Ok(())
}

/// Removes a folder of downloads. A failure is harmless.
fn remove(folder: &Path) {
    if let Err(e) = std::fs::remove_dir_all(folder) {
        tracing::debug!("{}: {e}", folder.display());
    }
}
