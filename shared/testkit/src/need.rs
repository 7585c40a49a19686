//! Things that a test needs and a machine may lack.
//!
//! A test requests them with [`Need::found`]. If one is missing, the test returns early and counts
//! as skipped: its name and the missing thing are appended to the file named by
//! `SLUICE_TESTS_SKIPPED`, and `make test` prints the summary last. If `CI` is set, the test fails
//! instead. `SLUICE_TESTS_HIDE=fixtures,servers` hides kinds intentionally: their tests are
//! skipped, even if `CI` is set.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A kind of thing that a test needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The large fixtures, which are not part of the repository.
    Fixtures,
    /// The demo's shards.
    Demo,
    /// Models by their names in the catalogue.
    Models,
    /// Servers of object stores, and proxies in front of them.
    Servers,
    /// Programs and libraries: Python with its packages, ONNX Runtime.
    Programs,
}

impl Need {
    /// Returns the name in `SLUICE_TESTS_HIDE` and in the list of skipped tests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fixtures => "fixtures",
            Self::Demo => "demo",
            Self::Models => "models",
            Self::Servers => "servers",
            Self::Programs => "programs",
        }
    }

    /// Returns the result of `find`. If it is `None`, or the kind is hidden, the calling test
    /// counts as skipped. `what` names the missing thing, `hint` describes how to get it.
    ///
    /// # Panics
    ///
    /// Panics if it is missing, not hidden, and `CI` is set.
    pub fn found<T>(self, what: &str, hint: &str, find: impl FnOnce() -> Option<T>) -> Option<T> {
        match outcome(&NeedSettings::from_environment(), self, find) {
            Outcome::Found(found) => return Some(found),
            Outcome::Skipped => skip(self, what, hint),
            Outcome::Failed => panic!("CI lacks {what}: {hint}"),
        }
        None
    }
}

/// The environment's settings for missing things.
struct NeedSettings {
    hidden: String,
    is_ci: bool,
}

impl NeedSettings {
    fn from_environment() -> Self {
        let value = |name: &str| std::env::var(name).unwrap_or_default();
        Self {
            hidden: value("SLUICE_TESTS_HIDE"),
            is_ci: !["", "0", "false"].contains(&value("CI").as_str()),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome<T> {
    Found(T),
    Skipped,
    Failed,
}

fn outcome<T>(settings: &NeedSettings, need: Need, find: impl FnOnce() -> Option<T>) -> Outcome<T> {
    let mut hidden = settings.hidden.split(',').map(str::trim);
    if hidden.any(|name| name == need.name()) {
        return Outcome::Skipped;
    }
    match find() {
        Some(found) => Outcome::Found(found),
        None if settings.is_ci => Outcome::Failed,
        None => Outcome::Skipped,
    }
}

/// Reports on stderr that the calling test is skipped, and adds it to the list.
#[expect(
    clippy::print_stderr,
    reason = "a skipped test must say so, and a test has no logger"
)]
fn skip(need: Need, what: &str, hint: &str) {
    let current = std::thread::current();
    let test = current.name().unwrap_or("?");
    eprintln!("skipped: {test}: no {what} ({hint})");
    if let Some(list) = std::env::var_os("SLUICE_TESTS_SKIPPED") {
        let line = format!("{}\t{test}\t{what}\t{hint}\n", need.name());
        append(Path::new(&list), &line).expect("SLUICE_TESTS_SKIPPED names a file");
    }
}

/// Appends in one write, so that tests of several processes do not mix their lines.
fn append(file: &Path, line: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    file.write_all(line.as_bytes())
}

/// Returns the folder of the large test fixtures: `fixtures` in `$SLUICE_SHARED`, else in the
/// folder `shared` next to the workspace. They are not part of the repository.
pub fn fixtures() -> Option<PathBuf> {
    let hint = "set SLUICE_SHARED to the folder that holds `fixtures`";
    Need::Fixtures.found("fixtures", hint, || {
        let shared = std::env::var_os("SLUICE_SHARED").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
            PathBuf::from,
        );
        let fixtures = shared.join("fixtures");
        fixtures.is_dir().then_some(fixtures)
    })
}

/// Returns a path that exists: the one in `variable`, or else `in_workspace`, relative to the
/// workspace's root. `hint` describes how to get it.
pub fn place(
    need: Need,
    what: &str,
    variable: &str,
    in_workspace: &str,
    hint: &str,
) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let place = std::env::var_os(variable).map_or_else(|| root.join(in_workspace), PathBuf::from);
    let what = format!("{what} at {}", place.display());
    let hint = format!("{hint}, or set {variable}");
    need.found(&what, &hint, || place.exists().then_some(place.clone()))
}

/// Returns a Python that can import `modules`: the one that `make tools` installs.
pub fn python(modules: &str) -> Option<PathBuf> {
    let python = place(
        Need::Programs,
        "Python",
        "SLUICE_PYTHON",
        ".cache/venv/bin/python",
        "make tools",
    )?;
    let what = format!("Python with {modules}");
    Need::Programs.found(&what, "make tools", || {
        let mut command = std::process::Command::new(&python);
        let imported = command.args(["-c", &format!("import {modules}")]).output();
        imported
            .is_ok_and(|output| output.status.success())
            .then_some(python.clone())
    })
}

/// Returns ONNX Runtime's library of the package `onnxruntime-NAME` (gpu, openvino). It is optional:
/// without it, the calling test is skipped even if `CI` is set.
#[expect(clippy::disallowed_methods, reason = "a library is on local disk")]
pub fn onnxruntime_of(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/providers");
    let folder = std::env::var_os("SLUICE_PROVIDERS").map_or(root, PathBuf::from);
    let folder = folder.join(name).join("onnxruntime/capi");
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_library = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("libonnxruntime.so")
    };
    let found = entries.map(|entry| entry.path()).find(is_library);
    if found.is_none() {
        skip(
            Need::Programs,
            &format!("onnxruntime-{name}"),
            "make providers",
        );
    }
    found
}

/// Returns a Chromium. It is optional: without one, the calling test is skipped even if `CI` is
/// set.
pub fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = ["chromium", "chromium-browser", "google-chrome"]
        .iter()
        .flat_map(|name| std::env::split_paths(&path).map(move |folder| folder.join(name)))
        .find(|program| program.is_file());
    if found.is_none() {
        skip(Need::Programs, "Chromium", "install the package chromium");
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_thing_skips_a_test_and_fails_it_in_ci_unless_it_is_hidden() {
        use Outcome::{Failed, Found, Skipped};
        let cases = [
            ("", false, true, Found(())),
            ("", false, false, Skipped),
            ("", true, true, Found(())),
            ("", true, false, Failed),
            ("servers, fixtures", true, true, Skipped),
            ("fixtures", true, false, Skipped),
            ("models", true, false, Failed),
            ("models", false, true, Found(())),
        ];
        for (hidden, is_ci, is_there, expected) in cases {
            let settings = NeedSettings {
                hidden: hidden.to_owned(),
                is_ci,
            };
            let found = outcome(&settings, Need::Fixtures, || is_there.then_some(()));
            assert_eq!(found, expected, "{hidden:?}, CI {is_ci}, there {is_there}");
        }
    }
}
