//! Paths and locks of the Hub's cache.

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use sluice_manifest::{Error, Result};

use crate::http::TICK;

/// The folder of one repository in the cache.
pub(crate) struct Repository {
    folder: PathBuf,
    locks: PathBuf,
}

impl Repository {
    pub(crate) fn new(cache: &Path, repository: &str) -> Self {
        let name = format!("models--{}", repository.replace('/', "--"));
        Self {
            folder: cache.join(&name),
            locks: cache.join(".locks").join(name),
        }
    }

    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.folder.join("refs").join(revision)
    }

    /// Returns the commit that the revision last referred to, or the revision itself if it is a
    /// commit.
    pub(crate) fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let commit = fs::read_to_string(self.reference(revision)).ok()?;
        Some(commit.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// Records the commit that a branch or tag refers to.
    pub(crate) fn record(&self, revision: &str, commit: &str) -> Result<()> {
        if revision == commit || self.commit(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.reference(revision);
        create_parent(&path)?;
        let written = temporary(&path);
        fs::write(&written, commit)
            .and_then(|()| fs::rename(&written, &path))
            .map_err(|e| failed(e, &path))
    }

    /// Links a blob into the snapshot of a commit.
    pub(crate) fn link(&self, commit: &str, path: &str, etag: &str) -> Result<()> {
        let link = self.snapshot(commit).join(path);
        create_parent(&link)?;
        let up = "../".repeat(path.split('/').count() + 1);
        let target = PathBuf::from(format!("{up}blobs/{etag}"));
        if fs::read_link(&link).is_ok_and(|old| old == target) {
            return Ok(());
        }
        let new = temporary(&link);
        let _ = fs::remove_file(&new);
        symlink(&target, &new)
            .and_then(|()| fs::rename(&new, &link))
            .map_err(|e| failed(e, &link))
    }

    /// Locks a blob against downloads by other processes, waiting if necessary. Dropping the
    /// returned file releases the lock.
    pub(crate) fn lock(&self, etag: &str, keep_going: &dyn Fn() -> Result<()>) -> Result<File> {
        lock(&self.locks.join(format!("{etag}.lock")), keep_going)
    }

    /// Returns the complete files of a snapshot as relative paths, sorted.
    pub(crate) fn files(&self, commit: &str) -> Result<Vec<String>> {
        let root = self.snapshot(commit);
        let mut files = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(failed(e, &folder)),
            };
            for entry in entries {
                let path = entry.map_err(|e| failed(e, &folder))?.path();
                match fs::metadata(&path) {
                    Ok(info) if info.is_dir() => folders.push(path),
                    Ok(_) => files.extend(
                        path.strip_prefix(&root)
                            .ok()
                            .and_then(Path::to_str)
                            .map(str::to_owned),
                    ),
                    Err(_) => {} // a link without its blob
                }
            }
        }
        files.sort();
        Ok(files)
    }
}

/// Locks a file, waiting while another process holds the lock. Dropping the returned file releases
/// it.
pub(crate) fn lock(path: &Path, keep_going: &dyn Fn() -> Result<()>) -> Result<File> {
    create_parent(path)?;
    let mut options = File::options();
    let file = options.create(true).truncate(false).write(true).open(path);
    let file = file.map_err(|e| failed(e, path))?;
    let mut waits = false;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            Err(e) => return Err(failed(e.into(), path)),
        }
        if !waits {
            tracing::info!("{}: waiting for another process", path.display());
            waits = true;
        }
        keep_going()?;
        std::thread::sleep(TICK);
    }
}

/// Returns whether a revision is a full commit hash.
pub(crate) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Returns a unique temporary path in the same folder.
fn temporary(path: &Path) -> PathBuf {
    let random = RandomState::new().hash_one(path);
    path.with_extension(format!("{random:016x}.tmp"))
}

/// Creates the folder of a file.
pub(crate) fn create_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(|e| failed(e, parent))
}

/// Converts an error of the local disk.
pub(crate) fn failed(e: io::Error, path: &Path) -> Error {
    let text = format!("{}: {e}", path.display());
    match e.kind() {
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::NotADirectory => {
            Error::usage(text).hint("HF_HUB_CACHE or HF_HOME names a folder that can be written")
        }
        _ => Error::transient(text),
    }
}
