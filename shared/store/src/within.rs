//! Decides whether one location is inside another one, whatever names they are reached by.
//!
//! Writing to a location under a second name overwrites what is there. On local disk two paths are
//! the same location if they are equal after resolving symbolic links, or if the file system
//! identifies them as one folder (device and inode): bind mounts, and names on a case-insensitive
//! disk. A link may lead to a path that does not exist yet. In a bucket, empty components of a path
//! are ignored, as opendal does.

use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::Location;

/// The maximum number of links followed for one path, the kernel's own limit.
const LINKS: usize = 40;

impl Location {
    /// Returns the location with symbolic links resolved in the part of a local path that exists.
    #[must_use]
    pub fn resolved(&self) -> Self {
        match self {
            Self::Local(path) => Self::Local(resolved(path)),
            Self::Bucket { .. } | Self::Memory { .. } => self.clone(),
        }
    }

    /// Returns whether this location is equal to `outer` or inside it, under any name.
    pub fn is_within(&self, outer: &Self) -> bool {
        match (self, outer) {
            (Self::Local(inner), Self::Local(outer)) => is_within_local(inner, outer),
            (
                Self::Bucket {
                    scheme,
                    bucket,
                    path,
                },
                Self::Bucket {
                    scheme: other_scheme,
                    bucket: other,
                    path: folder,
                },
            ) => (scheme, bucket) == (other_scheme, other) && is_below(path, folder),
            (
                Self::Memory { name, path },
                Self::Memory {
                    name: other,
                    path: folder,
                },
            ) => name == other && is_below(path, folder),
            _ => false,
        }
    }
}

fn is_below(path: &str, folder: &str) -> bool {
    keys(path).starts_with(&keys(folder))
}

/// Returns the components of a path in a bucket.
fn keys(path: &str) -> Vec<&str> {
    let mut keys = Vec::new();
    for key in path.trim().split('/') {
        match key {
            "" | "." => {}
            ".." => {
                keys.pop();
            }
            key => keys.push(key),
        }
    }
    keys
}

fn is_within_local(inner: &Path, outer: &Path) -> bool {
    let (inner, outer) = (resolved(inner), resolved(outer));
    if inner.starts_with(&outer) {
        return true;
    }
    let Some(outer) = identity(&outer) else {
        return false;
    };
    inner
        .ancestors()
        .any(|folder| identity(folder) == Some(outer))
}

/// Returns what identifies a file to the file system: device and inode.
#[cfg(unix)]
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn identity(_: &Path) -> Option<(u64, u64)> {
    None
}

/// Returns a path with symbolic links resolved, including links to paths that do not exist yet.
fn resolved(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let existing = path
            .ancestors()
            .find_map(|folder| Some((folder, fs::canonicalize(folder).ok()?)));
        let Some((folder, real)) = existing else {
            return path;
        };
        let mut rest = path.strip_prefix(folder).unwrap_or(&path).components();
        let Some(first) = rest.next() else {
            return real;
        };
        let next = real.join(first);
        path = match fs::read_link(&next) {
            Ok(target) => real.join(target).join(rest.as_path()),
            Err(_) => return plain(&next.join(rest.as_path())),
        };
    }
    path
}

/// Returns a path without `.` and `..`.
pub(crate) fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(uri: &str) -> Location {
        Location::parse(uri).unwrap()
    }

    #[test]
    fn places_are_compared_by_what_they_are() {
        for (inner, outer, expected) in [
            ("/d/a", "/d", true),
            ("/d", "/d/", true),
            ("/d/x/../a", "file:///d", true),
            ("FILE://localhost/d/a", "/d//", true),
            ("/data", "/d", false),
            ("/d", "/d/a", false),
            ("s3://b/in/x", "s3://b/in/", true),
            ("S3://b/in//x", "s3://b/in", true),
            ("s3://b/a/../in", "s3://b/in", true),
            ("s3://b//in", "s3://b/in", true),
            ("s3://b/in", "s3://b", true),
            ("s3://b/input", "s3://b/in", false),
            ("s3://c/in/x", "s3://b/in", false),
            ("gs://b/in/x", "s3://b/in", false),
            ("az://c/x", "az://c/x", true),
            ("memory://m/in/x", "memory://m/in", true),
            ("memory://m/input", "memory://m/in", false),
            ("memory://n/in", "memory://m/in", false),
        ] {
            assert_eq!(
                parse(inner).is_within(&parse(outer)),
                expected,
                "{inner} {outer}"
            );
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, path(name)).unwrap();
        fs::create_dir_all(path("in/deep")).unwrap();
        link("in", "link");
        link("link/deep", "second");
        link("in/later", "dangling");
        link("../in/later/too", "in/relative");
        link("round", "round");
        for (inner, outer, expected) in [
            ("link", "in", true),
            ("in", "link", true),
            ("link/new/x", "in", true),
            ("second", "in", true),
            ("dangling/x", "in", true),
            ("dangling", "in/later", true),
            ("in/relative", "dangling", true),
            ("in/deep", "second", true),
            ("in", "second", false),
            ("inner", "link", false),
            ("round/x", "in", false),
        ] {
            let [inner_at, outer_at] = [inner, outer].map(|name| Location::Local(path(name)));
            assert_eq!(inner_at.is_within(&outer_at), expected, "{inner} {outer}");
        }
    }
}
