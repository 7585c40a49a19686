//! Objects as files on local disk.
//!
//! Files are read and written on the calling thread. opendal's file service passes every call to
//! another thread, queries extended attributes, and reads into a fresh buffer of half a megabyte
//! however small the file. With it, reading a receipt took twelve times as long.

use std::collections::HashSet;
use std::fs::{self, DirEntry, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use opendal::raw::Timestamp;
use sluice_manifest::{Class, Error};

use crate::stop::StopFlag;
use crate::store::ObjectInfo;
use crate::temporary::{self, Temporary};

/// The folder for temporary files. A finished file is renamed from here to its object path.
const TEMPORARY: &str = ".sluice-tmp";

/// Why a listing skips what is neither a file nor a folder.
const NO_FILE: &str = "a FIFO, socket or device";

/// The files under a folder. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    root: Arc<Path>,
    /// Cancels reads.
    pub stop: StopFlag,
}

impl Disk {
    pub(crate) fn new(root: &Path, stop: StopFlag) -> Self {
        let root = root.into();
        Self { root, stop }
    }

    /// Returns whether the folder exists.
    pub(crate) fn exists(&self) -> io::Result<bool> {
        match fs::metadata(&self.root) {
            Ok(metadata) => Ok(metadata.is_dir()),
            Err(e) if is_missing(&e) => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn path(&self, object: &str) -> PathBuf {
        self.root.join(object.trim_start_matches('/'))
    }

    pub(crate) fn open(&self, object: &str) -> io::Result<File> {
        File::open(self.path(object))
    }

    pub(crate) fn read(&self, object: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path(object))
    }

    /// Returns the file's metadata, or `None` if there is no file at this path.
    pub(crate) fn stat(&self, object: &str) -> io::Result<Option<ObjectInfo>> {
        let Some(metadata) = if_there(fs::metadata(self.path(object)))? else {
            return Ok(None);
        };
        if !metadata.is_file() {
            return Ok(None);
        }
        Ok(Some(ObjectInfo {
            path: object.to_owned(),
            bytes: metadata.len(),
            etag: None,
            modified: Some(text(metadata.modified()?)?),
        }))
    }

    /// Returns the files under a folder, at any depth. A symbolic link counts as its target.
    /// [`FolderWalk`] documents what is skipped.
    pub(crate) fn list(&self, folder: &str) -> Result<Vec<ObjectInfo>, Error> {
        let mut walk = FolderWalk {
            disk: self,
            objects: Vec::new(),
            folders: Vec::new(),
            links: Vec::new(),
            seen: HashSet::new(),
        };
        walk.all(folder.trim_matches('/'))?;
        Ok(walk.objects)
    }

    /// Deletes a file. Succeeds if it does not exist.
    pub(crate) fn delete(&self, object: &str) -> io::Result<()> {
        if_there(fs::remove_file(self.path(object))).map(drop)
    }

    /// Returns whether a file's folder, after resolving symbolic links, is below the root or
    /// missing.
    pub(crate) fn is_inside(&self, object: &str) -> io::Result<bool> {
        let path = self.path(object);
        let folder = path.parent().unwrap_or(&self.root);
        let Some(folder) = if_there(folder.canonicalize())? else {
            return Ok(true);
        };
        Ok(folder.starts_with(self.root.canonicalize()?))
    }

    /// Starts a file that becomes visible only when it is finished.
    pub(crate) fn create(&self, object: &str) -> io::Result<NewFile> {
        Ok(NewFile {
            temporary: Temporary::create(&self.root.join(TEMPORARY))?,
            target: self.path(object),
        })
    }

    /// Removes temporary files whose writer has ended, then their folder if it is empty.
    pub(crate) fn tidy(&self) {
        temporary::clean(&self.root.join(TEMPORARY));
    }
}

/// A listing in progress.
///
/// Each folder is listed once: regular folders first, then the targets of symbolic links, in order
/// of their names. A link to a folder that is already listed, or to an ancestor of the link, is
/// skipped. So are subfolders without read permission (`lost+found`), dangling links, FIFOs, sockets
/// and devices. Each skipped path is logged.
struct FolderWalk<'a> {
    disk: &'a Disk,
    objects: Vec<ObjectInfo>,
    /// Folders still to list.
    folders: Vec<String>,
    /// Links to folders still to list.
    links: Vec<String>,
    /// Device and inode of each listed folder.
    seen: HashSet<(u64, u64)>,
}

impl FolderWalk<'_> {
    fn all(&mut self, first: &str) -> Result<(), Error> {
        self.folder(first).map_err(|e| self.error(&e, first))?;
        while let Some((path, is_link)) = self.next() {
            match self.folder(&path) {
                Ok(true) => {}
                Ok(false) if is_link => self.log_skipped(&path, "the folder is listed already"),
                Ok(false) => {}
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    self.log_skipped(&path, "permission denied");
                }
                Err(e) => return Err(self.error(&e, &path)),
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Option<(String, bool)> {
        if let Some(folder) = self.folders.pop() {
            return Some((folder, false));
        }
        // The chosen path to a folder must not depend on the order in which the system lists links.
        self.links.sort_by(|a, b| b.cmp(a));
        self.links.pop().map(|link| (link, true))
    }

    /// Lists a folder. Returns false if it was listed before.
    fn folder(&mut self, folder: &str) -> io::Result<bool> {
        let path = self.disk.path(folder);
        let Some(metadata) = if_there(fs::metadata(&path))? else {
            return Ok(true);
        };
        if !self.seen.insert((metadata.dev(), metadata.ino())) {
            return Ok(false);
        }
        for entry in if_there(fs::read_dir(&path))?.into_iter().flatten() {
            self.entry(folder, &entry?)?;
        }
        Ok(true)
    }

    fn entry(&mut self, folder: &str, entry: &DirEntry) -> io::Result<()> {
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            tracing::warn!(name = %name.display(), "skipped: its name is not UTF-8");
            return Ok(());
        };
        let object = match folder {
            "" if name == TEMPORARY => return Ok(()),
            "" => name.to_owned(),
            folder => format!("{folder}/{name}"),
        };
        let kind = entry.file_type()?;
        if kind.is_dir() {
            self.folders.push(object);
            return Ok(());
        }
        if kind.is_file() {
            self.objects.extend(self.disk.stat(&object)?);
            return Ok(());
        }
        if !kind.is_symlink() {
            self.log_skipped(&object, NO_FILE);
            return Ok(());
        }
        match fs::metadata(self.disk.path(&object)) {
            Ok(target) if target.is_dir() => self.links.push(object),
            Ok(target) if target.is_file() => self.objects.extend(self.disk.stat(&object)?),
            Ok(_) => self.log_skipped(&object, NO_FILE),
            Err(e) => self.log_skipped(&object, &format!("dangling link: {e}")),
        }
        Ok(())
    }

    fn log_skipped(&self, object: &str, why: &str) {
        let path = self.disk.path(object);
        tracing::warn!(path = %path.display(), "skipped: {why}");
    }

    fn error(&self, e: &io::Error, folder: &str) -> Error {
        error(e, &self.disk.path(folder).display().to_string())
    }
}

/// A file being written. Dropped before [`finish`](Self::finish), it never becomes visible.
pub(crate) struct NewFile {
    temporary: Temporary,
    target: PathBuf,
}

impl NewFile {
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.temporary.file.write_all(bytes)
    }

    /// Flushes the file to disk, then renames it to its target path.
    pub(crate) fn finish(self) -> io::Result<()> {
        self.temporary.file.sync_all()?;
        self.temporary.rename(&self.target)
    }
}

/// Returns whether the error means that nothing exists at a path. After any other error, something
/// may.
fn is_missing(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Turns the error for a missing file into `None`.
pub(crate) fn if_there<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Converts an error of writing. A new file needs nothing to exist beforehand, so "not found" means
/// that another process removed a folder: a retry creates it again.
pub(crate) fn write_error(e: &io::Error, uri: &str) -> Error {
    match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists => Error::transient(format!(
            "{uri}: removed by another process while it was written: {e}"
        )),
        _ => error(e, uri),
    }
}

/// Converts an error of the operating system. `uri` names the file.
pub(crate) fn error(e: &io::Error, uri: &str) -> Error {
    let class = Class::of_io(e);
    match e.kind() {
        io::ErrorKind::NotFound => Error::new(class, format!("{uri}: no such object")),
        io::ErrorKind::UnexpectedEof => Error::new(class, format!("{uri}: shorter than expected")),
        io::ErrorKind::PermissionDenied => {
            Error::new(class, format!("{uri}: permission denied")).hint("check the file's mode")
        }
        _ => Error::new(class, format!("{uri}: {e}")),
    }
}

/// Formats a time as RFC 3339.
fn text(time: SystemTime) -> io::Result<String> {
    let time = Timestamp::try_from(time).map_err(io::Error::other)?;
    Ok(time.to_string())
}
