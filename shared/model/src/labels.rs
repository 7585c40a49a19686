//! Scores of a classifier, from the names of its labels alone.

use std::collections::BTreeSet;

use sluice_manifest::Keep;

use crate::spec::{Column, Label, Score};

/// Labels of what one does not want in a dataset. Their probabilities are added.
const UNWANTED: [&str; 15] = [
    "nsfw",
    "porn",
    "pornography",
    "pornographic",
    "hentai",
    "sexy",
    "sexual",
    "explicit",
    "unsafe",
    "nude",
    "nudity",
    // Levels, beside "neutral" and "low".
    "medium",
    "high",
    "watermark",
    "watermarked",
];
/// Labels of what stays, beside unwanted ones.
const WANTED: [&str; 13] = [
    "sfw",
    "safe",
    "normal",
    "neutral",
    "low",
    "drawing",
    "drawings",
    "clean",
    "not_nsfw",
    "non_nsfw",
    "not_porn",
    "no_watermark",
    "not_watermarked",
];
/// Labels that become a score each, at most.
const MOST: usize = 32;

/// Returns the scores that labels give; none where they do not say enough.
///
/// - Where all are known and some are unwanted: one score, the probability of the unwanted ones.
/// - Of a pair such as `aesthetic` and `not_aesthetic`: one score, the probability of the first.
/// - Else a score for each label, without a threshold.
pub(crate) fn scores(labels: &[String]) -> Vec<Score> {
    let names: Vec<String> = labels.iter().map(|label| name_of(label)).collect();
    let is_unwanted = |name: &String| UNWANTED.contains(&name.as_str());
    let is_known = |name: &String| is_unwanted(name) || WANTED.contains(&name.as_str());
    let unwanted = || {
        names
            .iter()
            .enumerate()
            .filter(|(_, name)| is_unwanted(name))
    };
    let some = unwanted().count();
    if (1..names.len()).contains(&some) && names.iter().all(is_known) {
        let columns = unwanted()
            .map(|(column, _)| label(labels, column))
            .collect();
        return vec![only(columns, Keep::Below)];
    }
    if let Some(column) = affirmed(&names) {
        return vec![only(vec![label(labels, column)], Keep::AtLeast)];
    }
    each(labels, &names)
}

/// Returns a label as it was written.
fn label(labels: &[String], column: usize) -> Label {
    Label::Name(labels[column].clone())
}

fn only(mut labels: Vec<Label>, keep: Keep) -> Score {
    let column = match labels.len() {
        1 => Column::One(labels.remove(0)),
        _ => Column::Sum(labels),
    };
    Score {
        threshold: Some(0.5),
        keep,
        ..Score::of(column)
    }
}

/// Returns the column of the label that the other one denies.
fn affirmed(names: &[String]) -> Option<usize> {
    let denies = |other: &str, name: &str| {
        let denied = ["not_", "no_", "non_"].map(|no| format!("{no}{name}"));
        denied.iter().any(|denied| denied == other)
    };
    match names {
        [first, second] if denies(second, first) => Some(0),
        [first, second] if denies(first, second) => Some(1),
        _ => None,
    }
}

fn each(labels: &[String], names: &[String]) -> Vec<Score> {
    let distinct: BTreeSet<&String> = names.iter().collect();
    let is_generic = |name: &String| name.starts_with("label_");
    if labels.len() > MOST || distinct.len() < names.len() || names.iter().any(is_generic) {
        return Vec::new();
    }
    let score = |(column, name): (usize, &String)| Score {
        name: name.clone(),
        ..Score::of(Column::One(label(labels, column)))
    };
    names.iter().enumerate().map(score).collect()
}

/// Returns the name of a label's score: lower-case letters, digits and `_`, a letter first.
fn name_of(label: &str) -> String {
    let lower = label.trim().to_ascii_lowercase();
    let safe = lower.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    match safe.starts_with(|c: char| c.is_ascii_lowercase()) {
        true => safe,
        false => format!("label_{safe}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(labels: &[&str]) -> Vec<(String, String, Keep)> {
        let labels: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
        let scores = scores(&labels).into_iter();
        let words = |labels: &[Label]| labels.iter().map(ToString::to_string).collect::<Vec<_>>();
        scores
            .map(|score| {
                (
                    score.name.clone(),
                    words(score.column.labels()).join("+"),
                    score.keep,
                )
            })
            .collect()
    }

    #[test]
    fn labels_that_say_enough_give_one_score() {
        let one = |column: &str, keep| vec![("score".to_owned(), column.to_owned(), keep)];
        assert_eq!(of(&["normal", "nsfw"]), one("\"nsfw\"", Keep::Below));
        assert_eq!(of(&["NSFW", "SFW"]), one("\"NSFW\"", Keep::Below));
        assert_eq!(
            of(&["neutral", "low", "medium", "high"]),
            one("\"medium\"+\"high\"", Keep::Below)
        );
        assert_eq!(
            of(&["drawings", "hentai", "neutral", "porn", "sexy"]),
            one("\"hentai\"+\"porn\"+\"sexy\"", Keep::Below)
        );
        assert_eq!(
            of(&["aesthetic", "not_aesthetic"]),
            one("\"aesthetic\"", Keep::AtLeast)
        );
        assert_eq!(
            of(&["not_aesthetic", "aesthetic"]),
            one("\"aesthetic\"", Keep::AtLeast)
        );
    }

    #[test]
    fn other_labels_are_scores_of_their_own_or_say_nothing() {
        let names: Vec<String> = of(&["Cat", "big dog"]).into_iter().map(|it| it.0).collect();
        assert_eq!(names, ["cat", "big_dog"]);
        assert_eq!(of(&["LABEL_0", "LABEL_1"]), []);
        assert_eq!(of(&["a", "A"]), []);
        assert_eq!(of(&[]), []);
    }
}
