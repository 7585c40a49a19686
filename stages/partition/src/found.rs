//! What was found, in words.

use std::collections::BTreeSet;
use std::fmt;

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
        format!("; {} ignored ({known})", count(self.ignored, "other file"))
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.images > 0 {
            let (images, folders) = (count(self.images, "image"), count(self.folders, "folder"));
            parts.push(format!("{images} in {folders}"));
        }
        if self.listed > 0 {
            parts.push(format!("{} in lists", count(self.listed, "image")));
        }
        if self.images + self.listed > 0 {
            parts.push(format!("{} with captions", thousands(self.captions)));
        }
        if self.parquet > 0 {
            let (files, rows) = (count(self.parquet, "Parquet file"), count(self.rows, "row"));
            parts.push(format!("{files} with {rows}"));
        }
        if self.shards > 0 {
            let megabytes = thousands(self.bytes.div_ceil(1_000_000));
            parts.push(format!("{} of {megabytes} MB", count(self.shards, "shard")));
        }
        if self.tables > 0 {
            parts.push(format!("{} of img2dataset", count(self.tables, "table")));
        }
        write!(f, "{}{}", parts.join(", "), self.ignored_words())
    }
}

fn count(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {what}{plural}", thousands(number))
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(thousands(number), text);
        }
    }
}
