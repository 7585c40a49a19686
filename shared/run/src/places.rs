//! Input, run and output must not overlap, so that no program writes into its input, under any
//! name.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::Path;

use sluice_manifest::rows::{FileRow, ShardKind};
use sluice_manifest::{Error, Fingerprint, Partition, Result, StepName, layout};
use sluice_store::Location;

use crate::{PartitionPlan, Plan, Run};

/// Checks that neither of two locations contains the other.
///
/// # Errors
///
/// Returns a usage error that names both locations and their flags.
pub fn refuse_overlap(one: (&str, &Location), other: (&str, &Location)) -> Result<()> {
    refuse_inside(one, other)?;
    refuse_inside(other, one)
}

fn refuse_inside(inner: (&str, &Location), outer: (&str, &Location)) -> Result<()> {
    if !inner.1.is_within(outer.1) {
        return Ok(());
    }
    let ((flag, place), (other_flag, other)) = (inner, outer);
    let links = match place.resolved() {
        real if real == *place => String::new(),
        real => format!(" ({real})"),
    };
    Err(Error::usage(format!(
        "{flag} {place}{links} is inside of {other_flag} {other}"
    ))
    .hint("choose separate places"))
}

/// Checks that a local folder can be written to, by creating and removing a folder in its nearest
/// existing ancestor.
///
/// # Errors
///
/// Returns a usage error if it cannot be written to, and a transient error if the disk is full.
pub fn refuse_unwritable(flag: &str, place: &Location) -> Result<()> {
    let existing = place.as_local().map(|path| path.ancestors());
    let Some(folder) = existing.and_then(|mut folders| folders.find(|folder| folder.exists()))
    else {
        return Ok(());
    };
    let refused = |what: String| {
        Error::usage(format!("{flag} {place}: {what}"))
            .hint("choose a folder that can be written to")
    };
    if !folder.is_dir() {
        return Err(refused(format!("{} is not a folder", folder.display())));
    }
    let name = RandomState::new().hash_one(folder);
    let probe = folder.join(format!(".sluice-check-{name:016x}"));
    let made = std::fs::create_dir(&probe).and_then(|()| std::fs::remove_dir(&probe));
    made.map_err(|e| match e.kind() {
        io::ErrorKind::StorageFull => Error::transient(format!("{flag} {place}: {e}")),
        _ => refused(format!("cannot write to {}: {e}", folder.display())),
    })
}

/// The locations of the samples of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputPlaces {
    /// The location that paths of files are relative to.
    root: Location,
    /// Folders that are listed recursively.
    listed: Vec<Location>,
    /// Folders of files that are read, with the path of one of the files.
    read: Vec<(Location, String)>,
}

impl InputPlaces {
    /// Returns the locations of an input: the folders that are listed, and the files that are read,
    /// by their paths below `root` or their URIs.
    pub fn new<'f>(
        root: &Location,
        listed: &[Location],
        files: impl Iterator<Item = &'f str> + Clone,
    ) -> Self {
        let mut listed = listed.to_vec();
        if let Location::Local(root) = root
            && !listed.is_empty()
        {
            listed.extend(linked_folders(root, files.clone()));
        }
        let read = folders(root, files);
        Self {
            root: root.clone(),
            listed,
            read,
        }
    }

    /// Returns the identifier of a new run with this input. It depends on the locations of the run
    /// and of the input.
    pub fn id_of_run(&self, run: &Location) -> String {
        let parts = [run, &self.root].map(|place| place.resolved().to_string());
        Fingerprint::of(parts.iter().map(String::as_str)).to_string()
    }

    /// Returns the input locations of a run.
    ///
    /// # Errors
    ///
    /// Returns a data error if the plan or its list of files is damaged, and otherwise a storage
    /// error.
    pub fn of_plan(plan: &Plan, run: &Run) -> Result<Self> {
        let root = Location::parse(&plan.info.input)?;
        let listed = plan.info.listed.iter().map(|uri| Location::parse(uri));
        let listed = listed.collect::<Result<Vec<_>>>()?;
        let mut files = Vec::new();
        for PartitionPlan { partition, shards } in &plan.partitions {
            let (listed, named): (Vec<_>, Vec<_>) =
                shards.iter().partition(|row| row.kind == ShardKind::Files);
            files.extend(named.iter().map(|row| row.shard.to_string()));
            if !listed.is_empty() {
                files.extend(one_of_each_folder(run, *partition)?);
            }
        }
        let files = files.iter().map(String::as_str);
        Ok(Self::new(&root, &listed, files))
    }

    /// Checks that an output location contains no shards and is not listed as input.
    ///
    /// # Errors
    ///
    /// Returns a usage error if it is.
    pub fn refuse(&self, flag: &str, place: &Location) -> Result<()> {
        for folder in &self.listed {
            refuse_inside((flag, place), ("--input", folder))?;
        }
        let mut read = self.read.iter();
        match read.find(|(folder, _)| folder.is_within(place)) {
            None => Ok(()),
            Some((_, file)) => Err(Error::usage(format!(
                "{flag} {place}: contains files of the input, such as {file}"
            ))
            .hint("choose a folder of its own")),
        }
    }
}

/// Returns one file of each folder in a partition's list of files.
fn one_of_each_folder(run: &Run, partition: Partition) -> Result<Vec<String>> {
    let path = layout::FILES.path(&StepName::partition(), partition.into());
    let mut folders: BTreeMap<String, String> = BTreeMap::new();
    for row in run.rows::<FileRow>(&path)? {
        if let Some(file) = row?.path {
            folders.entry(folder_of(&file).to_owned()).or_insert(file);
        }
    }
    Ok(folders.into_values().collect())
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Returns the folders outside of the root that are reached through links. A listing follows them.
fn linked_folders<'f>(root: &Path, files: impl Iterator<Item = &'f str>) -> Vec<Location> {
    let inside = Location::Local(root.to_owned());
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut linked = Vec::new();
    for file in files.filter(|file| !is_absolute(file)) {
        for (at, _) in file.match_indices('/') {
            let folder = &file[..at];
            if seen.insert(folder) {
                linked.push(Location::Local(root.join(folder)).resolved());
            }
        }
    }
    linked.retain(|folder| !folder.is_within(&inside));
    linked
}

/// Returns the folders of files, with local links resolved. A list may contain files of stores that
/// do not exist.
fn folders<'f>(root: &Location, files: impl Iterator<Item = &'f str>) -> Vec<(Location, String)> {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let mut folders = Vec::new();
    for file in files {
        let place = match (is_absolute(file), root) {
            (true, _) => Location::parse(file),
            (false, Location::Local(root)) => Ok(Location::Local(root.join(file))),
            (false, root) => Location::parse(&format!("{root}/{file}")),
        };
        if let Ok(place) = place
            && let Some((folder, _)) = place.resolved().split()
            && seen.insert(folder.to_string())
        {
            folders.push((folder, file.to_owned()));
        }
    }
    folders
}

/// Returns whether a file is given by an absolute path or a URI.
fn is_absolute(file: &str) -> bool {
    file.starts_with('/') || file.contains("://")
}

#[cfg(test)]
mod tests {
    use sluice_manifest::Class;
    use sluice_store::Storage;

    use super::*;

    fn parse(uri: &str) -> Location {
        Location::parse(uri).unwrap()
    }

    fn is_refused(place: &str, root: &str, listed: &[&str], file: &str) -> bool {
        let listed: Vec<Location> = listed.iter().map(|uri| parse(uri)).collect();
        let input = InputPlaces::new(&parse(root), &listed, [file].into_iter());
        let outcome = input.refuse("--output", &parse(place));
        if let Err(e) = &outcome {
            assert_eq!(e.class(), Class::Usage);
            let named = format!("--output {}", parse(place));
            assert!(e.to_string().contains(&named), "{e}");
        }
        outcome.is_err()
    }

    #[test]
    fn places_that_are_input_are_refused() {
        let tar = "train/0.tar";
        for (place, root, listed, file) in [
            ("/data/out", "/data", &["/data"][..], tar),
            ("/data/x/../out/", "/data", &["/data/"], tar),
            ("file:///data/out", "/data", &["/data"], tar),
            ("/data", "/data", &["/data"], tar),
            ("/", "/data", &[], tar),
            ("/d/b/out", "/d", &["/d/b"], "a/0.tar"),
            ("memory://m/in/x", "memory://m/in", &["memory://m/in"], tar),
            ("s3://b/in/x", "s3://b/in", &["s3://b/in"], tar),
            ("S3://b/in//x/", "s3://b/in", &["s3://b/in"], tar),
            ("s3://b/in", "s3://b/in", &[], tar),
            ("s3://b", "s3://b/in", &[], tar),
            ("/data/train", "/data", &[], tar),
            // Files of a list.
            ("/data", "/data", &[], "list.csv"),
            ("/far", "/data", &[], "/far/0.jpg"),
            ("s3://b", "/data", &[], "s3://b/x/0.jpg"),
        ] {
            assert!(is_refused(place, root, listed, file), "{place} {listed:?}");
        }
        for (place, root, listed, file) in [
            ("/data/out", "/data", &[][..], tar),
            ("/data/out", "/data", &[], "list.csv"),
            ("/far/out", "/data", &[], "/far/0.jpg"),
            ("s3://b/out", "/data", &[], "s3://b/0.jpg"),
            ("/data2", "/data", &["/data"], tar),
            ("/d/out", "/d", &["/d/a", "/d/b"], "a/0.tar"),
            ("memory://m/input", "memory://m/in", &["memory://m/in"], tar),
            ("memory://n/in", "memory://m/in", &["memory://m/in"], tar),
            ("s3://c/in/x", "s3://b/in", &["s3://b/in"], tar),
        ] {
            assert!(!is_refused(place, root, listed, file), "{place} {listed:?}");
        }
    }

    #[test]
    fn the_run_and_the_output_are_apart() {
        for (output, run) in [
            ("/runs/a", "/runs/a"),
            ("/runs/a/out", "/runs/a"),
            ("/out", "/out/run"),
            ("/runs/b/../a", "file:///runs/a/"),
            ("s3://b/r/out", "s3://b/r"),
            ("s3://b", "S3://b/r"),
            ("memory://m/r/out", "memory://m/r"),
        ] {
            let (output, run) = (parse(output), parse(run));
            let error = refuse_overlap(("--output", &output), ("--run", &run)).unwrap_err();
            assert_eq!(error.class(), Class::Usage);
            let text = error.to_string();
            assert!(text.contains(&format!("--output {output}")), "{text}");
            assert!(text.contains(&format!("--run {run}")), "{text}");
        }
        for (output, run) in [("/runs/a2", "/runs/a"), ("gs://b/r/out", "s3://b/r")] {
            refuse_overlap(("--output", &parse(output)), ("--run", &parse(run))).unwrap();
        }
    }

    /// Different names of one folder or shard: outputs must not be written where input is read.
    #[cfg(unix)]
    #[test]
    fn links_do_not_hide_the_input() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, path(name)).unwrap();
        let store = Storage::default()
            .create(&Location::Local(path("")))
            .unwrap();
        for name in ["in/0.tar", "far/1.tar", "links/notes.txt"] {
            store.put(name, "x").unwrap();
        }
        link("in", "link");
        link("../in/0.tar", "links/0.tar");
        link("../far", "links/more");
        let input = |folder: &str, shard: &str| {
            let root = Location::Local(path(folder));
            InputPlaces::new(&root, std::slice::from_ref(&root), [shard].into_iter())
        };
        for (place, folder, shard) in [
            ("link", "in", "0.tar"),
            ("link/out", "in", "0.tar"),
            ("in", "link", "0.tar"),
            ("in/out", "link", "0.tar"),
            ("in", "links", "0.tar"),
            ("link", "links", "0.tar"),
            ("far", "links", "more/1.tar"),
            ("far/out", "links", "more/1.tar"),
        ] {
            let place_at = Location::Local(path(place));
            let refused = input(folder, shard).refuse("--output", &place_at);
            assert!(refused.is_err(), "{place} {folder}");
        }
        let beside = Location::Local(path("out"));
        input("links", "0.tar").refuse("--output", &beside).unwrap();
    }
}
