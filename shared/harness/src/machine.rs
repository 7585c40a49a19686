//! The cores and the memory that the machine has, and that the cgroup grants.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::context::threads;

/// The default memory for decoding of one thread: enough for a photograph of 24 megapixels.
const EACH_THREAD: u64 = 96 << 20;
/// The minimum memory for decoding: enough for the largest image that the limits allow.
const AT_LEAST: u64 = 768 << 20;

/// Returns the default memory for decoding with `jobs` threads. It is at most half of what the
/// machine or the cgroup has.
pub(crate) fn default_memory(jobs: usize) -> u64 {
    let wanted = AT_LEAST.max(EACH_THREAD.saturating_mul(jobs as u64));
    granted().map_or(wanted, |granted| wanted.min(granted / 2))
}

/// The cores and the memory of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hardware {
    /// The number of cores.
    pub cores: usize,
    /// The number of cores that the cgroup grants this process.
    pub granted_cores: usize,
    /// The memory in bytes, if it is known.
    pub memory: Option<u64>,
    /// The memory that the cgroup grants, in bytes.
    pub granted_memory: Option<u64>,
}

impl Hardware {
    /// Measures the machine that this process runs on.
    pub fn this() -> Self {
        let granted_cores = threads(None);
        let text = read(Path::new("/proc/cpuinfo")).unwrap_or_default();
        let cores = text
            .lines()
            .filter(|line| line.starts_with("processor"))
            .count();
        Self {
            cores: cores.max(granted_cores),
            granted_cores,
            memory: read(Path::new("/proc/meminfo")).and_then(|text| total(&text)),
            granted_memory: granted(),
        }
    }
}

/// Returns the memory of the machine, or the limit of the cgroup if that is lower.
fn granted() -> Option<u64> {
    let machine = read(Path::new("/proc/meminfo")).and_then(|text| total(&text));
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let limits = limit_files(&groups);
    let limits = limits
        .iter()
        .filter_map(|file| read(file)?.trim().parse().ok());
    limits.chain(machine).min()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the kernel tells of itself in files of local disk"
)]
fn read(file: &Path) -> Option<String> {
    std::fs::read_to_string(file).ok()
}

/// Returns `MemTotal` of `/proc/meminfo`, in bytes.
fn total(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

/// Returns the files that may contain a memory limit: those of the groups in `/proc/self/cgroup`,
/// and of all groups above them.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (root, name) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let group = Path::new(path.trim_start_matches('/'));
        let groups = group.ancestors().map(|group| Path::new(root).join(group));
        files.extend(groups.map(|group| group.join(name)));
    }
    files
}

/// Parses a number of bytes with an optional unit: `805306368`, `768M`, `768Mi`, `768MiB`. Units
/// are powers of 1024.
///
/// # Errors
///
/// Returns a message if the text is not a positive number of bytes.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor: Option<u64> = match &text[digits.len()..] {
        "" | "B" => Some(1),
        "K" | "Ki" | "KiB" => Some(1 << 10),
        "M" | "Mi" | "MiB" => Some(1 << 20),
        "G" | "Gi" | "GiB" => Some(1 << 30),
        _ => None,
    };
    let number: Option<u64> = digits.parse().ok();
    let bytes = number
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor));
    bytes
        .filter(|&bytes| bytes > 0)
        .ok_or_else(|| "expected a number of bytes, such as 805306368, 768M or 2G".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units() {
        for (text, bytes) in [
            ("1", 1),
            ("64Ki", 65536),
            ("768M", AT_LEAST),
            ("2GiB", 2 << 30),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for wrong in [
            "",
            "0",
            "-1",
            "1.5G",
            "G",
            "1T",
            "NaN",
            "99999999999G",
            "1 G",
        ] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn limits_of_all_groups_above_count() {
        let files = limit_files("0::/a/b\n3:cpu:/x\n5:memory,misc:/y\n");
        let expected = [
            "/sys/fs/cgroup/a/b/memory.max",
            "/sys/fs/cgroup/a/memory.max",
            "/sys/fs/cgroup/memory.max",
            "/sys/fs/cgroup/memory/y/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        ];
        assert_eq!(files, expected.map(PathBuf::from));
        assert_eq!(total("MemFree: 1 kB\nMemTotal:  2048 kB\n"), Some(2 << 20));
    }

    #[test]
    fn the_default_is_for_the_largest_image_and_grows_with_the_threads() {
        let most = granted().map_or(u64::MAX, |granted| granted / 2);
        assert_eq!(default_memory(1), AT_LEAST.min(most));
        assert_eq!(default_memory(64), (EACH_THREAD * 64).min(most));
    }
}
