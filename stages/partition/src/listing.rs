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
mod tests;
