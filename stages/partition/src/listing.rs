//! Which shards `--input` names.
//!
//! A pattern is a folder (all shards below it, at any depth), a shard, a glob (`*` stays within a
//! folder, `**` does not), or a WebDataset range such as `train-{000..099}.tar`. Shard paths are
//! relative to the root: the folder that all patterns have in common.

use std::collections::{BTreeMap, HashSet};

use glob::{MatchOptions, Pattern};
use sluice_manifest::{Error, Result, ShardPath};
use sluice_store::{Location, ObjectInfo, Store};

/// Endings of the files that are shards.
pub const SHARD_ENDINGS: [&str; 4] = [".tar", ".tar.gz", ".tgz", ".tar.zst"];

/// The most names that one range may stand for.
const RANGE_LIMIT: u64 = 1_000_000;

/// The shards of an input, by path.
pub struct Listing {
    /// What the paths are relative to.
    pub root: Location,
    /// The shards, sorted by path.
    pub shards: BTreeMap<ShardPath, ObjectInfo>,
}

/// Lists the shards that the patterns name. Fails when a pattern names none.
pub fn list(patterns: &[String]) -> Result<Listing> {
    let mut found: BTreeMap<String, ObjectInfo> = BTreeMap::new();
    let mut bases = Vec::new();
    for pattern in patterns {
        let (base, objects) = match_one(pattern)?;
        if objects.is_empty() {
            return Err(
                Error::data(format!("--input {pattern}: no shards")).hint(format!(
                    "shards are files that end in {}",
                    SHARD_ENDINGS.join(", ")
                )),
            );
        }
        for object in objects {
            found.insert(format!("{base}/{}", object.path), object);
        }
        bases.push(base.to_string());
    }
    let root = common_folder(&bases)?;
    let shards = found.into_iter().map(|(uri, object)| {
        let path = uri[root.len()..].trim_start_matches('/').to_owned();
        (ShardPath::new(path), object)
    });
    let shards: BTreeMap<_, _> = shards.collect();
    refuse_nested(&shards)?;
    Ok(Listing {
        shards,
        root: Location::parse(&root)?,
    })
}

/// `a.tar` beside `a/b.tar` would give two samples one `image_id`: key `b/1` of the first and key
/// `1` of the second.
fn refuse_nested(shards: &BTreeMap<ShardPath, ObjectInfo>) -> Result<()> {
    for shard in shards.keys() {
        let folders = shard
            .as_str()
            .match_indices('/')
            .map(|(at, _)| &shard.as_str()[..at]);
        for folder in folders {
            let other = ShardPath::new(format!("{folder}.tar"));
            if shards.contains_key(&other) {
                return Err(Error::data(format!(
                    "{other} and {shard}: a shard and a folder of one name make image ids ambiguous"
                ))
                .hint("curate them in two runs, or rename one of them"));
            }
        }
    }
    Ok(())
}

/// The shards of a folder, of a glob or a range, or one shard, with the folder their paths start
/// at.
fn match_one(name: &str) -> Result<(Location, Vec<ObjectInfo>)> {
    let Some(special) = name.find(['*', '?', '[', '{']) else {
        let location = Location::parse(name)?;
        if is_shard(name)
            && let Some((folder, file)) = location.split()
            && let Some(object) = Store::open(&folder)?.stat(&file)?
        {
            return Ok((folder, vec![object]));
        }
        let mut objects = Store::open(&location)?.list("")?;
        objects.retain(|object| is_shard(&object.path));
        return Ok((location, objects));
    };
    let slash = name[..special].rfind('/').map_or(0, |slash| slash + 1);
    let (folder, rest) = name.split_at(slash);
    let location = Location::parse(if folder.is_empty() { "." } else { folder })?;
    let store = Store::open(&location)?;
    // One listing of what begins alike costs a request for a thousand objects; asking for each
    // shard of a range would cost a request for one.
    let mut objects = store.list_beginning(&name[slash..special])?;
    let wanted = Wanted::new(name, rest)?;
    objects.retain(|object| is_shard(&object.path) && wanted.matches(&object.path));
    Ok((location, objects))
}

/// What a pattern wants, its folder left out.
struct Wanted {
    /// Patterns of globs, one for each combination of numbers of the ranges before them.
    globs: Vec<Pattern>,
    names: HashSet<String>,
}

impl Wanted {
    fn new(pattern: &str, rest: &str) -> Result<Self> {
        let mut wanted = Self {
            globs: Vec::new(),
            names: HashSet::new(),
        };
        for name in expand_range(pattern, rest)? {
            if name.contains(['*', '?', '[']) {
                let glob = Pattern::new(&name);
                wanted
                    .globs
                    .push(glob.map_err(|e| Error::usage(format!("--input {pattern}: {e}")))?);
            } else {
                wanted.names.insert(name);
            }
        }
        Ok(wanted)
    }

    fn matches(&self, path: &str) -> bool {
        let options = MatchOptions {
            require_literal_separator: true,
            ..MatchOptions::new()
        };
        self.names.contains(path)
            || self
                .globs
                .iter()
                .any(|glob| glob.matches_with(path, options))
    }
}

fn is_shard(path: &str) -> bool {
    SHARD_ENDINGS.iter().any(|ending| path.ends_with(ending))
}

/// `a{08..11}.tar` to its names; other names stay as they are.
fn expand_range(pattern: &str, name: &str) -> Result<Vec<String>> {
    let Some((head, rest)) = name.split_once('{') else {
        return Ok(vec![name.to_owned()]);
    };
    let wrong = || {
        Error::usage(format!("--input {pattern}: not a range of shards"))
            .hint("write ranges as train-{000..099}.tar")
    };
    let (range, tail) = rest.split_once('}').ok_or_else(wrong)?;
    let (first, last) = range.split_once("..").ok_or_else(wrong)?;
    let from: u64 = first.parse().map_err(|_| wrong())?;
    let to: u64 = last.parse().map_err(|_| wrong())?;
    if from > to || to - from >= RANGE_LIMIT {
        return Err(wrong());
    }
    let width = first.len();
    let mut names = Vec::new();
    for number in from..=to {
        names.extend(expand_range(
            pattern,
            &format!("{head}{number:0width$}{tail}"),
        )?);
    }
    Ok(names)
}

/// The longest folder that all the folders lie in.
fn common_folder(folders: &[String]) -> Result<String> {
    let mut common: Vec<&str> = folders
        .first()
        .map(|f| f.split('/').collect())
        .unwrap_or_default();
    for folder in folders {
        let same = common
            .iter()
            .zip(folder.split('/'))
            .take_while(|(a, b)| **a == *b);
        common.truncate(same.count());
    }
    let is_uri = folders.iter().any(|folder| folder.contains("://"));
    // `s3:`, nothing and a bucket.
    if is_uri && common.len() < 3 {
        return Err(
            Error::usage("--input: the shards lie in different stores or buckets")
                .hint("curate each in a run of its own, or copy one beside the other"),
        );
    }
    let folder = common.join("/");
    Ok(match folder.is_empty() {
        true => "/".to_owned(),
        false => folder,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(memory: &str, paths: &[&str]) -> String {
        let root = format!("memory://{memory}");
        let store = Store::create(&Location::parse(&root).unwrap()).unwrap();
        for path in paths {
            store.put(path, path.as_bytes().to_vec()).unwrap();
        }
        root
    }

    fn paths(patterns: &[String]) -> (String, Vec<String>) {
        let listing = list(patterns).unwrap();
        let shards = listing
            .shards
            .keys()
            .map(|shard| shard.to_string())
            .collect();
        (listing.root.to_string(), shards)
    }

    #[test]
    fn folders_globs_ranges_and_shards() {
        let root = put(
            "listing",
            &[
                "x/a.tar",
                "x/b/c.tgz",
                "x/b/d.tar.zst",
                "x/e.txt",
                "y/00.tar",
                "y/01.tar",
                "y/02.tar",
            ],
        );
        let at = |path: &str| format!("{root}/{path}");
        assert_eq!(
            paths(&[at("x")]),
            (
                at("x"),
                ["a.tar", "b/c.tgz", "b/d.tar.zst"]
                    .map(String::from)
                    .to_vec()
            )
        );
        assert_eq!(paths(&[at("*/a.tar")]).1, ["x/a.tar"]);
        assert_eq!(paths(&[at("x/*.t*")]).1, ["a.tar"]);
        assert_eq!(paths(&[at("**/*.tgz")]).1, ["x/b/c.tgz"]);
        assert_eq!(
            paths(&[at("y/{00..01}.tar")]),
            (at("y"), vec!["00.tar".to_owned(), "01.tar".to_owned()])
        );
        assert_eq!(
            paths(&[at("y/02.tar"), at("x/b")]),
            (
                root.clone(),
                ["x/b/c.tgz", "x/b/d.tar.zst", "y/02.tar"]
                    .map(String::from)
                    .to_vec()
            )
        );
    }

    #[test]
    fn a_folder_named_like_a_shard_is_refused() {
        let root = put("listing-nested", &["a.tar", "a/b.tar"]);
        let error = list(&[root]).err().unwrap().to_string();
        assert!(error.contains("a.tar and a/b.tar"), "{error}");
    }

    #[test]
    fn shards_of_two_stores_are_refused() {
        let inputs = ["one", "two"].map(|memory| put(memory, &["a.tar"]));
        let error = list(&inputs).err().unwrap().to_string();
        assert!(error.contains("different stores"), "{error}");
    }

    #[test]
    fn nothing_found_is_an_error_with_the_pattern() {
        let root = put("listing-empty", &["a.txt"]);
        for pattern in [
            root.clone(),
            format!("{root}/*.tar"),
            format!("{root}/{{5..1}}.tar"),
        ] {
            let error = list(std::slice::from_ref(&pattern))
                .err()
                .unwrap()
                .to_string();
            assert!(error.contains(&pattern), "{error}");
        }
    }
}
