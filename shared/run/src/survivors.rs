//! Survivors: the samples that no deciding step so far has dropped.
//!
//! A step names the previous deciding step with `--survivors-of`, and the receipt of that step
//! names the one before it. Therefore, the chain of deciding steps is known from the receipts
//! alone. [`Verdicts`] reads the samples of a partition in the order of `read` and joins the
//! decisions of each deciding step. The decisions of a filter are in the same order, so that join
//! needs one row group of each table. The duplicates of the partition are kept in memory.

use std::collections::HashMap;

use sluice_manifest::layout::{DUPLICATES, FILTERED, IMAGES};
use sluice_manifest::rows::{
    DuplicateRow, FilterRow, MeasuredRow, NameRow, PictureRow, Row, SampleBrief, SampleRow, Status,
};
use sluice_manifest::{
    Dropped, Error, ImageId, Input, Partition, Reason, Receipt, Result, StepName, Unit, UnitKind,
};
use sluice_store::RowReader;

use crate::Run;

/// The kinds of units that contain decisions. A deciding step has a unit 0 of one of these kinds.
const DECIDING: [UnitKind; 4] = [
    UnitKind::Group,
    UnitKind::Perceptual,
    UnitKind::Exact,
    UnitKind::Partition,
];

/// A deciding step in a chain.
#[derive(Debug, Clone)]
pub struct Decider {
    /// The name of the step.
    pub step: StepName,
    /// The previous deciding step.
    pub survivors_of: Option<StepName>,
    /// The kinds of its units that contain decisions.
    pub decides: Vec<UnitKind>,
    /// All units of each kind except partitions, as inputs.
    inputs: Vec<Input>,
}

impl Decider {
    /// Returns the units of a kind other than partitions.
    fn units(&self, kind: UnitKind) -> Vec<Unit> {
        let counted = self.inputs.iter().find_map(|input| match &input.of {
            sluice_manifest::InputOf::Units {
                kind: of, count, ..
            } if *of == kind => Some(*count),
            _ => None,
        });
        Unit::all(kind, counted.unwrap_or(0))
    }
}

/// A chain of deciding steps, the earliest first.
pub struct Survivors<'r> {
    run: &'r Run,
    chain: Vec<Decider>,
}

impl Run {
    /// Returns the survivors of a deciding step, or all samples that `read` accepted if no step is
    /// named.
    ///
    /// # Errors
    ///
    /// Returns a data error if a deciding step of the chain has not run, and otherwise a storage
    /// error.
    pub fn survivors(&self, of: Option<&StepName>) -> Result<Survivors<'_>> {
        let mut chain: Vec<Decider> = Vec::new();
        let mut next = of.cloned();
        while let Some(step) = next {
            if chain.iter().any(|decider| decider.step == step) {
                return Err(Error::data(format!(
                    "{step}: the receipts say that it works on its own survivors"
                ))
                .hint("run the deciding steps again, in order"));
            }
            let decider = self.decider(&step)?;
            next = decider.survivors_of.clone();
            chain.push(decider);
        }
        chain.reverse();
        Ok(Survivors { run: self, chain })
    }

    fn decider(&self, step: &StepName) -> Result<Decider> {
        let first = self.deciding_receipt(step)?;
        let mut inputs = Vec::new();
        for &kind in &first.decides {
            let unit = Unit::once(kind);
            let receipt = self.required_receipt(step, unit)?;
            if receipt.decides != first.decides || receipt.survivors_of != first.survivors_of {
                return Err(Error::data(format!(
                    "{step}: {} and {unit} were not made with the same --methods and --survivors-of",
                    first.unit
                ))
                .hint(format!("run all parts of the step {step} again")));
            }
            if kind != UnitKind::Partition {
                inputs.push(self.combined_input(step, kind)?);
            }
        }
        Ok(Decider {
            step: step.clone(),
            survivors_of: first.survivors_of,
            decides: first.decides,
            inputs,
        })
    }

    fn deciding_receipt(&self, step: &StepName) -> Result<Receipt> {
        for kind in DECIDING {
            let receipt = self.receipt(step, Unit::once(kind))?;
            if let Some(receipt) = receipt
                && !receipt.decides.is_empty()
            {
                return Ok(receipt);
            }
        }
        Err(Error::data(format!(
            "{}: no receipt of a deciding step",
            self.uri(step.as_str())
        ))
        .hint(format!(
            "run the step {step} first; --survivors-of names a filter or dedup step"
        )))
    }
}

impl Survivors<'_> {
    /// Returns the deciding steps, the earliest first.
    pub fn chain(&self) -> &[Decider] {
        &self.chain
    }

    /// Returns the inputs of a unit that reads the survivors of one partition.
    ///
    /// # Errors
    ///
    /// Returns a data error if `read` or a filter has not processed the partition, and otherwise a
    /// storage error.
    pub fn inputs(&self, partition: Partition) -> Result<Vec<Input>> {
        let unit = Unit::from(partition);
        let mut inputs = vec![self.run.input(&StepName::read(), unit)?];
        for decider in &self.chain {
            if decider.decides.contains(&UnitKind::Partition) {
                inputs.push(self.run.input(&decider.step, unit)?);
            }
            inputs.extend(decider.inputs.iter().cloned());
        }
        Ok(inputs)
    }

    /// Returns the inputs of a unit that reads the survivors of all partitions.
    ///
    /// # Errors
    ///
    /// Returns a data error if a step of the chain has not processed all partitions, and otherwise
    /// a storage error.
    pub fn all_inputs(&self) -> Result<Vec<Input>> {
        let mut inputs = vec![
            self.run
                .combined_input(&StepName::read(), UnitKind::Partition)?,
        ];
        for decider in &self.chain {
            if decider.decides.contains(&UnitKind::Partition) {
                inputs.push(
                    self.run
                        .combined_input(&decider.step, UnitKind::Partition)?,
                );
            }
            inputs.extend(decider.inputs.iter().cloned());
        }
        Ok(inputs)
    }

    /// Returns all samples of a partition in the order of `read`, with the decisions of the chain.
    ///
    /// # Errors
    ///
    /// Returns a data error if a manifest is missing or damaged, and otherwise a storage error.
    pub fn verdicts<R: SampleColumns>(&self, partition: Partition) -> Result<Verdicts<R>> {
        let unit = Unit::from(partition);
        let run = self.run;
        let mut deciders = Vec::new();
        for decider in &self.chain {
            for &kind in &decider.decides {
                let decisions = match kind {
                    UnitKind::Partition => StepDecisions::Filter(Box::new(
                        run.rows(&FILTERED.path(&decider.step, unit))?,
                    )),
                    kind => StepDecisions::Duplicates(self.duplicates(decider, kind, partition)?),
                };
                deciders.push((decider.step.clone(), decisions));
            }
        }
        Ok(Verdicts {
            samples: run.rows(&IMAGES.path(&StepName::read(), unit))?,
            read: StepName::read(),
            deciders,
        })
    }

    /// Returns the survivors of a partition in the order of `read`.
    ///
    /// # Errors
    ///
    /// Returns a data error if a manifest is missing or damaged, and otherwise a storage error.
    pub fn samples<R: SampleColumns>(
        &self,
        partition: Partition,
    ) -> Result<impl Iterator<Item = Result<R>> + use<R>> {
        let verdicts = self.verdicts::<R>(partition)?;
        Ok(verdicts.filter_map(|verdict| match verdict {
            Ok(verdict) => verdict.dropped.is_none().then_some(Ok(verdict.sample)),
            Err(e) => Some(Err(e)),
        }))
    }

    /// Returns all duplicates that the chain removed, each with its original. Duplicates of images
    /// in a reference set are omitted, because their originals are not in the run.
    ///
    /// # Errors
    ///
    /// Returns a data error if a manifest is missing or damaged, and otherwise a storage error.
    pub fn duplicates_of(&self) -> Result<HashMap<ImageId, ImageId>> {
        let mut originals = HashMap::new();
        self.each_duplicate(|row| {
            if row.reference.is_none() {
                originals.insert(row.image_id, row.duplicate_of);
            }
        })?;
        Ok(originals)
    }

    /// Calls `each` with every duplicate that the chain removed, step by step.
    ///
    /// # Errors
    ///
    /// Returns a data error if a manifest is missing or damaged, a stopped error after a signal,
    /// and otherwise a storage error.
    pub fn each_duplicate(&self, mut each: impl FnMut(DuplicateRow)) -> Result<()> {
        for decider in &self.chain {
            let kinds = decider.decides.iter();
            for &kind in kinds.filter(|kind| **kind != UnitKind::Partition) {
                for unit in decider.units(kind) {
                    self.run.check_stop()?;
                    let path = DUPLICATES.path(&decider.step, unit);
                    for row in self.run.rows::<DuplicateRow>(&path)? {
                        each(row?);
                    }
                }
            }
        }
        Ok(())
    }

    fn duplicates(
        &self,
        decider: &Decider,
        kind: UnitKind,
        partition: Partition,
    ) -> Result<HashMap<ImageId, DuplicateRow>> {
        let mut found = HashMap::new();
        for unit in decider.units(kind) {
            let path = DUPLICATES.path(&decider.step, unit);
            let rows = self.run.rows::<DuplicateRow>(&path)?;
            for row in rows.within("partition", partition.0..partition.0 + 1)? {
                let row = row?;
                if row.partition == partition {
                    found.insert(row.image_id.clone(), row);
                }
            }
        }
        Ok(found)
    }
}

/// A row with some columns of `read/images`.
pub trait SampleColumns: Row {
    /// Returns the name of the sample.
    fn image_id(&self) -> &ImageId;
    /// Returns the reason for which `read` rejected the sample.
    fn rejected(&self) -> Option<Reason>;
}

macro_rules! samples {
    ($($row:ty),*) => {$(
        impl SampleColumns for $row {
            fn image_id(&self) -> &ImageId {
                &self.image_id
            }

            fn rejected(&self) -> Option<Reason> {
                match self.status {
                    Status::Ok => None,
                    Status::Rejected => self.reason.clone(),
                }
            }
        }
    )*};
}

samples!(SampleRow, SampleBrief, NameRow, PictureRow, MeasuredRow);

/// A sample and the decision about it.
#[derive(Debug, Clone)]
pub struct Verdict<R> {
    /// The row of the sample.
    pub sample: R,
    /// The step that dropped the sample, and the reason.
    pub dropped: Option<Dropped>,
    /// The values that led to the decision.
    pub detail: Option<String>,
}

/// The decisions of a deciding step about the samples of a partition.
enum StepDecisions {
    /// One row for each sample that the filter received.
    Filter(Box<RowReader<FilterRow>>),
    /// The samples that were removed.
    Duplicates(HashMap<ImageId, DuplicateRow>),
}

/// The samples of a partition in the order of `read/images`, with the decisions.
pub struct Verdicts<R> {
    samples: RowReader<R>,
    read: StepName,
    deciders: Vec<(StepName, StepDecisions)>,
}

impl<R: SampleColumns> Verdicts<R> {
    fn judge(&mut self, sample: R) -> Result<Verdict<R>> {
        if let Some(reason) = sample.rejected() {
            let step = self.read.clone();
            return Ok(Verdict {
                sample,
                dropped: Some(Dropped { step, reason }),
                detail: None,
            });
        }
        let id = sample.image_id();
        for (step, decisions) in &mut self.deciders {
            let dropped = match decisions {
                StepDecisions::Filter(rows) => {
                    let row = rows.next_if(|row| row.image_id == *id)?;
                    let row = row.ok_or_else(|| {
                        Error::data(format!("{step}: its decisions do not mention {id}"))
                            .hint(format!("run the step {step} again with --force"))
                    })?;
                    row.reason
                        .filter(|_| !row.keep)
                        .map(|reason| (reason, row.detail))
                }
                StepDecisions::Duplicates(rows) => {
                    rows.get(id).map(|row| (row.reason(), Some(row.detail())))
                }
            };
            if let Some((reason, detail)) = dropped {
                let step = step.clone();
                return Ok(Verdict {
                    sample,
                    dropped: Some(Dropped { step, reason }),
                    detail,
                });
            }
        }
        Ok(Verdict {
            sample,
            dropped: None,
            detail: None,
        })
    }
}

impl<R: SampleColumns> Iterator for Verdicts<R> {
    type Item = Result<Verdict<R>>;

    fn next(&mut self) -> Option<Self::Item> {
        let sample = self.samples.next()?;
        Some(sample.and_then(|sample| self.judge(sample)))
    }
}
