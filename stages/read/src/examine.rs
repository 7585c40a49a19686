//! One sample to one row: find its image, decode it, measure it.

use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};
use sluice_manifest::rows::{MemberRow, SampleRow, Status};
use sluice_manifest::{ImageId, Reason, ShardPath};
use sluice_pixels::{DecodeError, Limits, decode, phash, quality};
use sluice_shard::{
    Member, Missing, Sample, SampleProblem, caption_member, image_member, metadata_member,
};

/// Longer captions and metadata stay in their shard and are not taken into the manifest.
const TEXT_BYTES: usize = 1 << 20;

/// What drops sound images.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bounds {
    /// Shortest short side, in pixels.
    pub min_side: Option<u32>,
    /// Largest long side, in short sides.
    pub max_aspect: Option<f32>,
}

/// Looks at a sample. Never fails: what is wrong with it is the row's reason.
pub fn examine(sample: Sample, shard: &ShardPath, bounds: Bounds) -> SampleRow {
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
            Reason::ShardDamaged,
            format!("the shard ends inside the member .{extension}"),
        )),
        (Some(SampleProblem::Sparse { extension }), _) => Err((
            Reason::SparseMember,
            format!("the member .{extension} is a sparse file"),
        )),
        (Some(SampleProblem::TooManyMembers), _) => Err((
            Reason::TooLarge,
            format!("more than {} members", sample.members.len()),
        )),
        (_, None) if sample.occurrence > 0 => Err((
            Reason::NoImage,
            "the key stood in the shard before: its members are not next to each other".to_owned(),
        )),
        (_, None) => Err((
            Reason::NoImage,
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
    let outcome = found
        .and_then(|bytes| measure(bytes, &mut row))
        .and_then(|()| within(bounds, &row));
    if let Err((reason, detail)) = outcome {
        row.status = Status::Rejected;
        row.reason = Some(reason);
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

type Refusal = (Reason, String);

fn bytes_of(member: &Member) -> Result<&[u8], Refusal> {
    match (&member.data, member.missing) {
        (Some(data), _) => Ok(data),
        (None, Some(Missing::Sparse)) => Err((
            Reason::SparseMember,
            "the image is a sparse file".to_owned(),
        )),
        (None, _) => Err((
            Reason::TooLarge,
            format!("the image has {} bytes", member.size),
        )),
    }
}

fn measure(bytes: &[u8], row: &mut SampleRow) -> Result<(), Refusal> {
    row.sha256 = Some(hex::encode(Sha256::digest(bytes)));
    let decoded = decode(bytes, &Limits::default()).map_err(|e| (reason_of(&e), e.to_string()))?;
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

fn reason_of(error: &DecodeError) -> Reason {
    match error {
        DecodeError::Empty => Reason::EmptyFile,
        DecodeError::NotAnImage { .. } => Reason::NotAnImage,
        DecodeError::Unsupported { .. } => Reason::UnsupportedFormat,
        DecodeError::TooLarge { .. } => Reason::TooLarge,
        DecodeError::Truncated { .. } => Reason::Truncated,
        DecodeError::Corrupt { .. } => Reason::Corrupt,
    }
}

fn within(bounds: Bounds, row: &SampleRow) -> Result<(), Refusal> {
    let (width, height) = (row.width.unwrap_or(0), row.height.unwrap_or(0));
    let (short, long) = (width.min(height), width.max(height));
    if let Some(least) = bounds.min_side
        && short < least
    {
        return Err((
            Reason::TooSmall,
            format!("{width}x{height}, short side below {least}"),
        ));
    }
    if let Some(most) = bounds.max_aspect
        && long as f32 > most * short as f32
    {
        return Err((
            Reason::ExtremeAspect,
            format!("{width}x{height}, aspect above {most}"),
        ));
    }
    Ok(())
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
