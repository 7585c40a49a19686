//! One pass over the samples of a run, with the rows of `read`, the scores and the decisions.
//!
//! Several partitions are processed concurrently, and their results are merged in order.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;
use sluice_manifest::rows::SampleRow;
use sluice_manifest::{ImageId, Partition, Result, StepName, Unit};

use crate::card::ImageCard;
use crate::sampling::{Best, hash};
use crate::scoring::Scoring;
use crate::{Plan, Receipts, Run, ScoreReader, Survivors, Verdict, steps};

/// A run, open for passes over its samples.
pub struct Walk<'a> {
    run: &'a Run,
    plan: &'a Plan,
    receipts: &'a Receipts,
    survivors: Survivors<'a>,
    /// The deciding steps that have decided all partitions, in order.
    chain: Vec<&'a StepName>,
    /// The scores and the filters.
    pub scoring: Scoring,
}

/// A sample during the pass.
pub struct Walked {
    /// The row of `read`, and the decision.
    pub verdict: Verdict<SampleRow>,
    /// The scores, in the order of the run's scores; NaN for a missing one.
    pub scores: Vec<f32>,
}

/// The scores of a step, read in step with the samples.
struct StepScores {
    scores: ScoreReader,
    /// The indices of its scores among the run's.
    places: Vec<usize>,
}

impl<'a> Walk<'a> {
    /// Opens a run in any state of completion.
    ///
    /// # Errors
    ///
    /// Returns a data error if the receipts of a deciding step contradict each other, and otherwise
    /// a storage error.
    pub fn new(run: &'a Run, plan: &'a Plan, receipts: &'a Receipts) -> Result<Self> {
        let chain = steps::chain(receipts).into_iter();
        let chain: Vec<&StepName> = chain
            .take_while(|step| steps::has_decided(receipts, step))
            .collect();
        Ok(Self {
            run,
            plan,
            receipts,
            survivors: run.survivors(chain.last().copied())?,
            scoring: Scoring::new(receipts, &chain),
            chain,
        })
    }

    /// Computes `part` for every partition, several concurrently, and passes the results to `merge`
    /// in the order of the partitions.
    ///
    /// # Errors
    ///
    /// Fails like `part`.
    pub fn each_part<T: Send>(
        &self,
        part: impl Fn(Partition) -> Result<T> + Sync,
        mut merge: impl FnMut(T),
    ) -> Result<()> {
        for partitions in self.plan.partitions.chunks(rayon::current_num_threads()) {
            let parts = partitions.par_iter().map(|planned| part(planned.partition));
            let parts: Vec<T> = parts.collect::<Result<_>>()?;
            parts.into_iter().for_each(&mut merge);
        }
        Ok(())
    }

    /// Returns up to `limit` samples for which `accepts` returns true, chosen by the hash of their
    /// names.
    ///
    /// # Errors
    ///
    /// Returns a data error if a manifest is missing or damaged, and otherwise a storage error.
    pub fn select(
        &self,
        limit: usize,
        accepts: impl Fn(&Walked) -> bool + Sync,
    ) -> Result<Vec<ImageCard>> {
        let part = |partition| {
            let mut chosen = Best::new(limit);
            for walked in self.samples(partition)? {
                let walked = walked?;
                if accepts(&walked) {
                    let name = walked.verdict.sample.image_id.as_str();
                    let card = || self.card(&walked, partition);
                    chosen.offer(hash(name), name, card);
                }
            }
            Ok(chosen)
        };
        let mut chosen = Best::new(limit);
        self.each_part(part, |part| chosen.merge(part))?;
        Ok(chosen.items().cloned().collect())
    }

    /// Returns the samples with these names, restricted to `partitions` if given.
    ///
    /// # Errors
    ///
    /// Returns a data error if a manifest is missing or damaged, and otherwise a storage error.
    pub fn named(
        &self,
        names: &HashSet<ImageId>,
        partitions: Option<&HashSet<Partition>>,
    ) -> Result<HashMap<ImageId, ImageCard>> {
        let planned = self.plan.partitions.iter().map(|planned| planned.partition);
        let asked =
            |partition: &Partition| partitions.is_none_or(|asked| asked.contains(partition));
        let partitions: Vec<Partition> = planned.filter(asked).collect();
        let parts = partitions.par_iter().map(|partition| {
            let mut found = Vec::new();
            for walked in self.samples(*partition)? {
                let walked = walked?;
                if names.contains(&walked.verdict.sample.image_id) {
                    let card = self.card(&walked, *partition);
                    found.push((card.image_id.clone(), card));
                }
            }
            Ok(found)
        });
        Ok(parts
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .flatten()
            .collect())
    }

    /// Returns the index of a deciding step in the chain.
    pub fn position(&self, step: &StepName) -> Option<usize> {
        self.chain.iter().position(|decider| *decider == step)
    }

    /// Returns the card of a sample.
    pub fn card(&self, walked: &Walked, partition: Partition) -> ImageCard {
        let verdict = &walked.verdict;
        let card = ImageCard::new(&verdict.sample, partition);
        ImageCard {
            dropped: verdict.dropped.clone(),
            detail: verdict.detail.clone().or(card.detail),
            is_nsfw: self.scoring.is_nsfw(&walked.scores),
            scores: walked.scores.clone(),
            ..card
        }
    }

    /// Returns the samples of a partition in the order of `read`. Empty if `read` has not processed
    /// it.
    ///
    /// # Errors
    ///
    /// Returns a data error if a manifest is missing or damaged, and otherwise a storage error.
    pub fn samples(
        &self,
        partition: Partition,
    ) -> Result<impl Iterator<Item = Result<Walked>> + use<'_, 'a>> {
        let unit = Unit::from(partition);
        let is_read = self.receipts.unit(&StepName::read(), unit).is_some();
        let verdicts = if is_read {
            Some(self.survivors.verdicts::<SampleRow>(partition)?)
        } else {
            None
        };
        let mut readers = self.readers(unit)?;
        let count = self.scoring.scores.len();
        Ok(verdicts
            .into_iter()
            .flatten()
            .enumerate()
            .map(move |(number, verdict)| {
                if number.is_multiple_of(1024) {
                    self.run.check_stop()?;
                }
                let verdict = verdict?;
                let id = verdict.sample.image_id.as_str();
                let scores = scores_of(&mut readers, id, count)?;
                Ok(Walked { verdict, scores })
            }))
    }

    fn readers(&self, unit: Unit) -> Result<Vec<StepScores>> {
        let steps = self.scoring.steps().into_iter();
        let done = steps.filter(|step| self.receipts.unit(step, unit).is_some());
        let readers = done.map(|step| {
            let (places, columns): (Vec<usize>, Vec<&str>) =
                self.scoring.of_step(step).into_iter().unzip();
            let scores = ScoreReader::open(self.run, step, unit, &columns)?;
            Ok(StepScores { scores, places })
        });
        readers.collect()
    }
}

fn scores_of(readers: &mut [StepScores], id: &str, count: usize) -> Result<Vec<f32>> {
    let mut scores = vec![f32::NAN; count];
    for reader in readers {
        let row = reader.scores.next_if(id)?;
        for (place, score) in reader.places.iter().zip(row.into_iter().flatten()) {
            scores[*place] = score;
        }
    }
    Ok(scores)
}
