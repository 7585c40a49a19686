//! Classifies the objects of an input: shards, Parquet files with images, images with their
//! captions and metadata, and lists.

use std::collections::BTreeMap;

use sluice_manifest::rows::{FileRow, PlanRow, ShardKind};
use sluice_manifest::{Class, Error, Result, ShardPath};
use sluice_source::ImageColumns;
use sluice_store::{Location, ObjectInfo, Storage, Store};
use sluice_table::{ParquetTable, UserObject};

use crate::files::{FileSample, Folder};
use crate::groups::grouped;
use crate::kinds::FileKind;
use crate::listing::{Hidden, Listing, list};
use crate::lists::read_list;
use crate::summary::InputSummary;

/// How an input is read.
#[derive(Debug, Clone, Default)]
pub struct InputOptions {
    /// The inputs: folders, files, globs, ranges.
    pub patterns: Vec<String>,
    /// Whether patterns are literal names.
    pub literal: bool,
    /// The image column of Parquet files.
    pub image_column: Option<String>,
    /// The caption column of tables.
    pub caption_column: Option<String>,
    /// The column with the paths or URIs in lists.
    pub url_column: Option<String>,
}

/// The classified objects of an input.
pub struct Contents {
    /// The location that paths are relative to.
    pub root: Location,
    /// The shards by path.
    pub shards: BTreeMap<ShardPath, PlanRow>,
    /// The samples that are plain files.
    pub samples: Vec<FileSample>,
    /// The folders that were listed with everything below them.
    pub folders: Vec<Location>,
    /// The shards, and of other files one in each folder: paths below the root, or URIs.
    pub files: Vec<String>,
    /// What was found, for people.
    pub found: InputSummary,
    hidden: Vec<Hidden>,
}

impl Contents {
    /// Lists an input and classifies its objects. Reads metadata tables, lists, and the footers of
    /// Parquet files.
    ///
    /// # Errors
    ///
    /// Returns a data error if nothing is usable, a table is damaged or image ids would be
    /// ambiguous; a usage error if a column does not fit; and otherwise a storage error.
    pub fn of(storage: &Storage, options: &InputOptions) -> Result<Self> {
        let listing = list(storage, &options.patterns, options.literal)?;
        let input = storage.create(&listing.root)?;
        let mut sorter = Sorter {
            input: &input,
            options,
            listing: &listing,
            shards: BTreeMap::new(),
            folder: Folder::default(),
            lists: Vec::new(),
            broken: Vec::new(),
            found: InputSummary::default(),
        };
        sorter.sort()?;
        let Sorter {
            shards,
            folder,
            lists,
            mut broken,
            mut found,
            ..
        } = sorter;
        let mut samples = folder.samples(&input, options, &mut found)?;
        found.images += samples.len() as u64;
        for path in lists {
            let rows = read_list(storage, &input, &path, options)?;
            found.listed += rows.len() as u64;
            samples.extend(rows);
        }
        found.count_captions(&samples);
        if samples.is_empty() && shards.len() == broken.len() && !broken.is_empty() {
            return Err(broken.swap_remove(0));
        }
        let mut contents = Self {
            files: files(&listing, &shards, &samples),
            root: listing.root,
            folders: listing.folders,
            hidden: listing.hidden,
            shards,
            samples,
            found,
        };
        contents.check_usable(options)?;
        contents.samples.sort_by(|a, b| a.id().cmp(&b.id()));
        contents.refuse_ambiguous()?;
        Ok(contents)
    }

    /// Logs a warning about hidden files, and about images with the same name in another format.
    pub fn report_oddities(&self) {
        self.hidden.iter().for_each(Hidden::report);
        let (count, first) = (self.found.namesakes, |sample: &&FileSample| {
            sample.occurrence > 0
        });
        if let Some(sample) = self.samples.iter().find(first) {
            tracing::warn!(
                "{count} images have the name of another one with another extension, {} for one; \
                 each is a sample of its own",
                sample.file().unwrap_or_default()
            );
        }
    }

    fn check_usable(&self, options: &InputOptions) -> Result<()> {
        if !self.shards.is_empty() || !self.samples.is_empty() {
            return Ok(());
        }
        let patterns = options.patterns.join(", ");
        let ignored = self.found.ignored_words();
        Err(
            Error::data(format!("--input {patterns}: no shards or images{ignored}")).hint(
                "a Parquet file needs a column of image bytes, or of paths or URIs and its name",
            ),
        )
    }

    /// Returns an error if two samples have one id: key `b/1` of `a.tar`, key `1` of `a/b.tar`, and
    /// the file `a/b/1.jpg`.
    fn refuse_ambiguous(&self) -> Result<()> {
        let shards = self.shards.values();
        let stems: BTreeMap<&str, &ShardPath> =
            shards.map(|row| (row.shard.stem(), &row.shard)).collect();
        if stems.len() < self.shards.len() {
            let other = |row: &&PlanRow| stems[row.shard.stem()] != &row.shard;
            let shard = self.shards.values().find(other).map(|row| &row.shard);
            let shard = shard.map(ToString::to_string).unwrap_or_default();
            return Err(ambiguous(&shard, "a file with the same name"));
        }
        let names = self.shards.keys().map(ShardPath::as_str);
        let names = names.chain(self.samples.iter().map(|sample| sample.key.as_str()));
        for name in names {
            let mut folders = name.match_indices('/').map(|(at, _)| &name[..at]);
            if let Some(other) = folders.find_map(|folder| stems.get(folder)) {
                return Err(ambiguous(other.as_str(), name));
            }
        }
        Ok(())
    }

    /// Returns the shards of the plan, and the files in those that consist of files, sorted by
    /// path.
    pub fn into_shards(self, limit: Option<u64>) -> BTreeMap<ShardPath, (PlanRow, Vec<FileRow>)> {
        let others = self.shards.into_iter();
        let others = others.map(|(path, row)| (path, (row, Vec::new())));
        let files = grouped(self.samples, limit);
        let files = files.map(|(row, files)| (row.shard.clone(), (row, files)));
        others.chain(files).collect()
    }
}

fn ambiguous(one: &str, other: &str) -> Error {
    Error::data(format!(
        "{one} and {other}: a shard and a folder of one name make image ids ambiguous"
    ))
    .hint("curate them in two runs, or rename one of them")
}

/// Returns the shards, and one file of each folder with others.
fn files(
    listing: &Listing,
    shards: &BTreeMap<ShardPath, PlanRow>,
    samples: &[FileSample],
) -> Vec<String> {
    let mut folders: BTreeMap<&str, &str> = BTreeMap::new();
    let objects = listing.objects.keys().map(String::as_str);
    for path in objects.chain(samples.iter().filter_map(FileSample::file)) {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        folders.entry(folder).or_insert(path);
    }
    let shards = shards.keys().map(ToString::to_string);
    shards
        .chain(folders.into_values().map(str::to_owned))
        .collect()
}

/// Classifies objects.
struct Sorter<'a> {
    input: &'a Store,
    options: &'a InputOptions,
    listing: &'a Listing,
    shards: BTreeMap<ShardPath, PlanRow>,
    folder: Folder,
    lists: Vec<String>,
    /// Why tables cannot be read.
    broken: Vec<Error>,
    found: InputSummary,
}

impl Sorter<'_> {
    fn sort(&mut self) -> Result<()> {
        let listing = self.listing;
        // `--input data/*`, expanded by a shell, also names captions and metadata tables of images.
        let mut objects = listing.objects.iter();
        let describes =
            objects.any(|(path, listed)| listed.named && FileKind::of(path) == FileKind::Image);
        for (path, listed) in &listing.objects {
            let named = listed.named && !describes;
            match FileKind::of(path) {
                FileKind::Tar => self.add_tar(path, &listed.info),
                FileKind::Image => self.folder.add_image(path, &listed.info),
                FileKind::Parquet => self.add_parquet(path, &listed.info, named)?,
                FileKind::Text | FileKind::Table | FileKind::Metadata if named => {
                    self.lists.push(path.clone());
                }
                FileKind::Text => self.folder.add_text(path, &listed.info),
                FileKind::Metadata => self.folder.tables.push(path.clone()),
                FileKind::Table | FileKind::Other => self.found.ignore(path),
            }
        }
        Ok(())
    }

    fn plan_row(path: &str, info: &ObjectInfo, kind: ShardKind) -> PlanRow {
        PlanRow {
            shard: ShardPath::new(path),
            bytes: info.bytes,
            etag: info.etag.clone(),
            modified: info.modified.clone(),
            kind,
            ..PlanRow::default()
        }
    }

    fn add_tar(&mut self, path: &str, info: &ObjectInfo) {
        let mut row = Self::plan_row(path, info, ShardKind::Tar);
        if let Some(table) = self.sidecar(row.shard.stem()) {
            let table = &self.listing.objects[&table].info;
            let stamp = table.etag.as_ref().or(table.modified.as_ref());
            let stamp = stamp.map_or("", String::as_str);
            row.sidecar = Some(format!("{}.parquet", row.shard.stem()));
            row.sidecar_stamp = Some(format!("{} {stamp}", table.bytes));
            self.found.tables += 1;
        }
        self.found.add_shard(info.bytes);
        self.shards.insert(row.shard.clone(), row);
    }

    /// Returns the table that img2dataset writes with a shard: `00000.parquet` next to `00000.tar`
    /// and `00000_stats.json`.
    fn sidecar(&self, stem: &str) -> Option<String> {
        let table = format!("{stem}.parquet");
        let there = |path: &str| self.listing.objects.contains_key(path);
        (there(&table) && there(&format!("{stem}_stats.json"))).then_some(table)
    }

    /// Plans a table that cannot be read: `read` counts it as a damaged shard.
    fn add_broken(&mut self, row: PlanRow, e: Error) {
        self.found.add_table(0);
        self.shards.insert(row.shard.clone(), row);
        self.broken.push(e);
    }

    fn add_parquet(&mut self, path: &str, info: &ObjectInfo, named: bool) -> Result<()> {
        let stem = path.strip_suffix(".parquet").unwrap_or(path);
        let has = |beside: &str| self.listing.objects.contains_key(beside);
        // The table of a shard, possibly of one that Sluice wrote.
        if !named && has(&format!("{stem}.tar")) {
            if self.sidecar(stem).is_none() {
                self.found.ignore(path);
            }
            return Ok(());
        }
        let table = match ParquetTable::open(UserObject::open(self.input, path)?) {
            Err(e) if e.class() == Class::Data => {
                self.add_broken(Self::plan_row(path, info, ShardKind::Parquet), e);
                return Ok(());
            }
            table => table?,
        };
        let options = self.options;
        let (image, caption) = (&options.image_column, &options.caption_column);
        match ImageColumns::of(&table, image.as_deref(), caption.as_deref())? {
            Some(columns) => {
                let mut row = Self::plan_row(path, info, ShardKind::Parquet);
                row.image_column = Some(columns.image);
                row.caption_column = columns.caption;
                self.found.add_table(table.rows());
                self.shards.insert(row.shard.clone(), row);
            }
            None if named || options.url_column.is_some() => self.lists.push(path.to_owned()),
            None => self.found.ignore(path),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(name: &str, paths: &[&str]) -> Result<Contents> {
        let storage = Storage::default();
        let root = format!("memory://{name}");
        let store = storage.create(&Location::parse(&root).unwrap()).unwrap();
        for path in paths {
            store.put(path, path.as_bytes().to_vec()).unwrap();
        }
        let options = InputOptions {
            patterns: vec![root],
            ..InputOptions::default()
        };
        Contents::of(&storage, &options)
    }

    fn keys(contents: &Contents) -> Vec<String> {
        let samples = contents.samples.iter();
        let parts = samples.map(|sample| {
            let members = sample
                .members
                .iter()
                .map(|member| member.extension.as_str());
            let (key, occurrence) = sample.id();
            format!(
                "{key}#{occurrence} {}",
                members.collect::<Vec<_>>().join(" ")
            )
        });
        parts.collect()
    }

    #[test]
    fn images_are_samples_with_what_is_beside_them() {
        let contents = contents(
            "contents-images",
            &[
                "a.jpg",
                "a.png",
                "a.txt",
                "a#1.jpg",
                "b/Shot 1.2.jpg",
                "b/Shot 1.3.jpg",
                "b/Shot 1.3.jpg.json",
                "b/readme.md",
                "lonely.json",
                "x.tar",
            ],
        )
        .unwrap();
        assert_eq!(
            keys(&contents),
            [
                "a#0 jpg txt",
                "a#2 png txt",
                "a#1#0 jpg",
                "b/Shot 1.2#0 jpg",
                "b/Shot 1.3#0 jpg json",
            ]
        );
        assert_eq!(contents.shards.len(), 1);
        assert_eq!(
            contents.found.to_string(),
            "5 images in 2 folders, 2 with captions, 1 shard of 1 MB; \
             2 other files ignored (b/readme.md, lonely.json)"
        );
        let shards = contents.into_shards(Some(20));
        let names: Vec<&str> = shards.keys().map(ShardPath::as_str).collect();
        let expected = ["a#1+0", "a+1", "b/Shot 1.2+0", "b/Shot 1.3+0", "x.tar"];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_folder_named_like_a_shard_is_refused() {
        for (name, paths, words) in [
            ("nested-1", ["a.tar", "a/b.tar"], "a.tar and a/b.tar"),
            ("nested-2", ["a.tar", "a/b.jpg"], "a.tar and a/b"),
        ] {
            let error = contents(name, &paths).err().unwrap().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
