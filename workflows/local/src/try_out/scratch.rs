//! A scratch copy of a run, on local disk: links to the manifests of a run on local disk, copies of
//! those in a bucket. What is written into it replaces links and never goes through them.

use std::io;
use std::path::Path;

use anyhow::{Context as _, Result};
use sluice_harness::{Context, Receipts};
use sluice_manifest::layout::{EMBEDDINGS, REPORT};
use sluice_manifest::{Error, InputOf};
use sluice_report::steps::EXPORT;
use sluice_store::Location;
use tempfile::TempDir;

/// A folder that is removed when it is dropped.
pub struct Scratch {
    uri: String,
    _folder: TempDir,
}

impl Scratch {
    /// Copies what deciding steps read.
    ///
    /// # Errors
    /// Of storage.
    pub fn new(context: &Context, receipts: &Receipts) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("sluice-try-").tempdir();
        let folder = folder.context("cannot make a folder for a copy of the run")?;
        let path = folder.path();
        let uri = path
            .to_str()
            .ok_or_else(|| Error::usage("the folder of temporary files: its name is not UTF-8"))?;
        let uri = uri.to_owned();
        let scratch = context.storage.create(&Location::parse(&uri)?)?;
        for object in context.run.list("")? {
            if !is_read(&object.path, receipts) {
                continue;
            }
            context.check_stop()?;
            match context.run.location().as_local() {
                Some(run) => link(&run.join(&object.path), &path.join(&object.path))
                    .with_context(|| format!("cannot link {}", object.path))?,
                None => context.run.copy_to(&object.path, &scratch, &object.path)?,
            }
        }
        Ok(Self {
            uri,
            _folder: folder,
        })
    }

    /// Returns where it is.
    pub fn uri(&self) -> &str {
        &self.uri
    }
}

/// Whether deciding steps read an object of the run: not what exports wrote, and embeddings only where
/// a step looks for semantic duplicates.
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

/// Whether some step reads all embeddings of a step, as `dedup fit` does.
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
