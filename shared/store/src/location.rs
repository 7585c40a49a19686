//! Parses URIs: plain paths, `file://`, `s3://`, `gs://`, `az://`, `memory://`.

use std::fmt;
use std::path::{Path, PathBuf};

use sluice_manifest::text::refuse_credentials;
use sluice_manifest::{Error, Result};

use crate::within::plain;

/// A kind of object store, named by the scheme of its URIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Amazon S3 and compatible servers.
    S3,
    /// Google Cloud Storage.
    Gs,
    /// Azure Blob Storage, where a bucket is called a container.
    Az,
}

impl Scheme {
    const ALL: [Scheme; 3] = [Scheme::S3, Scheme::Gs, Scheme::Az];

    /// Returns the scheme, the part of a URI before `://`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gs => "gs",
            Self::Az => "az",
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The location of a prefix or an object. Prints as a URI, or as a plain path on local disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A folder or file on local disk: an absolute path without `.` and `..`.
    Local(PathBuf),
    /// A key, or a prefix of keys, in a bucket.
    Bucket {
        /// The kind of object store.
        scheme: Scheme,
        /// The bucket's name.
        bucket: String,
        /// The path in the bucket, without leading and trailing slashes.
        path: String,
    },
    /// A path in the memory of this process. For tests.
    Memory {
        /// The name of the memory store. Locations with the same name share their objects.
        name: String,
        /// The path in the memory store, without leading and trailing slashes.
        path: String,
    },
}

impl Location {
    /// Parses a URI or a plain path. Relative paths are resolved against the working directory.
    /// Schemes are case-insensitive.
    ///
    /// # Errors
    ///
    /// Returns a usage error if `uri` is empty, has an unknown scheme, contains credentials or
    /// names no bucket, or if the path is unusable on this system.
    pub fn parse(uri: &str) -> Result<Self> {
        if uri.is_empty() {
            return Err(Error::usage("expected a URI, got an empty string"));
        }
        let Some((scheme, rest)) = uri.split_once("://") else {
            return Self::local(uri);
        };
        refuse_credentials(uri)?;
        match scheme.to_ascii_lowercase().as_str() {
            "file" => match rest.strip_prefix("localhost/") {
                Some(path) => Self::local(&format!("/{path}")),
                None => Self::local(rest),
            },
            "memory" => {
                let (name, path) = rest.split_once('/').unwrap_or((rest, ""));
                Ok(Self::Memory {
                    name: name.to_owned(),
                    path: path.trim_matches('/').to_owned(),
                })
            }
            scheme => match Scheme::ALL
                .into_iter()
                .find(|known| known.as_str() == scheme)
            {
                Some(scheme) => Self::bucket(scheme, rest),
                None => Err(Error::usage(format!("{uri}: no store for {scheme}://"))
                    .hint("supported are plain paths, file://, s3://, gs://, az:// and memory://")),
            },
        }
    }

    fn bucket(scheme: Scheme, rest: &str) -> Result<Self> {
        let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(Error::usage(format!("{scheme}://{rest}: no bucket name"))
                .hint(format!("write {scheme}://bucket/path")));
        }
        Ok(Self::Bucket {
            scheme,
            bucket: bucket.to_owned(),
            path: path.trim_matches('/').to_owned(),
        })
    }

    fn local(path: &str) -> Result<Self> {
        let absolute = std::path::absolute(path)
            .map_err(|e| Error::usage(format!("{path}: not a usable path: {e}")))?;
        Ok(Self::Local(plain(&absolute)))
    }

    /// Returns the parent folder and the last component of the path, or `None` if the path has no
    /// last component.
    pub fn split(&self) -> Option<(Location, String)> {
        match self {
            Self::Local(path) => Some((
                Self::Local(path.parent()?.to_path_buf()),
                path.file_name()?.to_str()?.to_owned(),
            )),
            Self::Bucket { path, .. } | Self::Memory { path, .. } => {
                let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
                (!file.is_empty()).then(|| (self.at(folder), file.to_owned()))
            }
        }
    }

    /// Returns another path in the same bucket or memory store.
    fn at(&self, to: &str) -> Self {
        let mut location = self.clone();
        if let Self::Bucket { path, .. } | Self::Memory { path, .. } = &mut location {
            to.clone_into(path);
        }
        location
    }

    /// Returns the path if this location is on local disk.
    pub fn as_local(&self) -> Option<&Path> {
        match self {
            Self::Local(path) => Some(path),
            Self::Bucket { .. } | Self::Memory { .. } => None,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => write!(f, "{}", path.display()),
            Self::Bucket {
                scheme,
                bucket,
                path,
            } => {
                if path.is_empty() {
                    write!(f, "{scheme}://{bucket}")
                } else {
                    write!(f, "{scheme}://{bucket}/{path}")
                }
            }
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
        for uri in ["file:///data/./a/../x/", "FILE://localhost/data//x"] {
            assert_eq!(Location::parse(uri).unwrap(), local, "{uri}");
        }
        assert_eq!(Location::parse("/data/x").unwrap().to_string(), "/data/x");
        let memory = Location::parse("memory://t/runs/a/").unwrap();
        assert_eq!(memory.to_string(), "memory://t/runs/a");
        let (folder, file) = memory.split().unwrap();
        assert_eq!(
            (folder.to_string().as_str(), file.as_str()),
            ("memory://t/runs", "a")
        );
        let bucket = Location::parse("s3://b/runs//a*?/").unwrap();
        assert_eq!(bucket.to_string(), "s3://b/runs//a*?");
        let (root, file) = Location::parse("az://c/x").unwrap().split().unwrap();
        assert_eq!((root.to_string().as_str(), file.as_str()), ("az://c", "x"));
        assert_eq!(root.split(), None);
        let upper = Location::parse("S3://b/X").unwrap();
        assert_eq!(upper.to_string(), "s3://b/X");
        for (wrong, word) in [
            ("ftp://x/y", "ftp://"),
            ("gs:///x", "bucket"),
            ("s3://me:hush@b/x", "environment"),
            ("S3://me:hush@b/x", "environment"),
            ("https://me:hush@b/x", "environment"),
            ("az://c/x?sv=1&sig=hush", "environment"),
        ] {
            let error = Location::parse(wrong).unwrap_err().to_string();
            assert!(error.contains(word) && !error.contains("hush"), "{error}");
        }
    }
}
