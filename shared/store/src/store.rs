//! A URI prefix and the objects under it.

use std::future::Future;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use opendal::ErrorKind;
use sluice_manifest::{Error, Result};

use crate::client::{Client, no_bucket};
use crate::disk::{self, Disk, if_there};
use crate::location::Location;
use crate::object::{ObjectReader, ObjectWriter};
use crate::stop::StopFlag;

/// The objects under a URI prefix. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    location: Location,
    backend: Backend,
}

/// The kind of storage that holds the objects.
#[derive(Debug, Clone)]
pub(crate) enum Backend {
    /// A folder on local disk.
    Disk(Disk),
    /// A bucket, or memory. All prefixes in a bucket share one client; `prefix` is prepended to
    /// every path.
    Bucket { client: Client, prefix: Arc<str> },
}

impl Backend {
    /// Returns the flag that cancels reads.
    pub(crate) fn stop(&self) -> &StopFlag {
        match self {
            Backend::Disk(disk) => &disk.stop,
            Backend::Bucket { client, .. } => &client.io.stop,
        }
    }
}

/// An object's metadata, from a listing or a request for the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// The path below the store's prefix.
    pub path: String,
    /// The size in bytes.
    pub bytes: u64,
    /// The entity tag, if the store provides one.
    pub etag: Option<String>,
    /// The modification time in RFC 3339, if the store provides no entity tag.
    pub modified: Option<String>,
}

impl Store {
    pub(crate) fn new(location: &Location, backend: Backend) -> Self {
        Self {
            location: location.clone(),
            backend,
        }
    }

    /// Returns whether the folder exists. A prefix in a bucket always does.
    pub(crate) fn exists(&self) -> Result<bool> {
        match &self.backend {
            Backend::Disk(disk) => {
                let found = disk.exists();
                found.map_err(|e| disk::error(&e, &self.location.to_string()))
            }
            Backend::Bucket { .. } => Ok(true),
        }
    }

    /// Returns the location of the prefix.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Returns the full URI of an object.
    pub fn uri(&self, path: &str) -> String {
        format!("{}/{path}", self.location)
    }

    /// Converts an error of local disk.
    fn on_disk<T>(&self, path: &str, outcome: io::Result<T>) -> Result<T> {
        outcome.map_err(|e| disk::error(&e, &self.uri(path)))
    }

    /// Reads a whole object in one request. For small objects.
    ///
    /// # Errors
    ///
    /// Returns a data error if there is no such object, and otherwise a storage error.
    pub fn get(&self, path: &str) -> Result<Bytes> {
        let found = self.get_if_there(path)?;
        found.ok_or_else(|| Error::data(format!("{}: no such object", self.uri(path))))
    }

    /// Reads a whole object in one request. Returns `None` if there is no such object.
    ///
    /// # Errors
    ///
    /// Returns a storage error if the request fails.
    pub fn get_if_there(&self, path: &str) -> Result<Option<Bytes>> {
        match &self.backend {
            Backend::Disk(disk) => {
                let read = self.on_disk(path, if_there(disk.read(path)))?;
                Ok(read.map(Bytes::from))
            }
            Backend::Bucket { client, prefix } => {
                let full = format!("{prefix}{path}");
                let read = client.operator.read(&full);
                let read = if_there_in(client, &self.uri(path), read)?;
                Ok(read.map(|buffer| buffer.to_bytes()))
            }
        }
    }

    /// Returns an object's metadata, or `None` if there is no such object.
    ///
    /// # Errors
    ///
    /// Returns a storage error if the request fails.
    pub fn stat(&self, path: &str) -> Result<Option<ObjectInfo>> {
        match &self.backend {
            Backend::Disk(disk) => self.on_disk(path, disk.stat(path)),
            Backend::Bucket { client, prefix } => {
                let full = format!("{prefix}{path}");
                let found = client.operator.stat(&full);
                let found = if_there_in(client, &self.uri(path), found)?;
                let file = found.filter(|metadata| metadata.is_file());
                Ok(file.map(|metadata| info(path.to_owned(), &metadata)))
            }
        }
    }

    /// Writes a whole object atomically.
    ///
    /// # Errors
    ///
    /// Returns a storage error if it cannot be written; nothing is visible then.
    pub fn put(&self, path: &str, content: impl Into<Bytes>) -> Result<()> {
        let content = content.into();
        match &self.backend {
            Backend::Disk(disk) => {
                let written = disk.create(path).and_then(|mut file| {
                    file.write(&content)?;
                    file.finish()
                });
                written.map_err(|e| disk::write_error(&e, &self.uri(path)))
            }
            Backend::Bucket { client, prefix } => {
                let full = format!("{prefix}{path}");
                let written = client.wait(client.operator.write(&full, content));
                written
                    .map(drop)
                    .map_err(|e| client.error(&e, &self.uri(path)))
            }
        }
    }

    /// Deletes an object. Succeeds if it does not exist.
    ///
    /// # Errors
    ///
    /// Returns a storage error if the request fails.
    pub fn delete(&self, path: &str) -> Result<()> {
        match &self.backend {
            Backend::Disk(disk) => self.on_disk(path, disk.delete(path)),
            Backend::Bucket { client, prefix } => {
                let full = format!("{prefix}{path}");
                let deleted = client.wait(client.operator.delete(&full));
                deleted.map_err(|e| client.error(&e, &self.uri(path)))
            }
        }
    }

    /// Deletes an object like [`delete`](Self::delete), unless a symbolic link leads to it outside
    /// of the store's folder. That is logged.
    ///
    /// # Errors
    ///
    /// Returns a storage error if the request fails.
    pub fn delete_inside(&self, path: &str) -> Result<()> {
        if let Backend::Disk(disk) = &self.backend
            && !self.on_disk(path, disk.is_inside(path))?
        {
            tracing::warn!(
                "{}: not removed: a link leads out of the folder",
                self.uri(path)
            );
            return Ok(());
        }
        self.delete(path)
    }

    /// Lists all objects under a folder (`""` for the whole store), at any depth, sorted by path.
    ///
    /// # Errors
    ///
    /// Returns a storage error if a folder cannot be listed.
    pub fn list(&self, folder: &str) -> Result<Vec<ObjectInfo>> {
        let slash = if folder.is_empty() || folder.ends_with('/') {
            ""
        } else {
            "/"
        };
        self.list_from(&format!("{folder}{slash}"))
    }

    /// Lists all objects whose path starts with `beginning`, at any depth, sorted by path. Object
    /// stores list no others.
    ///
    /// # Errors
    ///
    /// Returns a storage error if a folder cannot be listed.
    pub fn list_beginning(&self, beginning: &str) -> Result<Vec<ObjectInfo>> {
        let mut objects = match &self.backend {
            Backend::Bucket { client, .. } if client.is_remote() => self.list_from(beginning)?,
            // On local disk and in memory, the whole folder is listed and then filtered.
            _ => self.list(beginning.rsplit_once('/').map_or("", |(folder, _)| folder))?,
        };
        objects.retain(|object| object.path.starts_with(beginning));
        Ok(objects)
    }

    fn list_from(&self, beginning: &str) -> Result<Vec<ObjectInfo>> {
        let mut objects = match &self.backend {
            Backend::Disk(disk) => disk.list(beginning)?,
            Backend::Bucket { client, prefix } => self.list_bucket(client, prefix, beginning)?,
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
            // Listings of some stores contain only names.
            if entry.metadata().last_modified().is_some() {
                objects.push(info(path.to_owned(), entry.metadata()));
            } else if let Some(object) = self.stat(path)? {
                objects.push(object);
            }
        }
        Ok(objects)
    }

    /// Returns a reader of byte ranges of an object whose size is `bytes`.
    pub fn read_ranges(&self, path: &str, bytes: u64) -> ObjectReader {
        ObjectReader::new(&self.backend, path, self.uri(path), bytes)
    }

    /// Streams an object from its start, with prefetch.
    ///
    /// # Errors
    ///
    /// Returns a data error if there is no such object, and otherwise a storage error.
    pub fn reader(&self, path: &str) -> Result<ObjectReader> {
        let Some(ObjectInfo { bytes, .. }) = self.stat(path)? else {
            return Err(Error::data(format!("{}: no such object", self.uri(path))));
        };
        let mut reader = self.read_ranges(path, bytes);
        reader.prefetch(0..bytes);
        Ok(reader)
    }

    /// Returns the BLAKE3 of an object's content as 64 hexadecimal digits. Streams the object.
    ///
    /// # Errors
    ///
    /// Returns a data error if there is no such object, and otherwise a storage error.
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

    /// Copies an object to `name` in the store `to`.
    ///
    /// # Errors
    ///
    /// Returns a data error if there is no such object, and otherwise a storage error of either
    /// store.
    pub fn copy_to(&self, path: &str, to: &Self, name: &str) -> Result<()> {
        let (mut reader, mut writer) = (self.reader(path)?, to.writer(name)?);
        let copied = io::copy(&mut reader, &mut writer);
        copied.map_err(|e| Error::of_io(e, &self.uri(path)))?;
        writer.finish().map(drop)
    }

    /// Starts a new object. It becomes visible on [`ObjectWriter::finish`], and never if the writer
    /// is dropped before.
    ///
    /// # Errors
    ///
    /// Returns a storage error if the upload cannot be started.
    pub fn writer(&self, path: &str) -> Result<ObjectWriter> {
        ObjectWriter::open(&self.backend, path, self.uri(path))
    }

    pub(crate) fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Removes temporary files whose writer has ended, then their folder if it is empty. Files that
    /// another process is writing are kept. Does nothing in buckets.
    pub fn tidy(&self) {
        if let Backend::Disk(disk) = &self.backend {
            disk.tidy();
        }
    }
}

/// Makes a request for an object. Returns `None` if it does not exist.
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
    // Listings and single requests quote entity tags differently and format dates differently.
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
    use std::path::Path;

    use super::*;
    use crate::Storage;

    fn create(location: &Location) -> Store {
        Storage::default().create(location).unwrap()
    }

    /// Runs a test on local disk and in a memory store of its own.
    fn both(memory: &str, test: impl Fn(Store)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a b").to_string_lossy().into_owned();
        for uri in [path, format!("memory://{memory}/x")] {
            test(create(&Location::parse(&uri).unwrap()));
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
        both("read_ranges", |store| {
            let content: Vec<u8> = (0..7_000_000_u32).map(|i| (i * 31 % 251) as u8).collect();
            store.put("x", content.clone()).unwrap();
            let mut reader = store.read_ranges("x", content.len() as u64);
            let read_ranges = [0..10, 10..300_000, 400_000..400_005, 1_000_000..4_500_000];
            for stretch in read_ranges.clone() {
                reader.prefetch(stretch);
            }
            for stretch in read_ranges {
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
        let store = create(&Location::Local(folder.path().to_owned()));
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
        let store = create(&Location::Local(folder.path().to_owned()));
        store.put("elsewhere/a", "twelve bytes").unwrap();
        let link = folder.path().join("a");
        std::os::unix::fs::symlink(folder.path().join("elsewhere/a"), link).unwrap();
        let listed = store.list("").unwrap();
        assert_eq!((listed[0].path.as_str(), listed[0].bytes), ("a", 12));
        assert_eq!(store.stat("a").unwrap().as_ref(), listed.first());
    }

    fn link(folder: &Path, target: &str, link: &str) {
        std::os::unix::fs::symlink(target, folder.join(link)).unwrap();
    }

    fn listed(store: &Store) -> Vec<String> {
        let objects = store.list("").unwrap().into_iter();
        objects.map(|object| object.path).collect()
    }

    #[test]
    fn folders_behind_links_are_listed_once() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = create(&Location::Local(folder.path().to_owned()));
        let elsewhere = create(&Location::Local(other.path().to_owned()));
        elsewhere.put("deep/a", "x").unwrap();
        store.put("v1/b", "x").unwrap();
        let target = other.path().to_str().unwrap();
        link(folder.path(), target, "outside");
        link(folder.path(), &format!("{target}/deep"), "the-same-again");
        link(folder.path(), "v1", "latest");
        link(folder.path(), "..", "v1/loop");
        link(other.path(), folder.path().to_str().unwrap(), "deep/back");
        link(folder.path(), "nothing", "v1/broken");
        assert_eq!(listed(&store), ["outside/deep/a", "v1/b"]);
    }

    #[test]
    fn a_link_to_a_folder_above_is_no_loop() {
        let folder = tempfile::tempdir().unwrap();
        let store = create(&Location::Local(folder.path().join("in")));
        store.put("a", "x").unwrap();
        link(folder.path(), "..", "in/up");
        link(folder.path(), ".", "in/self");
        let beside = create(&Location::Local(folder.path().join("beside")));
        beside.put("b", "x").unwrap();
        assert_eq!(listed(&store), ["a", "up/beside/b"]);
    }

    #[expect(unsafe_code, reason = "setfsuid has no safe counterpart")]
    fn become_nobody() {
        // SAFETY: the call takes an integer and only changes which files this thread may access.
        unsafe { libc::setfsuid(65534) };
    }

    #[test]
    fn what_may_not_be_read_is_passed_over_below_and_named_on_top() {
        use std::fs::{Permissions, create_dir, set_permissions};
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let store = create(&Location::Local(folder.path().to_owned()));
        store.put("a", "x").unwrap();
        let lost = folder.path().join("lost+found");
        create_dir(&lost).unwrap();
        set_permissions(&lost, Permissions::from_mode(0o000)).unwrap();
        set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let as_nobody = || {
            become_nobody();
            assert_eq!(listed(&store), ["a"]);
            let error = store.list("lost+found").unwrap_err().to_string();
            assert!(error.contains("lost+found: permission denied"), "{error}");
        };
        std::thread::scope(|scope| scope.spawn(as_nobody).join().unwrap());
    }

    #[cfg(unix)]
    #[test]
    fn nothing_is_deleted_behind_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| create(&Location::Local(folder.path().join(name)));
        let (store, other) = (at("run"), at("other"));
        store.put("in/x", "x").unwrap();
        other.put("x", "x").unwrap();
        let link = |name: &str| folder.path().join("run").join(name);
        std::os::unix::fs::symlink(folder.path().join("other"), link("out")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("other/x"), link("in/link")).unwrap();
        for path in ["out/x", "in/link", "in/x", "in/none", "none/x"] {
            store.delete_inside(path).unwrap();
        }
        assert!(other.stat("x").unwrap().is_some());
        let left = store.list("in").unwrap();
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn a_missing_input_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("none");
        assert!(
            Storage::default()
                .open(&Location::Local(missing.clone()))
                .is_err()
        );
        assert!(!missing.exists());
    }
}
