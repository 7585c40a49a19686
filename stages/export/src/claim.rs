//! The claim on an output: a small object in it that names the run that writes it.
//!
//! The run is named as seen from the output where both are on one store, so the two can be moved or
//! mounted elsewhere together. Which run it is says its identity: another run at that path is not the
//! owner, and the owner stays it when it is moved. Only `plan` writes claims; the tasks of `write` and
//! `index` read it and stop when the output is not theirs any more.

use serde::{Deserialize, Serialize};
use sluice_manifest::layout::OUTPUT_CLAIM;
use sluice_manifest::{Error, Result, StepName};
use sluice_store::{Location, Store};

/// The run and step that write an output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The run: a path relative to the output, or a URI if it is in another store.
    run: String,
    /// The run's identity; empty where an older version wrote the claim or made the run.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    id: String,
    /// The export's step.
    step: StepName,
}

impl Claim {
    /// Returns the claim of a run's step on an output.
    pub fn new(run: &Location, id: &str, step: &StepName, output: &Location) -> Self {
        Self {
            run: seen_from(&output.resolved(), &run.resolved()),
            id: id.to_owned(),
            step: step.clone(),
        }
    }

    /// Reads the claim on an output. Returns `None` if there is none.
    ///
    /// # Errors
    ///
    /// Returns a usage error if the claim is malformed, and otherwise a storage error.
    pub fn read(output: &Store) -> Result<Option<Self>> {
        let Some(json) = output.get_if_there(OUTPUT_CLAIM)? else {
            return Ok(None);
        };
        let claim = serde_json::from_slice(&json).map_err(|e| {
            let uri = output.uri(OUTPUT_CLAIM);
            Error::usage(format!("{uri}: cannot parse the claim on this output: {e}"))
                .hint("choose another output, or replace this one with --overwrite")
        })?;
        Ok(Some(claim))
    }

    /// Writes the claim, unless it already exists.
    ///
    /// # Errors
    ///
    /// Returns a storage error if it cannot be read or written.
    pub fn write(&self, output: &Store) -> Result<()> {
        let json = serde_json::to_vec(self)
            .map_err(|e| Error::bug(format!("a claim does not serialise: {e}")))?;
        match output.get_if_there(OUTPUT_CLAIM)? {
            Some(found) if *found == *json => Ok(()),
            _ => output.put(OUTPUT_CLAIM, json),
        }
    }

    /// Whether it names its run by an identity, not by a path alone.
    pub fn has_id(&self) -> bool {
        !self.id.is_empty()
    }

    /// Refuses an output with another claim than this one.
    ///
    /// # Errors
    ///
    /// Returns a usage error that names the owner.
    pub fn refuse_other(&self, found: &Self, output: &Location) -> Result<()> {
        let is_same_run = if self.id.is_empty() || found.id.is_empty() {
            self.run == found.run
        } else {
            self.id == found.id
        };
        if is_same_run && self.step == found.step {
            return Ok(());
        }
        let Claim { run, step, .. } = found;
        let earlier = if !is_same_run && *run == self.run {
            "an earlier run at"
        } else {
            "the run"
        };
        Err(Error::usage(format!(
            "--output {output}: is the output of {earlier} {run} (step {step})"
        )))
    }
}

/// Returns a location as a path relative to a folder of the same store, or else its URI.
fn seen_from(folder: &Location, place: &Location) -> String {
    let ((here, from), (there, to)) = (parts(folder), parts(place));
    if here != there {
        return place.to_string();
    }
    let (from, to): (Vec<_>, Vec<_>) = (keys(&from).collect(), keys(&to).collect());
    let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = from[common..].iter().map(|_| "..");
    let path: Vec<&str> = up.chain(to[common..].iter().copied()).collect();
    path.join("/")
}

/// Returns a location's store and its path there.
fn parts(location: &Location) -> (String, String) {
    match location {
        Location::Local(path) => (String::new(), path.to_string_lossy().into_owned()),
        Location::Bucket {
            scheme,
            bucket,
            path,
        } => (format!("{scheme}://{bucket}"), path.clone()),
        Location::Memory { name, path } => (format!("memory://{name}"), path.clone()),
    }
}

fn keys(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_named_as_seen_from_the_output() {
        let parse = |uri: &str| Location::parse(uri).unwrap();
        for (output, run, expected) in [
            ("/no/out", "/no/out.run", "../out.run"),
            ("s3://b/out", "s3://b/runs/a/", "../runs/a"),
            ("memory://m/x/out", "memory://m/y", "../../y"),
            ("s3://b/out", "s3://c/out.run", "s3://c/out.run"),
            ("s3://b/out", "/no/run", "/no/run"),
        ] {
            assert_eq!(seen_from(&parse(output), &parse(run)), expected);
        }
    }
}
