//! The environment variables of `huggingface_hub`, with the same meaning.

use std::path::PathBuf;

use sluice_manifest::{Error, Result};

/// The Hub's endpoint, the token and the cache folder.
#[derive(Clone, PartialEq, Eq)]
pub struct Environment {
    /// `HF_ENDPOINT`, without a trailing slash.
    pub endpoint: String,
    /// `HF_TOKEN`, else the content of the file `HF_TOKEN_PATH` (default `$HF_HOME/token`).
    pub token: Option<String>,
    /// `HF_HUB_CACHE`, else `$HF_HOME/hub`.
    pub cache: PathBuf,
    /// `HF_HUB_OFFLINE`: no requests are made, and only the cache is used.
    pub offline: bool,
    /// `SLUICE_MIRROR`: a server that provides the files of other hosts under `/HOST/PATH`.
    pub mirror: Option<String>,
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment")
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "***"))
            .field("cache", &self.cache)
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}

impl Environment {
    /// Reads the variables. `variable` returns the value of one.
    ///
    /// # Errors
    /// Usage, when `HF_ENDPOINT` is not an HTTP URL, `HF_TOKEN` cannot be a token, or the home folder is not known.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            return Err(Error::usage(
                "HF_ENDPOINT: expected https://HOST or http://HOST",
            ));
        }
        let user = set("HOME");
        let folder = |path: String| match (path.strip_prefix("~/"), &user) {
            (Some(rest), Some(user)) => PathBuf::from(user).join(rest),
            _ => PathBuf::from(path),
        };
        let first = |names: &[&str]| names.iter().find_map(|name| set(name)).map(folder);
        let caches = first(&["XDG_CACHE_HOME"]);
        let home = first(&["HF_HOME"])
            .or_else(|| caches.map(|caches| caches.join("huggingface")))
            .or_else(|| Some(PathBuf::from(user.clone()?).join(".cache/huggingface")));
        let home = home.ok_or_else(|| {
            Error::usage("no home folder is known for the Hub's cache").hint("set HF_HOME or HOME")
        })?;
        let token_file = first(&["HF_TOKEN_PATH"]).unwrap_or_else(|| home.join("token"));
        let stored = || std::fs::read_to_string(token_file).ok();
        let token = set("HF_TOKEN")
            .or_else(|| set("HUGGING_FACE_HUB_TOKEN"))
            .or_else(stored);
        let token = token.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty());
        if token
            .as_ref()
            .is_some_and(|token| !token.bytes().all(|b| b.is_ascii_graphic()))
        {
            return Err(Error::usage(
                "HF_TOKEN, or the token file: a line break, a space or a letter that no token has",
            ));
        }
        Ok(Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token,
            cache: first(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"])
                .unwrap_or_else(|| home.join("hub")),
            offline: set("HF_HUB_OFFLINE").is_some_and(|value| is_true(&value)),
            mirror: set("SLUICE_MIRROR").map(|url| url.trim_end_matches('/').to_owned()),
        })
    }
}

/// Returns whether `huggingface_hub` treats the value as true.
fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: &[(&str, &str)]) -> Environment {
        let value = |name: &str| Some(set.iter().find(|(n, _)| *n == name)?.1.to_owned());
        Environment::read(value).unwrap()
    }

    #[test]
    fn folders_come_from_the_first_variable_that_is_set() {
        let cases: [(&[(&str, &str)], &str); 5] = [
            (&[("HOME", "/u")], "/u/.cache/huggingface/hub"),
            (
                &[("HOME", "/u"), ("XDG_CACHE_HOME", "/c")],
                "/c/huggingface/hub",
            ),
            (&[("HOME", "/u"), ("HF_HOME", "~/hf")], "/u/hf/hub"),
            (
                &[("HOME", "/u"), ("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/k")],
                "/k",
            ),
            (&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "")], "/hf/hub"),
        ];
        for (set, cache) in cases {
            assert_eq!(read(set).cache, PathBuf::from(cache), "{set:?}");
        }
    }

    #[test]
    fn a_token_comes_from_the_variable_or_the_file_and_is_never_printed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t");
        std::fs::write(&file, "hf_file\n").unwrap();
        let path = ("HF_TOKEN_PATH", file.to_str().unwrap());
        assert_eq!(read(&[("HOME", "/u"), path]).token.unwrap(), "hf_file");
        let both = read(&[("HOME", "/u"), path, ("HF_TOKEN", " hf_env ")]);
        assert_eq!(both.token.as_deref(), Some("hf_env"));
        assert!(!format!("{both:?}").contains("hf_env"));
        assert_eq!(read(&[("HOME", "/u")]).token, None);
        let broken = |name: &str| match name {
            "HF_TOKEN" => Some("hf_a\nhf_b".to_owned()),
            "HOME" => Some("/u".to_owned()),
            _ => None,
        };
        let error = Environment::read(broken);
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("HF_TOKEN") && !error.contains("hf_b"),
            "{error}"
        );
    }

    #[test]
    fn the_endpoint_and_offline_are_as_python_takes_them() {
        assert_eq!(
            read(&[("HOME", "/u"), ("HF_ENDPOINT", "http://h:1/")]).endpoint,
            "http://h:1"
        );
        for (value, offline) in [
            ("1", true),
            ("YES", true),
            ("True", true),
            ("0", false),
            ("", false),
        ] {
            assert_eq!(
                read(&[("HOME", "/u"), ("HF_HUB_OFFLINE", value)]).offline,
                offline
            );
        }
        assert!(
            Environment::read(|name| (name == "HF_ENDPOINT").then(|| "ftp://x".into())).is_err()
        );
    }
}
