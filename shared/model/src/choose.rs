//! Which files of a repository, a folder or a server are pulled as a model.

use sluice_manifest::{Error, Result};

use crate::layout::{DESCRIPTIONS, ONNX_FILES};

/// Whether a file is the weights of a model, to be converted.
pub fn is_weights(file: &str) -> bool {
    file.ends_with(".safetensors")
}

/// The files of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The ONNX file, or the weights that are converted.
    pub onnx: String,
    /// The files that describe its input: in its folder or above, the nearest of each name.
    pub specs: Vec<String>,
}

impl Choice {
    /// Returns an ONNX file, with the paths where its specs may be.
    pub fn around(onnx: &str) -> Self {
        let specs = folders(onnx).flat_map(|folder| DESCRIPTIONS.map(|name| joined(folder, name)));
        Self {
            onnx: onnx.to_owned(),
            specs: specs.collect(),
        }
    }

    /// Chooses among `paths`: the file `at`, or the ONNX file of the folder `at`, or its weights.
    ///
    /// # Errors
    /// Usage, when there is no such file, or several and none has a usual name.
    pub fn choose(paths: &[String], at: &str) -> Result<Self> {
        let has = |path: &str| paths.iter().any(|found| found == path);
        let onnx = if at.ends_with(".onnx") || is_weights(at) {
            Some(at.to_owned()).filter(|path| has(path))
        } else {
            let usual = ONNX_FILES.map(|name| joined(at, name));
            usual.into_iter().find(|path| has(path))
        };
        let onnx = onnx.map_or_else(|| only(paths, at), Ok)?;
        let mut choice = Self::around(&onnx);
        choice.specs.retain(|path| has(path));
        Ok(choice)
    }
}

/// The weights of a folder without ONNX files.
const WEIGHTS: &str = "model.safetensors";

/// Returns the one ONNX file under a folder, or its weights.
fn only(paths: &[String], folder: &str) -> Result<String> {
    let inside = |path: &&String| {
        let rest = path.strip_prefix(folder).unwrap_or_default();
        path.ends_with(".onnx") && (folder.is_empty() || rest.starts_with('/'))
    };
    let found: Vec<&String> = paths.iter().filter(inside).collect();
    match found.as_slice() {
        [] if paths.contains(&joined(folder, WEIGHTS)) => Ok(joined(folder, WEIGHTS)),
        [] => Err(
            Error::usage(format!("neither an ONNX file there nor {WEIGHTS}"))
                .hint("`optimum-cli export onnx` makes one; many repositories have one in onnx/"),
        ),
        [one] => Ok((*one).clone()),
        found => {
            let names: Vec<&str> = found.iter().take(10).map(|name| name.as_str()).collect();
            Err(Error::usage(format!(
                "{} ONNX files there, and none of a usual name",
                found.len()
            ))
            .hint(format!("name one of them: {}", names.join(", "))))
        }
    }
}

/// Returns the folder of a path, and the folders above it.
fn folders(path: &str) -> impl Iterator<Item = &str> {
    let folder = |path: &str| path.rsplit_once('/').map_or(0, |(folder, _)| folder.len());
    let first = Some(&path[..folder(path)]);
    std::iter::successors(first, move |inner| {
        (!inner.is_empty()).then(|| &inner[..folder(inner)])
    })
}

/// Joins a folder, which may be empty, and a path in it.
pub(crate) fn joined(folder: &str, path: &str) -> String {
    if folder.is_empty() {
        path.to_owned()
    } else {
        format!("{folder}/{path}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(paths: &[&str], at: &str) -> Result<(String, Vec<String>), String> {
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        let chosen = Choice::choose(&paths, at).map_err(|e| e.to_string())?;
        Ok((chosen.onnx, chosen.specs))
    }

    #[test]
    fn the_image_tower_and_the_specs_beside_or_above_it_are_chosen() {
        let hub = [
            "README.md",
            "config.json",
            "onnx/model.onnx",
            "onnx/model_quantized.onnx",
            "onnx/text_model.onnx",
            "onnx/vision_model.onnx",
            "preprocessor_config.json",
        ];
        let specs = ["preprocessor_config.json", "config.json"]
            .map(str::to_owned)
            .to_vec();
        let tower = ("onnx/vision_model.onnx".to_owned(), specs.clone());
        assert_eq!(choose(&hub, ""), Ok(tower));
        let full = ("onnx/model.onnx".to_owned(), specs);
        assert_eq!(choose(&hub, "onnx"), Ok(full.clone()));
        assert_eq!(choose(&hub, "onnx/model.onnx"), Ok(full));
        let beside = [
            "a/config.json",
            "a/onnx/config.json",
            "a/onnx/x.onnx",
            "config.json",
        ];
        let (onnx, specs) = choose(&beside, "a").unwrap();
        assert_eq!(onnx, "a/onnx/x.onnx");
        assert_eq!(specs[0], "a/onnx/config.json");
    }

    #[test]
    fn weights_are_taken_where_there_is_no_onnx_file() {
        let (weights, specs) = choose(&["config.json", "model.safetensors"], "").unwrap();
        assert_eq!((weights.as_str(), specs.len()), ("model.safetensors", 1));
        let (onnx, _) = choose(&["model.safetensors", "onnx/model.onnx"], "").unwrap();
        assert_eq!(onnx, "onnx/model.onnx");
    }

    #[test]
    fn what_cannot_be_chosen_is_refused() {
        let none = choose(&["pytorch_model.bin"], "").unwrap_err();
        assert!(none.contains("neither an ONNX file"), "{none}");
        let two = choose(&["a.onnx", "b.onnx"], "").unwrap_err();
        assert!(two.contains("a.onnx, b.onnx"), "{two}");
        assert!(choose(&["a.onnx"], "b.onnx").is_err());
        assert!(choose(&["ab/x.onnx"], "a").is_err());
    }
}
