//! Temporary files of local disk, in a folder that several processes share.
//!
//! A process holds the lock of each file that it writes, and the kernel releases the locks of a
//! process that is killed. So a file whose lock can be taken has no writer any more and is removed.
//! Locks may not reach across hosts (some network file systems): a file of another host has to be
//! old as well. Its name says on which host it was made.
//!
//! Any process may remove the empty folder, or a file between its creation and its locking. The
//! writer then makes them again.

use std::fs::{self, File, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

/// Times that a writer makes its file again when others remove it.
const TRIES: usize = 1000;

/// After so long without a write, a file of another host is abandoned.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// A file being written. Dropped, it goes.
pub(crate) struct Temporary {
    pub file: File,
    /// None once it has its name.
    path: Option<PathBuf>,
}

impl Temporary {
    /// Makes a file in a folder, and the folder.
    pub fn create(folder: &Path) -> io::Result<Self> {
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

    /// Gives it its name, in a folder that is made where it is missing.
    pub fn rename(mut self, target: &Path) -> io::Result<()> {
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
            // What remains is removed by a later process.
            let _ = fs::remove_file(path);
        }
    }
}

/// Makes a folder, which another process may remove meanwhile.
fn make_folder(folder: &Path) -> io::Result<()> {
    match fs::create_dir_all(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Makes a file and takes its lock; none when another process removed it before it was locked.
fn create_locked(path: &Path) -> io::Result<Option<File>> {
    let file = File::create_new(path)?;
    match file.try_lock() {
        Ok(()) => Ok(is_same(&file, path).then_some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        // A file system without locks. There, files are removed by age alone.
        Err(TryLockError::Error(_)) => Ok(Some(file)),
    }
}

/// Whether a path still leads to an open file.
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

/// Removes the files that nobody writes any more, then the folder if nothing is left in it.
pub(crate) fn clean(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        // The lock is held until the file is gone: nobody begins to write to it.
        if let Some(_locked) = abandoned(&entry.path()) {
            // Another process may have removed it.
            let _ = fs::remove_file(entry.path());
        }
    }
    // It fails while another process writes here; that one will clean up.
    let _ = fs::remove_dir(folder);
}

/// Returns a file without a writer, locked where the file system has locks.
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

/// This host until its next boot. Containers of one host share its kernel, and so its locks.
static HOST: LazyLock<String> = LazyLock::new(|| {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let boot: String = boot
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(12)
        .collect();
    match boot.is_empty() {
        true => "host".to_owned(),
        false => boot,
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
