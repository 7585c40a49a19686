//! Files of local disk.
//!
//! They are read and written on the calling thread. opendal's own service hands every call to
//! another thread and waits for it, asks for extended attributes, and reads into half a megabyte of
//! fresh memory, however small the file: a receipt took a dozen times as long.

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use opendal::raw::Timestamp;
use sluice_manifest::Error;

use crate::store::ObjectInfo;

/// Temporary files lie here until they are renamed to what they are.
const TEMPORARY: &str = ".sluice-tmp";

/// The files under a folder. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    root: Arc<Path>,
}

impl Disk {
    pub fn new(root: &Path) -> Self {
        Self { root: root.into() }
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

    /// The files under a folder, at any depth. A link counts as the file that it links to; folders
    /// behind links are not entered.
    pub fn list(&self, folder: &str) -> io::Result<Vec<ObjectInfo>> {
        let mut objects = Vec::new();
        let mut folders = vec![folder.trim_matches('/').to_owned()];
        while let Some(folder) = folders.pop() {
            let Some(entries) = if_there(fs::read_dir(self.path(&folder)))? else {
                continue;
            };
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name();
                let Some(name) = name.to_str() else {
                    tracing::warn!(name = %name.display(), "passed over: its name is not UTF-8");
                    continue;
                };
                let object = match folder.as_str() {
                    "" if name == TEMPORARY => continue,
                    "" => name.to_owned(),
                    folder => format!("{folder}/{name}"),
                };
                if entry.file_type()?.is_dir() {
                    folders.push(object);
                } else {
                    objects.extend(self.stat(&object)?);
                }
            }
        }
        Ok(objects)
    }

    /// It need not be there.
    pub fn delete(&self, object: &str) -> io::Result<()> {
        if_there(fs::remove_file(self.path(object))).map(drop)
    }

    /// Starts a file that appears when it is finished.
    pub fn create(&self, object: &str) -> io::Result<NewFile> {
        let folder = self.root.join(TEMPORARY);
        let temporary = folder.join(format!("{:016x}", RandomState::new().hash_one(object)));
        let create = || File::create_new(&temporary);
        let file = create().or_else(|e| match e.kind() {
            io::ErrorKind::NotFound => fs::create_dir_all(&folder).and_then(|()| create()),
            _ => Err(e),
        });
        Ok(NewFile {
            file: file?,
            temporary: Some(temporary),
            target: self.path(object),
        })
    }

    /// Removes the folder of temporary files once nothing is left in it.
    pub fn tidy(&self) {
        // It fails while another program writes here; that one will tidy up.
        let _ = fs::remove_dir(self.root.join(TEMPORARY));
    }
}

/// A file being written. Dropped unfinished, it never appears.
pub(crate) struct NewFile {
    file: File,
    /// None once it has its name.
    temporary: Option<PathBuf>,
    target: PathBuf,
}

impl NewFile {
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// Brings it to disk, then gives it its name.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        let Some(temporary) = self.temporary.take() else {
            return Ok(());
        };
        let renamed = fs::rename(&temporary, &self.target).or_else(|e| {
            let folder = self.target.parent();
            match (e.kind(), folder) {
                (io::ErrorKind::NotFound, Some(folder)) => {
                    fs::create_dir_all(folder).and_then(|()| fs::rename(&temporary, &self.target))
                }
                _ => Err(e),
            }
        });
        if renamed.is_err() {
            self.temporary = Some(temporary);
        }
        renamed
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // What remains in the folder of temporary files harms nobody.
            let _ = fs::remove_file(temporary);
        }
    }
}

/// None where there is no such file.
pub(crate) fn if_there<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Tells what a caller can do about an error; `uri` is the file's.
pub(crate) fn error(e: &io::Error, uri: &str) -> Error {
    match e.kind() {
        io::ErrorKind::NotFound => Error::data(format!("{uri}: no such object")),
        io::ErrorKind::UnexpectedEof => Error::data(format!("{uri}: shorter than it should be")),
        io::ErrorKind::PermissionDenied => {
            Error::usage(format!("{uri}: permission denied")).hint("check the file's mode")
        }
        io::ErrorKind::IsADirectory
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::InvalidFilename
        | io::ErrorKind::InvalidInput => Error::usage(format!("{uri}: {e}")),
        _ => Error::transient(format!("{uri}: {e}")),
    }
}

/// A time in RFC 3339.
fn text(time: SystemTime) -> io::Result<String> {
    let time = Timestamp::try_from(time).map_err(io::Error::other)?;
    Ok(time.to_string())
}
