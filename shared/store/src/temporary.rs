//! Temporary files on local disk, in a folder shared by several processes.
//!
//! A process holds a lock on each file that it writes. The kernel releases the locks of a process
//! that is killed, so a file whose lock can be taken has no writer and is removed. Locks may not
//! work across hosts (some network file systems), so a file from another host must also be old. The
//! file name contains the host.
//!
//! Any process may remove the empty folder, or a file between its creation and its locking. The
//! writer then creates them again.

use std::fs::{self, File, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

/// How often a writer recreates its file after others removed it.
const TRIES: usize = 1000;

/// The age without writes at which a file of another host counts as abandoned.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// A file being written. Removed when dropped.
pub(crate) struct Temporary {
    pub file: File,
    /// `None` once the file is renamed.
    path: Option<PathBuf>,
}

impl Temporary {
    /// Creates a file in a folder, and the folder if it is missing.
    pub(crate) fn create(folder: &Path) -> io::Result<Self> {
        for _ in 0..TRIES {
            let random = RandomState::new().hash_one(folder);
            let path = folder.join(format!("{}-{random:016x}", *HOST));
            match create_locked(&path) {
                Ok(Some(file)) => {
                    let path = Some(path);
                    return Ok(Self { file, path });
                }
                Ok(None) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => make_folder(folder)?,
                Err(e) => return Err(e),
            }
        }
        Err(io::Error::other(format!(
            "{}: removed by other processes again and again",
            folder.display()
        )))
    }

    /// Renames the file to its target, whose folder is created if it is missing.
    pub(crate) fn rename(mut self, target: &Path) -> io::Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let renamed = fs::rename(path, target).or_else(|e| match (e.kind(), target.parent()) {
            (io::ErrorKind::NotFound, Some(folder)) => {
                fs::create_dir_all(folder).and_then(|()| fs::rename(path, target))
            }
            _ => Err(e),
        });
        if renamed.is_ok() {
            self.path = None;
        }
        renamed
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // A later process removes what remains.
            let _ = fs::remove_file(path);
        }
    }
}

/// Creates a folder. Another process may remove it at any time.
fn make_folder(folder: &Path) -> io::Result<()> {
    match fs::create_dir_all(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Creates a file and locks it. Returns `None` if another process removed it before the lock was
/// taken.
fn create_locked(path: &Path) -> io::Result<Option<File>> {
    let file = File::create_new(path)?;
    match file.try_lock() {
        Ok(()) => Ok(is_same(&file, path).then_some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        // The file system has no locks. There, files are removed by age only.
        Err(TryLockError::Error(_)) => Ok(Some(file)),
    }
}

/// Returns whether a path still refers to an open file.
#[cfg(unix)]
fn is_same(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let inode = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let (open, there) = (file.metadata().map(inode), fs::metadata(path).map(inode));
    matches!((open, there), (Ok(open), Ok(there)) if open == there)
}

#[cfg(not(unix))]
fn is_same(_: &File, path: &Path) -> bool {
    path.exists()
}

/// Removes files without a writer, then the folder if it is empty.
pub(crate) fn clean(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        // The lock is held until the file is removed, so that no other process starts writing to
        // it.
        if let Some(_locked) = abandoned(&entry.path()) {
            // Another process may have removed it.
            let _ = fs::remove_file(entry.path());
        }
    }
    // This fails while another process has files here; that process cleans up.
    let _ = fs::remove_dir(folder);
}

/// Returns a file without a writer, locked if the file system supports it.
fn abandoned(path: &Path) -> Option<File> {
    let file = File::open(path).ok()?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_of_host = name.split_once('-').is_some_and(|(host, _)| host == *HOST);
    let is_abandoned = match file.try_lock() {
        Ok(()) => is_of_host || is_old(&file),
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(_)) => is_old(&file),
    };
    is_abandoned.then_some(file)
}

fn is_old(file: &File) -> bool {
    let modified = file.metadata().and_then(|metadata| metadata.modified());
    modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > ABANDONED))
}

/// Identifies this host until its next boot. Containers on one host share its kernel, and therefore
/// its locks.
static HOST: LazyLock<String> = LazyLock::new(|| {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let boot: String = boot
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(12)
        .collect();
    if boot.is_empty() {
        "host".to_owned()
    } else {
        boot
    }
});

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::SystemTime;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn files_of_dead_processes_go_and_others_stay() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("tmp");
        let written = Temporary::create(&folder).unwrap();
        let mine = written.path.as_ref().unwrap().file_name().unwrap();
        let mine = mine.to_string_lossy().into_owned();
        let dead = format!("{}-dead", *HOST);
        for name in [dead.as_str(), "other-new", "other-old"] {
            fs::write(folder.join(name), "x").unwrap();
        }
        let old = SystemTime::now() - ABANDONED - Duration::from_secs(60);
        let file = File::options()
            .write(true)
            .open(folder.join("other-old"))
            .unwrap();
        file.set_modified(old).unwrap();
        clean(&folder);
        let mut left = names(&folder);
        left.sort();
        let mut expected = [mine, "other-new".to_owned()];
        expected.sort();
        assert_eq!(left, expected);
        drop(written);
        fs::remove_file(folder.join("other-new")).unwrap();
        clean(&folder);
        assert!(!folder.exists());
    }

    #[test]
    fn writers_do_not_notice_who_cleans_up() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("tmp");
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !is_done.load(Ordering::Relaxed) {
                        clean(&folder);
                    }
                });
            }
            let writers = [0, 1].map(|writer| {
                let (folder, parent) = (&folder, parent.path());
                scope.spawn(move || {
                    (0..500).try_for_each(|number| {
                        let file = Temporary::create(folder)?;
                        file.rename(&parent.join(format!("made/{writer}-{number}")))
                    })
                })
            });
            let written = writers.map(|writer| writer.join());
            is_done.store(true, Ordering::Relaxed);
            for outcome in written {
                outcome.unwrap().unwrap();
            }
        });
        assert_eq!(names(&parent.path().join("made")).len(), 1000);
    }
}
