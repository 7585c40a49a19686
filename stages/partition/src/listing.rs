//! Lists the objects that `--input` names.
//!
//! A pattern is a folder (everything below it, at any depth), a file, a glob (`*` matches within a
//! folder, `**` across folders), or a WebDataset range such as `train-{000..099}.tar`. Paths are
//! relative to the root: the deepest folder common to all patterns.
//! [`Contents`](crate::contents::Contents) classifies the objects.
//!
//! Everything that a pattern names must exist, including each shard of a range. Names that start
//! with a dot (`._x.tar`, `.ipynb_checkpoints/`) match only if the pattern contains the dot. A name
//! that exists is used literally, whatever characters it contains.

use std::collections::BTreeMap;

use sluice_harness::shell;
use sluice_manifest::text::refuse_credentials;
use sluice_manifest::{Error, Result};
use sluice_store::{Location, ObjectInfo, Storage, Store};

use crate::kinds::{FileKind, texts_of};
use crate::ranges::NamePattern;

/// The objects of an input by their paths below the root.
pub struct Listing {
    /// The location that paths are relative to.
    pub root: Location,
    /// The objects.
    pub objects: BTreeMap<String, Listed>,
    /// The folders that were listed with everything below them.
    pub folders: Vec<Location>,
    /// Hidden files that were passed over, by the patterns of their folders.
    pub hidden: Vec<Hidden>,
}

/// Hidden files below a folder.
pub struct Hidden {
    pattern: String,
    paths: Vec<String>,
}

impl Hidden {
    fn of(pattern: &str, objects: &[ObjectInfo]) -> Option<Self> {
        let paths = objects.iter().filter(|object| is_input(object, false));
        let paths: Vec<String> = paths.map(|object| object.path.clone()).collect();
        (!paths.is_empty()).then(|| Self {
            pattern: pattern.to_owned(),
            paths,
        })
    }

    /// Logs a warning about the hidden files.
    pub fn report(&self) {
        let count = self.paths.len();
        let names = list_first(self.paths.iter().map(String::as_str));
        tracing::warn!(
            input = shell(&[&self.pattern]),
            "{count} hidden files are skipped: {names}; name them to include them"
        );
    }
}

/// An object of the input.
pub struct Listed {
    /// The object's metadata.
    pub info: ObjectInfo,
    /// Whether a pattern names the object itself, and not only its folder.
    pub named: bool,
}

/// The objects that a pattern matches.
struct PatternMatch {
    /// The folder that their paths are relative to.
    base: Location,
    /// Whether the base is listed with everything below it.
    is_deep: bool,
    objects: Vec<ObjectInfo>,
    named: bool,
    /// What was found instead, if nothing is usable.
    instead: Option<String>,
    hidden: Option<Hidden>,
}

/// Lists the objects that the patterns name.
///
/// # Errors
///
/// Returns a data error if a pattern names nothing usable, a usage error if a pattern is invalid,
/// and otherwise a storage error.
pub fn list(storage: &Storage, patterns: &[String], literal: bool) -> Result<Listing> {
    let mut found: BTreeMap<String, Listed> = BTreeMap::new();
    let (mut bases, mut missing, mut instead) = (Vec::new(), Vec::new(), None);
    let (mut folders, mut hidden) = (Vec::new(), Vec::new());
    for pattern in patterns {
        let matched = match_one(storage, pattern, literal)?;
        if !matched
            .objects
            .iter()
            .any(|object| is_input(object, matched.named))
        {
            missing.push(pattern.as_str());
            instead = instead.or(matched.instead);
        }
        let named = matched.named;
        hidden.extend(matched.hidden);
        for info in matched.objects {
            let uri = format!("{}/{}", matched.base, info.path);
            let listed = found.entry(uri).or_insert(Listed { info, named });
            listed.named |= named;
        }
        bases.push(matched.base.to_string());
        if matched.is_deep {
            folders.push(matched.base);
        }
    }
    if !missing.is_empty() {
        let missing = list_first(missing.into_iter());
        let instead = instead.map_or_else(String::new, |instead| format!(": {instead}"));
        return Err(
            Error::data(format!("--input {missing}: no shards or images{instead}")).hint(
                "an input is shards (.tar, .tar.gz, .tgz, .tar.zst), folders of images, Parquet \
                 files with images, or lists of paths and URIs (.txt, .csv, .tsv, .jsonl, .parquet)",
            ),
        );
    }
    let root = common_folder(&bases)?;
    let objects = found.into_iter().map(|(uri, listed)| {
        let path = uri[root.len()..].trim_start_matches('/').to_owned();
        (path, listed)
    });
    Ok(Listing {
        objects: objects.collect(),
        root: Location::parse(&root)?,
        folders,
        hidden,
    })
}

/// Returns whether an object is usable by itself. A caption or metadata needs an image, or a
/// pattern that names it.
fn is_input(object: &ObjectInfo, named: bool) -> bool {
    match FileKind::of(&object.path) {
        FileKind::Tar | FileKind::Image | FileKind::Parquet => true,
        FileKind::Text | FileKind::Table | FileKind::Metadata => named,
        FileKind::Other => false,
    }
}

/// Returns the objects of a folder, a glob or a range, or a single object.
fn match_one(storage: &Storage, name: &str, literal: bool) -> Result<PatternMatch> {
    refuse_credentials(name)?;
    let by_name = by_name(storage, name)?;
    let special = if literal {
        None
    } else {
        special_at(storage, name)?
    };
    let special = match (by_name, special) {
        (Some(found), None) => return Ok(found),
        (Some(found), Some(_)) if found.instead.is_none() => return Ok(found),
        (_, Some(special)) => special,
        (None, None) => {
            let location = Location::parse(name)?;
            if FileKind::of(name) == FileKind::Other {
                storage.open(&location)?;
            }
            return Ok(PatternMatch {
                base: location,
                is_deep: false,
                objects: Vec::new(),
                named: false,
                instead: Some("there is no such file".to_owned()),
                hidden: None,
            });
        }
    };
    let slash = name[..special].rfind('/').map_or(0, |slash| slash + 1);
    let (folder, rest) = name.split_at(slash);
    let location = Location::parse(if folder.is_empty() { "." } else { folder })?;
    let store = storage.open(&location)?;
    // Listing a common prefix costs a request for every thousand objects. Requesting each shard of
    // a range would cost one request each.
    let listed = store.list_beginning(&name[slash..special])?;
    let wanted = NamePattern::new(name, rest)?;
    let (mut objects, others): (Vec<_>, Vec<_>) = listed
        .into_iter()
        .partition(|object| wanted.matches(&object.path));
    let named = FileKind::of(name).is_table();
    objects.retain(|object| is_input(object, named));
    wanted.refuse_missing(name, &objects)?;
    let beside = texts_of(&objects, others);
    objects.extend(beside);
    Ok(PatternMatch {
        base: location,
        // A wildcard for a folder may stand for a folder that is written to.
        is_deep: rest.contains("**") || is_of_folder(rest),
        objects,
        named,
        instead: None,
        hidden: None,
    })
}

/// Whether a folder's name has a wildcard. A range stands for numbers alone.
fn is_of_folder(rest: &str) -> bool {
    let folders = rest.rsplit_once('/').map_or("", |(folders, _)| folders);
    folders.contains(['*', '?', '['])
}

/// Returns where the first wildcard or range of a name is. Characters of a folder that is there by its
/// very name are none.
fn special_at(storage: &Storage, name: &str) -> Result<Option<usize>> {
    let mut from = 0;
    while let Some(special) = name[from..].find(['*', '?', '[', '{']) {
        let special = from + special;
        let end = name[special..].find('/').map(|slash| special + slash);
        match end {
            Some(end) if is_folder(storage, &name[..end])? => from = end,
            _ => return Ok(Some(special)),
        }
    }
    Ok(None)
}

/// Returns whether a folder with this literal name exists. In an object store, it exists if it
/// contains an object.
fn is_folder(storage: &Storage, name: &str) -> Result<bool> {
    let location = Location::parse(name)?;
    let Some(store) = storage.open_if_there(&location)? else {
        return Ok(false);
    };
    Ok(location.as_local().is_some() || !store.list("")?.is_empty())
}

/// Returns the file or folder with this literal name, or `None` if there is none.
fn by_name(storage: &Storage, name: &str) -> Result<Option<PatternMatch>> {
    let location = Location::parse(name)?;
    if FileKind::of(name) != FileKind::Other
        && let Some(found) = file_named(storage, &location)?
    {
        return Ok(Some(found));
    }
    let Some(store) = storage.open_if_there(&location)? else {
        return file_of_another_kind(storage, &location);
    };
    let (hidden, objects): (Vec<_>, Vec<_>) = store
        .list("")?
        .into_iter()
        .partition(|object| is_hidden(&object.path));
    if objects.is_empty() && location.as_local().is_none() {
        return file_of_another_kind(storage, &location);
    }
    let instead = if objects.iter().any(|object| is_input(object, false)) {
        None
    } else {
        Some(contents_of(&objects))
    };
    Ok(Some(PatternMatch {
        base: location,
        is_deep: true,
        objects,
        named: false,
        instead,
        hidden: Hidden::of(name, &hidden),
    }))
}

/// Returns a file that exists and is not usable.
fn file_of_another_kind(storage: &Storage, location: &Location) -> Result<Option<PatternMatch>> {
    let file = file_named(storage, location)?;
    Ok(file.map(|file| PatternMatch {
        instead: Some("it is a file of another kind".to_owned()),
        ..file
    }))
}

/// Returns the file at a location, with the captions of an image.
fn file_named(storage: &Storage, location: &Location) -> Result<Option<PatternMatch>> {
    let Some((folder, file)) = location.split() else {
        return Ok(None);
    };
    let Some(store) = storage.open_if_there(&folder)? else {
        return Ok(None);
    };
    let Some(object) = store.stat(&file)? else {
        return Ok(None);
    };
    let mut objects = vec![object];
    if FileKind::of(&file) == FileKind::Image {
        objects.extend(captions_of(&store, &file)?);
    }
    Ok(Some(PatternMatch {
        base: folder,
        is_deep: false,
        objects,
        named: true,
        instead: None,
        hidden: None,
    }))
}

/// Returns the caption and metadata of an image.
fn captions_of(store: &Store, image: &str) -> Result<Vec<ObjectInfo>> {
    let stem = image.rsplit_once('.').map_or(image, |(stem, _)| stem);
    let names = ["txt", "caption", "json"].map(|extension| format!("{stem}.{extension}"));
    let found = names.iter().map(|name| store.stat(name));
    Ok(found
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .flatten()
        .collect())
}

/// Describes the content of a folder without usable files.
fn contents_of(objects: &[ObjectInfo]) -> String {
    match objects {
        [] => "the folder is empty".to_owned(),
        objects => {
            let names = list_first(objects.iter().map(|object| object.path.as_str()));
            format!("the folder has other files: {names}")
        }
    }
}

/// The number of names that messages list.
const NAMED: usize = 5;

/// Formats the first names, and the number of others.
pub(crate) fn list_first<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let names: Vec<&str> = names.collect();
    let first = names[..names.len().min(NAMED)].join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => first,
        others => format!("{first} and {others} more"),
    }
}

/// Returns whether a component of the path starts with a dot. Other programs use such files
/// internally.
fn is_hidden(path: &str) -> bool {
    path.split('/').any(|part| part.starts_with('.'))
}

/// Returns the deepest folder that contains all the folders.
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
    // `s3:`, an empty component and a bucket.
    if is_uri && common.len() < 3 {
        return Err(
            Error::usage("--input: the shards are in different stores or buckets")
                .hint("curate each in a separate run, or copy them into one bucket"),
        );
    }
    let folder = common.join("/");
    Ok(if folder.is_empty() {
        "/".to_owned()
    } else {
        folder
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
        let listing = list(storage(), patterns, false).unwrap();
        let tars = listing.objects.into_keys();
        let tars = tars.filter(|path| FileKind::of(path) == FileKind::Tar);
        (listing.root.to_string(), tars.collect())
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
    fn only_folders_are_listed_with_all_below_them() {
        let root = put("listing-deep", &["x/a.tar", "x/b/c.tar", "x/list.csv"]);
        for (pattern, folders) in [
            ("x", &["x"][..]),
            ("x/", &["x"]),
            ("x/**/*.tar", &["x"]),
            ("x/*/*.tar", &["x"]),
            ("*/a.tar", &[""]),
            ("x/*.tar", &[]),
            ("x/a.tar", &[]),
            ("x/list.csv", &[]),
        ] {
            let listing = list(storage(), &[format!("{root}/{pattern}")], false).unwrap();
            let found: Vec<String> = listing.folders.iter().map(ToString::to_string).collect();
            let expected = folders.iter().map(|folder| format!("{root}/{folder}"));
            let expected: Vec<_> = expected
                .map(|f| f.trim_end_matches('/').to_owned())
                .collect();
            assert_eq!(found, expected, "{pattern}");
        }
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
            let patterns = [at(pattern).trim_end_matches('/').to_owned()];
            match list(storage(), &patterns, false) {
                Ok(listing) => {
                    let found: Vec<&str> = listing.objects.keys().map(String::as_str).collect();
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
        let said = list(storage(), &inputs, false).err().unwrap().to_string();
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
            let said = list(storage(), &[format!("{root}/{pattern}")], false).err();
            let said = said.map(|e| e.to_string()).unwrap_or_default();
            assert_eq!(said.is_empty(), words.is_empty(), "{pattern}: {said}");
            for word in words {
                assert!(said.contains(word), "{pattern}: {said}");
            }
        }
    }

    #[test]
    fn folders_are_taken_by_their_very_names_before_wildcards() {
        let names = ["[data] v1/x.tar", "set{1}/x.tar", "what?/x.tar"];
        let root = put("listing-brackets", &names);
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().display().to_string();
        for name in names {
            let store = storage().create(&Location::parse(&disk).unwrap());
            store.unwrap().put(name, name).unwrap();
        }
        for root in [root, disk] {
            for name in ["[data] v1", "set{1}", "what?"] {
                for pattern in ["", "/x.tar", "/*.tar", "/?.tar"] {
                    let pattern = format!("{root}/{name}{pattern}");
                    let (found, tars) = paths(std::slice::from_ref(&pattern));
                    assert_eq!(found, format!("{root}/{name}"), "{pattern}");
                    assert_eq!(tars, ["x.tar"], "{pattern}");
                }
            }
        }
    }

    #[test]
    fn shards_of_two_stores_are_refused() {
        let inputs = ["one", "two"].map(|memory| put(memory, &["a.tar"]));
        let error = list(storage(), &inputs, false).err().unwrap().to_string();
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
            let error = list(storage(), std::slice::from_ref(&pattern), false)
                .err()
                .unwrap()
                .to_string();
            assert!(error.contains(&pattern), "{error}");
        }
    }
}
