//! Where the curated dataset may go: nothing of anybody else's is overwritten, and what is written is
//! not taken for input the next time.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io;

use sluice_harness::Plan;
use sluice_manifest::rows::PlanRow;
use sluice_manifest::{Error, Result, Unit, UnitKind, layout};
use sluice_store::{Location, Store};

use crate::card;

/// Checks what can be known of an output before the work.
///
/// # Errors
/// Usage, when the output and the run are inside each other, when a local folder cannot be written,
/// or when the folder holds files that no export wrote.
pub fn check(output: &Location, run: &Location) -> Result<()> {
    refuse_run(output, run)?;
    refuse_unwritable(output)?;
    refuse_foreign(output)
}

fn refused(output: &Location, what: &str) -> Error {
    Error::usage(format!("--output {output}: {what}")).hint("choose a folder of its own")
}

fn refuse_run(output: &Location, run: &Location) -> Result<()> {
    let (place, run) = (resolved(output), resolved(run));
    if place == run {
        return Err(refused(output, "is the folder of the run"));
    }
    if is_inside(&place, &run) {
        return Err(refused(output, &format!("is inside the run {run}")));
    }
    if is_inside(&run, &place) {
        return Err(refused(output, &format!("the run {run} is inside it")));
    }
    Ok(())
}

/// Makes and removes a folder in the nearest folder that exists.
fn refuse_unwritable(output: &Location) -> Result<()> {
    let existing = output.as_local().map(|path| path.ancestors());
    let Some(folder) = existing.and_then(|mut folders| folders.find(|folder| folder.exists()))
    else {
        return Ok(());
    };
    if !folder.is_dir() {
        let what = format!("{} is not a folder", folder.display());
        return Err(refused(output, &what));
    }
    let name = RandomState::new().hash_one(folder);
    let probe = folder.join(format!(".sluice-check-{name:016x}"));
    let made = std::fs::create_dir(&probe).and_then(|()| std::fs::remove_dir(&probe));
    made.map_err(|e| match e.kind() {
        io::ErrorKind::StorageFull => Error::transient(format!("--output {output}: {e}")),
        _ => refused(
            output,
            &format!("cannot write to {}: {e}", folder.display()),
        ),
    })
}

/// Checks that the folder is empty, or holds an earlier export: one that came to its card, or one
/// that was interrupted and left nothing but shards, each tar with its table. (`write` publishes the
/// table first.) Names that begin with a dot do not count, such as a version control's.
fn refuse_foreign(output: &Location) -> Result<()> {
    let card = Store::create(output)?.get_if_there(layout::OUTPUT_CARD)?;
    if card.is_some_and(|card| card::is_card(&String::from_utf8_lossy(&card))) {
        return Ok(());
    }
    let names = names_in(output)?;
    match names.iter().find(|name| !is_of_export(name, &names)) {
        None => Ok(()),
        Some(foreign) => Err(Error::usage(format!(
            "--output {output}: holds {foreign:?}, which no export wrote"
        ))
        .hint("choose an empty folder, or one that an earlier export wrote")),
    }
}

fn is_of_export(name: &str, names: &BTreeSet<String>) -> bool {
    if name == layout::OUTPUT_INDEX {
        return true;
    }
    let Some((stem, extension)) = name.rsplit_once('.') else {
        return false;
    };
    let is_shard = stem
        .parse::<Unit>()
        .is_ok_and(|unit| unit.kind == UnitKind::Shard);
    is_shard
        && ["tar", "parquet"].contains(&extension)
        && names.contains(&format!("{stem}.parquet"))
}

/// Returns the names directly inside a folder, without those that begin with a dot.
fn names_in(folder: &Location) -> Result<BTreeSet<String>> {
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
            let objects = Store::create(folder)?.list("")?.into_iter();
            let names = objects.filter_map(|object| {
                let name = object.path.split('/').next();
                name.map(str::to_owned)
            });
            names.collect()
        }
    };
    let shown = names.into_iter().filter(|name| !name.starts_with('.'));
    Ok(shown.collect())
}

/// Checks that an output is not among the source shards, nor below a folder that `partition` lists.
///
/// # Errors
/// Usage, when it is.
pub fn refuse_input(output: &Location, source: &Plan) -> Result<()> {
    let place = resolved(output);
    let root = resolved(&Location::parse(&source.info.input)?);
    let shards = source.partitions.iter().flat_map(|p| &p.shards);
    let mut seen = "";
    for (number, planned) in shards.enumerate() {
        let shard = planned.shard.as_str();
        let folder = shard.rsplit_once('/').map_or("", |(folder, _)| folder);
        if number > 0 && folder == seen {
            continue;
        }
        seen = folder;
        if place == Location::parse(&format!("{root}/{folder}"))? {
            let what = format!("holds source shards, {shard} for one");
            return Err(refused(output, &what));
        }
    }
    for folder in listed_folders(source)? {
        let folder = resolved(&folder);
        if place == folder || is_inside(&place, &folder) {
            return Err(refused(output, &format!("is inside the input {folder}")));
        }
    }
    Ok(())
}

/// Returns the folders that `partition` lists with everything below them.
fn listed_folders(source: &Plan) -> Result<Vec<Location>> {
    let info = &source.info;
    let mut folders = Vec::new();
    for pattern in &info.patterns {
        let mut shards = source.partitions.iter().flat_map(|p| &p.shards);
        let wildcard = pattern.find(['*', '?', '[', '{']);
        let folder = match wildcard {
            None if shards.any(|planned| names(pattern, planned)) => continue,
            None => pattern.as_str(),
            Some(at) if pattern[at..].contains("**") => {
                let slash = pattern[..at].rfind('/');
                slash.map_or(".", |slash| &pattern[..=slash])
            }
            Some(_) => continue,
        };
        folders.push(match info.patterns.len() {
            // The root is this folder, whatever the working directory was.
            1 => Location::parse(&info.input)?,
            _ => Location::parse(folder)?,
        });
    }
    Ok(folders)
}

/// Whether a pattern without wildcards is the name of this shard.
fn names(pattern: &str, planned: &PlanRow) -> bool {
    pattern.rsplit('/').next() == planned.shard.as_str().rsplit('/').next()
}

/// Whether a location is below another one. One that is equal is not.
fn is_inside(inner: &Location, outer: &Location) -> bool {
    let is_below = |inner: &str, outer: &str| match outer {
        "" => !inner.is_empty(),
        outer => inner
            .strip_prefix(outer)
            .is_some_and(|rest| rest.starts_with('/')),
    };
    match (inner, outer) {
        (Location::Local(inner), Location::Local(outer)) => {
            inner != outer && inner.starts_with(outer)
        }
        (
            Location::Memory { name, path },
            Location::Memory {
                name: other,
                path: folder,
            },
        ) => name == other && is_below(path, folder),
        (
            Location::Bucket {
                scheme,
                bucket,
                path,
            },
            Location::Bucket {
                scheme: other_scheme,
                bucket: other,
                path: folder,
            },
        ) => (scheme, bucket) == (other_scheme, other) && is_below(path, folder),
        _ => false,
    }
}

/// Returns a local path with the links in its existing part resolved.
fn resolved(location: &Location) -> Location {
    let Some(path) = location.as_local() else {
        return location.clone();
    };
    let real = path.ancestors().find_map(|existing| {
        let real = std::fs::canonicalize(existing).ok()?;
        Some(real.join(path.strip_prefix(existing).ok()?))
    });
    Location::Local(real.unwrap_or_else(|| path.to_owned()))
}

#[cfg(test)]
mod tests {
    use sluice_harness::PartitionPlan;
    use sluice_manifest::{Class, Partition, RunInfo, ShardPath};

    use super::*;

    fn parse(uri: &str) -> Location {
        Location::parse(uri).unwrap()
    }

    fn info(input: &str, patterns: &[&str]) -> RunInfo {
        RunInfo {
            layout: RunInfo::LAYOUT,
            input: input.into(),
            patterns: patterns.iter().map(|&p| p.to_owned()).collect(),
            partitions: 0,
            shards: 0,
            bytes: 0,
        }
    }

    fn is_refused(output: &str, input: &str, patterns: &[&str]) -> bool {
        let source = Plan {
            info: info(input, patterns),
            partitions: vec![PartitionPlan {
                partition: Partition(0),
                shards: vec![PlanRow {
                    partition: Partition(0),
                    shard: ShardPath::new("train/0.tar"),
                    bytes: 0,
                    etag: None,
                    modified: None,
                }],
            }],
        };
        refuse_input(&parse(output), &source).is_err()
    }

    #[test]
    fn outputs_that_would_be_taken_for_input_are_refused() {
        let memory = ["memory://m/in"];
        assert!(is_refused("/data/out", "/data", &["/data"]));
        assert!(is_refused("/data", "/data", &["data"]));
        assert!(is_refused("/data/out", "/data", &["/data/**/*.tar"]));
        assert!(is_refused("/d/b/out", "/d", &["/d/a/*.tar", "/d/b"]));
        assert!(is_refused("memory://m/in/x", memory[0], &memory));
        assert!(is_refused("s3://b/in/x", "s3://b/in", &["s3://b/in"]));
        assert!(is_refused("/data/train", "/data", &["/data/train/0.tar"]));
        assert!(!is_refused("/data/out", "/data", &["/data/train/0.tar"]));
        assert!(!is_refused("/data2", "/data", &["/data"]));
        assert!(!is_refused("/data/out", "/data", &["/data/*.tar"]));
        assert!(!is_refused("/data/out", "/data", &["/data/{0..9}.tar"]));
        assert!(!is_refused("/d/out", "/d", &["/d/a", "/d/b"]));
        assert!(!is_refused("memory://m/input", memory[0], &memory));
        assert!(!is_refused("memory://n/in", memory[0], &memory));
        assert!(!is_refused("s3://c/in/x", "s3://b/in", &["s3://b/in"]));
    }

    #[test]
    fn the_run_and_the_output_are_apart() {
        for (output, run) in [
            ("/runs/a", "/runs/a"),
            ("/runs/a/out", "/runs/a"),
            ("/out", "/out/run"),
            ("s3://b/r/out", "s3://b/r"),
            ("s3://b", "s3://b/r"),
            ("memory://m/r/out", "memory://m/r"),
        ] {
            let error = refuse_run(&parse(output), &parse(run)).unwrap_err();
            assert_eq!(error.class(), Class::Usage);
            assert!(error.to_string().contains(&format!("--output {output}: ")));
        }
        for (output, run) in [("/runs/a2", "/runs/a"), ("gs://b/r/out", "s3://b/r")] {
            refuse_run(&parse(output), &parse(run)).unwrap();
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_to_the_run_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("run")).unwrap();
        std::os::unix::fs::symlink(path("run"), path("link")).unwrap();
        let (output, run) = (
            Location::Local(path("link/out")),
            Location::Local(path("run")),
        );
        assert!(refuse_run(&output, &run).is_err());
    }

    #[test]
    fn an_output_that_cannot_be_made_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(&Location::Local(folder.path().to_owned())).unwrap();
        store.put("file", "x").unwrap();
        let error = refuse_unwritable(&Location::Local(folder.path().join("file/out")));
        let text = error.unwrap_err().to_string();
        assert!(text.contains("file is not a folder"), "{text}");
        refuse_unwritable(&Location::Local(folder.path().join("a/b"))).unwrap();
        let left: Vec<String> = names_in(store.location()).unwrap().into_iter().collect();
        assert_eq!(left, ["file"]);
        if cfg!(target_os = "linux") {
            let text = refuse_unwritable(&parse("/proc/sluice/out")).unwrap_err();
            assert!(text.to_string().contains("cannot write to /proc"), "{text}");
        }
    }

    /// Whether a folder with these files may be written to, on disk and in memory.
    fn is_free(memory: &str, files: &[(&str, &str)]) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let local = Location::Local(folder.path().join("out"));
        let free = [local, parse(&format!("memory://place-{memory}/out"))].map(|location| {
            let store = Store::create(&location).unwrap();
            for (path, content) in files {
                store.put(path, content.as_bytes().to_vec()).unwrap();
            }
            refuse_foreign(&location).is_ok()
        });
        assert_eq!(free[0], free[1]);
        free[0]
    }

    #[test]
    fn files_of_others_are_not_overwritten() {
        let card = "---\ntags:\n- image\n- sluice\n---\n# A dataset\n";
        let shard = [("shard-00000.tar", ""), ("shard-00000.parquet", "")];
        assert!(is_free("empty", &[]));
        assert!(is_free("hidden", &[(".git/config", "")]));
        assert!(is_free("finished", &[("README.md", card), ("LICENSE", "")]));
        assert!(is_free("interrupted", &shard));
        assert!(is_free("nothing-kept", &[("index.json", "")]));
        assert!(!is_free("other", &[("notes.txt", "")]));
        assert!(!is_free("folder", &[("photos/1.jpg", "")]));
        assert!(!is_free("dataset", &[("README.md", "# Mine\n"), shard[0]]));
        assert!(!is_free("tars", &[shard[0], ("index.json", "")]));
        assert!(!is_free("mixed", &[shard[0], shard[1], ("a.txt", "")]));
    }
}
