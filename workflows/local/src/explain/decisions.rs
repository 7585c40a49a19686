//! The decisions of the deciding steps about an image, and the image that it duplicates.

use std::collections::BTreeMap;

use serde::Serialize;
use sluice_manifest::layout::{DECISIONS, DUPLICATES, FILTERED};
use sluice_manifest::rows::{DecisionRow, DuplicateRow, FilterRow};
use sluice_manifest::{ImageId, Partition, Reason, Receipt, Result, StepName, UnitKind};
use sluice_run::duplicates::method_name;
use sluice_run::steps;

use super::lookup::Lookup;

/// The maximum length of a chain of duplicates. Real chains are much shorter.
const LINKS: usize = 100;

/// The maximum number of neighbours that are listed.
const NEIGHBOURS: usize = 20;

/// The decision of a deciding step about an image.
#[derive(Debug, Clone, Serialize)]
pub struct Decision {
    /// The step.
    pub step: StepName,
    /// Whether it keeps the image; `None` if it has not decided.
    pub keep: Option<bool>,
    /// Why it drops the image.
    pub reason: Option<Reason>,
    /// The values that determined the decision.
    pub detail: Option<String>,
}

/// The final decision about an image.
#[derive(Debug, Clone, Serialize)]
pub struct FinalDecision {
    /// Whether it is in the curated dataset.
    pub keep: bool,
    /// The step that dropped it.
    pub step: Option<StepName>,
    /// The reason.
    pub reason: Option<Reason>,
    /// The values that determined the decision.
    pub detail: Option<String>,
}

/// One image is a duplicate of another.
#[derive(Debug, Serialize)]
pub struct Link {
    /// The step that removed the duplicate.
    pub step: StepName,
    /// The duplicate.
    pub image_id: ImageId,
    /// The image that it duplicates.
    pub duplicate_of: ImageId,
    /// The reference set of that image; `None` if it is in the run itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The method that found it.
    pub method: String,
    /// The similarity of the two images.
    pub similarity: f32,
    /// The final decision about the other image, if it is known.
    pub other: Option<FinalDecision>,
}

/// Another duplicate of the same image, or a duplicate of this one.
#[derive(Debug, Serialize)]
pub struct Neighbour {
    /// The duplicate.
    pub image_id: ImageId,
    /// The image that it duplicates.
    pub duplicate_of: ImageId,
    /// The method that found it.
    pub method: String,
    /// The similarity of the two images.
    pub similarity: f32,
}

/// The decision of each deciding step of a run about one image.
pub(super) type StepDecisions<'a> = BTreeMap<&'a StepName, Decision>;

impl<'a> Lookup<'a> {
    /// Returns the decision of each deciding step of the run, also of steps that lead to no export.
    ///
    /// # Errors
    /// Data, when a manifest is missing or broken.
    pub fn decisions_about(&self, id: &ImageId, partition: Partition) -> Result<StepDecisions<'a>> {
        let steps = self.receipts.steps().into_iter();
        let deciding = steps.filter(|step| !steps::decides(self.receipts, step).is_empty());
        let decided = deciding.map(|step| Ok((step, self.decision(step, id, partition)?)));
        decided.collect()
    }

    /// Returns the decisions of the chain's steps, up to the step that dropped the image.
    pub fn chain_of(&self, decided: &StepDecisions<'a>) -> Vec<Decision> {
        let mut decisions = Vec::new();
        for decision in self.chain.iter().filter_map(|step| decided.get(step)) {
            decisions.push(decision.clone());
            if decision.keep == Some(false) {
                break;
            }
        }
        decisions
    }

    /// Whether an image reached a unit: no earlier deciding step dropped it.
    pub fn has_reached(&self, receipt: &Receipt, decided: &StepDecisions<'a>) -> bool {
        let before = self.receipts.deciders(receipt.survivors_of.as_ref());
        let mut before = before.iter().filter_map(|step| decided.get(step));
        before.all(|decision| decision.keep != Some(false))
    }

    fn decision(&self, step: &StepName, id: &ImageId, partition: Partition) -> Result<Decision> {
        let mut decision = Decision {
            step: step.clone(),
            keep: Some(true),
            reason: None,
            detail: None,
        };
        for &kind in steps::decides(self.receipts, step) {
            if kind == UnitKind::Partition {
                let row = self.filter_row(step, id, partition)?;
                decision.keep = row.as_ref().map(|row| row.keep);
                (decision.reason, decision.detail) =
                    row.map_or((None, None), |row| (row.reason, row.detail));
            } else if !self.receipts.is_complete(step, kind) {
                decision.keep = decision.keep.filter(|keep| !keep);
            }
        }
        if let Some(row) = self.duplicate_row(step, id, partition)? {
            decision.keep = Some(false);
            decision.reason = Some(row.reason());
            decision.detail = Some(row.detail());
        }
        Ok(decision)
    }

    fn filter_row(
        &self,
        step: &StepName,
        id: &ImageId,
        partition: Partition,
    ) -> Result<Option<FilterRow>> {
        let path = |step: &StepName, unit| FILTERED.path(step, unit);
        let rows = self.rows::<FilterRow>(step, partition.into(), path)?;
        for row in rows.into_iter().flatten() {
            let row = row?;
            if row.image_id == *id {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// Returns the row of the first method. Later methods do not see an image that an earlier one
    /// removed.
    fn duplicate_row(
        &self,
        step: &StepName,
        id: &ImageId,
        partition: Partition,
    ) -> Result<Option<DuplicateRow>> {
        for receipt in steps::duplicates(self.receipts, step) {
            let path = DUPLICATES.path(step, receipt.unit);
            let rows = self.recorded.rows::<DuplicateRow>(&path)?;
            for row in rows.within("partition", partition.0..partition.0 + 1)? {
                let row = row?;
                if row.image_id == *id {
                    return Ok(Some(row));
                }
            }
        }
        Ok(None)
    }

    /// Returns the decision of the export; `None` if it has not processed the partition.
    ///
    /// # Errors
    /// Data, when a manifest is missing or broken.
    pub fn exported(&self, id: &ImageId, partition: Partition) -> Result<Option<FinalDecision>> {
        let Some(export) = self.export else {
            return Ok(None);
        };
        let path = |step: &StepName, unit| DECISIONS.path(step, unit);
        let rows = self.rows::<DecisionRow>(export, partition.into(), path)?;
        for row in rows.into_iter().flatten() {
            let row = row?;
            if row.image_id == *id {
                return Ok(Some(FinalDecision {
                    keep: row.keep,
                    step: row.step,
                    reason: row.reason,
                    detail: row.detail,
                }));
            }
        }
        Ok(None)
    }

    /// Returns the chain of duplicates: the image that this one duplicates, the image that that one
    /// duplicates, and so on to an image that is kept.
    ///
    /// # Errors
    /// Data, when a manifest is missing or broken.
    pub fn links(&self, id: &ImageId, partition: Partition) -> Result<Vec<Link>> {
        let mut links: Vec<Link> = Vec::new();
        let (mut id, mut partition) = (id.clone(), partition);
        while links.len() < LINKS {
            let Some((step, row)) = self.removed(&id, partition)? else {
                break;
            };
            let next = match row.reference {
                Some(_) => None,
                None => self.partition_of(&row.duplicate_of)?,
            };
            let other = match next {
                Some(partition) => self.final_decision(&row.duplicate_of, partition)?,
                None => None,
            };
            let is_known = links.iter().any(|link| link.image_id == row.duplicate_of);
            links.push(Link {
                step: step.clone(),
                image_id: row.image_id,
                duplicate_of: row.duplicate_of.clone(),
                reference: row.reference,
                method: method_name(row.method).to_owned(),
                similarity: row.similarity,
                other,
            });
            match next {
                Some(next) if !is_known => (id, partition) = (row.duplicate_of, next),
                _ => break,
            }
        }
        Ok(links)
    }

    /// Returns the first other images that steps of the chain removed as duplicates of an image, or
    /// of the image that it duplicates.
    ///
    /// # Errors
    /// Data, when a manifest is missing or broken.
    pub fn neighbours(&self, id: &ImageId, links: &[Link]) -> Result<Vec<Neighbour>> {
        let of = links.first().map_or(id, |link| &link.duplicate_of);
        let set = links.first().and_then(|link| link.reference.as_ref());
        let mut neighbours = Vec::new();
        for &step in &self.chain {
            for receipt in steps::duplicates(self.receipts, step) {
                let path = DUPLICATES.path(step, receipt.unit);
                for row in self.recorded.rows::<DuplicateRow>(&path)? {
                    let row = row?;
                    let is_of = row.duplicate_of == *of && row.reference.as_ref() == set;
                    if is_of && row.image_id != *id {
                        neighbours.push(Neighbour {
                            image_id: row.image_id,
                            duplicate_of: row.duplicate_of,
                            method: method_name(row.method).to_owned(),
                            similarity: row.similarity,
                        });
                    }
                    if neighbours.len() == NEIGHBOURS {
                        return Ok(neighbours);
                    }
                }
            }
        }
        Ok(neighbours)
    }

    /// Returns the first step of the chain that removed an image as a duplicate.
    fn removed(
        &self,
        id: &ImageId,
        partition: Partition,
    ) -> Result<Option<(&'a StepName, DuplicateRow)>> {
        for &step in &self.chain {
            if let Some(row) = self.duplicate_row(step, id, partition)? {
                return Ok(Some((step, row)));
            }
        }
        Ok(None)
    }

    /// Returns the final decision about an image that a deciding step saw.
    fn final_decision(&self, id: &ImageId, partition: Partition) -> Result<Option<FinalDecision>> {
        let exported = self.exported(id, partition)?;
        if exported.is_some() {
            return Ok(exported);
        }
        let decided = self.decisions_about(id, partition)?;
        Ok(first_drop(&self.chain_of(&decided)))
    }
}

/// Returns the final decision about an image that one of the decisions drops.
pub(super) fn first_drop(decisions: &[Decision]) -> Option<FinalDecision> {
    let dropped = decisions
        .iter()
        .find(|decision| decision.keep == Some(false))?;
    Some(FinalDecision {
        keep: false,
        step: Some(dropped.step.clone()),
        reason: dropped.reason.clone(),
        detail: dropped.detail.clone(),
    })
}
