//! Whose a step's name is: a step removes what is stale under its name, so the name is one stage's.

use sluice_manifest::{Error, Receipt, Result, StepName, layout};
use sluice_store::Store;

/// Receipts that are looked at to learn whose a step is. One that is damaged says nothing.
const LOOKED_AT: usize = 3;

/// Checks that a step's name belongs to a stage: it is not that of another stage's only step, and the
/// run has no receipts of another stage under it. Otherwise the step would take the other's outputs
/// for its own and remove them.
///
/// # Errors
/// Usage, when the name is taken; of storage.
pub fn refuse_other_stage(run: &Store, step: &StepName, stage: &str) -> Result<()> {
    let name = step.as_str();
    if name != stage && [StepName::partition(), StepName::read()].contains(step) {
        return Err(Error::usage(format!("step {name}: the name of a stage"))
            .hint(format!("give the step of the stage {stage} another name")));
    }
    let objects = run.list(&layout::receipts(step))?;
    for object in objects.iter().take(LOOKED_AT) {
        let json = run.get_if_there(&object.path)?;
        let uri = run.uri(&object.path);
        let receipt = json.and_then(|json| Receipt::parse(&json, &uri).ok());
        let Some(receipt) = receipt else { continue };
        if receipt.stage == stage {
            return Ok(());
        }
        let (folder, other) = (run.uri(name), receipt.stage);
        return Err(
            Error::usage(format!("step {name}: {folder} is of the stage {other}")).hint(format!(
                "give the step of the stage {stage} another name, or delete that folder"
            )),
        );
    }
    Ok(())
}
