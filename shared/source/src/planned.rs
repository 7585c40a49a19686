//! Opens the objects of a plan, if they have not changed since it was made.

use sluice_manifest::rows::PlanRow;
use sluice_manifest::{Error, Result};
use sluice_store::{ObjectReader, Store};

/// Opens a shard of the plan for reading it as a whole.
///
/// # Errors
///
/// Returns a data error if it changed since the plan was made, and otherwise a storage error.
pub fn open_shard(input: &Store, planned: &PlanRow) -> Result<ObjectReader> {
    check_unchanged(input, planned)?;
    let mut reader = input.read_ranges(planned.shard.as_str(), planned.bytes);
    reader.prefetch(0..planned.bytes);
    Ok(reader)
}

/// Checks that a shard has not changed since the plan was made.
///
/// # Errors
///
/// Returns a data error if it changed or no longer exists, and otherwise a storage error.
pub(crate) fn check_unchanged(input: &Store, planned: &PlanRow) -> Result<()> {
    let path = planned.shard.as_str();
    let found = input.stat(path)?;
    let same = found.is_some_and(|found| {
        found.bytes == planned.bytes
            && found.etag == planned.etag
            && found.modified == planned.modified
    });
    if same {
        return Ok(());
    }
    Err(Error::data(format!(
        "{}: changed or gone since the plan was made",
        input.uri(path)
    ))
    .hint("run sluice-partition again, then the steps after it"))
}
