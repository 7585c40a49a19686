//! Where the large things lie: the variables that `make test` sets, or else the places in the
//! workspace that `make models` fills.
//!
//! Each function says, loudly, when something is not there, and gives None; the test then returns.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

pub use sluice_testkit::fixtures;

/// The file name of ONNX Runtime's library.
const LIBRARY: &str = "libonnxruntime.so";

#[expect(
    clippy::print_stderr,
    reason = "a skipped test must say so, and a test has no logger"
)]
fn skipped(what: &str, place: &Path, how: &str) {
    eprintln!("skipped: no {what} at {} ({how})", place.display());
}

/// What a variable names, or the place in the workspace's cache.
fn place(variable: &str, in_cache: &str) -> PathBuf {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache");
    std::env::var_os(variable).map_or_else(|| cache.join(in_cache), PathBuf::from)
}

fn there(what: &str, variable: &str, in_cache: &str) -> Option<PathBuf> {
    let place = place(variable, in_cache);
    if place.exists() {
        return Some(place);
    }
    skipped(what, &place, &format!("make models, or set {variable}"));
    None
}

/// ONNX Runtime's library, which this process finds from now on.
pub fn runtime() -> Option<PathBuf> {
    static FOUND: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
        let library = there(
            "ONNX Runtime",
            "ORT_DYLIB_PATH",
            &format!("onnxruntime/{LIBRARY}"),
        )?;
        if std::env::var_os("ORT_DYLIB_PATH").is_none() {
            // A process cannot safely set its own variables, but a library beside the program is
            // found as well.
            let program = std::env::current_exe().ok()?;
            let beside = program.parent()?.join(LIBRARY);
            let target = std::path::absolute(&library).ok()?;
            if !beside.exists() {
                std::os::unix::fs::symlink(target, &beside).ok();
            }
            if !beside.exists() {
                skipped("ONNX Runtime", &beside, "set ORT_DYLIB_PATH");
                return None;
            }
        }
        Some(library)
    });
    if FOUND.is_none() {
        // Once for each test that goes without.
        there("ONNX Runtime", "ORT_DYLIB_PATH", "onnxruntime")?;
    }
    FOUND.clone()
}

/// The folder of models that `make models` fills, where all of `names` are in it and ONNX Runtime
/// is there too.
pub fn models(names: &[&str]) -> Option<PathBuf> {
    runtime()?;
    let folder = there("models", "SLUICE_MODELS", "models")?;
    for name in names {
        let file = folder.join(name).join("model.onnx");
        if !file.exists() {
            skipped(name, &file, "make models, or set SLUICE_MODELS");
            return None;
        }
    }
    Some(folder)
}

/// The folder of the ONNX files of the fixtures, where ONNX Runtime is there too.
pub fn shared_models() -> Option<PathBuf> {
    runtime()?;
    let folder = fixtures()?.parent()?.join("models");
    if folder.is_dir() {
        return Some(folder);
    }
    skipped("models for tests", &folder, "set SLUICE_SHARED");
    None
}

/// Makes `<folder>/<name>/model.onnx` of a file of [`shared_models`], and gives that folder.
pub fn model(folder: &Path, name: &str, file: &Path) -> std::io::Result<PathBuf> {
    let made = folder.join(name);
    std::fs::create_dir_all(&made)?;
    std::fs::copy(file, made.join("model.onnx"))?;
    Ok(made)
}

/// The folder of the demo's shards.
pub fn demo_input() -> Option<PathBuf> {
    let variable = "SLUICE_DEMO_INPUT";
    let place = place(variable, "../demo/input");
    if place.exists() {
        return Some(place);
    }
    skipped(
        "demo shards",
        &place,
        &format!("make demo-data, or set {variable}"),
    );
    None
}

/// A server that `tests/servers/install.sh` gets.
pub(crate) fn server(name: &str) -> Option<PathBuf> {
    let program = place("SLUICE_SERVERS", "servers/bin").join(name);
    if program.exists() {
        return std::path::absolute(program).ok();
    }
    skipped(name, &program, "make servers, or set SLUICE_SERVERS");
    None
}

/// Python with the packages that the tests name.
pub fn python() -> Option<PathBuf> {
    there("Python", "SLUICE_PYTHON", "venv/bin/python")
}
