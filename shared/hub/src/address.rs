//! `hf://ORG/NAME[@REVISION][/PATH]`: a model repository, optionally at a revision, and a folder or
//! file in it.

use std::fmt;
use std::str::FromStr;

use sluice_manifest::{Error, Result};

/// A parsed `hf://` URI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// `ORG/NAME`.
    pub repository: String,
    /// A branch, a tag or a commit; `main` by default.
    pub revision: String,
    /// A folder or file in the repository; empty for its root.
    pub path: String,
}

impl Address {
    /// The scheme of addresses on the Hub, with `://`.
    pub const SCHEME: &str = "hf://";

    /// Returns whether the text is an `hf://` URI.
    pub fn is_one(uri: &str) -> bool {
        uri.get(..Self::SCHEME.len())
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case(Self::SCHEME))
    }
}

/// Returns whether the Hub allows this as part of a repository's name, a revision or a path.
fn is_name(part: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !part.is_empty() && part != "." && part != ".." && part.chars().all(allowed)
}

fn is_path(path: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', '\0', '?', '#'])
    };
    path.split('/').all(part)
}

impl FromStr for Address {
    type Err = Error;

    /// Parses `hf://ORG/NAME`, optionally with `@REVISION` and a path. As in `huggingface_hub`,
    /// slashes in a revision are written as `%2F` (`refs%2Fpr%2F1`), and `hf://models/ORG/NAME`
    /// equals `hf://ORG/NAME`.
    ///
    /// # Errors
    ///
    /// Returns a usage error if the text has another form.
    fn from_str(uri: &str) -> Result<Self> {
        let wrong = || {
            Error::usage(format!("{uri:?}: expected hf://ORG/NAME[@REVISION][/PATH]"))
                .hint("for example hf://openai/clip-vit-large-patch14@main")
        };
        if !Self::is_one(uri) {
            return Err(wrong());
        }
        let rest = &uri[Self::SCHEME.len()..];
        let rest = rest.strip_prefix("models/").unwrap_or(rest);
        let mut parts = rest.trim_end_matches('/').splitn(3, '/');
        let (Some(organisation), Some(name)) = (parts.next(), parts.next()) else {
            return Err(wrong());
        };
        let path = parts.next().unwrap_or_default();
        let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
        let revision = revision.replace("%2F", "/").replace("%2f", "/");
        let sound = is_name(organisation)
            && is_name(name)
            && revision.split('/').all(is_name)
            && (path.is_empty() || is_path(path));
        if !sound {
            return Err(wrong());
        }
        Ok(Self {
            repository: format!("{organisation}/{name}"),
            revision,
            path: path.to_owned(),
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::SCHEME, self.repository)?;
        if self.revision != "main" {
            write!(f, "@{}", self.revision.replace('/', "%2F"))?;
        }
        match self.path.as_str() {
            "" => Ok(()),
            path => write!(f, "/{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed_and_printed() {
        let cases = [
            ("hf://org/name", "org/name", "main", ""),
            ("hf://org/name@v1.0", "org/name", "v1.0", ""),
            (
                "hf://org/name@refs%2Fpr%2F1/onnx",
                "org/name",
                "refs/pr/1",
                "onnx",
            ),
            (
                "hf://org/name/onnx/model.onnx",
                "org/name",
                "main",
                "onnx/model.onnx",
            ),
        ];
        for (uri, repository, revision, path) in cases {
            let address: Address = uri.parse().unwrap();
            assert_eq!(
                (
                    address.repository.as_str(),
                    address.revision.as_str(),
                    address.path.as_str()
                ),
                (repository, revision, path)
            );
            assert_eq!(address.to_string(), uri);
        }
        assert_eq!(
            "hf://models/org/name/"
                .parse::<Address>()
                .unwrap()
                .to_string(),
            "hf://org/name"
        );
    }

    #[test]
    fn what_leaves_the_repository_is_refused() {
        for uri in [
            "hf://",
            "hf://org",
            "hf://org/",
            "hf://../x",
            "hf://org/name/../x",
            "hf://org/na me",
            "hf://org/name@",
            "hf://org/name@a/../b/..",
            "hf://org/name@..",
            "https://org/name",
            "hf://org/name//x",
            "hf://org/name/a?b",
        ] {
            let error = uri.parse::<Address>().unwrap_err();
            assert!(
                error.to_string().contains("expected hf://"),
                "{uri}: {error}"
            );
        }
    }
}
