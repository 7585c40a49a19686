//! The folder of models: `<cache>/<name>/model.onnx` and `model.toml`.

use std::collections::BTreeSet;

use sluice_manifest::{Error, Result};
use sluice_store::{Location, Storage};

use crate::layout::{ONNX, SPEC};

/// The scheme of the Hub's repositories.
const HUB: &str = "hf://";
/// The folder of what was pulled by the URI of a repository.
const HUB_FOLDER: &str = "hf/";
/// What the folder of a model has after its name that was pulled by the URI of an ONNX file.
const OF_FILE: &str = ".d";

/// Returns the folder of models when neither `--models` nor `SLUICE_MODELS` is set: `sluice/models` in
/// the user's cache folder.
pub fn default_cache() -> String {
    let home = std::env::var("HOME").unwrap_or_else(|_| ".".to_owned());
    let cache = std::env::var("XDG_CACHE_HOME").unwrap_or_else(|_| format!("{home}/.cache"));
    format!("{cache}/sluice/models")
}

/// Returns the path in the folder of models of a model that `--model` names: a name is its own, and
/// `hf://ORG/NAME@REVISION/PATH` is `hf/ORG/NAME@REVISION/PATH`, with `.d` after an ONNX file. None for other URIs and for paths, which
/// are elsewhere.
///
/// # Errors
/// Usage, when the name is empty, `.`, `..` or `hf`, or a repository's URI has an empty part or `..`.
pub fn folder_of(model: &str) -> Result<Option<String>> {
    if !is_of_hub(model) {
        if matches!(model.trim(), "" | "." | ".." | "hf") {
            return Err(Error::usage(format!("{model:?}: not the name of a model"))
                .hint("a folder is named by a path with a slash, such as ./"));
        }
        return Ok((!model.contains('/')).then(|| model.to_owned()));
    }
    let rest = model[HUB.len()..].trim_end_matches('/');
    let rest = rest.strip_prefix("models/").unwrap_or(rest);
    let is_sound = |part: &str| !matches!(part, "" | "." | "..");
    if !rest.contains('/') || !rest.split('/').all(is_sound) {
        return Err(Error::usage(format!(
            "{model:?}: expected hf://ORG/NAME[@REVISION][/PATH]"
        )));
    }
    let ending = if rest.ends_with(".onnx") { OF_FILE } else { "" };
    Ok(Some(format!("{HUB_FOLDER}{rest}{ending}")))
}

/// Returns whether `--model` names a repository of the Hub.
pub(crate) fn is_of_hub(model: &str) -> bool {
    let scheme = model.get(..HUB.len());
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(HUB))
}

/// Returns where a model is that `--model` names.
///
/// # Errors
/// Usage, when it is neither a name, a path nor a URI.
pub(crate) fn location_of(model: &str, cache: &Location) -> Result<Location> {
    match folder_of(model)? {
        Some(folder) => Location::parse(&format!("{cache}/{folder}")),
        None => Location::parse(model),
    }
}

/// Returns the names of the models that the folder of models has, sorted: each is what `--model` takes.
///
/// # Errors
/// Of storage.
pub fn cached(storage: &Storage, cache: &Location) -> Result<Vec<String>> {
    let Some(store) = storage.open_if_there(cache)? else {
        return Ok(Vec::new());
    };
    let objects = store.list("")?;
    let names = objects.iter().filter_map(|object| {
        let (folder, file) = object.path.rsplit_once('/')?;
        let is_model = file == ONNX || file == SPEC;
        let hub = folder.strip_prefix(HUB_FOLDER);
        let name = match hub {
            Some(rest) if rest.ends_with(".onnx.d") => {
                format!("{HUB}{}", rest.trim_end_matches(OF_FILE))
            }
            Some(rest) => format!("{HUB}{rest}"),
            None => folder.to_owned(),
        };
        (is_model && (hub.is_some() || !folder.contains('/'))).then_some(name)
    });
    let names: BTreeSet<String> = names.collect();
    Ok(names.into_iter().collect())
}

/// Removes a model from the folder of models. Its `model.toml` is deleted first, its `model.onnx` last,
/// so that a removal that was interrupted can be repeated. Other models in folders of its folder stay.
///
/// # Errors
/// Usage, when the name is not that of a model, or it is not there; of storage.
pub fn remove(storage: &Storage, cache: &Location, name: &str) -> Result<()> {
    let missing = || Error::usage(format!("model {name:?}: not in {cache}"));
    let folder = folder_of(name)?.ok_or_else(missing)?;
    let store = storage.open_if_there(cache)?.ok_or_else(missing)?;
    let objects = store.list(&folder)?.into_iter();
    let mut paths: Vec<String> = objects.map(|object| object.path).collect();
    let (spec, onnx) = (format!("{folder}/{SPEC}"), format!("{folder}/{ONNX}"));
    if !paths.contains(&spec) && !paths.contains(&onnx) {
        return Err(missing());
    }
    let others: Vec<String> = folders_of_models(&paths)
        .filter(|other| *other != folder)
        .map(|other| format!("{other}/"))
        .collect();
    paths.retain(|path| !others.iter().any(|other| path.starts_with(other)));
    paths.sort_by_key(|path| (*path != spec, *path == onnx));
    for path in paths {
        store.delete_inside(&path)?;
    }
    Ok(())
}

/// Returns the folders that have a `model.toml`.
fn folders_of_models(paths: &[String]) -> impl Iterator<Item = &str> {
    let split = |path: &'_ String| path.len() - SPEC.len();
    paths
        .iter()
        .filter(|path| path.rsplit('/').next() == Some(SPEC))
        .map(move |path| path[..split(path)].trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use sluice_manifest::Class;

    use super::*;

    #[test]
    fn names_and_repositories_have_a_folder() {
        let folder = |model: &str| folder_of(model).unwrap();
        assert_eq!(folder("clip").as_deref(), Some("clip"));
        assert_eq!(folder("hf://a/b@c/d").as_deref(), Some("hf/a/b@c/d"));
        assert_eq!(folder("HF://models/a/b/").as_deref(), Some("hf/a/b"));
        assert_eq!(
            folder("hf://a/b/c.onnx").as_deref(),
            Some("hf/a/b/c.onnx.d")
        );
        assert_eq!(folder("s3://a/b"), None);
        assert_eq!(folder("./clip"), None);
        for wrong in [
            "hf://",
            "hf://a",
            "hf://a/../b",
            "hf://../a/b",
            "hf://a//b",
            "",
            " ",
            ".",
            "..",
            "hf",
        ] {
            assert!(folder_of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_cached_is_listed_by_its_name() {
        let storage = Storage::default();
        let cache = Location::parse("memory://models/m").unwrap();
        let store = storage.create(&cache).unwrap();
        for path in [
            "clip/model.onnx",
            "clip/model.toml",
            "clip/weights/0",
            "hf/org/name@v1/model.toml",
            "hf/org/name/x.onnx.d/model.toml",
            "deep/er/model.onnx",
            "stray.txt",
        ] {
            store.put(path, "x").unwrap();
        }
        let names = || cached(&storage, &cache).unwrap();
        assert_eq!(
            names(),
            ["clip", "hf://org/name/x.onnx", "hf://org/name@v1"]
        );
        remove(&storage, &cache, "clip").unwrap();
        assert_eq!(names(), ["hf://org/name/x.onnx", "hf://org/name@v1"]);
        assert!(remove(&storage, &cache, "clip").is_err());
    }

    #[test]
    fn only_the_model_that_is_named_is_removed() {
        let storage = Storage::default();
        let cache = Location::parse("memory://models/r").unwrap();
        let store = storage.create(&cache).unwrap();
        for path in [
            "clip/model.onnx",
            "clip2/model.onnx",
            "hf/org/two/model.onnx",
            "hf/org/two/model.toml",
            "hf/org/two/data/0",
            "hf/org/two/onnx/model.onnx",
            "hf/org/two/onnx/model.toml",
        ] {
            store.put(path, "x").unwrap();
        }
        for wrong in ["", ".", "..", "hf", "hf://org/tw", "cli"] {
            let error = remove(&storage, &cache, wrong).unwrap_err();
            assert_eq!(error.class(), Class::Usage, "{wrong}");
        }
        assert_eq!(store.list("").unwrap().len(), 7);
        remove(&storage, &cache, "hf://org/two").unwrap();
        let names = cached(&storage, &cache).unwrap();
        assert_eq!(names, ["clip", "clip2", "hf://org/two/onnx"]);
        assert!(remove(&storage, &cache, "hf://org/two").is_err());
        assert_eq!(store.list("hf").unwrap().len(), 2);
    }
}
