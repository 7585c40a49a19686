//! Text files with the names of the images that a trial keeps, gains and loses, one name per line.

use std::io::Write;

use anyhow::Result;
use sluice_manifest::StepName;
use sluice_manifest::rows::NameRow;
use sluice_run::Run;
use sluice_store::Location;

/// Whether a list contains an image, given whether the run and the trial keep it.
type Holds = fn(bool, bool) -> bool;

const LISTS: [(&str, Holds); 3] = [
    ("kept.txt", |_, then| then),
    ("gained.txt", |now, then| then && !now),
    ("lost.txt", |now, then| now && !then),
];

/// Writes the lists. The samples of the run and of the trial are the same and have the same order,
/// so they are read in parallel.
///
/// # Errors
/// Data, when a manifest is broken; or a storage error.
pub(super) fn write(folder: &str, run: &Run, trial: &Run, last: Option<&StepName>) -> Result<()> {
    let place = Location::parse(folder)?;
    let store = run.storage.create(&place)?;
    let (now, then) = (run.survivors(last)?, trial.survivors(last)?);
    let mut lists = Vec::new();
    for (name, holds) in LISTS {
        lists.push((store.writer(name)?, holds));
    }
    for planned in &run.plan()?.partitions {
        run.check_stop()?;
        let now = now.verdicts::<NameRow>(planned.partition)?;
        let then = then.verdicts::<NameRow>(planned.partition)?;
        for (now, then) in now.zip(then) {
            let (now, then) = (now?, then?);
            let is_kept = (now.dropped.is_none(), then.dropped.is_none());
            for (list, holds) in &mut lists {
                if holds(is_kept.0, is_kept.1) {
                    writeln!(list, "{}", then.sample.image_id)?;
                }
            }
        }
    }
    for (list, _) in lists {
        list.finish()?;
    }
    Ok(())
}
