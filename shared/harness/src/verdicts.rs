//! What the filters make of each sample of a partition.
//!
//! Duplicates are sought among the survivors of the filters before, and export joins the decisions
//! of all: both walk the samples of `read` in order and look up what each filter said. The score
//! manifests are in the same order, so the join holds one row group of each.

use std::collections::HashMap;

use sluice_manifest::dag::{self, Step};
use sluice_manifest::rows::{DuplicateRow, EmbeddedRow, SampleBrief, ScoreRow, Status};
use sluice_manifest::{Error, Filter, ImageId, Input, Partition, Reason, Result, Unit, layout};
use sluice_store::RowReader;

use crate::Context;

/// A sample, and what the filters make of it.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The sample.
    pub sample: SampleBrief,
    /// Its aesthetic score, where that filter counts and the sample was scored.
    pub aesthetic: Option<f32>,
    /// Why it is dropped, by the first filter that drops it.
    pub dropped: Option<Reason>,
    /// The score or similarity that decided.
    pub score: Option<f32>,
}

/// The samples of a partition in the order of `read/images`.
pub struct Verdicts {
    samples: RowReader<SampleBrief>,
    embedded: Option<RowReader<EmbeddedRow>>,
    aesthetic: Option<RowReader<ScoreRow>>,
    nsfw: Option<RowReader<ScoreRow>>,
    duplicates: Vec<(Reason, HashMap<ImageId, f32>)>,
}

/// The step whose decisions a filter stands for, and the kind of its units.
pub fn filter_step(filter: Filter) -> (&'static Step, &'static str) {
    match filter {
        Filter::Aesthetic => (&dag::AESTHETIC, "part"),
        Filter::Nsfw => (&dag::NSFW, "part"),
        Filter::Exact => (&dag::DEDUP_EXACT, "exact"),
        Filter::Perceptual => (&dag::DEDUP_PERCEPTUAL, "perceptual"),
        Filter::Semantic => (&dag::DEDUP_MATCH, "group"),
    }
}

/// The inputs of a unit that walks the verdicts of one partition.
pub fn filter_inputs(
    context: &Context,
    partition: Partition,
    filters: &[Filter],
) -> Result<Vec<Input>> {
    let unit = Unit::from(partition);
    let mut inputs = vec![context.input(&dag::READ, &unit)?];
    for &filter in filters {
        let (step, kind) = filter_step(filter);
        let input = match filter {
            Filter::Aesthetic | Filter::Nsfw => context.input(step, &unit),
            Filter::Exact | Filter::Perceptual | Filter::Semantic => context
                .units_of(step, kind)
                .and_then(|units| context.combined_input(step, &units)),
        };
        inputs.push(input.map_err(|e| {
            Error::data(format!(
                "filter {}: {e}, or leave it out of --filters",
                filter.as_str()
            ))
        })?);
    }
    Ok(inputs)
}

impl Verdicts {
    /// Opens what `read` and the filters said about a partition.
    pub fn open(context: &Context, partition: Partition, filters: &[Filter]) -> Result<Self> {
        let unit = Unit::from(partition);
        let run = &context.run;
        let scores = |filter: Filter| -> Result<Option<RowReader<ScoreRow>>> {
            if !filters.contains(&filter) {
                return Ok(None);
            }
            let path = layout::manifest(filter_step(filter).0.stage, "scores", &unit);
            run.rows(&path).map(Some)
        };
        let embedded = match filters.contains(&Filter::Semantic) {
            true => Some(run.rows(&layout::manifest("embed", "embeddings", &unit))?),
            false => None,
        };
        let mut duplicates = Vec::new();
        for (filter, reason) in [
            (Filter::Exact, Reason::ExactDuplicate),
            (Filter::Perceptual, Reason::PerceptualDuplicate),
            (Filter::Semantic, Reason::SemanticDuplicate),
        ] {
            if filters.contains(&filter) {
                duplicates.push((reason, duplicates_of(context, filter, partition)?));
            }
        }
        Ok(Self {
            samples: run.rows(&layout::manifest("read", "images", &unit))?,
            embedded,
            aesthetic: scores(Filter::Aesthetic)?,
            nsfw: scores(Filter::Nsfw)?,
            duplicates,
        })
    }

    fn judge(&mut self, sample: SampleBrief) -> Result<Verdict> {
        let mut verdict = Verdict {
            sample,
            aesthetic: None,
            dropped: None,
            score: None,
        };
        let id = verdict.sample.image_id.clone();
        if verdict.sample.status == Status::Rejected {
            let reason = verdict
                .sample
                .reason
                .ok_or_else(|| Error::data(format!("{id}: rejected by read without a reason")))?;
            verdict.drop_for(reason, None);
            return Ok(verdict);
        }
        if let Some(embedded) = &mut self.embedded
            && embedded.next_if(|row| row.image_id == id)?.is_none()
        {
            verdict.drop_for(Reason::NotEmbedded, None);
        }
        let scored = [
            (
                &mut self.aesthetic,
                Reason::NotAesthetic,
                Reason::BelowMinScore,
            ),
            (&mut self.nsfw, Reason::NotNsfw, Reason::MaxScoreReached),
        ];
        for (scores, unscored, refused) in scored {
            let Some(scores) = scores else { continue };
            match scores.next_if(|row| row.image_id == id)? {
                None => verdict.drop_for(unscored, None),
                Some(row) => {
                    if refused == Reason::BelowMinScore {
                        verdict.aesthetic = Some(row.score);
                    }
                    if !row.keep {
                        verdict.drop_for(refused, Some(row.score));
                    }
                }
            }
        }
        for (reason, duplicates) in &self.duplicates {
            if let Some(&similarity) = duplicates.get(&id) {
                verdict.drop_for(*reason, Some(similarity));
            }
        }
        Ok(verdict)
    }
}

impl Verdict {
    fn drop_for(&mut self, reason: Reason, score: Option<f32>) {
        if self.dropped.is_none() {
            self.dropped = Some(reason);
            self.score = score;
        }
    }
}

impl Iterator for Verdicts {
    type Item = Result<Verdict>;

    fn next(&mut self) -> Option<Self::Item> {
        let sample = self.samples.next()?;
        Some(sample.and_then(|sample| self.judge(sample)))
    }
}

fn duplicates_of(
    context: &Context,
    filter: Filter,
    partition: Partition,
) -> Result<HashMap<ImageId, f32>> {
    let (step, kind) = filter_step(filter);
    let mut found = HashMap::new();
    for unit in context.units_of(step, kind)? {
        let path = layout::manifest("dedup", "duplicates", &unit);
        let rows = context.run.rows::<DuplicateRow>(&path)?;
        for row in rows.within("partition", partition.0..partition.0 + 1)? {
            let row = row?;
            if row.partition == partition {
                found.insert(row.image_id, row.similarity);
            }
        }
    }
    Ok(found)
}
