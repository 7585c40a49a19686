//! A URI prefix and the objects under it.

use std::collections::HashMap;
use std::future::Future;
use std::io::{self, Read};
use std::sync::{Arc, LazyLock, Mutex};

use bytes::Bytes;
use opendal::{ErrorKind, Operator, services};
use sluice_manifest::{Error, Result};

use crate::client::{Client, no_bucket};
use crate::disk::{self, Disk, if_there};
use crate::location::Location;
use crate::object::{ObjectReader, ObjectWriter};
use crate::remote;

/// The objects under a URI prefix. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    location: Location,
    place: Place,
}

/// Where objects lie.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// Under a folder of local disk.
    Disk(Disk),
    /// In a bucket, or in memory. A bucket has one client for all prefixes in it: the prefix stands
    /// before every path.
    Bucket { client: Client, prefix: Arc<str> },
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
    /// Modification time in RFC 3339, where the store gives no entity tag.
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
        Self::connect(location)
    }

    /// Opens a prefix for reading and writing; a folder on local disk is made with
    /// its first object.
    pub fn create(location: &Location) -> Result<Self> {
        Self::connect(location)
    }

    fn connect(location: &Location) -> Result<Self> {
        let fail = |e: opendal::Error| Error::usage(format!("{location}: {}", e.message()));
        let (client, path) = match location {
            Location::Local(path) => {
                return Ok(Self {
                    location: location.clone(),
                    place: Place::Disk(Disk::new(path)),
                });
            }
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
                (Client::near(operator), path.as_str())
            }
            Location::Bucket {
                scheme,
                bucket,
                path,
            } => (remote::client(*scheme, bucket)?, path.as_str()),
        };
        let prefix = match path.is_empty() {
            true => String::new(),
            false => format!("{path}/"),
        };
        Ok(Self {
            location: location.clone(),
            place: Place::Bucket {
                client,
                prefix: prefix.into(),
            },
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

    /// Says what an error of local disk is.
    fn on_disk<T>(&self, path: &str, outcome: io::Result<T>) -> Result<T> {
        outcome.map_err(|e| disk::error(&e, &self.uri(path)))
    }

    /// The whole object, in one request: for objects that are small.
    pub fn get(&self, path: &str) -> Result<Bytes> {
        let found = self.get_if_there(path)?;
        found.ok_or_else(|| Error::data(format!("{}: no such object", self.uri(path))))
    }

    /// The whole object, or none where there is no such object.
    pub fn get_if_there(&self, path: &str) -> Result<Option<Bytes>> {
        match &self.place {
            Place::Disk(disk) => {
                let read = self.on_disk(path, if_there(disk.read(path)))?;
                Ok(read.map(Bytes::from))
            }
            Place::Bucket { client, prefix } => {
                let full = format!("{prefix}{path}");
                let read = client.operator.read(&full);
                let read = if_there_in(client, &self.uri(path), read)?;
                Ok(read.map(|buffer| buffer.to_bytes()))
            }
        }
    }

    /// What is known about an object; none where there is no such object.
    pub fn stat(&self, path: &str) -> Result<Option<ObjectInfo>> {
        match &self.place {
            Place::Disk(disk) => self.on_disk(path, disk.stat(path)),
            Place::Bucket { client, prefix } => {
                let full = format!("{prefix}{path}");
                let found = client.operator.stat(&full);
                let found = if_there_in(client, &self.uri(path), found)?;
                let file = found.filter(|metadata| metadata.is_file());
                Ok(file.map(|metadata| info(path.to_owned(), &metadata)))
            }
        }
    }

    /// Writes an object, whole or not at all.
    pub fn put(&self, path: &str, content: impl Into<Bytes>) -> Result<()> {
        let content = content.into();
        match &self.place {
            Place::Disk(disk) => {
                let written = disk.create(path).and_then(|mut file| {
                    file.write(&content)?;
                    file.finish()
                });
                self.on_disk(path, written)
            }
            Place::Bucket { client, prefix } => {
                let full = format!("{prefix}{path}");
                let written = client.wait(client.operator.write(&full, content));
                written
                    .map(drop)
                    .map_err(|e| client.error(&e, &self.uri(path)))
            }
        }
    }

    /// Deletes an object; it need not be there.
    pub fn delete(&self, path: &str) -> Result<()> {
        match &self.place {
            Place::Disk(disk) => self.on_disk(path, disk.delete(path)),
            Place::Bucket { client, prefix } => {
                let full = format!("{prefix}{path}");
                let deleted = client.wait(client.operator.delete(&full));
                deleted.map_err(|e| client.error(&e, &self.uri(path)))
            }
        }
    }

    /// All objects under a folder (`""` for all of the store), at any depth, sorted by path.
    pub fn list(&self, folder: &str) -> Result<Vec<ObjectInfo>> {
        let slash = if folder.is_empty() || folder.ends_with('/') {
            ""
        } else {
            "/"
        };
        self.list_from(&format!("{folder}{slash}"))
    }

    /// All objects whose path begins so, at any depth, sorted by path. Object stores look at no
    /// others.
    pub fn list_beginning(&self, beginning: &str) -> Result<Vec<ObjectInfo>> {
        let mut objects = match &self.place {
            Place::Bucket { client, .. } if client.is_remote() => self.list_from(beginning)?,
            // Folders are listed as a whole.
            _ => self.list(beginning.rsplit_once('/').map_or("", |(folder, _)| folder))?,
        };
        objects.retain(|object| object.path.starts_with(beginning));
        Ok(objects)
    }

    fn list_from(&self, beginning: &str) -> Result<Vec<ObjectInfo>> {
        let mut objects = match &self.place {
            Place::Disk(disk) => self.on_disk(beginning, disk.list(beginning))?,
            Place::Bucket { client, prefix } => self.list_bucket(client, prefix, beginning)?,
        };
        objects.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(objects)
    }

    fn list_bucket(
        &self,
        client: &Client,
        prefix: &str,
        beginning: &str,
    ) -> Result<Vec<ObjectInfo>> {
        let full = format!("{prefix}{beginning}");
        let from = if full.is_empty() { "/" } else { &full };
        let listing = async { client.operator.list_with(from).recursive(true).await };
        let entries = if_there_in(client, &self.uri(beginning), listing)?;
        let mut objects = Vec::new();
        for entry in entries.into_iter().flatten() {
            let Some(path) = entry.path().strip_prefix(prefix) else {
                continue;
            };
            if entry.metadata().is_dir() {
                continue;
            }
            // Listings of some stores tell no more than names.
            if entry.metadata().last_modified().is_some() {
                objects.push(info(path.to_owned(), entry.metadata()));
            } else if let Some(object) = self.stat(path)? {
                objects.push(object);
            }
        }
        Ok(objects)
    }

    /// Reads stretches of an object of `bytes` bytes, front to back.
    pub fn stretches(&self, path: &str, bytes: u64) -> ObjectReader {
        ObjectReader::new(&self.place, path, self.uri(path), bytes)
    }

    /// Streams an object from its start, reading ahead.
    pub fn reader(&self, path: &str) -> Result<ObjectReader> {
        let Some(ObjectInfo { bytes, .. }) = self.stat(path)? else {
            return Err(Error::data(format!("{}: no such object", self.uri(path))));
        };
        let mut reader = self.stretches(path, bytes);
        reader.want(0..bytes);
        Ok(reader)
    }

    /// Returns the BLAKE3 of an object's content, 64 hexadecimal digits. Streams it.
    ///
    /// # Errors
    /// Data, when there is no such object; of storage.
    pub fn blake3(&self, path: &str) -> Result<String> {
        let mut reader = self.reader(path)?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let length = reader
                .read(&mut buffer)
                .map_err(|e| Error::of_io(e, &self.uri(path)))?;
            if length == 0 {
                return Ok(hasher.finalize().to_hex().to_string());
            }
            hasher.update(&buffer[..length]);
        }
    }

    /// Streams a new object. It appears on [`ObjectWriter::finish`]; dropped before, it never does.
    pub fn writer(&self, path: &str) -> Result<ObjectWriter> {
        ObjectWriter::open(&self.place, path, self.uri(path))
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Removes the folder of temporary files once nothing is left in it.
    pub fn tidy(&self) {
        if let Place::Disk(disk) = &self.place {
            disk.tidy();
        }
    }
}

/// Makes a request for an object that may not be there.
fn if_there_in<T>(
    client: &Client,
    uri: &str,
    request: impl Future<Output = opendal::Result<T>>,
) -> Result<Option<T>> {
    match client.wait(request) {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.kind() == ErrorKind::NotFound && !no_bucket(&e) => Ok(None),
        Err(e) => Err(client.error(&e, uri)),
    }
}

fn info(path: String, metadata: &opendal::Metadata) -> ObjectInfo {
    // Listings and answers quote the tag differently, and date objects differently.
    let etag = metadata
        .etag()
        .map(|etag| etag.trim_matches('"').to_owned());
    let modified = metadata.last_modified().filter(|_| etag.is_none());
    ObjectInfo {
        path,
        bytes: metadata.content_length(),
        modified: modified.map(|time| time.to_string()),
        etag,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

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
            assert_eq!(store.get_if_there("nothing").unwrap(), None);
            assert!(store.get("nothing").is_err());
            assert!(store.list("nothing").unwrap().is_empty());
            store.delete("a").unwrap();
            store.delete("a").unwrap();
            assert_eq!(store.stat("a").unwrap(), None);
        });
    }

    #[test]
    fn listings_begin_anywhere() {
        both("beginnings", |store| {
            for path in ["t/a-1", "t/a-2", "t/b", "ta"] {
                store.put(path, "x").unwrap();
            }
            let listed = |beginning: &str| -> Vec<String> {
                let objects = store.list_beginning(beginning).unwrap();
                objects.into_iter().map(|object| object.path).collect()
            };
            assert_eq!(listed("t/a"), ["t/a-1", "t/a-2"]);
            assert_eq!(listed("t"), ["t/a-1", "t/a-2", "t/b", "ta"]);
            assert_eq!(listed("t/"), ["t/a-1", "t/a-2", "t/b"]);
        });
    }

    #[test]
    fn stretches_are_read_and_nothing_else() {
        both("stretches", |store| {
            let content: Vec<u8> = (0..7_000_000_u32).map(|i| (i * 31 % 251) as u8).collect();
            store.put("x", content.clone()).unwrap();
            let mut reader = store.stretches("x", content.len() as u64);
            let stretches = [0..10, 10..300_000, 400_000..400_005, 1_000_000..4_500_000];
            for stretch in stretches.clone() {
                reader.want(stretch);
            }
            for stretch in stretches {
                reader.skip_to(stretch.start).unwrap();
                let mut got = Vec::new();
                (&mut reader)
                    .take(stretch.end - stretch.start)
                    .read_to_end(&mut got)
                    .unwrap();
                assert_eq!(got, content[stretch.start as usize..stretch.end as usize]);
            }
            assert!(reader.skip_to(0).is_err());
            reader.skip_to(5_000_000).unwrap();
            assert!(reader.read(&mut [0]).is_err());
            reader.skip_to(content.len() as u64).unwrap();
            assert_eq!(reader.read(&mut [0]).unwrap(), 0);
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
