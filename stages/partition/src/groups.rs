//! Groups samples that are plain files into shards of the plan.

use sluice_manifest::rows::{FileRow, PlanRow, ShardKind};
use sluice_manifest::{Fingerprint, ShardPath};

use crate::files::FileSample;

/// The size of the files in such a shard, unless `--bytes-per-partition` gives another one.
const BYTES: u64 = 128 << 20;
/// The maximum number of samples in such a shard.
const SAMPLES: usize = 10_000;

/// Groups sorted samples into shards of the plan.
pub(crate) fn grouped(
    samples: Vec<FileSample>,
    limit: Option<u64>,
) -> impl Iterator<Item = (PlanRow, Vec<FileRow>)> {
    let limit = limit.unwrap_or(BYTES);
    let mut samples = samples.into_iter().peekable();
    std::iter::from_fn(move || {
        let first = samples.next()?;
        let mut bytes = bytes_of(&first);
        let mut group = vec![first];
        while let Some(next) = samples.peek() {
            let more = bytes_of(next);
            if group.len() >= SAMPLES || bytes + more > limit {
                break;
            }
            bytes += more;
            group.extend(samples.next());
        }
        Some(shard_of(group, bytes))
    })
}

fn bytes_of(sample: &FileSample) -> u64 {
    sample
        .members
        .iter()
        .filter_map(|member| member.bytes)
        .sum()
}

fn shard_of(group: Vec<FileSample>, bytes: u64) -> (PlanRow, Vec<FileRow>) {
    let (first, others) = (&group[0], group.len() - 1);
    let occurrence = match first.occurrence {
        0 => String::new(),
        n => format!("#{n}"),
    };
    let shard = ShardPath::new(format!("{}{occurrence}+{others}", first.key));
    let rows = group.into_iter().flat_map(|sample| {
        let (key, occurrence, shard) = (sample.key, sample.occurrence, shard.clone());
        let members = sample.members.into_iter();
        members.map(move |member| FileRow {
            shard: shard.clone(),
            key: key.clone(),
            occurrence,
            ..member
        })
    });
    let rows: Vec<FileRow> = rows.collect();
    let plan = PlanRow {
        bytes,
        etag: Some(fingerprint(&rows)),
        kind: ShardKind::Files,
        shard,
        ..PlanRow::default()
    };
    (plan, rows)
}

/// Returns the hash of the rows: the names, sizes and times of the files, and the texts.
fn fingerprint(rows: &[FileRow]) -> String {
    let texts: Vec<[String; 2]> = rows
        .iter()
        .map(|row| {
            [
                row.bytes.unwrap_or(0).to_string(),
                row.occurrence.to_string(),
            ]
        })
        .collect();
    let parts = rows
        .iter()
        .zip(&texts)
        .flat_map(|(row, [bytes, occurrence])| {
            let optional =
                |text: &'_ Option<String>| text.as_deref().unwrap_or_default().to_owned();
            [
                row.key.clone(),
                occurrence.clone(),
                row.extension.clone(),
                optional(&row.path),
                bytes.clone(),
                optional(&row.etag),
                optional(&row.modified),
                optional(&row.text),
            ]
        });
    let parts: Vec<String> = parts.collect();
    Fingerprint::of(parts.iter().map(String::as_str)).to_string()
}
