//! URIs: plain paths, `file://`, `memory://`.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use sluice_manifest::{Error, Result};

/// Where a prefix or an object lies. Prints as a URI, or as a plain path on local disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A folder or file on local disk, as an absolute path without `.` and `..`.
    Local(PathBuf),
    /// A path in memory, shared by everything in this process. For tests.
    Memory {
        /// The name of the memory.
        name: String,
        /// The path in it, without slashes at its ends.
        path: String,
    },
}

impl Location {
    /// Parses a URI or a plain path. Relative paths start at the working directory.
    pub fn parse(uri: &str) -> Result<Self> {
        if uri.is_empty() {
            return Err(Error::usage("an empty string is no URI"));
        }
        match uri.split_once("://") {
            None => Self::local(uri),
            Some(("file", path)) => Self::local(path),
            Some(("memory", rest)) => {
                let (name, path) = rest.split_once('/').unwrap_or((rest, ""));
                Ok(Self::Memory {
                    name: name.to_owned(),
                    path: path.trim_matches('/').to_owned(),
                })
            }
            Some((scheme, _)) => Err(Error::usage(format!("{uri}: no store for {scheme}://"))
                .hint("this build reads and writes plain paths, file:// and memory://")),
        }
    }

    fn local(path: &str) -> Result<Self> {
        let absolute = std::path::absolute(path)
            .map_err(|e| Error::usage(format!("{path}: not a usable path: {e}")))?;
        let mut plain = PathBuf::new();
        for component in absolute.components() {
            match component {
                Component::ParentDir => {
                    plain.pop();
                }
                Component::CurDir => {}
                other => plain.push(other),
            }
        }
        Ok(Self::Local(plain))
    }

    /// The folder of this location and the last part of its path.
    pub fn split(&self) -> Option<(Location, String)> {
        match self {
            Self::Local(path) => Some((
                Self::Local(path.parent()?.to_path_buf()),
                path.file_name()?.to_str()?.to_owned(),
            )),
            Self::Memory { name, path } => {
                let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
                let folder = Self::Memory {
                    name: name.clone(),
                    path: folder.to_owned(),
                };
                (!file.is_empty()).then(|| (folder, file.to_owned()))
            }
        }
    }

    /// This location on local disk, where it is there.
    pub fn as_local(&self) -> Option<&Path> {
        match self {
            Self::Local(path) => Some(path),
            Self::Memory { .. } => None,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => write!(f, "{}", path.display()),
            Self::Memory { name, path } if path.is_empty() => write!(f, "memory://{name}"),
            Self::Memory { name, path } => write!(f, "memory://{name}/{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_parse() {
        let local = Location::Local(PathBuf::from("/data/x"));
        assert_eq!(Location::parse("file:///data/./a/../x/").unwrap(), local);
        assert_eq!(Location::parse("/data/x").unwrap().to_string(), "/data/x");
        let memory = Location::parse("memory://t/runs/a/").unwrap();
        assert_eq!(memory.to_string(), "memory://t/runs/a");
        let (folder, file) = memory.split().unwrap();
        assert_eq!(
            (folder.to_string().as_str(), file.as_str()),
            ("memory://t/runs", "a")
        );
        let error = Location::parse("ftp://x/y").unwrap_err().to_string();
        assert!(error.contains("ftp://"), "{error}");
    }
}
