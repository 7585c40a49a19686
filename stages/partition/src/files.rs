//! Creates samples from image files, with their captions and metadata.
//!
//! A caption or metadata is either a file with the image's name and another extension (`a.txt` or
//! `a.jpg.txt` for `a.jpg`), or a row of a table. The table is `metadata.jsonl`, `metadata.csv` or
//! `metadata.parquet` in the image's folder or above it, and its column `file_name` is the image's
//! path below the table's folder: Hugging Face's imagefolder. A file takes precedence over a row.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;
use sluice_manifest::Result;
use sluice_manifest::rows::FileRow;
use sluice_source::caption_column;
use sluice_store::{ObjectInfo, Store};
use sluice_table::{JsonRow, Rows};

use crate::contents::InputOptions;
use crate::kinds::{extension_of, key_of};
use crate::summary::InputSummary;

/// The column with the images' paths in a metadata table.
const FILE_NAME: &str = "file_name";

/// A sample whose image is a file.
#[derive(Debug, Clone, Default)]
pub struct FileSample {
    /// The path without its extension.
    pub key: String,
    /// The number of earlier samples with that key.
    pub occurrence: u32,
    /// The image, followed by its caption and metadata.
    pub members: Vec<FileRow>,
}

impl FileSample {
    /// Returns the sort key of the sample.
    pub fn id(&self) -> (&str, u32) {
        (&self.key, self.occurrence)
    }

    /// Returns the path of the image.
    pub fn file(&self) -> Option<&str> {
        self.members.first()?.path.as_deref()
    }

    /// Returns whether the sample has a caption.
    pub fn has_caption(&self) -> bool {
        self.has(&["txt", "caption"])
    }

    fn has(&self, extensions: &[&str]) -> bool {
        let mut members = self.members.iter().skip(1);
        members.any(|member| {
            let mut known = extensions.iter();
            known.any(|known| known.eq_ignore_ascii_case(&member.extension))
        })
    }

    /// Adds the caption in a row, and the row as metadata, unless the sample has them.
    pub fn describe(&mut self, row: JsonRow, caption: Option<&str>) {
        let texts = row.iter().filter(|(_, value)| value.is_string());
        let texts = texts.map(|(name, _)| name.as_str());
        let column = caption.or_else(|| caption_column(texts));
        let text = column.and_then(|column| row.get(column)?.as_str());
        let text = text.filter(|text| !text.is_empty() && !self.has_caption());
        if let Some(text) = text {
            let text = text.to_owned();
            self.members.push(text_row("txt", text));
        }
        if !self.has(&["json"]) {
            let json = Value::Object(row).to_string();
            self.members.push(text_row("json", json));
        }
    }
}

fn text_row(extension: &str, text: String) -> FileRow {
    FileRow {
        extension: extension.to_owned(),
        text: Some(text),
        ..FileRow::default()
    }
}

fn file_row(path: &str, info: &ObjectInfo) -> FileRow {
    FileRow {
        extension: extension_of(path).to_owned(),
        path: Some(path.to_owned()),
        bytes: Some(info.bytes),
        etag: info.etag.clone(),
        modified: info.modified.clone(),
        ..FileRow::default()
    }
}

/// Images, and the files that may describe them.
#[derive(Debug, Default)]
pub struct Folder {
    images: Vec<FileRow>,
    /// Captions and metadata, by the name that they share with an image.
    texts: BTreeMap<String, Vec<FileRow>>,
    /// Metadata tables.
    pub tables: Vec<String>,
}

impl Folder {
    /// Adds an image file to the list.
    pub fn add_image(&mut self, path: &str, info: &ObjectInfo) {
        self.images.push(file_row(path, info));
    }

    /// Adds a file that may be a caption or metadata.
    pub fn add_text(&mut self, path: &str, info: &ObjectInfo) {
        let texts = self.texts.entry(key_of(path).to_owned()).or_default();
        texts.push(file_row(path, info));
    }

    /// Returns a sample for each image.
    ///
    /// # Errors
    ///
    /// Returns a data error if a metadata table is damaged, and otherwise a storage error.
    pub fn samples(
        mut self,
        input: &Store,
        options: &InputOptions,
        found: &mut InputSummary,
    ) -> Result<Vec<FileSample>> {
        let mut rows = self.described(input, found)?;
        let mut names = Names::of(&self.images);
        let mut samples = Vec::with_capacity(self.images.len());
        for image in std::mem::take(&mut self.images) {
            let path = image.path.clone().unwrap_or_default();
            let key = key_of(&path);
            let mut sample = FileSample {
                key: key.to_owned(),
                occurrence: names.occurrence(key),
                members: vec![image],
            };
            found.namesakes += u64::from(sample.occurrence > 0);
            for name in [key, &path] {
                let texts = self.texts.get_mut(name);
                sample
                    .members
                    .extend(texts.into_iter().flat_map(|texts| texts.iter().cloned()));
            }
            if let Some(row) = rows.remove(&path) {
                sample.describe(row, options.caption_column.as_deref());
            }
            samples.push(sample);
        }
        self.count_unused(&samples, found);
        Ok(samples)
    }

    /// Returns the rows of the metadata tables, by image path.
    fn described(
        &self,
        input: &Store,
        found: &mut InputSummary,
    ) -> Result<HashMap<String, JsonRow>> {
        let mut rows = HashMap::new();
        if self.images.is_empty() {
            self.tables.iter().for_each(|path| found.ignore(path));
            return Ok(rows);
        }
        for table in &self.tables {
            let folder = table.rfind('/').map_or("", |slash| &table[..=slash]);
            for row in Rows::open(input, table)? {
                let row = row?;
                if let Some(name) = row.get(FILE_NAME).and_then(Value::as_str) {
                    let name = name.trim_start_matches("./");
                    rows.insert(format!("{folder}{name}"), row);
                }
            }
        }
        Ok(rows)
    }

    fn count_unused(&self, samples: &[FileSample], found: &mut InputSummary) {
        let files = samples.iter().filter_map(FileSample::file);
        let names: HashSet<&str> = files.flat_map(|path| [key_of(path), path]).collect();
        for (name, texts) in &self.texts {
            if !names.contains(name.as_str()) {
                let paths = texts.iter().filter_map(|text| text.path.as_deref());
                paths.for_each(|path| found.ignore(path));
            }
        }
    }
}

/// The names of all images, and the last number assigned to each repeated name.
struct Names {
    taken: HashSet<String>,
    last: HashMap<String, u32>,
}

impl Names {
    fn of(images: &[FileRow]) -> Self {
        let paths = images.iter().filter_map(|image| image.path.as_deref());
        Self {
            taken: paths.map(|path| key_of(path).to_owned()).collect(),
            last: HashMap::new(),
        }
    }

    /// Returns 0 for the first image with a name. Otherwise returns the number `n` for which
    /// `NAME#n` is unused.
    fn occurrence(&mut self, name: &str) -> u32 {
        let Some(last) = self.last.get_mut(name) else {
            self.last.insert(name.to_owned(), 0);
            return 0;
        };
        loop {
            *last += 1;
            if self.taken.insert(format!("{name}#{last}")) {
                return *last;
            }
        }
    }
}
