//! sluice-testkit: what the crates' tests share.

pub mod onnx;
pub mod pictures;
mod shards;

pub use shards::Shard;

use std::path::{Path, PathBuf};

/// The folder of the large test fixtures: `fixtures` in `$SLUICE_SHARED`, else in the folder
/// `shared` beside the workspace. They are not part of the repository, so where there are none this
/// says so, loudly, and gives None; the caller then returns.
#[expect(
    clippy::print_stderr,
    reason = "a skipped test must say so, and a test has no logger"
)]
pub fn fixtures() -> Option<PathBuf> {
    let shared = std::env::var_os("SLUICE_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    );
    let fixtures = shared.join("fixtures");
    if fixtures.is_dir() {
        return Some(fixtures);
    }
    eprintln!(
        "skipped: no fixtures at {} (set SLUICE_SHARED to the folder that holds `fixtures`)",
        fixtures.display()
    );
    None
}
