//! The names of the images that a trial keeps, gains and loses, as text files of one name a line.

use std::io::Write;

use anyhow::Result;
use sluice_harness::Context;
use sluice_manifest::StepName;
use sluice_manifest::rows::NameRow;
use sluice_store::Location;

/// Whether a list holds an image, by whether it is kept in the run and in the trial.
type Holds = fn(bool, bool) -> bool;

const LISTS: [(&str, Holds); 3] = [
    ("kept.txt", |_, then| then),
    ("gained.txt", |now, then| then && !now),
    ("lost.txt", |now, then| now && !then),
];

/// Writes the lists. The samples of the run and of the trial are the same, in the same order, so they
/// are read side by side.
///
/// # Errors
/// Data, when a manifest is broken; of storage.
pub fn write(folder: &str, run: &Context, trial: &Context, last: Option<&StepName>) -> Result<()> {
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
