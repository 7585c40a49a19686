//! The folder of models: `<cache>/<name>/model.onnx` and `model.toml`.

use std::io;

use sluice_manifest::{Error, Result};
use sluice_store::{Location, Storage};

use crate::catalogue::named;
use crate::model::{ONNX, ONNX_INT8, SPEC, data_files, sha256_of, spec_in};
use crate::precision::Precision;
use crate::spec::Spec;

/// Where models are kept when neither `--models` nor `SLUICE_MODELS` says: `sluice/models` in the
/// user's cache folder.
pub fn default_cache() -> String {
    let home = std::env::var("HOME").unwrap_or_else(|_| ".".to_owned());
    let cache = std::env::var("XDG_CACHE_HOME").unwrap_or_else(|_| format!("{home}/.cache"));
    format!("{cache}/sluice/models")
}

/// Puts the model `name` into the cache: copies the folder `from` (or one ONNX file), writes its
/// spec with the contents' hashes, and gives that spec.
pub fn pull(storage: &Storage, cache: &Location, name: &str, from: &Location) -> Result<Spec> {
    let (source, onnx) = match from.split() {
        Some((folder, file)) if file.ends_with(".onnx") => (storage.open(&folder)?, file),
        _ => (storage.open(from)?, ONNX.to_owned()),
    };
    let mut spec = match (spec_in(&source, name)?, named(name)) {
        (Some(spec), _) if onnx == ONNX => spec,
        (_, Some(spec)) => spec.clone(),
        _ => {
            return Err(Error::usage(format!(
                "{from}: neither model.toml nor preprocessor_config.json"
            ))
            .hint(format!(
                "and {name:?} is no model of the catalogue; `sluice models list` names those"
            )));
        }
    };
    let target = storage.create(cache)?;
    let mut files = vec![(onnx.clone(), ONNX.to_owned())];
    files.extend(
        data_files(&source, &onnx)?
            .into_iter()
            .map(|file| (file.clone(), file)),
    );
    let int8 = onnx == ONNX && source.stat(ONNX_INT8)?.is_some();
    if int8 {
        let data = data_files(&source, ONNX_INT8)?.into_iter();
        files.extend(data.map(|file| (file.clone(), file)));
        files.push((ONNX_INT8.to_owned(), ONNX_INT8.to_owned()));
    }
    for (file, as_file) in files {
        let mut reader = source.reader(&file)?;
        let mut writer = target.writer(&format!("{name}/{as_file}"))?;
        io::copy(&mut reader, &mut writer).map_err(|e| Error::of_io(e, &source.uri(&file)))?;
        writer.finish()?;
    }
    spec.name = name.to_owned();
    let folder = storage.open(&Location::parse(&target.uri(name))?)?;
    spec.sha256 = Some(sha256_of(&folder, Precision::Float32)?);
    spec.sha256_int8 = int8
        .then(|| sha256_of(&folder, Precision::Int8))
        .transpose()?;
    let text = toml::to_string(&spec)
        .map_err(|e| Error::bug(format!("a spec does not serialise: {e}")))?;
    target.put(&format!("{name}/{SPEC}"), text)?;
    target.tidy();
    Ok(spec)
}
