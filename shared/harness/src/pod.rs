//! Local folders that are lost when their pod ends.

use std::path::Path;

use sluice_manifest::{Error, Result};
use sluice_store::Location;

use crate::is_set;

/// A variable that is set in every container of a pod.
const IN_POD: &str = "KUBERNETES_SERVICE_HOST";

/// Returns an error if this process runs in a pod and a local folder is not on a volume. The folder
/// would be deleted with the pod.
///
/// # Errors
///
/// Returns a usage error.
pub(crate) fn refuse_lost(flag: &str, place: &Location) -> Result<()> {
    let Some(path) = place.as_local().filter(|_| is_set(IN_POD)) else {
        return Ok(());
    };
    if is_on_volume(path, &mounts()) {
        return Ok(());
    }
    let text = format!("{flag} {place}: a folder of this pod, which is deleted with the pod");
    Err(Error::usage(text).hint("name a place in an object store, or mount a volume there"))
}

/// Returns the kernel's list of mounts.
#[expect(clippy::disallowed_methods, reason = "the kernel's list, not data")]
fn mounts() -> String {
    std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()
}

/// Returns whether a path is on a mount that outlives the pod: not its root, an `emptyDir` or
/// memory. A line of `mounts` contains the root in the file system, the path and, after a dash, the
/// type.
fn is_on_volume(path: &Path, mounts: &str) -> bool {
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(3);
        let (root, at) = (words.next()?, words.next()?);
        let kind = words.skip_while(|word| *word != "-").nth(1)?;
        Some((Path::new(at), root, kind))
    });
    let over = mounts.filter(|(at, ..)| path.starts_with(at));
    let nearest = over.max_by_key(|(at, ..)| at.components().count());
    nearest.is_some_and(|(at, root, kind)| {
        at != Path::new("/") && kind != "tmpfs" && !root.contains("kubernetes.io~empty-dir")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_a_pod_are_no_volumes() {
        let mounts = "\
22 1 0:21 / / rw,relatime - overlay overlay rw
23 22 0:22 /var/lib/kubelet/pods/x/volumes/kubernetes.io~empty-dir/tmp /tmp rw - ext4 /dev/vda rw
24 22 0:23 / /scratch rw - tmpfs tmpfs rw
25 22 0:24 / /data rw,relatime shared:7 master:1 - nfs server:/export rw
26 25 0:25 / /data/fast rw - tmpfs tmpfs rw";
        for (path, expected) in [
            ("/data/run", true),
            ("/data", true),
            ("/database", false),
            ("/data/fast/run", false),
            ("/tmp/run", false),
            ("/scratch/run", false),
            ("/home/run", false),
        ] {
            assert_eq!(is_on_volume(Path::new(path), mounts), expected, "{path}");
        }
        assert!(!is_on_volume(Path::new("/data"), ""));
    }
}
