//! Images in another size or format, on request (`--resize`, `--encode`).

use sha2::{Digest, Sha256};
use sluice_harness::MemoryBudget;
use sluice_manifest::rows::{CuratedRow, MemberRow, SampleRow};
use sluice_manifest::{Error, Result};
use sluice_pixels::{Limits, Recode};

/// Writes a sample's image anew where it is asked for, and changes the sample's row accordingly.
/// Returns the image as it goes into the output.
///
/// # Errors
/// Data, when the image cannot be decoded: it is not the one that `read` validated.
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

/// Changes a sample's row as its row in the output says, where the image is not at hand.
pub fn follow(sample: &mut SampleRow, row: &CuratedRow) {
    let format = row.format.as_deref().unwrap_or_default();
    let extension = if format == "jpeg" { "jpg" } else { format };
    rename(sample, format, extension, row.bytes);
    (sample.width, sample.height) = (row.width, row.height);
    sample.sha256.clone_from(&row.sha256);
}

/// Gives the image another format and size. Its extension changes with the format alone.
fn rename(sample: &mut SampleRow, format: &str, extension: &str, size: u64) {
    let before = sample.image_extension.clone().unwrap_or_default();
    let extension = match sample.format.as_deref() == Some(format) {
        true => before.clone(),
        false => free_extension(sample, extension),
    };
    for member in sample.members.iter_mut().filter(|m| m.extension == before) {
        member.extension.clone_from(&extension);
        member.size = size;
    }
    sample.image_extension = Some(extension);
    sample.format = Some(format.to_owned());
    sample.bytes = size;
}

/// Returns the extension, or a longer one where the sample has another member with it.
fn free_extension(sample: &SampleRow, extension: &str) -> String {
    let has = |name: &str| {
        let is = |member: &MemberRow| member.extension.eq_ignore_ascii_case(name);
        sample.members.iter().any(is)
    };
    match has(extension) {
        true => format!("image.{extension}"),
        false => extension.to_owned(),
    }
}
