//! The code is written in plain technical English: the counts of `words.py` are below their limits.

use std::path::Path;
use std::process::Command;

use sluice_testkit::Need;

#[test]
fn words_and_names_are_below_their_limits() {
    let is_there = || {
        let version = Command::new("python3").arg("--version").output();
        version.is_ok_and(|output| output.status.success())
    };
    let need = Need::Programs.found("python3", "install Python", || is_there().then_some(()));
    if need.is_none() {
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("documents/words.py");
    let counted = Command::new("python3")
        .args(["-B".as_ref(), script.as_os_str(), "--check".as_ref()])
        .output()
        .expect("Python starts");
    assert!(
        counted.status.success(),
        "{}{}",
        String::from_utf8_lossy(&counted.stdout),
        String::from_utf8_lossy(&counted.stderr)
    );
}
