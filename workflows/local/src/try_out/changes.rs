//! The changes that `sluice try` makes to the filters of a run.

use std::collections::BTreeMap;

use anyhow::Result;
use sluice_filter::{Condition, Settings, ThresholdArg, Top, scorers_of};
use sluice_manifest::{Bin, Error, Keep, ScoreName, StepName};
use sluice_run::Receipts;
use sluice_run::scoring::Scoring;

use super::TryArgs;

/// The changed conditions of the filters, and the changed settings of dedup steps.
pub(super) struct TrialChanges {
    /// The conditions of each filter.
    pub filters: BTreeMap<StepName, Vec<Condition>>,
    /// Flags of the steps of the stage dedup.
    pub eps: Option<String>,
    pub keep: Option<String>,
    pub max_distance: Option<u32>,
    /// A description of the changes.
    pub words: Vec<String>,
}

/// The position of a condition: its filter, and its index there.
type ConditionPosition = (StepName, usize);

impl TrialChanges {
    /// Applies the requested changes to the conditions in the receipts.
    ///
    /// # Errors
    /// Usage, when the run does not have a score, or no change was requested.
    pub(super) fn new(args: &TryArgs, receipts: &Receipts, chain: &[&StepName]) -> Result<Self> {
        let scoring = Scoring::new(receipts, chain);
        let mut changes = Self {
            filters: filters(receipts, chain)?,
            eps: args.eps.map(|eps| eps.to_string()),
            keep: args.keep.map(value_name),
            max_distance: args.max_distance,
            words: Vec::new(),
        };
        let last = chain
            .iter()
            .rev()
            .find(|step| changes.filters.contains_key(**step));
        let target = args.filter.as_ref().or(last.copied());
        for ThresholdArg { score, value } in &args.min {
            let threshold = given(score, *value, "--min")?;
            let score = score.clone();
            changes.set(Condition::Min { score, threshold }, target, &scoring)?;
        }
        for ThresholdArg { score, value } in &args.max {
            let threshold = given(score, *value, "--max")?;
            let score = score.clone();
            changes.set(Condition::Max { score, threshold }, target, &scoring)?;
        }
        for Top { score, fraction } in &args.top {
            changes.set(top(score, *fraction), target, &scoring)?;
        }
        for wanted in &args.keep_fraction {
            let condition = keeping(wanted, &scoring)?;
            changes.set(condition, target, &scoring)?;
        }
        for rule in &args.rule {
            let (name, expression) = (rule.name.clone(), rule.expression.clone());
            let condition = Condition::Rule { name, expression };
            refuse_unknown(&rule.name, &condition, &scoring)?;
            changes.set(condition, target, &scoring)?;
        }
        changes.add_words_of_dedup(receipts, chain)?;
        if changes.words.is_empty() {
            Err(Error::usage("nothing to try")
                .hint("give a threshold: --min aesthetic=5.5, for example")
                .into())
        } else {
            Ok(changes)
        }
    }

    /// Replaces the condition of the same kind for the same score, or adds the condition.
    fn set(
        &mut self,
        condition: Condition,
        target: Option<&StepName>,
        scoring: &Scoring,
    ) -> Result<(), Error> {
        if let Some(score) = condition.score() {
            scoring.required(score)?;
        }
        let place = self.place_of(&condition, scoring);
        let words = words(&condition);
        if let Some((step, place)) = place {
            let conditions = self.filters.get_mut(&step);
            if let Some(old) = conditions.and_then(|conditions| conditions.get_mut(place)) {
                self.words
                    .push(format!("{step}: {words} (now {})", self::words(old)));
                *old = condition;
            }
            return Ok(());
        }
        let found = target.and_then(|step| Some((step, self.filters.get_mut(step)?)));
        let Some((step, conditions)) = found else {
            return Err(match target {
                Some(step) => Error::usage(format!("--filter {step}: the run has no such filter")),
                None => Error::usage("the run has no filter that a condition could be added to"),
            });
        };
        self.words.push(format!("{step}: {words} (new)"));
        // Thresholds are tested before rules, regardless of their position.
        conditions.push(condition);
        Ok(())
    }

    fn place_of(&self, condition: &Condition, scoring: &Scoring) -> Option<ConditionPosition> {
        let is_same = |other: &Condition| match (condition, other) {
            (Condition::Rule { name, .. }, Condition::Rule { name: other, .. }) => name == other,
            (Condition::Max { score, .. }, Condition::Max { score: other, .. })
            | (
                Condition::Min { score, .. } | Condition::Top { score, .. },
                Condition::Min { score: other, .. } | Condition::Top { score: other, .. },
            ) => scoring
                .place_of(score)
                .is_some_and(|place| scoring.place_of(other) == Some(place)),
            _ => false,
        };
        let mut filters = self.filters.iter();
        filters.find_map(|(step, conditions)| {
            let place = conditions.iter().position(is_same)?;
            Some((step.clone(), place))
        })
    }

    fn add_words_of_dedup(
        &mut self,
        receipts: &Receipts,
        chain: &[&StepName],
    ) -> Result<(), Error> {
        let asked = [
            self.eps.as_ref().map(|eps| ("eps", eps.clone())),
            self.keep.as_ref().map(|keep| ("keep", keep.clone())),
            self.max_distance
                .map(|bits| ("max_distance", bits.to_string())),
        ];
        for (setting, value) in asked.into_iter().flatten() {
            let flag = setting.replace('_', "-");
            let mut is_set = false;
            for step in chain {
                let mut settings = receipts
                    .of(step)
                    .iter()
                    .map(|receipt| &receipt.settings[setting]);
                if let Some(now) = settings.find(|value| !value.is_null()) {
                    is_set = true;
                    let now = now.as_str().map_or_else(|| shown(now), str::to_owned);
                    self.words
                        .push(format!("{step}: {flag} {value} (now {now})"));
                }
            }
            if !is_set {
                return Err(Error::usage(format!(
                    "--{flag}: no step of the run has this setting"
                )));
            }
        }
        Ok(())
    }
}

/// Returns a number in its shortest form: most numbers are float32.
fn shown(value: &serde_json::Value) -> String {
    match value.as_f64() {
        Some(number) if value.is_f64() => (number as f32).to_string(),
        _ => value.to_string(),
    }
}

fn value_name(keep: sluice_dedup::ranking::KeepRule) -> String {
    use clap::ValueEnum;
    // Unwrap safety: no value is skipped.
    keep.to_possible_value()
        .expect("a value")
        .get_name()
        .to_owned()
}

fn filters(receipts: &Receipts, chain: &[&StepName]) -> Result<BTreeMap<StepName, Vec<Condition>>> {
    let mut filters = BTreeMap::new();
    for step in chain {
        let first = receipts
            .of(step)
            .first()
            .filter(|receipt| receipt.stage == "filter");
        if let Some(first) = first {
            let settings: Settings = first.settings()?;
            filters.insert((*step).clone(), settings.conditions);
        }
    }
    Ok(filters)
}

fn given(score: &ScoreName, value: Option<f32>, flag: &str) -> Result<f32, Error> {
    value.ok_or_else(|| {
        Error::usage(format!("{flag} {score}: no value"))
            .hint(format!("give one: {flag} {score}=VALUE"))
    })
}

fn top(score: &ScoreName, fraction: f64) -> Condition {
    Condition::Top {
        score: score.clone(),
        fraction,
        threshold: None,
        resolution: None,
    }
}

/// Refuses a rule that reads scores of a step that is not in the run.
fn refuse_unknown(rule: &str, condition: &Condition, scoring: &Scoring) -> anyhow::Result<()> {
    let steps = scorers_of(std::slice::from_ref(condition))?;
    let has = |step: &StepName| scoring.scores.iter().any(|score| score.name.step == *step);
    match steps.iter().find(|step| !has(step)) {
        Some(step) => Err(Error::usage(format!(
            "rule {rule}: the run has no step {step} with scores"
        ))
        .into()),
        None => Ok(()),
    }
}

/// Returns the condition that keeps a fraction of the scored images. Which side is kept follows
/// from the filter with a threshold for the score, or else from the model.
fn keeping(wanted: &Top, scoring: &Scoring) -> Result<Condition, Error> {
    let score = &scoring.scores[scoring.required(&wanted.score)?];
    let mut controls = scoring.controls.iter();
    let control = controls.find(|control| scoring.scores[control.score].name == score.name);
    let keep = control.map_or(score.column.keep, |control| control.keep);
    let none = || Error::data(format!("no image has the score {}", wanted.score));
    let name = wanted.score.clone();
    Ok(match keep {
        Keep::AtLeast => Condition::Min {
            threshold: score
                .histogram
                .top(wanted.fraction)
                .ok_or_else(none)?
                .threshold,
            score: name,
        },
        Keep::Below => Condition::Max {
            threshold: lower(
                score.histogram.bins(),
                score.histogram.count(),
                wanted.fraction,
            )
            .ok_or_else(none)?,
            score: name,
        },
    })
}

/// Returns the lowest threshold with at least this fraction of the scores below it.
fn lower(bins: impl Iterator<Item = Bin>, count: u64, fraction: f64) -> Option<f32> {
    let wanted = (fraction * count as f64 - 1e-6).ceil() as u64;
    let mut below = 0;
    let mut bins = bins.map(|bin| {
        below += bin.count;
        (below, bin.high.next_up())
    });
    bins.find(|(below, _)| *below >= wanted)
        .map(|(_, threshold)| threshold)
}

/// Returns a condition as text.
fn words(condition: &Condition) -> String {
    match condition {
        Condition::Min { score, threshold } => format!("{score} at least {threshold}"),
        Condition::Max { score, threshold } => format!("{score} below {threshold}"),
        Condition::Top {
            score, fraction, ..
        } => format!("top {}% of {score}", fraction * 100.0),
        Condition::Rule { name, expression } => format!("rule {name}: {expression}"),
        Condition::Sample(sampling) => format!("{} of each cluster", sampling.per_cluster),
    }
}
