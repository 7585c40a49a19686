//! The facts about an image as text.

use sluice_manifest::ReasonKind;
use sluice_manifest::numbers::{bytes, decimal};
use sluice_manifest::rows::{SampleRow, Status};
use sluice_manifest::text::one_line;

use super::decisions::{Decision, FinalDecision, Link};
use super::facts::{EmbeddedBy, ImageFacts, ImageScore};
use super::output::OutputPlace;
use crate::text::{columns, shorten};

/// The length to which captions and metadata are shortened.
const TEXT: usize = 100;

/// Returns the facts about an image as text.
pub(super) fn words(facts: &ImageFacts) -> String {
    let id = one_line(facts.image_id.as_str());
    let mut text = format!("{id}\n{}\n\n", one_line(&headline(facts)));
    let mut rows: Vec<[String; 2]> = vec![[
        "shard".into(),
        format!("{} ({})", facts.shard, facts.partition),
    ]];
    match &facts.sample {
        Some(sample) => sample_rows(sample, &mut rows),
        None => rows.push(["read".into(), "not run yet".into()]),
    }
    let embeddings = facts.embeddings.iter();
    rows.extend(embeddings.map(|found| [found.step.to_string(), embedding_words(found)]));
    let scores = facts.scores.iter();
    rows.extend(scores.map(|score| [score.name.to_string(), score_words(score)]));
    for decision in &facts.decisions {
        let links: Vec<&Link> = match facts.duplicates.first() {
            Some(first) if first.step == decision.step => facts.duplicates.iter().collect(),
            _ => Vec::new(),
        };
        if links.is_empty() {
            rows.push([decision.step.to_string(), decision_words(decision)]);
        }
        for (number, link) in links.into_iter().enumerate() {
            let name = if number == 0 { link.step.as_str() } else { "" };
            rows.push([name.into(), link_words(link, number == 0)]);
        }
    }
    if !facts.neighbours.is_empty() {
        let neighbours = facts.neighbours.iter();
        let names = neighbours
            .map(|neighbour| format!("{} ({})", neighbour.image_id, decimal(neighbour.similarity)));
        let of = match facts.duplicates.first() {
            Some(link) => format!("of {}: ", link.duplicate_of),
            None => String::new(),
        };
        let names = names.collect::<Vec<_>>().join(", ");
        rows.push(["duplicates".into(), format!("{of}{names}")]);
    }
    if let Some(place) = &facts.output {
        rows.push(["output".into(), place_words(place)]);
    }
    if !facts.not_run.is_empty() {
        let steps = facts.not_run.join(", ");
        rows.push(["not run".into(), format!("{steps} (for this image)")]);
    }
    let rows: Vec<Vec<String>> = rows.into_iter().map(Vec::from).collect();
    text.push_str(&columns(&rows, &[], ""));
    text
}

fn headline(facts: &ImageFacts) -> String {
    match &facts.decision {
        Some(decision) if decision.keep => "kept".to_owned(),
        Some(decision) => dropped(decision),
        None => "not decided yet".to_owned(),
    }
}

fn dropped(decision: &FinalDecision) -> String {
    let step = decision
        .step
        .as_ref()
        .map_or("an unknown step", |step| step.as_str());
    match &decision.reason {
        Some(reason) => format!("dropped by {step}: {reason}, {}", reason.text()),
        None => format!("dropped by {step} without a reason"),
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
        .filter_map(|(name, value)| Some(format!("{name} {}", decimal((*value)?))))
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
    let read = match (sample.status, &sample.reason) {
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

fn embedding_words(found: &EmbeddedBy) -> String {
    let model = found.model.as_deref().unwrap_or("unknown model");
    if found.embedded {
        format!("embedded ({model})")
    } else {
        format!("no embedding ({model})")
    }
}

fn score_words(score: &ImageScore) -> String {
    let value = score.score.map_or("not scored".to_owned(), decimal);
    match &score.model {
        Some(model) => format!("{value} ({model})"),
        None => value,
    }
}

fn decision_words(decision: &Decision) -> String {
    let decided = match (decision.keep, &decision.reason) {
        (None, _) => return "not run yet".to_owned(),
        (Some(true), _) => return "kept".to_owned(),
        (Some(false), None) => "dropped without a reason".to_owned(),
        (Some(false), Some(reason)) => format!("dropped: {reason}, {}", reason.text()),
    };
    match &decision.detail {
        Some(detail) => format!("{decided} ({})", shorten(detail, 2 * TEXT)),
        None => decided,
    }
}

fn link_words(link: &Link, first: bool) -> String {
    let who = if first {
        String::new()
    } else {
        format!("which is itself {} ", article(&link.method))
    };
    let how = if first {
        format!("{} duplicate", link.method)
    } else {
        "duplicate".to_owned()
    };
    if let Some(set) = &link.reference {
        let (other, similarity) = (&link.duplicate_of, decimal(link.similarity));
        return format!("{how} of {other} in the reference set {set} (similarity {similarity})");
    }
    let decision = match &link.other {
        None => "not decided yet".to_owned(),
        Some(decision) if decision.keep => "kept".to_owned(),
        Some(decision) => match decision.reason.as_ref().map(|reason| reason.kind) {
            Some(
                ReasonKind::ExactDuplicate
                | ReasonKind::PerceptualDuplicate
                | ReasonKind::SemanticDuplicate
                | ReasonKind::InReference,
            ) => "dropped as a duplicate too".to_owned(),
            _ => dropped(decision),
        },
    };
    let similarity = decimal(link.similarity);
    format!(
        "{who}{how} of {} (similarity {similarity}), which is {decision}",
        link.duplicate_of
    )
}

fn article(method: &str) -> String {
    if method.starts_with('e') {
        format!("an {method}")
    } else {
        format!("a {method}")
    }
}

fn place_words(place: &OutputPlace) -> String {
    if place.written {
        format!("{}: {}", place.shard, place.members.join(", "))
    } else {
        format!("planned for {}, which has not been written", place.shard)
    }
}
