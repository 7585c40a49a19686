//! The survivors of each deciding step that is an input of some unit. Their receipts are read once.

use std::collections::BTreeMap;

use sluice_manifest::{Receipt, Result, StepName};
use sluice_run::{Run, Survivors};

use super::checks::{Check, CheckResults};

/// The survivors, by the deciding step.
#[derive(Default)]
pub(super) struct Chains<'a>(BTreeMap<Option<StepName>, Survivors<'a>>);

impl<'a> Chains<'a> {
    /// Looks up the survivors that were inputs of a run's units. A chain that cannot be followed
    /// fails the check of decisions.
    ///
    /// # Errors
    /// Storage errors only.
    pub(super) fn of<'r>(
        recorded: &'a Run,
        receipts: impl Iterator<Item = &'r Receipt>,
        findings: &mut CheckResults,
    ) -> Result<Self> {
        let mut chains = Self::default();
        let mut names: Vec<Option<&StepName>> = receipts
            .map(|receipt| receipt.survivors_of.as_ref())
            .collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            match recorded.survivors(name) {
                Ok(survivors) => {
                    chains.0.insert(name.cloned(), survivors);
                }
                Err(e) => findings.note(Check::Decisions, e)?,
            }
        }
        Ok(chains)
    }

    /// Returns the samples that were inputs of a unit; `None` if the chain cannot be followed.
    pub(super) fn before(&self, receipt: &Receipt) -> Option<&Survivors<'a>> {
        self.0.get(&receipt.survivors_of)
    }
}
