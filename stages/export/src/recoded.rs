//! Converts images to another size or format on request (`--resize`, `--encode`).

use sha2::{Digest, Sha256};
use sluice_harness::MemoryBudget;
use sluice_manifest::rows::{CuratedRow, MemberRow, SampleRow};
use sluice_manifest::{Error, Result};
use sluice_pixels::{Limits, Recode};

/// Converts a sample's image if requested, and updates the sample's row. Returns the image for the
/// output.
///
/// # Errors
///
/// Returns a data error if the image cannot be decoded: it is not the one that `read` validated.
pub fn recode(
    recode: &Recode,
    sample: &mut SampleRow,
    image: Vec<u8>,
    memory: &MemoryBudget,
) -> Result<Vec<u8>> {
    let mut _share = None;
    let mut admit = |bytes| _share = Some(memory.take(bytes));
    let recoded = recode.apply(&image, &Limits::default(), &mut admit);
    let recoded = recoded.map_err(|e| Error::data(format!("{}: {e}", sample.image_id)))?;
    let Some(recoded) = recoded else {
        return Ok(image);
    };
    let sha256 = hex::encode(Sha256::digest(&recoded.bytes));
    let format = recoded.encoding.format().as_str();
    let extension = recoded.encoding.extension();
    rename(sample, format, extension, recoded.bytes.len() as u64);
    (sample.width, sample.height) = (Some(recoded.width), Some(recoded.height));
    sample.sha256 = Some(sha256);
    Ok(recoded.bytes)
}

/// Updates a sample's row according to its row in the output, without the image.
pub fn follow(sample: &mut SampleRow, row: &CuratedRow) {
    let format = row.format.as_deref().unwrap_or_default();
    let extension = if format == "jpeg" { "jpg" } else { format };
    rename(sample, format, extension, row.bytes);
    (sample.width, sample.height) = (row.width, row.height);
    sample.sha256.clone_from(&row.sha256);
}

/// Sets the format and size of the image. Its extension changes only with the format.
fn rename(sample: &mut SampleRow, format: &str, extension: &str, size: u64) {
    let before = sample.image_extension.clone().unwrap_or_default();
    let extension = if sample.format.as_deref() == Some(format) {
        before.clone()
    } else {
        free_extension(sample, extension)
    };
    for member in sample.members.iter_mut().filter(|m| m.extension == before) {
        member.extension.clone_from(&extension);
        member.size = size;
    }
    sample.image_extension = Some(extension);
    sample.format = Some(format.to_owned());
    sample.bytes = size;
}

/// Returns the extension, or a longer one if another member of the sample has it.
fn free_extension(sample: &SampleRow, extension: &str) -> String {
    let has = |name: &str| {
        let is = |member: &MemberRow| member.extension.eq_ignore_ascii_case(name);
        sample.members.iter().any(is)
    };
    if has(extension) {
        format!("image.{extension}")
    } else {
        extension.to_owned()
    }
}
