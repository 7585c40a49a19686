//! Checks where the curated dataset may be written: files of others are not overwritten, and the
//! output does not become input of the next run.

use std::collections::BTreeSet;
use std::io;

use sluice_manifest::layout::OUTPUT_INDEX;
use sluice_manifest::{Class, Error, Result, StepName, Unit, UnitKind};
use sluice_run::{refuse_overlap, refuse_unwritable};
use sluice_store::{Location, Storage, Store};

use crate::claim::Claim;
use crate::plan::planned_output;

/// The output that an export will write.
#[derive(Debug, Clone, Copy)]
pub struct OutputTarget<'a> {
    /// Opens the output and the run.
    pub storage: &'a Storage,
    /// The folder of the curated dataset.
    pub output: &'a Location,
    /// The run.
    pub run: &'a Location,
    /// The run's identity; empty where it is not known.
    pub id: &'a str,
    /// The export's step.
    pub step: &'a StepName,
    /// Whether the user allows files of others to be replaced.
    pub overwrite: bool,
}

impl OutputTarget<'_> {
    /// Checks an output before the work starts.
    ///
    /// # Errors
    ///
    /// Returns a usage error if the output and the run overlap, the output is not writable, or it
    /// belongs to another run or contains files that no export wrote; and otherwise a storage
    /// error.
    pub fn check(&self) -> Result<()> {
        refuse_overlap(("--output", self.output), ("--run", self.run))?;
        refuse_unwritable("--output", self.output)?;
        self.refuse_unwritable_bucket()?;
        if self.overwrite {
            Ok(())
        } else {
            self.refuse_foreign()
        }
    }

    /// Claims the output for this run. Writes nothing if it is already claimed.
    ///
    /// # Errors
    ///
    /// Returns a storage error if the claim cannot be read or written.
    pub fn claim(&self) -> Result<()> {
        let store = self.storage.create(self.output)?;
        let written = Claim::new(self.run, self.id, self.step, self.output).write(&store);
        store.tidy();
        written
    }

    /// Writes a small object to an output in a bucket and deletes it: the bucket exists, and the
    /// credentials allow writing.
    fn refuse_unwritable_bucket(&self) -> Result<()> {
        if self.output.as_local().is_some() {
            return Ok(());
        }
        let output = self.storage.create(self.output)?;
        output.put(WRITE_CHECK, "sluice\n")?;
        match output.delete(WRITE_CHECK) {
            // Credentials that may not delete leave it there: the next check writes the same name.
            Err(e) if matches!(e.class(), Class::Usage | Class::Data) => {
                tracing::warn!(object = output.uri(WRITE_CHECK), "not deleted: {e}");
                Ok(())
            }
            deleted => deleted,
        }
    }

    /// Checks that the folder is empty or belongs to this run: by its claim or, if an older version
    /// wrote it without one, by the plan in this run. Names that start with a dot are ignored, such
    /// as a version control's.
    fn refuse_foreign(&self) -> Result<()> {
        let output = self.output;
        let hint = "choose an empty folder, or replace what is there with --overwrite";
        let ours = Claim::new(self.run, self.id, self.step, output);
        if let Some(claim) = Claim::read(&self.storage.create(output)?)? {
            return ours.refuse_other(&claim, output).map_err(|e| e.hint(hint));
        }
        let names = names_in(self.storage, output)?;
        let Some(foreign) = names.first() else {
            return Ok(());
        };
        if planned_output(&self.storage.create(self.run)?, self.step)?.as_ref() == Some(output) {
            return Ok(());
        }
        Err(Error::usage(format!(
            "--output {output}: contains {foreign:?}, which no export wrote for this run"
        ))
        .hint(hint))
    }
}

/// Returns what an earlier export left in an output: shards, tables and indexes that are not
/// planned.
///
/// # Errors
///
/// Returns a storage error if the output cannot be listed.
pub fn leftover_shards(output: &Store, planned: &BTreeSet<String>) -> Result<Vec<String>> {
    let names = output.list("")?.into_iter().map(|object| object.path);
    let is_leftover = |name: &String| is_of_export(name) && !planned.contains(name);
    Ok(names.filter(is_leftover).collect())
}

/// Returns whether an object is named like a shard, its table or an index. Those of splits are in a
/// folder.
fn is_of_export(path: &str) -> bool {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let Some((stem, extension)) = name.rsplit_once('.') else {
        return false;
    };
    match extension {
        "tar" | "parquet" if !folder.contains('/') => {
            let unit = stem.parse::<Unit>();
            unit.is_ok_and(|unit| unit.kind == UnitKind::Shard)
        }
        "json" if folder.is_empty() => name == OUTPUT_INDEX || stem.starts_with("index-"),
        _ => false,
    }
}

fn refused(output: &Location, what: &str) -> Error {
    Error::usage(format!("--output {output}: {what}")).hint("choose a separate folder")
}

/// The object that is written to see whether an output in a bucket is writable.
const WRITE_CHECK: &str = ".sluice-check";

/// A folder that file systems create at their root.
const LOST_AND_FOUND: &str = "lost+found";

/// Returns the names directly inside a folder, without `lost+found` and names that start with a
/// dot.
fn names_in(storage: &Storage, folder: &Location) -> Result<BTreeSet<String>> {
    let names: Vec<String> = match folder.as_local() {
        Some(path) => {
            #[expect(
                clippy::disallowed_methods,
                reason = "a listing by the store also enters the folders inside"
            )]
            let entries = match std::fs::read_dir(path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
                entries => entries,
            };
            let names = entries.and_then(|entries| {
                let names = entries.map(|entry| Ok(entry?.file_name()));
                names.collect::<io::Result<Vec<_>>>()
            });
            let names = names.map_err(|e| refused(folder, &format!("cannot list it: {e}")))?;
            let names = names.iter().map(|name| name.to_string_lossy().into_owned());
            names.collect()
        }
        None => {
            let objects = storage.create(folder)?.list("")?.into_iter();
            let names = objects.filter_map(|object| {
                let name = object.path.split('/').next();
                name.map(str::to_owned)
            });
            names.collect()
        }
    };
    let shown = names
        .into_iter()
        .filter(|name| !name.starts_with('.') && name != LOST_AND_FOUND);
    Ok(shown.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(uri: &str) -> Location {
        Location::parse(uri).unwrap()
    }

    #[test]
    fn an_output_that_cannot_be_made_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::default();
        let local = Location::Local(folder.path().to_owned());
        let store = storage.create(&local).unwrap();
        store.put("file", "x").unwrap();
        store.tidy();
        let error = refuse_unwritable("--output", &Location::Local(folder.path().join("file/out")));
        let text = error.unwrap_err().to_string();
        assert!(text.contains("file is not a folder"), "{text}");
        refuse_unwritable("--output", &Location::Local(folder.path().join("a/b"))).unwrap();
        let left: Vec<String> = names_in(&storage, &local).unwrap().into_iter().collect();
        assert_eq!(left, ["file"]);
        if cfg!(target_os = "linux") {
            let text = refuse_unwritable("--output", &parse("/proc/sluice/out")).unwrap_err();
            assert!(text.to_string().contains("cannot write to /proc"), "{text}");
        }
    }

    /// Returns the error for the output of a run with these files, on disk and in memory.
    fn refusal(memory: &str, files: &[(&str, &str)]) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let memory = parse(&format!("memory://place-{memory}"));
        let refusals = [Location::Local(folder.path().to_owned()), memory].map(|base| {
            let storage = &Storage::default();
            let at = |name: &str| parse(&format!("{base}/{name}"));
            let store = storage.create(&at("out")).unwrap();
            for (path, content) in files {
                store.put(path, content.as_bytes().to_vec()).unwrap();
            }
            let place = OutputTarget {
                storage,
                output: &at("out"),
                run: &at("out.run"),
                id: "ours",
                step: &StepName::fixed("export"),
                overwrite: false,
            };
            let overwritten = OutputTarget {
                overwrite: true,
                ..place
            };
            overwritten.check().unwrap();
            place
                .check()
                .err()
                .map(|e| e.to_string().replace(&base.to_string(), ""))
        });
        assert_eq!(refusals[0], refusals[1]);
        refusals[0].clone()
    }

    /// A name, files in the output, and a part of the error.
    type Case<'c> = (&'c str, &'c [(&'c str, &'c str)], Option<&'c str>);

    #[test]
    fn files_of_others_are_not_overwritten() {
        let card = "---\ntags:\n- image\n- sluice\n---\n# A dataset\n";
        let claim = |run: &str, step: &str| format!("{{\"run\":{run:?},\"step\":{step:?}}}");
        let known =
            |run: &str, id: &str| format!("{{\"run\":{run:?},\"id\":{id:?},\"step\":\"export\"}}");
        let (moved, replaced) = (known("../b.run", "ours"), known("../out.run", "before"));
        let ours = claim("../out.run", "export");
        let (other_run, other_step) = (claim("../b.run", "export"), claim("../out.run", "second"));
        let cases: &[Case<'_>] = &[
            ("empty", &[], None),
            ("hidden", &[(".git/config", "")], None),
            ("volume", &[("lost+found/1", "")], None),
            (
                "ours",
                &[(".sluice.json", ours.as_str()), ("LICENSE", "")],
                None,
            ),
            (
                "text",
                &[("notes.txt", "")],
                Some("\"notes.txt\", which no export wrote"),
            ),
            ("card", &[("README.md", "# Mine")], Some("\"README.md\"")),
            ("index", &[("index.json", "{}")], Some("\"index.json\"")),
            ("folder", &[("photos/1.jpg", "")], Some("\"photos\"")),
            ("claimless", &[("README.md", card)], Some("--overwrite")),
            (
                "run",
                &[(".sluice.json", other_run.as_str())],
                Some("the run ../b.run"),
            ),
            (
                "step",
                &[(".sluice.json", other_step.as_str())],
                Some("step second"),
            ),
            ("moved", &[(".sluice.json", moved.as_str())], None),
            (
                "replaced",
                &[(".sluice.json", replaced.as_str())],
                Some("an earlier run at ../out.run"),
            ),
            ("broken", &[(".sluice.json", "{")], Some(".sluice.json")),
        ];
        for &(name, files, expected) in cases {
            let refused = refusal(name, files);
            assert_eq!(refused.is_some(), expected.is_some(), "{name}: {refused:?}");
            let text = refused.unwrap_or_default();
            assert!(
                text.contains(expected.unwrap_or_default()),
                "{name}: {text}"
            );
        }
    }

    #[test]
    fn shards_beyond_the_plan_are_leftover() {
        let store = Storage::default()
            .create(&parse("memory://place-leftover"))
            .unwrap();
        for name in [
            "shard-00001.tar",
            "shard-00002.tar",
            "shard-00002.parquet",
            "shard-3.tar",
            "val/shard-00001.tar",
            "val/more/shard-00001.tar",
            "index.json",
            "index-val.json",
            "mine.json",
        ] {
            store.put(name, "x").unwrap();
        }
        store.put("shard-00003.txt", "x").unwrap();
        let leftover = |planned: &[&str]| {
            let planned = planned.iter().map(|&name| name.to_owned()).collect();
            leftover_shards(&store, &planned).unwrap()
        };
        let first = ["index.json", "shard-00001.tar", "val/shard-00001.tar"];
        assert_eq!(
            leftover(&first),
            ["index-val.json", "shard-00002.parquet", "shard-00002.tar"]
        );
        assert_eq!(leftover(&[]).len(), 6);
    }
}
