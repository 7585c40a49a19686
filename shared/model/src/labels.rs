//! Scores of a classifier, from the names of its labels alone.
//!
//! A threshold is stated only where all labels are known. Which side of other labels stays is not for
//! us to guess.

use std::collections::BTreeSet;

use sluice_manifest::Keep;

use crate::spec::{Activation, Column, Label, ScoreSpec};

/// Labels of undesired content. Their probabilities are added.
const UNWANTED: [&str; 13] = [
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
    "watermark",
    "watermarked",
];
/// Labels of other content that a classifier may have in addition.
const WANTED: [&str; 12] = [
    "sfw",
    "safe",
    "normal",
    "neutral",
    "drawing",
    "drawings",
    "clean",
    "not_nsfw",
    "non_nsfw",
    "not_porn",
    "no_watermark",
    "not_watermarked",
];
/// Levels of undesired content, which are only known together, and those that are undesired.
const LEVELS: [&str; 4] = ["neutral", "low", "medium", "high"];
const UNWANTED_LEVELS: [&str; 2] = ["medium", "high"];
/// What stays, and its opposite.
const AESTHETIC: [&str; 2] = ["aesthetic", "not_aesthetic"];
/// Labels that become a score each, at most.
const MOST: usize = 32;

/// Returns the scores that labels give; none where they do not say enough.
///
/// - Where all are known and some are unwanted: one score, the probability of the unwanted ones.
/// - Of `aesthetic` and `not_aesthetic`: one score, the probability of the first.
/// - Else a score for each label, without a threshold.
///
/// Probabilities are added only where they exclude each other.
pub(crate) fn scores(labels: &[String], activation: Activation) -> Vec<ScoreSpec> {
    let names: Vec<String> = labels.iter().map(|label| name_of(label)).collect();
    let unwanted = unwanted(&names);
    if unwanted.len() == 1 || (unwanted.len() > 1 && activation == Activation::Softmax) {
        let columns = unwanted.into_iter().map(|column| label(labels, column));
        return vec![only(columns.collect(), Keep::Below)];
    }
    if let Some(column) = position(&names, AESTHETIC[0]).filter(|_| is_set(&names, &AESTHETIC)) {
        return vec![only(vec![label(labels, column)], Keep::AtLeast)];
    }
    each(labels, &names)
}

/// Returns the columns of unwanted labels; none where a label is not known, or all are unwanted.
fn unwanted(names: &[String]) -> Vec<usize> {
    let known: Vec<&str> = UNWANTED.into_iter().chain(WANTED).collect();
    let is_known = |name: &String| known.contains(&name.as_str());
    let unwanted: &[&str] = if is_set(names, &LEVELS) {
        &UNWANTED_LEVELS
    } else if names.iter().all(is_known) {
        &UNWANTED
    } else {
        &[]
    };
    let columns = (0..names.len()).filter(|&column| unwanted.contains(&names[column].as_str()));
    let columns: Vec<usize> = columns.collect();
    if columns.len() == names.len() {
        return Vec::new();
    }
    columns
}

fn position(names: &[String], name: &str) -> Option<usize> {
    names.iter().position(|found| found == name)
}

/// Whether the names are these, in any order.
fn is_set(names: &[String], known: &[&str]) -> bool {
    names.len() == known.len() && known.iter().all(|name| position(names, name).is_some())
}

/// Returns a label as it was written.
fn label(labels: &[String], column: usize) -> Label {
    Label::Name(labels[column].clone())
}

fn only(mut labels: Vec<Label>, keep: Keep) -> ScoreSpec {
    let column = match labels.len() {
        1 => Column::One(labels.remove(0)),
        _ => Column::Sum(labels),
    };
    ScoreSpec {
        threshold: Some(0.5),
        keep,
        ..ScoreSpec::of(column)
    }
}

fn each(labels: &[String], names: &[String]) -> Vec<ScoreSpec> {
    let distinct: BTreeSet<&String> = names.iter().collect();
    let is_generic = |name: &String| name.starts_with("label_");
    if labels.len() > MOST || distinct.len() < names.len() || names.iter().any(is_generic) {
        return Vec::new();
    }
    let score = |(column, name): (usize, &String)| ScoreSpec {
        name: name.clone(),
        ..ScoreSpec::of(Column::One(label(labels, column)))
    };
    names.iter().enumerate().map(score).collect()
}

/// Returns the name of a label's score: lower-case letters, digits and `_`, a letter first.
fn name_of(label: &str) -> String {
    let lower = label.trim().to_ascii_lowercase();
    let safe = lower.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    if safe.starts_with(|c: char| c.is_ascii_lowercase()) {
        safe
    } else {
        format!("label_{safe}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(labels: &[&str]) -> Vec<(String, String, Keep)> {
        activated(labels, Activation::Softmax)
    }

    fn activated(labels: &[&str], activation: Activation) -> Vec<(String, String, Keep)> {
        let labels: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
        let scores = scores(&labels, activation).into_iter();
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
    fn probabilities_that_do_not_exclude_each_other_are_not_added() {
        let of = |labels: &[&str]| activated(labels, Activation::Sigmoid);
        assert_eq!(of(&["sfw", "nsfw"]).len(), 1);
        assert_eq!(of(&["neutral", "porn", "hentai"]).len(), 3);
    }

    #[test]
    fn other_labels_are_scores_of_their_own_or_say_nothing() {
        let names: Vec<String> = of(&["Cat", "big dog"]).into_iter().map(|it| it.0).collect();
        assert_eq!(names, ["cat", "big_dog"]);
        for unknown in [
            &["gore", "no_gore"][..],
            &["spam", "not spam"],
            &["violence", "non_violence"],
            &["low", "high"],
            &["low", "medium", "high"],
            &["low", "normal", "high"],
            &["nsfw", "gore"],
        ] {
            let found = scores(
                &unknown.iter().map(ToString::to_string).collect::<Vec<_>>(),
                Activation::Softmax,
            );
            assert_eq!(found.len(), unknown.len(), "{unknown:?}");
            assert!(
                found.iter().all(|score| score.threshold.is_none()),
                "{unknown:?}"
            );
        }
        assert_eq!(of(&["LABEL_0", "LABEL_1"]), []);
        assert_eq!(of(&["a", "A"]), []);
        assert_eq!(of(&[]), []);
    }
}
