//! `sluice models pull`: from a name to a model that runs.

use std::path::Path;

use anyhow::Result;
use sluice_harness::Desk;
use sluice_manifest::{Class, Error};
use sluice_model::{Installed, Kind, Model, Precision, install, named};
use sluice_store::{Location, Storage};

use super::fetch::{Fetched, Place, Wanted, downloads, fetch};

/// Pulls the model `name` into the folder of models, and says what it is.
///
/// # Errors
/// Usage, when the name is not known and no source is given, or the model is not what its name says; as
/// [`fetch`]; of storage.
pub fn pull(name: &str, from: Option<&str>, cache: &Location, desk: &mut Desk<'_>) -> Result<()> {
    let storage = &desk.shared.storage;
    let wanted = wanted(name, from)?;
    if wanted.is_catalogued && is_up_to_date(storage, &wanted, cache)? {
        writeln!(desk.out, "{name}: {cache}/{name} is up to date")?;
        return Ok(());
    }
    let url = match &wanted.place {
        Place::Url(url) => Some(downloads(url)),
        _ => None,
    };
    let temporary = tempfile::tempdir().map_err(|e| Error::of_io(e, "a temporary folder"))?;
    let fetched = fetch(storage, &wanted, url.as_deref().unwrap_or(temporary.path()))?;
    let staging = temporary.path().join("staging");
    let staging = Location::parse(&staging.to_string_lossy())?;
    let installed = install(storage, cache, &fetched.candidate, &staging)?;
    if let Some(folder) = url {
        remove(&folder);
    }
    report(name, cache, &fetched, &installed, desk)
}

/// Pulls what a pipeline's models lack: those of `models` that are not in the folder of models and whose
/// source is known.
///
/// # Errors
/// As [`pull`].
pub fn pull_missing(models: &[(String, Location)], desk: &mut Desk<'_>) -> Result<()> {
    for (name, cache) in missing(models, &desk.shared.storage)? {
        let mut words = Vec::new();
        let mut inner = Desk {
            shared: desk.shared.clone(),
            out: &mut words,
            err: &mut *desk.err,
            result: None,
            up_to_date: false,
        };
        pull(name, None, cache, &mut inner)?;
        desk.err.write_all(&words)?;
    }
    Ok(())
}

/// Returns those of a pipeline's models that [`pull_missing`] would pull.
///
/// # Errors
/// Usage, when a head does not belong to any model of the pipeline; of storage.
pub fn missing<'a>(
    models: &'a [(String, Location)],
    storage: &Storage,
) -> Result<Vec<(&'a str, &'a Location)>> {
    let mut missing = Vec::new();
    for (name, cache) in models {
        let is_known = match named(name) {
            Some(spec) => spec.kind != Kind::Measure,
            None => Place::parse(name).is_ok_and(|place| matches!(place, Place::Hub(_))),
        };
        if is_known && !super::is_cached(storage, name, cache)? {
            refuse_unfit(name, models)?;
            missing.push((name.as_str(), cache));
        }
    }
    Ok(missing)
}

/// Refuses a head of the catalogue whose embedder is not among the models. A path may be that of any
/// embedder.
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
        "model {name:?} takes embeddings of {embedder:?}, which no step of the pipeline makes"
    ))
    .hint("choose a model for the embedder, or leave its step out; nothing was pulled"))
}

fn wanted<'a>(name: &'a str, from: Option<&str>) -> Result<Wanted<'a>, Error> {
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
        (Some(from), _) => Place::parse(from)?,
        (None, Some(source)) => Place::parse(&source.from)?,
        (None, None) => match Place::parse(name)? {
            place @ Place::Hub(_) => place,
            _ => {
                return Err(Error::usage(format!("{name:?} is no model of the catalogue"))
                    .hint("`sluice models list` names those; --from hf://ORG/NAME, https://…, s3://… or a folder says where others are"));
            }
        },
    };
    Ok(Wanted {
        name,
        place,
        known,
        is_catalogued: from.is_none() && known.is_some(),
    })
}

/// Whether the folder of models has what the catalogue names, undamaged.
fn is_up_to_date(storage: &Storage, wanted: &Wanted<'_>, cache: &Location) -> Result<bool, Error> {
    let checked = Model::find(storage, wanted.name, cache, Precision::Float32)
        .and_then(|model| model.verify().map(|()| model));
    match checked {
        Ok(model) => {
            let source = model.spec.source.as_ref();
            Ok(model.spec.sha256.is_some() && source == wanted.known)
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
    desk: &mut Desk<'_>,
) -> Result<()> {
    let spec = &installed.spec;
    let source = &fetched.candidate.source;
    let folder = sluice_model::folder_of(name)?.unwrap_or_default();
    writeln!(desk.out, "{name}: {cache}/{folder}")?;
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
        writeln!(desk.out, "  {what:<8} {text}")?;
    }
    Ok(())
}

/// Removes a folder of downloads. What stays is not in the way.
fn remove(folder: &Path) {
    if let Err(e) = std::fs::remove_dir_all(folder) {
        tracing::debug!("{}: {e}", folder.display());
    }
}
