//! The survivors of each deciding step that some unit worked on. Their receipts are read once.

use std::collections::BTreeMap;

use sluice_harness::{Context, Survivors};
use sluice_manifest::{Receipt, Result, StepName};

use super::checks::{Check, Findings};

/// The survivors by the deciding step that they are of.
#[derive(Default)]
pub struct Chains<'a>(BTreeMap<Option<StepName>, Survivors<'a>>);

impl<'a> Chains<'a> {
    /// Looks up the survivors that the units of a run worked on. A chain that cannot be walked fails
    /// the check of decisions.
    ///
    /// # Errors
    /// Of storage only.
    pub fn of<'r>(
        context: &'a Context,
        receipts: impl Iterator<Item = &'r Receipt>,
        findings: &mut Findings,
    ) -> Result<Self> {
        let mut chains = Self::default();
        let mut names: Vec<Option<&StepName>> = receipts
            .map(|receipt| receipt.survivors_of.as_ref())
            .collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            match context.survivors(name) {
                Ok(survivors) => {
                    chains.0.insert(name.cloned(), survivors);
                }
                Err(e) => findings.note(Check::Decisions, e)?,
            }
        }
        Ok(chains)
    }

    /// Returns the samples that a unit worked on; none where the chain cannot be walked.
    pub fn before(&self, receipt: &Receipt) -> Option<&Survivors<'a>> {
        self.0.get(&receipt.survivors_of)
    }
}
