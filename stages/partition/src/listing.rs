//! Which shards `--input` names.
//!
//! A pattern is a folder (all shards below it, at any depth), a shard, a glob (`*` stays within a
//! folder, `**` does not), or a WebDataset range such as `train-{000..099}.tar`. Shard paths are
//! relative to the root: the folder that all patterns have in common.
//!
//! What a pattern names must be there, each shard of a range too. What begins with a dot (`._x.tar`,
//! `.ipynb_checkpoints/`) is taken only where a pattern names the dot.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use glob::{MatchOptions, Pattern};
use sluice_harness::shell;
use sluice_manifest::text::refuse_credentials;
use sluice_manifest::{Error, Result, ShardPath};
use sluice_store::{Location, ObjectInfo, Storage};

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

/// Lists the shards that the patterns name. Fails when patterns name none.
pub fn list(storage: &Storage, patterns: &[String]) -> Result<Listing> {
    let mut found: BTreeMap<String, ObjectInfo> = BTreeMap::new();
    let mut bases = Vec::new();
    let mut missing: Vec<&str> = Vec::new();
    for pattern in patterns {
        let (base, objects) = match_one(storage, pattern)?;
        if objects.is_empty() {
            missing.push(pattern);
        }
        for object in objects {
            found.insert(format!("{base}/{}", object.path), object);
        }
        bases.push(base.to_string());
    }
    if !missing.is_empty() {
        let missing = list_first(missing.into_iter());
        return Err(
            Error::data(format!("--input {missing}: no shards")).hint(format!(
                "shards are files that end in {}",
                SHARD_ENDINGS.join(", ")
            )),
        );
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
fn match_one(storage: &Storage, name: &str) -> Result<(Location, Vec<ObjectInfo>)> {
    refuse_credentials(name)?;
    if let Some(found) = by_name(storage, name)? {
        return Ok(found);
    }
    let Some(special) = name.find(['*', '?', '[', '{']) else {
        let location = Location::parse(name)?;
        if !is_shard(name) {
            storage.open(&location)?;
        }
        return Ok((location, Vec::new()));
    };
    let slash = name[..special].rfind('/').map_or(0, |slash| slash + 1);
    let (folder, rest) = name.split_at(slash);
    let location = Location::parse(if folder.is_empty() { "." } else { folder })?;
    let store = storage.open(&location)?;
    // One listing of what begins alike costs a request for a thousand objects; asking for each
    // shard of a range would cost a request for one.
    let mut objects = store.list_beginning(&name[slash..special])?;
    let wanted = Wanted::new(name, rest)?;
    objects.retain(|object| is_shard(&object.path) && wanted.matches(&object.path));
    wanted.refuse_missing(name, &objects)?;
    Ok((location, objects))
}

/// The shard or the folder of this very name, whatever characters are in it; none where there is no
/// such thing.
fn by_name(storage: &Storage, name: &str) -> Result<Option<(Location, Vec<ObjectInfo>)>> {
    let location = Location::parse(name)?;
    if is_shard(name)
        && let Some((folder, file)) = location.split()
        && let Some(store) = storage.open_if_there(&folder)?
        && let Some(object) = store.stat(&file)?
    {
        return Ok(Some((folder, vec![object])));
    }
    let Some(store) = storage.open_if_there(&location)? else {
        return Ok(None);
    };
    let mut objects = store.list("")?;
    objects.retain(|object| is_shard(&object.path));
    let (hidden, objects): (Vec<_>, Vec<_>) = objects
        .into_iter()
        .partition(|object| is_hidden(&object.path));
    report_hidden(name, &hidden);
    Ok((!objects.is_empty()).then_some((location, objects)))
}

/// Names that are listed in messages; the others are counted.
const NAMED: usize = 5;

/// Lists the first names, and counts the others.
fn list_first<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let names: Vec<&str> = names.collect();
    let first = names[..names.len().min(NAMED)].join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => first,
        others => format!("{first} and {others} more"),
    }
}

/// Whether a part of the path begins with a dot: what other programs keep for themselves.
fn is_hidden(path: &str) -> bool {
    path.split('/').any(|part| part.starts_with('.'))
}

fn report_hidden(pattern: &str, hidden: &[ObjectInfo]) {
    if !hidden.is_empty() {
        let names = list_first(hidden.iter().map(|object| object.path.as_str()));
        tracing::warn!(
            input = shell(&[pattern]),
            "{} hidden shards are passed over: {names}; name them to take them",
            hidden.len()
        );
    }
}

/// What a pattern names, its folder left out.
struct Wanted {
    /// Patterns of globs, one for each combination of numbers of the ranges before them.
    globs: Vec<Pattern>,
    names: BTreeSet<String>,
}

/// How globs match.
const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

impl Wanted {
    fn new(pattern: &str, rest: &str) -> Result<Self> {
        let mut wanted = Self {
            globs: Vec::new(),
            names: BTreeSet::new(),
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
        let matches = |glob: &Pattern| glob.matches_with(path, OPTIONS);
        self.names.contains(path) || self.globs.iter().any(matches)
    }

    /// Fails when shards of a range are missing. A pattern that matches nothing at all is the
    /// caller's to refuse.
    fn refuse_missing(&self, pattern: &str, objects: &[ObjectInfo]) -> Result<()> {
        let found: HashSet<&str> = objects.iter().map(|object| object.path.as_str()).collect();
        let names = self.names.iter().map(String::as_str);
        let names = names.filter(|name| !found.contains(name));
        let globs = self.globs.iter().filter(|glob| {
            let mut paths = found.iter();
            !paths.any(|path| glob.matches_with(path, OPTIONS))
        });
        let missing: Vec<&str> = names.chain(globs.map(Pattern::as_str)).collect();
        if missing.is_empty() || found.is_empty() {
            return Ok(());
        }
        let named = self.names.len() + self.globs.len();
        let count = missing.len();
        Err(Error::data(format!(
            "--input {pattern}: {count} of {named} shards are missing: {}",
            list_first(missing.into_iter())
        ))
        .hint("name what is there: a smaller range, several --input, or a glob such as '*.tar'"))
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
        if names.len() as u64 > RANGE_LIMIT {
            return Err(wrong());
        }
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
    use std::sync::LazyLock;

    use super::*;

    fn storage() -> &'static Storage {
        static STORAGE: LazyLock<Storage> = LazyLock::new(Storage::default);
        &STORAGE
    }

    fn put(memory: &str, paths: &[&str]) -> String {
        let root = format!("memory://{memory}");
        let store = storage().create(&Location::parse(&root).unwrap()).unwrap();
        for path in paths {
            store.put(path, path.as_bytes().to_vec()).unwrap();
        }
        root
    }

    fn paths(patterns: &[String]) -> (String, Vec<String>) {
        let listing = list(storage(), patterns).unwrap();
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
    fn what_is_hidden_is_taken_only_by_its_name() {
        let root = put(
            "listing-hidden",
            &[
                "a.tar",
                "._a.tar",
                "x/.b.tar",
                ".ipynb_checkpoints/a-checkpoint.tar",
                ".sluice-tmp/0.tar",
                "x/.sluice-tmp/1.tar",
                "x/c.tar",
            ],
        );
        let at = |path: &str| format!("{root}/{path}");
        let cases: [(&str, &[&str]); 9] = [
            ("", &["a.tar", "x/c.tar"]),
            ("*.tar", &["a.tar"]),
            ("**/*.tar", &["a.tar", "x/c.tar"]),
            ("?_a.tar", &[]),
            ("._a.tar", &["._a.tar"]),
            ("._*.tar", &["._a.tar"]),
            ("x/.*.tar", &[".b.tar"]),
            (".ipynb_checkpoints", &["a-checkpoint.tar"]),
            ("*/c.tar", &["x/c.tar"]),
        ];
        for (pattern, expected) in cases {
            match list(storage(), &[at(pattern).trim_end_matches('/').to_owned()]) {
                Ok(listing) => {
                    let found: Vec<&str> = listing.shards.keys().map(ShardPath::as_str).collect();
                    assert_eq!(found, expected, "{pattern}");
                }
                Err(e) => assert!(expected.is_empty(), "{pattern}: {e}"),
            }
        }
    }

    #[test]
    fn names_that_look_like_patterns_are_taken_as_they_are() {
        let root = put("listing-brackets", &["a[1].tar", "x{2}/b.tar", "a1.tar"]);
        for (pattern, expected) in [
            ("a[1].tar", "a[1].tar"),
            ("x{2}", "b.tar"),
            ("a[0-9].tar", "a1.tar"),
        ] {
            assert_eq!(paths(&[format!("{root}/{pattern}")]).1, [expected]);
        }
    }

    #[test]
    fn all_that_is_missing_is_named() {
        let root = put("listing-missing", &["a.tar"]);
        let at = |path: &str| format!("{root}/{path}");
        let inputs = ["a.tar", "b.tar", "none", "c.tar"].map(at);
        let said = list(storage(), &inputs).err().unwrap().to_string();
        for name in ["b.tar", "none", "c.tar"] {
            assert!(said.contains(&at(name)), "{said}");
        }
        assert!(!said.contains("a.tar,"), "{said}");
    }

    #[test]
    fn every_shard_of_a_range_must_be_there() {
        let shards = [0, 1, 3].map(|number| format!("{number:05}.tar"));
        let shards: Vec<&str> = shards.iter().map(String::as_str).collect();
        let root = put(
            "listing-gaps",
            &[&shards[..], &["p0/a.tar", "p2/a.tar"]].concat(),
        );
        let cases: [(&str, &[&str]); 6] = [
            ("{00000..00001}.tar", &[]),
            ("{00000..00003}.tar", &["1 of 4", "00002.tar"]),
            (
                "{00000..00099}.tar",
                &["97 of 100", "00002.tar, 00004.tar", "92 more"],
            ),
            ("p{0..2}/*.tar", &["1 of 3", "p1/*.tar"]),
            ("p{0..2}/a.tar", &["1 of 3", "p1/a.tar"]),
            ("{5..6}.tar", &["no shards"]),
        ];
        for (pattern, words) in cases {
            let said = list(storage(), &[format!("{root}/{pattern}")]).err();
            let said = said.map(|e| e.to_string()).unwrap_or_default();
            assert_eq!(said.is_empty(), words.is_empty(), "{pattern}: {said}");
            for word in words {
                assert!(said.contains(word), "{pattern}: {said}");
            }
        }
    }

    #[test]
    fn a_folder_named_like_a_shard_is_refused() {
        let root = put("listing-nested", &["a.tar", "a/b.tar"]);
        let error = list(storage(), &[root]).err().unwrap().to_string();
        assert!(error.contains("a.tar and a/b.tar"), "{error}");
    }

    #[test]
    fn shards_of_two_stores_are_refused() {
        let inputs = ["one", "two"].map(|memory| put(memory, &["a.tar"]));
        let error = list(storage(), &inputs).err().unwrap().to_string();
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
            let error = list(storage(), std::slice::from_ref(&pattern))
                .err()
                .unwrap()
                .to_string();
            assert!(error.contains(&pattern), "{error}");
        }
    }
}
