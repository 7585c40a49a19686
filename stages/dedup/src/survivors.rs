//! The images that a method of the step compares: the survivors of the steps before, without the
//! duplicates that the step's earlier methods removed.
//!
//! The one place that joins the samples of a partition with those duplicates and with the scores
//! that rank. All are in the order of `read`, but for the duplicates, of which a partition's own are
//! held. Scores and embeddings may cover more samples than are left, since deciding steps may have
//! run after the scorer. So the walk passes all samples of `read` and marks those that are left.

use std::collections::HashSet;

use anyhow::Result;
use sluice_harness::Context;
use sluice_manifest::layout::DUPLICATES;
use sluice_manifest::rows::{DuplicateRow, Method, SampleBrief};
use sluice_manifest::{
    Class, Error, ImageId, Input, Partition, Receipt, ScoreName, StepName, Unit, UnitKind,
};
use sluice_run::{Plan, ScoreReader, Survivors, Verdicts};

use crate::hash::{Forms, Hash, decode};
use crate::methods::Methods;
use crate::ranking::Candidate;
use crate::settings::{NearSettings, OnRequest, SameStep, Transformation};

/// What the methods need to know about an image.
pub(crate) struct Image {
    pub partition: Partition,
    pub image_id: ImageId,
    pub sha256: Option<[u8; 32]>,
    pub md5: Option<[u8; 16]>,
    pub phash: Option<Hash<1>>,
    /// As `SampleRow::phash_transformed`.
    pub transformed: Option<Box<[u64]>>,
    pub pdq: Option<Box<Hash<4>>>,
    /// The score that ranks, where there is one.
    pub score: Option<f32>,
    pub pixels: u64,
    /// As [`Candidate::texts`].
    pub texts: u8,
}

impl Image {
    fn new(sample: SampleBrief, partition: Partition, score: Option<f32>) -> Self {
        Self {
            partition,
            sha256: sample.sha256.as_deref().and_then(decode),
            md5: sample.md5.as_deref().and_then(decode),
            phash: sample.phash.map(|phash| Hash([phash])),
            pdq: sample.pdq.as_deref().and_then(Hash::of_pdq).map(Box::new),
            score,
            pixels: sample.pixels(),
            texts: sample.texts(),
            transformed: sample.phash_transformed.map(Vec::into_boxed_slice),
            image_id: sample.image_id,
        }
    }

    /// Returns the hashes by which the image is compared, or `None` where it has none that distinguishes
    /// images.
    pub(crate) fn phashes(&self, transformations: &[Transformation]) -> Option<Forms<1>> {
        let own = self.phash.filter(|hash| hash.is_informative())?;
        let transformed = self.transformed.as_deref().unwrap_or_default();
        let asked = transformations.iter().flat_map(|asked| asked.places());
        let others = asked.filter_map(|place| Some(Hash([*transformed.get(place)?])));
        Some(Forms {
            own,
            others: others.collect(),
        })
    }

    /// As [`phashes`](Self::phashes), by PDQ.
    pub(crate) fn pdq_hashes(&self) -> Option<Forms<4>> {
        Some((**self.pdq.as_ref()?).into())
    }

    /// Returns what the rankings need; `distance` is the one to the image's centroid.
    pub(crate) fn candidate(&self, distance: f32) -> Candidate<'_> {
        Candidate {
            image_id: self.image_id.as_str(),
            score: self.score,
            pixels: self.pixels,
            texts: self.texts,
            distance,
        }
    }
}

/// The images that are left for a method.
pub(crate) struct Remaining<'c> {
    context: &'c Context,
    survivors: Survivors<'c>,
    /// The units of the step's earlier methods.
    earlier: Vec<Unit>,
    earlier_inputs: Vec<Input>,
    rank_by: Option<&'c ScoreName>,
}

impl<'c> Remaining<'c> {
    /// Looks up the deciding steps before and the step's own methods before `method`.
    ///
    /// # Errors
    /// Data, if one has not been run, or with other `--methods` or `--survivors-of`.
    pub(crate) fn new(
        context: &'c Context,
        methods: &Methods,
        method: Method,
        rank_by: Option<&'c ScoreName>,
    ) -> Result<Self> {
        let step = context.step();
        let mut earlier = Vec::new();
        let mut earlier_inputs = Vec::new();
        for kind in methods.kinds_before(method) {
            let subcommand = kind.as_str();
            let receipt = context.required_receipt(step, Unit::once(kind));
            check_same_step(context, methods, &made_by(subcommand, context, receipt)?)?;
            earlier.extend(context.units_of(step, kind)?);
            let input = context.combined_input(step, kind);
            earlier_inputs.push(made_by(subcommand, context, input)?);
        }
        let survivors = context.survivors(context.node().survivors_of.as_ref())?;
        Ok(Self {
            context,
            survivors,
            earlier,
            earlier_inputs,
            rank_by,
        })
    }

    /// Returns what a unit reads that works on the images of one partition.
    ///
    /// # Errors
    /// Data, when a step before has not done the partition.
    pub(crate) fn inputs(&self, partition: Partition) -> Result<Vec<Input>> {
        let scores = |step: &StepName| self.context.input(step, partition.into());
        self.with_own(self.survivors.inputs(partition)?, scores)
    }

    /// Returns what a unit reads that works on the images of all partitions.
    ///
    /// # Errors
    /// Data, when a step before has not done all partitions.
    pub(crate) fn all_inputs(&self) -> Result<Vec<Input>> {
        let scores = |step: &StepName| self.context.combined_input(step, UnitKind::Partition);
        self.with_own(self.survivors.all_inputs()?, scores)
    }

    /// Returns what a unit reads that works on the images of all partitions and does not rank them.
    ///
    /// # Errors
    /// As [`all_inputs`](Self::all_inputs).
    pub(crate) fn unranked_inputs(&self) -> Result<Vec<Input>> {
        let mut inputs = self.survivors.all_inputs()?;
        inputs.extend(self.earlier_inputs.iter().cloned());
        Ok(inputs)
    }

    fn with_own(
        &self,
        mut inputs: Vec<Input>,
        scores: impl FnOnce(&StepName) -> sluice_manifest::Result<Input>,
    ) -> Result<Vec<Input>> {
        inputs.extend(self.earlier_inputs.iter().cloned());
        if let Some(score) = self.rank_by {
            inputs.push(scores(&score.step)?);
        }
        Ok(inputs)
    }

    /// Returns all samples of a partition, in the order of `read`.
    ///
    /// # Errors
    /// Data, when a manifest is missing or broken; usage, when the step has no such score.
    pub(crate) fn walk(&self, partition: Partition) -> Result<Walk> {
        let scores = self
            .rank_by
            .map(|score| ScoreReader::open_one(self.context, score, partition.into()))
            .transpose()?;
        Ok(Walk {
            partition,
            verdicts: self.survivors.verdicts(partition)?,
            removed: self.removed(partition)?,
            scores,
        })
    }

    /// Returns the images of all partitions that are left and that `select` selects.
    ///
    /// # Errors
    /// As [`walk`](Self::walk); stopped, after a signal.
    pub(crate) fn images(
        &self,
        plan: &Plan,
        select: impl Fn(&Image) -> bool,
    ) -> Result<Vec<Image>> {
        let mut found = Vec::new();
        for partition in &plan.partitions {
            self.context.check_stop()?;
            for walked in self.walk(partition.partition)? {
                let walked = walked?;
                if walked.is_left && select(&walked.image) {
                    found.push(walked.image);
                }
            }
        }
        Ok(found)
    }

    /// The images of a partition that the step's earlier methods removed.
    fn removed(&self, partition: Partition) -> Result<HashSet<ImageId>> {
        let mut removed = HashSet::new();
        for &unit in &self.earlier {
            let path = DUPLICATES.path(self.context.step(), unit);
            let rows = self.context.run.rows::<DuplicateRow>(&path)?;
            for row in rows.within("partition", partition.0..partition.0 + 1)? {
                let row = row?;
                if row.partition == partition {
                    removed.insert(row.image_id);
                }
            }
        }
        Ok(removed)
    }
}

/// A sample of a partition.
pub(crate) struct Walked {
    pub image: Image,
    /// Whether it is among the images to compare.
    pub is_left: bool,
}

/// The samples of a partition, in the order of `read`.
pub(crate) struct Walk {
    partition: Partition,
    verdicts: Verdicts<SampleBrief>,
    removed: HashSet<ImageId>,
    scores: Option<ScoreReader>,
}

impl Iterator for Walk {
    type Item = sluice_manifest::Result<Walked>;

    fn next(&mut self) -> Option<Self::Item> {
        let verdict = self.verdicts.next()?;
        Some(verdict.and_then(|verdict| {
            let id = &verdict.sample.image_id;
            let score = match &mut self.scores {
                Some(scores) => scores
                    .next_if(id.as_str())?
                    .and_then(|row| row.first().copied()),
                None => None,
            };
            let is_left = verdict.dropped.is_none() && !self.removed.contains(id);
            // A score that is missing is NaN.
            let score = score.filter(|score| !score.is_nan());
            let image = Image::new(verdict.sample, self.partition, score);
            Ok(Walked { image, is_left })
        }))
    }
}

/// Whether `read` computed a hash for all partitions. Images for which there is none, such as those of low
/// quality, do not matter.
///
/// # Errors
/// Data, when `read` has not done a partition; of storage.
pub(crate) fn is_computed(context: &Context, plan: &Plan, hash: OnRequest) -> Result<bool> {
    let hash = hash.to_string();
    let receipts = context.required_receipts(&StepName::read(), &plan.units())?;
    let has_hash = |receipt: &Receipt| {
        let hashes = receipt.settings["hashes"].as_array();
        hashes.is_some_and(|hashes| hashes.iter().any(|computed| *computed == hash))
    };
    Ok(receipts.iter().all(has_hash))
}

/// Checks that `read` computed the hashes that are compared.
///
/// # Errors
/// Usage, if it did not; data, as [`is_computed`].
pub(crate) fn refuse_missing(context: &Context, plan: &Plan, near: &NearSettings) -> Result<()> {
    match near.on_request() {
        Some(hash) if !is_computed(context, plan, hash)? => Err(not_computed(hash).into()),
        _ => Ok(()),
    }
}

/// Returns the error for a hash that is compared and that `read` does not compute.
pub(crate) fn not_computed(hash: OnRequest) -> Error {
    Error::usage(format!(
        "{hash} hashes are compared, and read computes none"
    ))
    .hint(format!(
        "compute them: --hashes {hash} of sluice-read or sluice run"
    ))
}

/// Names the subcommand of this step to run in an error about its units.
///
/// # Errors
/// As `found`.
pub(crate) fn made_by<T>(
    subcommand: &str,
    context: &Context,
    found: sluice_manifest::Result<T>,
) -> sluice_manifest::Result<T> {
    let step = context.step();
    found.map_err(|e| match e.class() {
        Class::Data => e.hint(format!(
            "run sluice-dedup {subcommand} --step {step} first, for all of its units"
        )),
        _ => e,
    })
}

/// Returns the hint to run a subcommand of this step again.
pub(crate) fn again(context: &Context, subcommand: &str) -> String {
    let step = context.step();
    format!("run sluice-dedup {subcommand} --step {step} again, with the flags of this command")
}

/// Checks that an earlier unit of this step was made for the same survivors with the same methods.
///
/// # Errors
/// Data, when it was not.
pub(crate) fn check_same_step(
    context: &Context,
    methods: &Methods,
    receipt: &Receipt,
) -> Result<()> {
    let node = context.node();
    let made: SameStep = receipt.settings()?;
    if made.methods == *methods && receipt.survivors_of == node.survivors_of {
        return Ok(());
    }
    let (step, unit) = (&receipt.step, receipt.unit);
    let subcommand = receipt.subcommand.as_deref().unwrap_or_default();
    Err(Error::data(format!(
        "{step}: {unit} was not made with the same --methods and --survivors-of"
    ))
    .hint(again(context, subcommand))
    .into())
}
