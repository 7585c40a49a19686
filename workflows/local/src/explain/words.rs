//! An image's story as text.

use sluice_manifest::Reason;
use sluice_manifest::rows::{DecisionRow, SampleRow, Status};
use sluice_report::histogram::number;
use sluice_report::page::bytes;

use super::story::{Link, Place, Score, Story};
use crate::text::{columns, shorten};

/// Captions and metadata are shown to this length.
const TEXT: usize = 100;

/// Tells a story.
pub fn words(story: &Story) -> String {
    let mut text = format!("{}\n{}\n\n", story.image_id, headline(story));
    let mut rows: Vec<[String; 2]> = vec![[
        "shard".into(),
        format!("{} ({})", story.shard, story.partition),
    ]];
    match &story.sample {
        Some(sample) => sample_rows(sample, &mut rows),
        None => rows.push(["read".into(), "has not come to it".into()]),
    }
    if let Some(embedded) = story.embedded {
        let said = if embedded {
            "done"
        } else {
            "gave no embedding"
        };
        rows.push(["embed".into(), said.into()]);
    }
    for score in &story.scores {
        rows.push([score.stage.into(), score_words(score)]);
    }
    for (number, link) in story.duplicates.iter().enumerate() {
        let name = if number == 0 { "dedup" } else { "" };
        rows.push([name.into(), link_words(link, number == 0)]);
    }
    if let Some(place) = &story.output {
        rows.push(["output".into(), place_words(place)]);
    }
    if !story.not_run.is_empty() {
        let steps = story.not_run.join(", ");
        rows.push(["not run".into(), format!("{steps} (for this image)")]);
    }
    let rows: Vec<Vec<String>> = rows.into_iter().map(Vec::from).collect();
    text.push_str(&columns(&rows, &[], ""));
    text
}

fn headline(story: &Story) -> String {
    match &story.decision {
        Some(row) if row.keep => "kept".to_owned(),
        Some(row) => dropped(row),
        None => match story.sample.as_ref().and_then(|sample| sample.reason) {
            Some(reason) => format!("will be dropped by read: {reason}, {}", reason.text()),
            None => "not decided yet".to_owned(),
        },
    }
}

fn dropped(row: &DecisionRow) -> String {
    let stage = row.stage.as_deref().unwrap_or("an unknown stage");
    match row.reason {
        Some(reason) => format!("dropped by {stage}: {reason}, {}", reason.text()),
        None => format!("dropped by {stage} without a reason"),
    }
}

fn sample_rows(sample: &SampleRow, rows: &mut Vec<[String; 2]>) {
    let members = sample
        .members
        .iter()
        .map(|m| format!(".{} {}", m.extension, bytes(m.size)));
    rows.push(["members".into(), members.collect::<Vec<_>>().join(", ")]);
    if let (Some(width), Some(height)) = (sample.width, sample.height) {
        let format = sample.format.as_deref().unwrap_or("unknown format");
        let size = bytes(sample.bytes);
        rows.push([
            "image".into(),
            format!("{format}, {width} x {height}, {size}"),
        ]);
    }
    let measures = [
        ("dark", sample.dark),
        ("light", sample.light),
        ("blurry", sample.blurry),
        ("low information", sample.low_information),
        ("odd aspect", sample.odd_aspect),
        ("odd size", sample.odd_size),
    ];
    let measured: Vec<String> = measures
        .iter()
        .filter_map(|(name, value)| Some(format!("{name} {}", number((*value)?))))
        .collect();
    if !measured.is_empty() {
        let note = "(1 is best)";
        rows.push(["measures".into(), format!("{} {note}", measured.join(", "))]);
    }
    let texts = [
        ("caption", &sample.caption),
        ("metadata", &sample.metadata),
        ("sha256", &sample.sha256),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            rows.push([name.into(), shorten(value, TEXT)]);
        }
    }
    let read = match (sample.status, sample.reason) {
        (Status::Ok, _) => "sound".to_owned(),
        (Status::Rejected, Some(reason)) => reason.to_string(),
        (Status::Rejected, None) => "rejected without a reason".to_owned(),
    };
    let read = match &sample.detail {
        Some(detail) => format!("{read}: {}", shorten(detail, 2 * TEXT)),
        None => read,
    };
    rows.push(["read".into(), read]);
}

fn score_words(score: &Score) -> String {
    let model = score.model.as_deref().unwrap_or("unknown model");
    let Some(value) = score.score else {
        return format!("not scored ({model})");
    };
    let option = format!("--{}", score.setting.replace('_', "-"));
    let threshold = score
        .threshold
        .map_or("unknown".to_owned(), |threshold| number(threshold as f32));
    let outcome = if score.keep {
        "passes"
    } else {
        "does not pass"
    };
    format!(
        "{} ({model}), {outcome} {option} {threshold}",
        number(value)
    )
}

fn link_words(link: &Link, first: bool) -> String {
    let who = match first {
        true => String::new(),
        false => format!("which is itself {} ", article(&link.method)),
    };
    let how = match first {
        true => format!("{} duplicate", link.method),
        false => "duplicate".to_owned(),
    };
    let fate = match &link.other {
        None => "not decided yet".to_owned(),
        Some(row) if row.keep => "kept".to_owned(),
        Some(row) => match row.reason {
            Some(
                Reason::ExactDuplicate | Reason::PerceptualDuplicate | Reason::SemanticDuplicate,
            ) => "dropped as a duplicate too".to_owned(),
            _ => dropped(row),
        },
    };
    let similarity = number(link.similarity);
    format!(
        "{who}{how} of {} (similarity {similarity}), which is {fate}",
        link.duplicate_of
    )
}

fn article(method: &str) -> String {
    match method.starts_with('e') {
        true => format!("an {method}"),
        false => format!("a {method}"),
    }
}

fn place_words(place: &Place) -> String {
    match place.written {
        true => format!("{}: {}", place.shard, place.members.join(", ")),
        false => format!("planned for {}, which has not been written", place.shard),
    }
}
