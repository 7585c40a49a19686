//! One sample to one row: find its image, decode it, measure it.

use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};
use sluice_harness::MemoryBudget;
use sluice_manifest::rows::{MemberRow, SampleRow, Status};
use sluice_manifest::{ImageId, ReasonKind, ShardPath};
use sluice_pixels::{DecodeError, Limits, decode_admitted, phash, quality};
use sluice_shard::{
    Member, Missing, Sample, SampleProblem, caption_member, image_member, metadata_member,
};

/// Longer captions and metadata stay in their shard and are not taken into the manifest.
const TEXT_BYTES: usize = 1 << 20;

/// Looks at a sample. Never fails: what is wrong with it is the row's reason. Its image is decoded when
/// `memory` has room for it.
pub fn examine(sample: Sample, shard: &ShardPath, memory: &MemoryBudget) -> SampleRow {
    let image = image_member(&sample.members);
    let mut notes = Vec::new();
    let mut row = SampleRow {
        image_id: ImageId::new(shard, &sample.key, sample.occurrence),
        shard: shard.clone(),
        caption: text_of(
            caption_member(&sample.members).map(|i| &sample.members[i]),
            "caption",
            &mut notes,
        ),
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
        notes.push(format!("metadata is no valid JSON: {e}"));
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
        (_, None) if sample.occurrence > 0 => Err((
            ReasonKind::NoImage,
            "the key stood in the shard before: its members are not next to each other".to_owned(),
        )),
        (_, None) => Err((
            ReasonKind::NoImage,
            "no member has an image extension".to_owned(),
        )),
        (_, Some(member)) => bytes_of(member),
    };
    if sample.problem == Some(SampleProblem::CutShort) {
        notes.push(
            "the shard is damaged right behind this sample, which may have had more members"
                .to_owned(),
        );
    }
    let outcome = found.and_then(|bytes| measure(bytes, &mut row, memory));
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

fn measure(bytes: &[u8], row: &mut SampleRow, memory: &MemoryBudget) -> Result<(), Refusal> {
    row.sha256 = Some(hex::encode(Sha256::digest(bytes)));
    // Held until the image is measured.
    let mut _share = None;
    let mut admit = |bytes| _share = Some(memory.take(bytes));
    let decoded = decode_admitted(bytes, &Limits::default(), &mut admit);
    let decoded = decoded.map_err(|e| (reason_of(&e), e.to_string()))?;
    row.format = Some(decoded.format.as_str().to_owned());
    row.orientation = Some(decoded.orientation);
    let image = decoded.upright();
    row.width = Some(image.width);
    row.height = Some(image.height);
    row.phash = Some(phash(&image));
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

/// A text member as text. Bytes that are not UTF-8 are replaced in the manifest, which the notes
/// tell; `export` copies the member's own bytes.
fn text_of(member: Option<&Member>, what: &str, notes: &mut Vec<String>) -> Option<String> {
    let data = member?
        .data
        .as_deref()
        .filter(|data| data.len() <= TEXT_BYTES);
    let Some(data) = data else {
        notes.push(format!("{what} is too large to be taken into the manifest"));
        return None;
    };
    let text = String::from_utf8_lossy(data);
    if matches!(text, std::borrow::Cow::Owned(_)) {
        notes.push(format!("{what} is not UTF-8"));
    }
    Some(text.into_owned())
}
