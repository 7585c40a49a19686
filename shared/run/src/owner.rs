//! The stage that owns a step's name. A step removes stale outputs under its name, so that two
//! stages must never share one.

use sluice_manifest::{Error, Receipt, Result, StepName, layout};
use sluice_store::Store;

/// The number of receipts that are read to find the owner. Damaged ones are skipped.
const LOOKED_AT: usize = 3;

/// Checks that no other stage owns a step's name: it is not reserved for another stage, and the run
/// contains no receipts of another stage under it. Otherwise, the step would remove the outputs of
/// the other stage.
///
/// # Errors
///
/// Returns a usage error if another stage owns the name, and otherwise a storage error.
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
