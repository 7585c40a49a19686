//! Counts what an input contains, and formats it.

use std::collections::BTreeSet;
use std::fmt;

use sluice_manifest::numbers::{plural, thousands};

use crate::files::FileSample;
use crate::listing::list_first;

/// The number of names of ignored files that messages show.
const KEPT: usize = 6;

/// The number of usable and ignored objects in an input.
#[derive(Debug, Default, Clone)]
pub struct InputSummary {
    /// The number of shards, and their bytes.
    pub shards: u64,
    bytes: u64,
    /// The number of tables with metadata of the samples in shards.
    pub tables: u64,
    /// The number of Parquet files with images, and their rows.
    parquet: u64,
    rows: u64,
    /// The number of image files.
    pub images: u64,
    folders: u64,
    captions: u64,
    /// The number of images in lists.
    pub listed: u64,
    /// The number of images with the same name as another one in their folder, except for the
    /// extension.
    pub namesakes: u64,
    ignored: u64,
    names: Vec<String>,
}

impl InputSummary {
    /// Adds a shard to the counts.
    pub fn add_shard(&mut self, bytes: u64) {
        self.shards += 1;
        self.bytes += bytes;
    }

    /// Counts a Parquet file with images.
    pub fn add_table(&mut self, rows: u64) {
        self.parquet += 1;
        self.rows += rows;
    }

    /// Adds an ignored file to the counts.
    pub fn ignore(&mut self, path: &str) {
        self.ignored += 1;
        if self.names.len() < KEPT {
            self.names.push(path.to_owned());
        }
    }

    /// Counts the folders of samples, and the samples with a caption.
    pub fn count_captions(&mut self, samples: &[FileSample]) {
        let captions = samples.iter().filter(|sample| sample.has_caption());
        self.captions = captions.count() as u64;
        let images = samples.iter().filter_map(|sample| sample.file());
        let folders = images.map(|path| path.rsplit_once('/').map_or("", |(folder, _)| folder));
        self.folders = folders.collect::<BTreeSet<_>>().len() as u64;
    }

    /// Returns the number of ignored files with some of their names, or an empty text if there are
    /// none.
    pub fn ignored_words(&self) -> String {
        if self.ignored == 0 {
            return String::new();
        }
        let known = list_first(self.names.iter().map(String::as_str));
        format!("; {} ignored ({known})", plural(self.ignored, "other file"))
    }
}

impl fmt::Display for InputSummary {
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
