//! The scores of a run, and the thresholds that its filters set for them.

use std::collections::BTreeSet;

use sluice_manifest::{Error, Histogram, Keep, Reason, ScoreColumn, ScoreName, StepName};

use crate::thresholds::{self, Threshold};
use crate::{Receipts, settings};

/// Part of the name of a step, stage or model whose score marks unsafe images.
const NSFW: &str = "NSFW";
/// The threshold of such a score if the model has none.
const HALF: f32 = 0.5;

/// A score of the run.
#[derive(Debug, Clone)]
pub struct RunScore {
    /// The score's name: the step, with the output if there are several.
    pub name: ScoreName,
    /// The score's column.
    pub column: ScoreColumn,
    /// The model or object that it comes from.
    pub source: Option<String>,
    /// The stage that computed it.
    pub stage: String,
    /// The histogram of all its values.
    pub histogram: Histogram,
    /// The number of images without a score.
    pub unscored: u64,
}

/// A filter that sets thresholds or has rules.
#[derive(Debug, Clone)]
pub struct FilterStep {
    /// The step.
    pub step: StepName,
    /// The position among the deciding steps of the run.
    pub position: usize,
    /// The thresholds, each with the index of its score.
    pub thresholds: Vec<(usize, Threshold)>,
    /// The names of the rules.
    pub rules: Vec<String>,
}

/// A threshold that can be adjusted on the page.
#[derive(Debug, Clone)]
pub struct Control {
    /// The index of its score.
    pub score: usize,
    /// The index of its filter, and of the threshold in it. `None` for a score without a threshold.
    pub set_by: Option<(usize, usize)>,
    /// Which side is kept.
    pub keep: Keep,
    /// The current threshold. If there is none, the model's own or the median.
    pub threshold: f32,
}

/// The scores of a run, with the filters that use them.
#[derive(Debug, Clone, Default)]
pub struct Scoring {
    /// All outputs of all scorers.
    pub scores: Vec<RunScore>,
    /// The filters, in the order of the deciding steps.
    pub filters: Vec<FilterStep>,
    /// The adjustable thresholds.
    pub controls: Vec<Control>,
    /// The indices of the scores that mark unsafe images, with the thresholds from which images are
    /// blurred.
    blurring: Vec<(usize, f32)>,
}

impl Scoring {
    /// Returns the scores of a run with the deciding steps `chain`.
    pub fn new(receipts: &Receipts, chain: &[&StepName]) -> Self {
        let scores = scores(receipts);
        let filters = filters(receipts, chain, &scores);
        let mut controls = Vec::new();
        for (place, score) in scores.iter().enumerate() {
            controls.extend(controls_of(place, score, &filters));
        }
        let places = scores.iter().enumerate();
        let unsafe_ones = places.filter(|(_, score)| score.is_nsfw());
        let blurring = unsafe_ones.map(|(place, score)| {
            let mut set = controls.iter().filter(|control| control.set_by.is_some());
            let set = set.find(|control| control.score == place);
            let own = score.column.threshold.unwrap_or(HALF);
            (place, set.map_or(own, |control| control.threshold))
        });
        let blurring = blurring.collect();
        Self {
            scores,
            filters,
            controls,
            blurring,
        }
    }

    /// Returns whether an image with these scores is blurred until it is clicked.
    pub fn is_nsfw(&self, scores: &[f32]) -> bool {
        let is_above = |(place, threshold): &(usize, f32)| {
            let score = scores.get(*place);
            score.is_some_and(|score| score >= threshold)
        };
        self.blurring.iter().any(is_above)
    }

    /// Returns the indices and columns of a step's scores.
    pub fn of_step(&self, step: &StepName) -> Vec<(usize, &str)> {
        let scores = self.scores.iter().enumerate();
        let scores = scores.filter(|(_, score)| score.name.step == *step);
        scores
            .map(|(place, score)| (place, score.column.name.as_str()))
            .collect()
    }

    /// Returns the index of a score, or `None` if the run has no such score.
    pub fn place_of(&self, name: &ScoreName) -> Option<usize> {
        place_of(name, &self.scores)
    }

    /// Returns the index of a score that the user named.
    ///
    /// # Errors
    ///
    /// Returns a usage error if the run has no such score. The hint lists the scores.
    pub fn required(&self, name: &ScoreName) -> Result<usize, Error> {
        self.place_of(name).ok_or_else(|| {
            let scores = self.scores.iter();
            let names: Vec<String> = scores.map(|score| score.name.to_string()).collect();
            Error::usage(format!("the run has no score {name}"))
                .hint(format!("its scores are {}", names.join(", ")))
        })
    }

    /// Returns the steps that compute scores.
    pub fn steps(&self) -> BTreeSet<&StepName> {
        self.scores.iter().map(|score| &score.name.step).collect()
    }
}

impl RunScore {
    /// Returns whether the score marks unsafe images: a high score is unsafe, a low one harmless.
    fn is_nsfw(&self) -> bool {
        let step = self.name.step.as_str();
        let names = [
            step,
            self.stage.as_str(),
            self.source.as_deref().unwrap_or(""),
        ];
        let mut names = names.iter();
        let is_about_it = names.any(|name| name.to_ascii_uppercase().contains(NSFW));
        is_about_it && (self.column.keep == Keep::Below || self.name.output.is_none())
    }
}

impl Control {
    /// Returns the reason of the samples that the threshold drops.
    ///
    /// # Panics
    ///
    /// Panics if the control belongs to another `scoring`.
    pub fn reason(&self, scoring: &Scoring) -> Option<Reason> {
        let (filter, place) = self.set_by?;
        let (_, threshold) = &scoring.filters[filter].thresholds[place];
        Some(Reason::about(
            threshold.reason,
            &threshold.score.to_string(),
        ))
    }
}

fn scores(receipts: &Receipts) -> Vec<RunScore> {
    let mut scores = Vec::new();
    for step in receipts.steps() {
        let Some(first) = receipts.of(step).first() else {
            continue;
        };
        let unscored = receipts
            .of(step)
            .iter()
            .map(|receipt| receipt.sums.unscored);
        let unscored: u64 = unscored.sum();
        for summary in &first.scores {
            let column = summary.column.clone();
            scores.push(RunScore {
                name: ScoreName {
                    step: step.clone(),
                    output: (first.scores.len() > 1).then(|| column.name.clone()),
                },
                source: settings::source(first),
                stage: first.stage.clone(),
                histogram: histogram(receipts, step, &column.name),
                unscored,
                column,
            });
        }
    }
    scores
}

fn histogram(receipts: &Receipts, step: &StepName, column: &str) -> Histogram {
    let mut whole = Histogram::default();
    for receipt in receipts.of(step) {
        let mut summaries = receipt.scores.iter();
        if let Some(summary) = summaries.find(|score| score.column.name == column) {
            whole.merge(&summary.histogram);
        }
    }
    whole
}

fn filters(receipts: &Receipts, chain: &[&StepName], scores: &[RunScore]) -> Vec<FilterStep> {
    let mut filters = Vec::new();
    for (position, step) in chain.iter().enumerate() {
        let Some(first) = receipts.of(step).first() else {
            continue;
        };
        let found = thresholds::of_receipt(first).into_iter();
        let thresholds: Vec<(usize, Threshold)> = found
            .filter_map(|threshold| Some((place_of(&threshold.score, scores)?, threshold)))
            .collect();
        let rules = thresholds::rules_of(first);
        if !thresholds.is_empty() || !rules.is_empty() {
            filters.push(FilterStep {
                step: (*step).clone(),
                position,
                thresholds,
                rules,
            });
        }
    }
    filters
}

fn place_of(name: &ScoreName, scores: &[RunScore]) -> Option<usize> {
    let of_step = scores
        .iter()
        .enumerate()
        .filter(|(_, score)| score.name.step == name.step);
    let (places, columns): (Vec<usize>, Vec<ScoreColumn>) = of_step
        .map(|(place, score)| (place, score.column.clone()))
        .unzip();
    let position = ScoreColumn::position(&columns, name).ok()?;
    places.get(position).copied()
}

fn controls_of(place: usize, score: &RunScore, filters: &[FilterStep]) -> Vec<Control> {
    let mut controls = Vec::new();
    for (filter, found) in filters.iter().enumerate() {
        for (number, (of, threshold)) in found.thresholds.iter().enumerate() {
            if *of == place {
                controls.push(Control {
                    score: place,
                    set_by: Some((filter, number)),
                    keep: threshold.keep(),
                    threshold: threshold.value,
                });
            }
        }
    }
    if controls.is_empty() {
        let median = score.histogram.top(0.5).map(|top| top.threshold);
        if let Some(threshold) = score.column.threshold.or(median) {
            controls.push(Control {
                score: place,
                set_by: None,
                keep: score.column.keep,
                threshold,
            });
        }
    }
    controls
}
