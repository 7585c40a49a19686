//! What was found, in words.

use std::collections::BTreeSet;
use std::fmt;

use sluice_manifest::numbers::{plural, thousands};

use crate::files::FileSample;
use crate::listing::list_first;

/// Names of ignored files that are kept for messages.
const KEPT: usize = 6;

/// What an input has.
#[derive(Debug, Default, Clone)]
pub struct Found {
    /// Shards, and their bytes.
    pub shards: u64,
    bytes: u64,
    /// Tables with metadata of the samples in shards.
    pub tables: u64,
    /// Parquet files with images, and their rows.
    parquet: u64,
    rows: u64,
    /// Images in files.
    pub images: u64,
    folders: u64,
    captions: u64,
    /// Images that lists name.
    pub listed: u64,
    /// Images whose name, without its extension, another image in the folder has.
    pub namesakes: u64,
    ignored: u64,
    names: Vec<String>,
}

impl Found {
    /// Counts a shard.
    pub fn add_shard(&mut self, bytes: u64) {
        self.shards += 1;
        self.bytes += bytes;
    }

    /// Counts a Parquet file with images.
    pub fn add_table(&mut self, rows: u64) {
        self.parquet += 1;
        self.rows += rows;
    }

    /// Counts a file that is not used.
    pub fn ignore(&mut self, path: &str) {
        self.ignored += 1;
        if self.names.len() < KEPT {
            self.names.push(path.to_owned());
        }
    }

    /// Counts the folders of samples, and those with a caption.
    pub fn count_captions(&mut self, samples: &[FileSample]) {
        let captions = samples.iter().filter(|sample| sample.has_caption());
        self.captions = captions.count() as u64;
        let images = samples.iter().filter_map(|sample| sample.file());
        let folders = images.map(|path| path.rsplit_once('/').map_or("", |(folder, _)| folder));
        self.folders = folders.collect::<BTreeSet<_>>().len() as u64;
    }

    /// Returns how many files are not used, with the names of some; nothing where all are.
    pub fn ignored_words(&self) -> String {
        if self.ignored == 0 {
            return String::new();
        }
        let known = list_first(self.names.iter().map(String::as_str));
        format!("; {} ignored ({known})", plural(self.ignored, "other file"))
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.images > 0 {
            let (images, folders) = (plural(self.images, "image"), plural(self.folders, "folder"));
            parts.push(format!("{images} in {folders}"));
        }
        if self.listed > 0 {
            parts.push(format!("{} in lists", plural(self.listed, "image")));
        }
        if self.images + self.listed > 0 {
            parts.push(format!("{} with captions", thousands(self.captions)));
        }
        if self.parquet > 0 {
            let (files, rows) = (
                plural(self.parquet, "Parquet file"),
                plural(self.rows, "row"),
            );
            parts.push(format!("{files} with {rows}"));
        }
        if self.shards > 0 {
            let megabytes = thousands(self.bytes.div_ceil(1_000_000));
            parts.push(format!(
                "{} of {megabytes} MB",
                plural(self.shards, "shard")
            ));
        }
        if self.tables > 0 {
            parts.push(format!("{} of img2dataset", plural(self.tables, "table")));
        }
        write!(f, "{}{}", parts.join(", "), self.ignored_words())
    }
}
