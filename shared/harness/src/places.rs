//! Input, run and output must not overlap: what a program writes is never somebody's input, under
//! whatever name it is reached.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};

use sluice_manifest::{Error, Result, ShardPath};
use sluice_store::Location;

use crate::Plan;

/// Refuses two places of which one is the other or is inside it.
///
/// # Errors
/// Usage; the message names both, with the flags that gave them.
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
        "{flag} {place}{links} lies inside of {other_flag} {other}"
    ))
    .hint("choose places beside each other"))
}

/// Refuses a local place that cannot be written to: makes and removes a folder in the nearest folder
/// that exists.
///
/// # Errors
/// Usage, when it cannot; transient, when there is no room.
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

/// Where the samples of a run come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InputPlaces {
    /// Folders that are listed with everything below them.
    listed: Vec<Location>,
    /// Where shards are, with one of them by name.
    shards: Vec<(Location, ShardPath)>,
}

impl InputPlaces {
    /// Returns the places of an input: its patterns, and the shards that they name below `root`.
    ///
    /// # Errors
    /// Usage, when a pattern is no URI.
    pub fn new<'s>(
        root: &Location,
        patterns: &[String],
        shards: impl Iterator<Item = &'s ShardPath> + Clone,
    ) -> Result<Self> {
        let mut listed = Vec::new();
        for pattern in patterns {
            if let Some(folder) = listed_folder(pattern, shards.clone()) {
                listed.push(match patterns {
                    // The root is this folder, whatever the working directory was.
                    [_] => root.clone(),
                    _ => Location::parse(folder)?,
                });
            }
        }
        if let Location::Local(root) = root
            && !listed.is_empty()
        {
            listed.extend(linked_folders(root, shards.clone()));
        }
        let shards = match root {
            Location::Local(root) => local_folders(root, shards),
            Location::Bucket { .. } | Location::Memory { .. } => folders(root, shards)?,
        };
        Ok(Self { listed, shards })
    }

    /// Returns the places of a run's input.
    ///
    /// # Errors
    /// As [`InputPlaces::new`].
    pub fn of_plan(plan: &Plan) -> Result<Self> {
        let root = Location::parse(&plan.info.input)?;
        let rows = plan.partitions.iter().flat_map(|p| &p.shards);
        Self::new(&root, &plan.info.patterns, rows.map(|row| &row.shard))
    }

    /// Refuses a place to write to that holds shards, or that would be listed as input.
    ///
    /// # Errors
    /// Usage.
    pub fn refuse(&self, flag: &str, place: &Location) -> Result<()> {
        for folder in &self.listed {
            refuse_inside((flag, place), ("--input", folder))?;
        }
        match self
            .shards
            .iter()
            .find(|(folder, _)| folder.is_within(place))
        {
            None => Ok(()),
            Some((_, shard)) => Err(Error::usage(format!(
                "{flag} {place}: holds source shards, {shard} for one"
            ))
            .hint("choose a folder of its own")),
        }
    }
}

/// Returns the folder that a pattern lists with everything below it.
fn listed_folder<'p, 's>(
    pattern: &'p str,
    mut shards: impl Iterator<Item = &'s ShardPath>,
) -> Option<&'p str> {
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    match pattern.find(['*', '?', '[', '{']) {
        None if shards.any(|shard| name(shard.as_str()) == name(pattern)) => None,
        None => Some(pattern),
        // A wildcard for a folder may stand for the place.
        Some(at) if pattern[at..].contains("**") || is_of_folder(&pattern[at..]) => {
            let slash = pattern[..at].rfind('/');
            Some(slash.map_or(".", |slash| &pattern[..=slash]))
        }
        Some(_) => None,
    }
}

/// Whether a folder's name has a wildcard. A range stands for numbers alone.
fn is_of_folder(rest: &str) -> bool {
    let folders = rest.rsplit_once('/').map_or("", |(folders, _)| folders);
    folders.contains(['*', '?', '['])
}

/// Returns the folders outside of the root that links in it lead to: a listing enters them too.
fn linked_folders<'s>(root: &Path, shards: impl Iterator<Item = &'s ShardPath>) -> Vec<Location> {
    let inside = Location::Local(root.to_owned());
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut linked = Vec::new();
    for shard in shards {
        for (at, _) in shard.as_str().match_indices('/') {
            let folder = &shard.as_str()[..at];
            if seen.insert(folder) {
                linked.push(Location::Local(root.join(folder)).resolved());
            }
        }
    }
    linked.retain(|folder| !folder.is_within(&inside));
    linked
}

/// Returns the folders of shards on local disk, links to folders and to shards resolved.
fn local_folders<'s>(
    root: &Path,
    shards: impl Iterator<Item = &'s ShardPath>,
) -> Vec<(Location, ShardPath)> {
    let mut seen: BTreeSet<PathBuf> = BTreeSet::new();
    let mut folders = Vec::new();
    for shard in shards {
        let real = Location::Local(root.join(shard.as_str())).resolved();
        let Some(folder) = real.as_local().and_then(|path| path.parent()) else {
            continue;
        };
        if seen.insert(folder.to_owned()) {
            folders.push((Location::Local(folder.to_owned()), shard.clone()));
        }
    }
    folders
}

fn folders<'s>(
    root: &Location,
    shards: impl Iterator<Item = &'s ShardPath>,
) -> Result<Vec<(Location, ShardPath)>> {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut folders = Vec::new();
    for shard in shards {
        let folder = shard
            .as_str()
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder);
        if seen.insert(folder) {
            let place = Location::parse(&format!("{root}/{folder}"))?;
            folders.push((place, shard.clone()));
        }
    }
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use sluice_manifest::Class;
    use sluice_store::Storage;

    use super::*;

    fn parse(uri: &str) -> Location {
        Location::parse(uri).unwrap()
    }

    fn is_refused(place: &str, root: &str, patterns: &[&str]) -> bool {
        let patterns: Vec<String> = patterns.iter().map(|&p| p.to_owned()).collect();
        let shards = [ShardPath::new("train/0.tar")];
        let input = InputPlaces::new(&parse(root), &patterns, shards.iter()).unwrap();
        let outcome = input.refuse("--output", &parse(place));
        if let Err(e) = &outcome {
            assert_eq!(e.class(), Class::Usage);
            assert!(
                e.to_string()
                    .contains(&format!("--output {}", parse(place))),
                "{e}"
            );
        }
        outcome.is_err()
    }

    #[test]
    fn places_that_are_input_are_refused() {
        let memory = ["memory://m/in"];
        for (place, root, patterns) in [
            ("/data/out", "/data", &["/data"][..]),
            ("/data/x/../out/", "/data", &["/data/"]),
            ("file:///data/out", "/data", &["/data"]),
            ("/data", "/data", &["data"]),
            ("/", "/data", &["/data/*/*.tar"]),
            ("/data/out", "/data", &["/data/**/*.tar"]),
            ("/data/out", "/data", &["/data/*/*.tar"]),
            ("/d/b/out", "/d", &["/d/a/*.tar", "/d/b"]),
            ("memory://m/in/x", memory[0], &memory),
            ("s3://b/in/x", "s3://b/in", &["s3://b/in"]),
            ("S3://b/in//x/", "s3://b/in", &["s3://b/in"]),
            ("s3://b/in", "s3://b/in", &["s3://b/in/*/*.tar"]),
            ("s3://b", "s3://b/in", &["s3://b/in/train/0.tar"]),
            ("/data/train", "/data", &["/data/train/0.tar"]),
        ] {
            assert!(is_refused(place, root, patterns), "{place} {patterns:?}");
        }
        for (place, root, patterns) in [
            ("/data/out", "/data", &["/data/train/0.tar"][..]),
            ("/data2", "/data", &["/data"]),
            ("/data/out", "/data", &["/data/*.tar"]),
            ("/data/out", "/data", &["/data/{0..9}.tar"]),
            ("/data/out", "/data", &["/data/{0..9}/0.tar"]),
            ("/d/out", "/d", &["/d/a", "/d/b"]),
            ("memory://m/input", memory[0], &memory),
            ("memory://n/in", memory[0], &memory),
            ("s3://c/in/x", "s3://b/in", &["s3://b/in"]),
        ] {
            assert!(!is_refused(place, root, patterns), "{place} {patterns:?}");
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

    /// Names of one folder or shard: what is written to must not be read from.
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
            let shards = [ShardPath::new(shard)];
            InputPlaces::new(&root, &[root.to_string()], shards.iter()).unwrap()
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
