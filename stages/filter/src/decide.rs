//! Decides about the survivors of a partition.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use sluice_harness::{Context, Work};
use sluice_manifest::layout::FILTERED;
use sluice_manifest::rows::{FilterRow, NameRow};
use sluice_manifest::{
    Counts, Error, Histogram, Input, Reason, ReasonKind, ScoreColumn, ScoreName, StepName,
    TopScores, Unit, UnitKind,
};
use sluice_run::{Plan, ScoreReader, Survivors, Upstream};

use crate::columns::ColumnReader;
use crate::conditions::{Condition, Settings};
use crate::rules::{RuleSet, SampleValues, Value};
use crate::sample::{Clusters, Sample, Sampling};

/// Samples between two reports of progress.
const STEP: usize = 1024;
/// `--top` warns when it keeps more than was asked for by more than this fraction of the scored.
const MORE_THAN_ASKED: f64 = 0.01;

/// A filter at work.
struct PartitionFilter<'a> {
    context: &'a Context,
    plan: Plan,
    survivors: Survivors<'a>,
    upstream: &'a Upstream,
    conditions: Vec<Condition>,
    /// Those of the conditions that are about a score, which are tested first.
    thresholds: Vec<AppliedThreshold>,
    rules: &'a RuleSet,
    /// All partitions of the scores of which a fraction stays, or of what a sample is taken from.
    whole: Vec<Input>,
    /// The sample of the clusters, once a partition needs it.
    sample: Mutex<Option<Arc<Sample>>>,
}

/// Decides about the partitions that are this process's share.
pub(crate) fn run(
    context: &Context,
    survivors_of: Option<&StepName>,
    upstream: &Upstream,
    mut conditions: Vec<Condition>,
    rules: &RuleSet,
) -> Result<()> {
    let plan = context.plan()?;
    let mut whole = Vec::new();
    for condition in &mut conditions {
        if let Condition::Top {
            score,
            fraction,
            threshold,
            resolution,
        } = condition
        {
            whole.push(context.combined_input(&score.step, UnitKind::Partition)?);
            let histogram = whole_histogram(context, score, upstream)?;
            *threshold = top_threshold(&histogram, score, *fraction);
            *resolution = Some(histogram.resolution());
        }
    }
    let units = plan.units();
    let survivors = context.survivors(survivors_of)?;
    if let Some(sampling) = sampling_of(&conditions) {
        whole.extend(survivors.all_inputs()?);
        whole.push(sampling.input(context)?);
    }
    let filter = PartitionFilter {
        context,
        plan,
        survivors,
        upstream,
        thresholds: AppliedThreshold::all(&conditions, upstream)?,
        conditions,
        rules,
        whole,
        sample: Mutex::default(),
    };
    context.each_unit(units, context.jobs, |unit| filter.partition(unit))
}

fn sampling_of(conditions: &[Condition]) -> Option<&Sampling> {
    let mut samplings = conditions.iter().filter_map(|condition| match condition {
        Condition::Sample(sampling) => Some(sampling),
        _ => None,
    });
    samplings.next()
}

/// Returns the histogram of a score over all partitions.
fn whole_histogram(context: &Context, score: &ScoreName, upstream: &Upstream) -> Result<Histogram> {
    let position = ScoreColumn::position(upstream.scores(&score.step)?, score)?;
    let mut histogram = Histogram::default();
    let units = context.units_of(&score.step, UnitKind::Partition)?;
    for receipt in context.required_receipts(&score.step, &units)? {
        if let Some(summary) = receipt.scores.get(position) {
            histogram.merge(&summary.histogram);
        }
    }
    Ok(histogram)
}

/// Returns the threshold that keeps a fraction of all scores; none where there are no scores.
fn top_threshold(histogram: &Histogram, score: &ScoreName, fraction: f64) -> Option<f32> {
    let name = score.to_string();
    let Some(top) = histogram.top(fraction) else {
        tracing::warn!(
            score = name,
            "no image has this score, so none is in the top"
        );
        return None;
    };
    let (scored, resolution) = (histogram.count(), histogram.resolution());
    let TopScores {
        threshold,
        kept,
        wanted,
    } = top;
    tracing::info!(
        score = name,
        threshold,
        resolution,
        "top {} % of the {scored} scored: {kept} are at or above {threshold}",
        fraction * 100.0
    );
    if (kept - wanted) as f64 > MORE_THAN_ASKED * scored as f64 {
        tracing::warn!(
            score = name,
            "{wanted} were asked for, {kept} are kept: scores that are equal, or nearer to each other \
             than the resolution, are kept together"
        );
    }
    Some(threshold)
}

impl PartitionFilter<'_> {
    fn partition(&self, unit: Unit) -> Result<()> {
        let context = self.context;
        let partition = self.plan.partition(unit)?.partition;
        let mut inputs = self.survivors.inputs(partition)?;
        for (step, _) in self.upstream.scorers() {
            inputs.push(context.input(step, unit)?);
        }
        inputs.extend(self.whole.iter().cloned());
        let work = Work {
            unit,
            units: self.plan.partitions.len(),
            settings: Settings {
                conditions: self.conditions.clone(),
            },
            inputs,
        };
        let Some(mut open_unit) = context.begin(work)? else {
            return Ok(());
        };
        let mut rows = context
            .run
            .write_rows::<FilterRow>(&open_unit.path(&FILTERED), &[])?;
        let mut values = self.open_values(unit)?;
        let sampled = self.sampled(unit)?;
        let mut counts = Counts::default();
        for verdict in self.survivors.verdicts::<NameRow>(partition)? {
            let verdict = verdict?;
            let image_id = verdict.sample.image_id;
            values.advance(image_id.as_str())?;
            if verdict.dropped.is_some() {
                continue;
            }
            let failed = self.first_failure(&values).or_else(|| {
                let (sampling, sample, clusters) = sampled.as_ref()?;
                sampling.failure(sample, clusters, &image_id)
            });
            counts.add(context.step(), failed.as_ref().map(|(reason, _)| reason));
            let (reason, detail) = failed.unzip();
            rows.push(FilterRow {
                image_id,
                keep: reason.is_none(),
                reason,
                detail,
            })?;
            if (counts.input as usize).is_multiple_of(STEP) {
                open_unit.advance(STEP)?;
            }
        }
        open_unit.advance(counts.input as usize % STEP)?;
        open_unit.publish(|| rows.finish())?;
        open_unit.decides(&[UnitKind::Partition]);
        Ok(open_unit.commit(counts)?)
    }

    /// Returns what is sampled, the sample of all partitions, and the clusters of one; none where nothing
    /// is sampled.
    fn sampled(&self, unit: Unit) -> Result<Option<(&Sampling, Arc<Sample>, Clusters)>> {
        let Some(sampling) = sampling_of(&self.conditions) else {
            return Ok(None);
        };
        let sample = {
            let mut sample = self.sample.lock().unwrap_or_else(PoisonError::into_inner);
            match &*sample {
                Some(sample) => sample.clone(),
                None => {
                    let made = sampling.sample(self.context, &self.plan, &self.survivors)?;
                    sample.insert(Arc::new(made)).clone()
                }
            }
        };
        let clusters = sampling.clusters(self.context, unit)?;
        Ok(Some((sampling, sample, clusters)))
    }

    fn open_values(&self, unit: Unit) -> Result<Values> {
        let references = self.rules.references();
        let mut scores = BTreeMap::new();
        for (step, columns) in self.upstream.scorers() {
            let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
            let reader = ScoreReader::open(self.context, step, unit, &names)?;
            let columns = names.iter().map(|&name| name.to_owned()).collect();
            let scores_of = Scores {
                reader,
                identifier: step.identifier(),
                is_in_rules: references.contains(step.identifier().as_str()),
                columns,
                row: None,
            };
            scores.insert(step.clone(), scores_of);
        }
        Ok(Values {
            columns: ColumnReader::open(self.context, unit, |name| references.contains(name))?,
            scores,
        })
    }

    /// Returns why the image at hand is dropped, and the values that decided.
    fn first_failure(&self, values: &Values) -> Option<(Reason, String)> {
        let mut thresholds = self.thresholds.iter();
        if let Some(failed) = thresholds.find_map(|threshold| threshold.failure(values)) {
            return Some(failed);
        }
        let mut row = SampleValues::default();
        values.columns.set(&mut row);
        for scores in values.scores.values().filter(|scores| scores.is_in_rules) {
            scores.set(&mut row);
        }
        let failure = self.rules.first_failure(&row)?;
        let reason = Reason::about(ReasonKind::Rule, failure.rule);
        Some((reason, failure.detail))
    }
}

/// A threshold, with the place of its score.
struct AppliedThreshold {
    condition: Condition,
    /// The score's name.
    name: String,
    step: StepName,
    /// The score's place among the columns of its step.
    position: usize,
}

impl AppliedThreshold {
    /// Returns the thresholds among the conditions.
    fn all(conditions: &[Condition], upstream: &Upstream) -> Result<Vec<Self>, Error> {
        let with_score = conditions.iter().filter_map(|condition| {
            let score = condition.score()?;
            Some((condition, score))
        });
        with_score
            .map(|(condition, score)| {
                let columns = upstream.scores(&score.step)?;
                Ok(Self {
                    condition: condition.clone(),
                    name: score.to_string(),
                    step: score.step.clone(),
                    position: ScoreColumn::position(columns, score)?,
                })
            })
            .collect()
    }

    /// Returns why the image at hand is dropped, and the values that decided.
    fn failure(&self, values: &Values) -> Option<(Reason, String)> {
        let name = &self.name;
        let scores = values.scores.get(&self.step)?.row.as_ref();
        let value = scores
            .map(|scores| scores[self.position])
            .filter(|value| !value.is_nan());
        let Some(value) = value else {
            let reason = Reason::about(ReasonKind::NotScored, name);
            return Some((reason, format!("{name} is missing")));
        };
        let (kind, passes, threshold, sign) = match self.condition {
            Condition::Min { threshold, .. } => {
                (ReasonKind::BelowMin, value >= threshold, threshold, "<")
            }
            Condition::Max { threshold, .. } => {
                (ReasonKind::AboveMax, value < threshold, threshold, ">=")
            }
            Condition::Top { threshold, .. } => {
                let threshold = threshold.unwrap_or(f32::NEG_INFINITY);
                (ReasonKind::BelowTop, value >= threshold, threshold, "<")
            }
            Condition::Rule { .. } | Condition::Sample(_) => return None,
        };
        let detail = || format!("{name} {value} {sign} {threshold}");
        (!passes).then(|| (Reason::about(kind, name), detail()))
    }
}

/// What is known of the image at hand.
struct Values {
    columns: ColumnReader,
    scores: BTreeMap<StepName, Scores>,
}

/// The scores of a step for the image at hand.
struct Scores {
    reader: ScoreReader,
    identifier: String,
    is_in_rules: bool,
    columns: Vec<String>,
    row: Option<Vec<f32>>,
}

impl Values {
    /// Moves to the next sample of `read`, which is this image.
    fn advance(&mut self, image_id: &str) -> Result<(), Error> {
        self.columns.advance()?;
        for scores in self.scores.values_mut() {
            scores.row = scores.reader.next_if(image_id)?;
        }
        Ok(())
    }
}

impl Scores {
    /// Sets the step's variable. A score that is missing is not set.
    fn set<'r>(&'r self, row: &mut SampleValues<'r>) {
        let Some(values) = &self.row else { return };
        let known = self
            .columns
            .iter()
            .zip(values)
            .filter(|(_, value)| !value.is_nan());
        match values.as_slice() {
            [only] if !only.is_nan() => row.set(&self.identifier, f64::from(*only)),
            [_] => {}
            _ => {
                let known = known.map(|(name, value)| (name.as_str(), f64::from(*value)));
                row.set(&self.identifier, Value::Scores(known.collect()));
            }
        }
    }
}
