//! A URI prefix and the objects under it.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};

use bytes::Bytes;
use opendal::{Buffer, ErrorKind, Operator, services};
use sluice_manifest::{Error, Result};

use crate::location::Location;
use crate::object::{ObjectReader, ObjectWriter};
use crate::runtime::wait;

/// Temporary files of local disk lie here until they are renamed to what they are.
const TEMPORARY: &str = ".sluice-tmp";

/// The objects under a URI prefix. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    location: Location,
    operator: Operator,
    /// Put before every path: memory is one operator for all prefixes in it.
    prefix: Arc<str>,
}

/// What a listing or a look at an object tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Path below the store's prefix.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Entity tag, where the store gives one.
    pub etag: Option<String>,
    /// Modification time in RFC 3339, where the store tells it.
    pub modified: Option<String>,
}

static MEMORIES: LazyLock<Mutex<HashMap<String, Operator>>> = LazyLock::new(Mutex::default);

impl Store {
    /// Opens a prefix for reading. A folder on local disk must exist.
    pub fn open(location: &Location) -> Result<Self> {
        if let Location::Local(path) = location
            && !path.is_dir()
        {
            return Err(Error::data(format!("{location}: no such folder")));
        }
        Self::connect(location, false)
    }

    /// Opens a prefix for reading and writing; a folder on local disk is made when it is missing.
    pub fn create(location: &Location) -> Result<Self> {
        Self::connect(location, true)
    }

    fn connect(location: &Location, writable: bool) -> Result<Self> {
        let fail = |e: opendal::Error| classify(&e, &location.to_string());
        let (operator, prefix) = match location {
            Location::Local(path) => (local(path, writable).map_err(fail)?, String::new()),
            Location::Memory { name, path } => {
                let mut memories = MEMORIES.lock().unwrap_or_else(|e| e.into_inner());
                let operator = match memories.get(name) {
                    Some(operator) => operator.clone(),
                    None => {
                        let builder = services::Memory::default();
                        let operator = Operator::new(builder).map_err(fail)?;
                        memories.insert(name.clone(), operator.clone());
                        operator
                    }
                };
                let prefix = if path.is_empty() {
                    String::new()
                } else {
                    format!("{path}/")
                };
                (operator, prefix)
            }
        };
        Ok(Self {
            location: location.clone(),
            operator,
            prefix: prefix.into(),
        })
    }

    /// The prefix.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// The whole URI of an object.
    pub fn uri(&self, path: &str) -> String {
        format!("{}/{path}", self.location)
    }

    fn full(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    fn error(&self, path: &str) -> impl FnOnce(opendal::Error) -> Error {
        let uri = self.uri(path);
        move |e| classify(&e, &uri)
    }

    /// The whole object.
    pub fn get(&self, path: &str) -> Result<Bytes> {
        let read = wait(self.operator.read(&self.full(path)));
        Ok(exact(read.map_err(self.error(path))?))
    }

    /// The whole object, or none where there is no such object.
    pub fn get_if_there(&self, path: &str) -> Result<Option<Bytes>> {
        match wait(self.operator.read(&self.full(path))) {
            Ok(buffer) => Ok(Some(exact(buffer))),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.error(path)(e)),
        }
    }

    /// The bytes of an object in `range`.
    pub fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let read = wait(async { self.operator.read_with(&self.full(path)).range(range).await });
        Ok(read.map_err(self.error(path))?.to_bytes())
    }

    /// What is known about an object; none where there is no such object.
    pub fn stat(&self, path: &str) -> Result<Option<ObjectInfo>> {
        match wait(self.operator.stat(&self.full(path))) {
            Ok(metadata) if metadata.is_file() => Ok(Some(info(path.to_owned(), &metadata))),
            Ok(_) => Ok(None),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.error(path)(e)),
        }
    }

    /// Writes an object, whole or not at all.
    pub fn put(&self, path: &str, content: impl Into<Bytes>) -> Result<()> {
        let written = wait(self.operator.write(&self.full(path), content.into()));
        written.map(drop).map_err(self.error(path))
    }

    /// Deletes an object; it need not be there.
    pub fn delete(&self, path: &str) -> Result<()> {
        wait(self.operator.delete(&self.full(path))).map_err(self.error(path))
    }

    /// All objects under a folder (`""` for all of the store), at any depth, sorted by path.
    pub fn list(&self, folder: &str) -> Result<Vec<ObjectInfo>> {
        let mut from = self.full(folder);
        if !from.is_empty() && !from.ends_with('/') {
            from.push('/');
        }
        let from = if from.is_empty() { "/" } else { &from };
        let listed = wait(async { self.operator.list_with(from).recursive(true).await });
        let entries = match listed {
            Err(e) if e.kind() == ErrorKind::NotFound => Vec::new(),
            other => other.map_err(self.error(folder))?,
        };
        let mut objects = Vec::new();
        for entry in entries {
            let Some(path) = entry.path().strip_prefix(&*self.prefix) else {
                continue;
            };
            if entry.metadata().is_dir() || path.starts_with(TEMPORARY) {
                continue;
            }
            // Listings of local disk describe a link, not what it links to; those of some stores
            // tell no more than names.
            let complete = entry.metadata().last_modified().is_some();
            if complete && self.location.as_local().is_none() {
                objects.push(info(path.to_owned(), entry.metadata()));
            } else if let Some(object) = self.stat(path)? {
                objects.push(object);
            }
        }
        objects.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(objects)
    }

    /// Streams an object from its start, reading ahead.
    pub fn reader(&self, path: &str) -> Result<ObjectReader> {
        ObjectReader::open(&self.operator, &self.full(path)).map_err(self.error(path))
    }

    /// Streams a new object. It appears on [`ObjectWriter::finish`]; dropped before, it never does.
    pub fn writer(&self, path: &str) -> Result<ObjectWriter> {
        ObjectWriter::open(&self.operator, &self.full(path), path, self.uri(path))
    }

    pub(crate) fn raw(&self, path: &str) -> (Operator, String) {
        (self.operator.clone(), self.full(path))
    }

    /// Removes the folder of temporary files once nothing is left in it.
    pub fn tidy(&self) {
        if let Location::Local(path) = &self.location {
            // It fails while another program writes here; that one will tidy up.
            let _ = std::fs::remove_dir(path.join(TEMPORARY));
        }
    }
}

/// The bytes of a buffer, in memory of their own size. What local disk gives holds on to half a
/// megabyte for each object, however small; a thousand receipts must not.
fn exact(buffer: Buffer) -> Bytes {
    Bytes::from(buffer.to_vec())
}

fn local(path: &Path, writable: bool) -> opendal::Result<Operator> {
    let root = path.to_string_lossy();
    let mut builder = services::Fs::default().root(&root);
    if writable {
        builder = builder.atomic_write_dir(&format!("{root}/{TEMPORARY}"));
    }
    Operator::new(builder)
}

fn info(path: String, metadata: &opendal::Metadata) -> ObjectInfo {
    ObjectInfo {
        path,
        bytes: metadata.content_length(),
        etag: metadata.etag().map(str::to_owned),
        modified: metadata.last_modified().map(|time| time.to_string()),
    }
}

/// Tells what a caller can do about an error of the store.
pub(crate) fn classify(e: &opendal::Error, uri: &str) -> Error {
    let message = format!("{uri}: {}", e.message());
    match e.kind() {
        ErrorKind::NotFound => Error::data(format!("{uri}: no such object")),
        ErrorKind::PermissionDenied => Error::usage(format!("{uri}: permission denied"))
            .hint("check the credentials or the file's mode"),
        ErrorKind::ConfigInvalid | ErrorKind::Unsupported => Error::usage(message),
        ErrorKind::IsADirectory | ErrorKind::NotADirectory => Error::usage(message),
        ErrorKind::RangeNotSatisfied => Error::data(format!("{uri}: shorter than it should be")),
        _ => {
            let source = std::error::Error::source(e);
            Error::transient(match source {
                Some(source) => format!("{message}: {source}"),
                None => message,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    /// Runs a test on local disk and in a memory of its own.
    fn both(memory: &str, test: impl Fn(Store)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a b").to_string_lossy().into_owned();
        for uri in [path, format!("memory://{memory}/x")] {
            test(Store::create(&Location::parse(&uri).unwrap()).unwrap());
        }
    }

    #[test]
    fn objects_come_back_and_lists_are_sorted() {
        both("lists", |store| {
            for path in ["b/2", "a", "b/1", "c/d/é"] {
                store.put(path, path.as_bytes().to_vec()).unwrap();
            }
            let paths: Vec<_> = store
                .list("")
                .unwrap()
                .into_iter()
                .map(|o| o.path)
                .collect();
            assert_eq!(paths, ["a", "b/1", "b/2", "c/d/é"]);
            let inner: Vec<_> = store
                .list("b")
                .unwrap()
                .into_iter()
                .map(|o| (o.path, o.bytes))
                .collect();
            assert_eq!(inner, [("b/1".to_owned(), 3), ("b/2".to_owned(), 3)]);
            assert_eq!(store.get_range("b/1", 1..3).unwrap(), "/1");
            assert_eq!(store.get_if_there("nothing").unwrap(), None);
            assert!(store.get("nothing").is_err());
            assert!(store.list("nothing").unwrap().is_empty());
            store.delete("a").unwrap();
            store.delete("a").unwrap();
            assert_eq!(store.stat("a").unwrap(), None);
        });
    }

    #[test]
    fn an_unfinished_object_never_appears() {
        both("unfinished", |store| {
            let mut writer = store.writer("big").unwrap();
            writer.write_all(&vec![1; 9_000_000]).unwrap();
            drop(writer);
            assert_eq!(store.stat("big").unwrap(), None);
            assert!(store.list("").unwrap().is_empty());
            let mut writer = store.writer("big").unwrap();
            writer.write_all(&vec![2; 9_000_000]).unwrap();
            let output = writer.finish().unwrap();
            assert_eq!((output.path.as_str(), output.bytes), ("big", 9_000_000));
            let mut content = Vec::new();
            store
                .reader("big")
                .unwrap()
                .read_to_end(&mut content)
                .unwrap();
            assert_eq!(content, vec![2; 9_000_000]);
            assert_eq!(output.blake3, blake3::hash(&content).to_hex().to_string());
        });
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "looks at what the store left on disk"
    )]
    fn nothing_is_left_beside_the_objects() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(&Location::Local(folder.path().to_owned())).unwrap();
        store.put("a", "x").unwrap();
        drop(store.writer("b").unwrap());
        store.tidy();
        let names: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(names, ["a"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_listed_link_is_what_it_links_to() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(&Location::Local(folder.path().to_owned())).unwrap();
        store.put("elsewhere/a", "twelve bytes").unwrap();
        let link = folder.path().join("a");
        std::os::unix::fs::symlink(folder.path().join("elsewhere/a"), link).unwrap();
        let listed = store.list("").unwrap();
        assert_eq!((listed[0].path.as_str(), listed[0].bytes), ("a", 12));
        assert_eq!(store.stat("a").unwrap().as_ref(), listed.first());
    }

    #[test]
    fn a_missing_input_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("none");
        assert!(Store::open(&Location::Local(missing.clone())).is_err());
        assert!(!missing.exists());
    }
}
