//! Converts one sample to one row: finds its image, decodes it and measures it.

use md5::Md5;
use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};
use sluice_harness::MemoryBudget;
use sluice_manifest::ReasonKind;
use sluice_manifest::rows::{MemberRow, PlanRow, SampleRow, ShardKind, Status, TEXT_BYTES};
use sluice_pixels::{
    DecodeError, Limits, Pdq, RgbImage, decode_admitted, pdq, phash, phash_transformed, quality,
};
use sluice_shard::{
    Member, Missing, Sample, SampleProblem, caption_member, image_members, metadata_member,
};

use crate::{ExtraHash, Settings, WhichImages};

/// Examines a sample. Never fails: a defect is the row's reason. Decoding waits until `memory` has
/// enough room.
pub fn examine(
    sample: Sample,
    shard: &PlanRow,
    settings: &Settings,
    memory: &MemoryBudget,
) -> SampleRow {
    let images = image_members(&sample.members);
    let image = images.first().copied();
    let caption = match &settings.caption_member {
        Some(name) => sample.members.iter().position(|m| m.extension == *name),
        None => caption_member(&sample.members),
    };
    let mut notes = Vec::new();
    let mut row = SampleRow {
        image_id: shard.image_id(&sample.key, sample.occurrence),
        shard: shard.shard.clone(),
        caption: text_of(caption.map(|i| &sample.members[i]), "caption", &mut notes),
        metadata: text_of(
            metadata_member(&sample.members).map(|i| &sample.members[i]),
            "metadata",
            &mut notes,
        ),
        image_extension: image.map(|i| sample.members[i].extension.clone()),
        bytes: image.map_or(0, |i| sample.members[i].size),
        key: sample.key,
        members: Vec::new(),
        format: None,
        width: None,
        height: None,
        orientation: None,
        sha256: None,
        phash: None,
        phash_transformed: None,
        md5: None,
        pdq: None,
        dark: None,
        light: None,
        blurry: None,
        low_information: None,
        odd_aspect: None,
        odd_size: None,
        status: Status::Ok,
        reason: None,
        detail: None,
    };
    if let Some(json) = &row.metadata
        && let Err(e) = serde_json::from_str::<IgnoredAny>(json)
    {
        notes.push(format!("metadata is not valid JSON: {e}"));
    }
    let found = match (&sample.problem, image.map(|i| &sample.members[i])) {
        (Some(SampleProblem::Truncated { extension }), _) => Err((
            ReasonKind::ShardDamaged,
            format!("the shard ends inside the member .{extension}"),
        )),
        (Some(SampleProblem::Sparse { extension }), _) => Err((
            ReasonKind::SparseMember,
            format!("the member .{extension} is a sparse file"),
        )),
        (Some(SampleProblem::TooManyMembers), _) => Err((
            ReasonKind::TooLarge,
            format!("more than {} members", sample.members.len()),
        )),
        (Some(SampleProblem::Undecodable { detail }), _) => {
            Err((ReasonKind::ShardDamaged, detail.clone()))
        }
        (Some(SampleProblem::Missing { detail }), _) => Err((ReasonKind::Missing, detail.clone())),
        (_, None) if sample.occurrence > 0 && shard.kind == ShardKind::Tar => Err((
            ReasonKind::NoImage,
            "the key occurred in the shard before: its members are not adjacent".to_owned(),
        )),
        (_, None) => Err((
            ReasonKind::NoImage,
            "no member has an image extension".to_owned(),
        )),
        (_, Some(member)) => bytes_of(member),
    };
    if sample.problem == Some(SampleProblem::DamageAfter) {
        notes.push(
            "the shard is damaged directly after this sample, which may have had more members"
                .to_owned(),
        );
    }
    let mut outcome =
        found.and_then(|bytes| measure(bytes, &mut row, settings, memory, &mut notes));
    if let [_, others @ ..] = images.as_slice()
        && !others.is_empty()
    {
        let others = others.iter().map(|&number| &sample.members[number]);
        match settings.images {
            // Each image is already a sample.
            WhichImages::Each => {}
            WhichImages::First => notes.push(format!(
                "several images: {}, of which only the first is judged",
                images.len()
            )),
            WhichImages::All => outcome = outcome.and_then(|()| check_all(others, memory)),
        }
    }
    if let Err((reason, detail)) = outcome {
        row.status = Status::Rejected;
        row.reason = Some(reason.into());
        notes.insert(0, detail);
    }
    row.detail = (!notes.is_empty()).then(|| notes.join("; "));
    let members = sample.members.into_iter().map(|member| MemberRow {
        extension: member.extension,
        offset: member.offset,
        size: member.size,
    });
    row.members = members.collect();
    row
}

type Refusal = (ReasonKind, String);

fn bytes_of(member: &Member) -> Result<&[u8], Refusal> {
    match (&member.data, member.missing) {
        (Some(data), _) => Ok(data),
        (None, Some(Missing::Sparse)) => Err((
            ReasonKind::SparseMember,
            "the image is a sparse file".to_owned(),
        )),
        (None, _) => Err((
            ReasonKind::TooLarge,
            format!("the image has {} bytes", member.size),
        )),
    }
}

fn measure(
    bytes: &[u8],
    row: &mut SampleRow,
    settings: &Settings,
    memory: &MemoryBudget,
    notes: &mut Vec<String>,
) -> Result<(), Refusal> {
    row.sha256 = Some(hex::encode(Sha256::digest(bytes)));
    if settings.hashes.contains(&ExtraHash::Md5) {
        row.md5 = Some(hex::encode(<Md5 as md5::Digest>::digest(bytes)));
    }
    // Held until the image is measured.
    let mut _share = None;
    let mut admit = |bytes| _share = Some(memory.take(bytes));
    let decoded = decode_admitted(bytes, &Limits::default(), &mut admit);
    let decoded = decoded.map_err(|e| (reason_of(&e), e.to_string()))?;
    row.format = Some(decoded.format.as_str().to_owned());
    row.orientation = Some(decoded.orientation);
    notes.extend_from_slice(&decoded.warnings);
    let image = decoded.upright();
    row.width = Some(image.width);
    row.height = Some(image.height);
    row.phash = Some(phash(&image));
    if settings.hashes.contains(&ExtraHash::Transformed) {
        row.phash_transformed = Some(phash_transformed(&image).into());
    }
    if settings.hashes.contains(&ExtraHash::Pdq) {
        row.pdq = reliable_pdq(&image);
    }
    let quality = quality(&image);
    row.dark = Some(quality.dark);
    row.light = Some(quality.light);
    row.blurry = Some(quality.blurry);
    row.low_information = Some(quality.low_information);
    row.odd_aspect = Some(quality.odd_aspect);
    row.odd_size = Some(quality.odd_size);
    image.recycle();
    Ok(())
}

/// Returns the PDQ hash in hexadecimal if it is reliable enough for matching.
fn reliable_pdq(image: &RgbImage) -> Option<String> {
    let pdq = pdq(image).filter(|pdq| pdq.quality >= Pdq::RELIABLE)?;
    Some(hex::encode(pdq.hash))
}

/// Checks that the other images of a sample can be decoded.
fn check_all<'m>(
    images: impl Iterator<Item = &'m Member>,
    memory: &MemoryBudget,
) -> Result<(), Refusal> {
    for member in images {
        let named = |(reason, detail)| (reason, format!("{}: {detail}", member.extension));
        let bytes = bytes_of(member).map_err(named)?;
        let mut _share = None;
        let mut admit = |bytes| _share = Some(memory.take(bytes));
        let decoded = decode_admitted(bytes, &Limits::default(), &mut admit);
        decoded.map_err(|e| named((reason_of(&e), e.to_string())))?;
    }
    Ok(())
}

/// Returns whether a sample has further images, which [`examine`] ignores.
pub fn has_unjudged(sample: &Sample, settings: &Settings) -> bool {
    settings.images == WhichImages::First && image_members(&sample.members).len() > 1
}

fn reason_of(error: &DecodeError) -> ReasonKind {
    match error {
        DecodeError::Empty => ReasonKind::EmptyFile,
        DecodeError::NotAnImage { .. } => ReasonKind::NotAnImage,
        DecodeError::Unsupported { .. } => ReasonKind::UnsupportedFormat,
        DecodeError::TooLarge { .. } => ReasonKind::TooLarge,
        DecodeError::Truncated { .. } => ReasonKind::Truncated,
        DecodeError::Corrupt { .. } => ReasonKind::Corrupt,
    }
}

/// Returns the text of a member. Bytes that are not UTF-8 are replaced in the manifest, with a
/// note; `export` copies the member's original bytes.
fn text_of(member: Option<&Member>, what: &str, notes: &mut Vec<String>) -> Option<String> {
    let data = member?
        .data
        .as_deref()
        .filter(|data| data.len() <= TEXT_BYTES);
    let Some(data) = data else {
        notes.push(format!("{what} is too large for the manifest"));
        return None;
    };
    let text = String::from_utf8_lossy(data);
    if matches!(text, std::borrow::Cow::Owned(_)) {
        notes.push(format!("{what} is not UTF-8"));
    }
    Some(text.into_owned())
}
