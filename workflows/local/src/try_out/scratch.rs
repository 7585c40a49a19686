//! A scratch copy of a run on local disk. Manifests on local disk are linked, manifests in an
//! object store are copied. Writing to the copy replaces a link and never follows it.

use std::io;
use std::path::Path;

use anyhow::{Context as _, Result};
use sluice_manifest::layout::{EMBEDDINGS, REPORT};
use sluice_manifest::{Error, InputOf};
use sluice_run::steps::EXPORT;
use sluice_run::{Receipts, Run};
use sluice_store::Location;
use tempfile::TempDir;

/// A folder that is removed on drop.
pub(super) struct Scratch {
    uri: String,
    _folder: TempDir,
}

impl Scratch {
    /// Copies the manifests that deciding steps read.
    ///
    /// # Errors
    /// Returns a storage error when the run cannot be read, or a usage error without a usable
    /// folder of temporary files.
    pub(super) fn new(recorded: &Run, receipts: &Receipts) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("sluice-try-").tempdir();
        let folder = folder.context("cannot make a folder for a copy of the run")?;
        let path = folder.path();
        let uri = path
            .to_str()
            .ok_or_else(|| Error::usage("the folder of temporary files: its name is not UTF-8"))?;
        let uri = uri.to_owned();
        let scratch = recorded.storage.create(&Location::parse(&uri)?)?;
        for object in recorded.list("")? {
            if !is_read(&object.path, receipts) {
                continue;
            }
            recorded.check_stop()?;
            match recorded.location().as_local() {
                Some(run) => link(&run.join(&object.path), &path.join(&object.path))
                    .with_context(|| format!("cannot link {}", object.path))?,
                None => recorded.copy_to(&object.path, &scratch, &object.path)?,
            }
        }
        Ok(Self {
            uri,
            _folder: folder,
        })
    }

    /// Returns its URI, a local path.
    pub(super) fn uri(&self) -> &str {
        &self.uri
    }
}

/// Whether deciding steps read an object of the run. They read no output of exports, and embeddings
/// only if a step searches for semantic duplicates.
fn is_read(path: &str, receipts: &Receipts) -> bool {
    let Some((step, rest)) = path.split_once('/') else {
        return true;
    };
    let of_step = receipts
        .steps()
        .into_iter()
        .find(|name| name.as_str() == step);
    let Some(of_step) = of_step else {
        return path != REPORT;
    };
    let is_export = receipts
        .of(of_step)
        .iter()
        .any(|receipt| receipt.stage == EXPORT);
    let is_embedding = rest.starts_with(&format!("{}/", EMBEDDINGS.kind()));
    !is_export && (!is_embedding || is_compared(of_step.as_str(), receipts))
}

/// Whether some step reads all embeddings of a step, like `dedup fit`.
fn is_compared(embedder: &str, receipts: &Receipts) -> bool {
    let mut units = receipts
        .steps()
        .into_iter()
        .flat_map(|step| receipts.of(step));
    units.any(|receipt| {
        let mut inputs = receipt.inputs.iter();
        receipt.subcommand.as_deref() == Some("fit")
            && inputs.any(|input| matches!(&input.of, InputOf::Units { step, .. } if step.as_str() == embedder))
    })
}

fn link(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::os::unix::fs::symlink(from, to)
}
