//! Files of local disk.
//!
//! They are read and written on the calling thread. opendal's own service hands every call to
//! another thread and waits for it, asks for extended attributes, and reads into half a megabyte of
//! fresh memory, however small the file: a receipt took a dozen times as long.

use std::collections::HashSet;
use std::fs::{self, DirEntry, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use opendal::raw::Timestamp;
use sluice_manifest::{Class, Error};

use crate::stop::Stop;
use crate::store::ObjectInfo;
use crate::temporary::{self, Temporary};

/// The folder of temporary files, which are renamed to what they are.
const TEMPORARY: &str = ".sluice-tmp";

/// The files under a folder. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    root: Arc<Path>,
    /// Ends reading.
    pub stop: Stop,
}

impl Disk {
    pub fn new(root: &Path, stop: Stop) -> Self {
        let root = root.into();
        Self { root, stop }
    }

    /// Whether the folder is there.
    pub fn is_there(&self) -> io::Result<bool> {
        match fs::metadata(&self.root) {
            Ok(metadata) => Ok(metadata.is_dir()),
            Err(e) if is_missing(&e) => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn path(&self, object: &str) -> PathBuf {
        self.root.join(object.trim_start_matches('/'))
    }

    pub fn open(&self, object: &str) -> io::Result<File> {
        File::open(self.path(object))
    }

    pub fn read(&self, object: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path(object))
    }

    /// None where there is no such file, or a folder in its place.
    pub fn stat(&self, object: &str) -> io::Result<Option<ObjectInfo>> {
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

    /// The files under a folder, at any depth. A link counts as the file or the folder that it links
    /// to. See [`Walk`] for what is passed over.
    pub fn list(&self, folder: &str) -> Result<Vec<ObjectInfo>, Error> {
        let mut walk = Walk {
            disk: self,
            objects: Vec::new(),
            folders: Vec::new(),
            links: Vec::new(),
            seen: HashSet::new(),
        };
        walk.all(folder.trim_matches('/'))?;
        Ok(walk.objects)
    }

    /// It need not be there.
    pub fn delete(&self, object: &str) -> io::Result<()> {
        if_there(fs::remove_file(self.path(object))).map(drop)
    }

    /// Whether a file's folder is below the root once links are followed, or is not there.
    pub fn is_inside(&self, object: &str) -> io::Result<bool> {
        let path = self.path(object);
        let folder = path.parent().unwrap_or(&self.root);
        let Some(folder) = if_there(folder.canonicalize())? else {
            return Ok(true);
        };
        Ok(folder.starts_with(self.root.canonicalize()?))
    }

    /// Starts a file that appears when it is finished.
    pub fn create(&self, object: &str) -> io::Result<NewFile> {
        Ok(NewFile {
            temporary: Temporary::create(&self.root.join(TEMPORARY))?,
            target: self.path(object),
        })
    }

    /// Removes temporary files whose process is gone, and their folder once it is empty.
    pub fn tidy(&self) {
        temporary::clean(&self.root.join(TEMPORARY));
    }
}

/// A listing under way.
///
/// Each folder is listed once: folders first, then what links lead to, in order of their names. So a
/// link to a folder that is listed already, or that contains the link, is passed over. So are folders
/// below the first that may not be read (`lost+found`), and links to nothing. Each is logged by name.
struct Walk<'a> {
    disk: &'a Disk,
    objects: Vec<ObjectInfo>,
    /// Folders that are still to be listed.
    folders: Vec<String>,
    /// Links to folders that are still to be listed.
    links: Vec<String>,
    /// Device and inode of each folder that was listed.
    seen: HashSet<(u64, u64)>,
}

impl Walk<'_> {
    fn all(&mut self, first: &str) -> Result<(), Error> {
        self.folder(first).map_err(|e| self.error(&e, first))?;
        while let Some((path, is_link)) = self.next() {
            match self.folder(&path) {
                Ok(true) => {}
                Ok(false) if is_link => self.pass_over(&path, "the folder is listed already"),
                Ok(false) => {}
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    self.pass_over(&path, "permission denied");
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
        // What a link leads to must not depend on the order in which the system lists.
        self.links.sort_by(|a, b| b.cmp(a));
        self.links.pop().map(|link| (link, true))
    }

    /// Lists a folder. Returns false when it was listed before.
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
            tracing::warn!(name = %name.display(), "passed over: its name is not UTF-8");
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
        if !kind.is_symlink() {
            self.objects.extend(self.disk.stat(&object)?);
            return Ok(());
        }
        match fs::metadata(self.disk.path(&object)) {
            Ok(target) if target.is_dir() => self.links.push(object),
            Ok(_) => self.objects.extend(self.disk.stat(&object)?),
            Err(e) => self.pass_over(&object, &format!("the link leads nowhere: {e}")),
        }
        Ok(())
    }

    fn pass_over(&self, object: &str, why: &str) {
        let path = self.disk.path(object);
        tracing::warn!(path = %path.display(), "passed over: {why}");
    }

    fn error(&self, e: &io::Error, folder: &str) -> Error {
        error(e, &self.disk.path(folder).display().to_string())
    }
}

/// A file being written. Dropped unfinished, it never appears.
pub(crate) struct NewFile {
    temporary: Temporary,
    target: PathBuf,
}

impl NewFile {
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.temporary.file.write_all(bytes)
    }

    /// Brings it to disk, then gives it its name.
    pub fn finish(self) -> io::Result<()> {
        self.temporary.file.sync_all()?;
        self.temporary.rename(&self.target)
    }
}

/// Whether there is nothing at a path. Any other error leaves open what is there.
fn is_missing(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// None where there is no such file.
pub(crate) fn if_there<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Returns an error of writing as ours. Nothing that a new file needs has to be there before, so what
/// is missing was removed by another process: trying again makes it anew.
pub(crate) fn write_error(e: &io::Error, uri: &str) -> Error {
    match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists => Error::transient(format!(
            "{uri}: removed by another process while it was written: {e}"
        )),
        _ => error(e, uri),
    }
}

/// Returns an error of the system as ours; `uri` is the file's.
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

/// A time in RFC 3339.
fn text(time: SystemTime) -> io::Result<String> {
    let time = Timestamp::try_from(time).map_err(io::Error::other)?;
    Ok(time.to_string())
}
