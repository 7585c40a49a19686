//! Lists of known hashes: text or CSV.
//!
//! - *Text*: a hash on each line, then, where it is wanted, a name: what `sha256sum` prints. Empty lines
//!   and lines that begin with `#` are passed over.
//! - *CSV* (`.csv`): the first line names the columns. Hashes are in `sha256`, `phash` or `hash`; names in
//!   `image_id`, `id` or `name`; labels in `label`. Without such a first line the hash is in the first
//!   column and the name in the second.
//!
//! A hash of 64 hexadecimal digits is a SHA-256, one of 16 digits a 64-bit perceptual hash. A list is
//! read line by line whenever it is compared with, so its length does not matter.

use std::io::{BufRead, BufReader, Read};

use sluice_manifest::{Error, Fingerprint, Result};
use sluice_store::{Location, Storage, Store};

use super::open::{Hashed, Set};

/// Endings of the names of lists.
const ENDINGS: [&str; 3] = [".txt", ".csv", ".sha256"];
const HASHES: [&str; 5] = ["hash", "sha256", "phash", "md5", "pdq"];
const NAMES: [&str; 3] = ["image_id", "id", "name"];

/// A list of hashes.
#[derive(Debug)]
pub(crate) struct HashList {
    store: Store,
    path: String,
    /// Hashes in it.
    pub entries: u64,
    /// Of its content.
    pub fingerprint: Fingerprint,
}

/// A hash of a list.
enum Hash {
    Sha256([u8; 32]),
    Perceptual(u64),
}

/// Which fields of a line are what.
struct Columns {
    hash: usize,
    name: Option<usize>,
    label: Option<usize>,
}

impl HashList {
    /// Whether a place has the name of a list.
    pub fn is_named(place: &str) -> bool {
        let lower = place.to_ascii_lowercase();
        ENDINGS.iter().any(|ending| lower.ends_with(ending))
    }

    /// Opens a list and checks all of its lines.
    ///
    /// # Errors
    /// Data, when it does not exist or a line has no known hash; of storage.
    pub fn open(storage: &Storage, place: &Location) -> Result<Self> {
        let missing = || {
            Error::data(format!("{place}: no such list of hashes")).hint(
                "--against takes indexes that `sluice-dedup index` wrote, and lists (.txt, .csv)",
            )
        };
        let (folder, path) = place.split().ok_or_else(missing)?;
        let store = storage.open_if_there(&folder)?.ok_or_else(missing)?;
        store.stat(&path)?.ok_or_else(missing)?;
        let mut list = Self {
            fingerprint: Fingerprint::of([store.blake3(&path)?.as_str()]),
            entries: 0,
            store,
            path,
        };
        let mut entries = 0;
        list.each_line(&mut |_| {
            entries += 1;
            Ok(())
        })?;
        list.entries = entries;
        Ok(list)
    }

    /// Calls `each` with every hash.
    ///
    /// # Errors
    /// Of `each`; data, when a line has no known hash; of storage.
    pub fn each_hash(
        &self,
        set: &Set,
        each: &mut dyn FnMut(Hashed<'_>) -> Result<()>,
    ) -> Result<()> {
        self.each_line(&mut |line| {
            let (sha256, phash) = match line.hash {
                Hash::Sha256(digest) => (Some(digest), None),
                Hash::Perceptual(bits) => (None, Some(bits)),
            };
            each(Hashed {
                set,
                image_id: line.name,
                label: line.label,
                sha256,
                phash,
            })
        })
    }

    fn each_line(&self, each: &mut dyn FnMut(Line<'_>) -> Result<()>) -> Result<()> {
        let object = self.store.reader(&self.path)?;
        match self.path.to_ascii_lowercase().ends_with(".csv") {
            true => self.each_record(object, each),
            false => self.each_text(object, each),
        }
    }

    fn each_text(
        &self,
        object: impl Read,
        each: &mut dyn FnMut(Line<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut text = String::new();
        let mut lines = BufReader::new(object);
        for number in 1.. {
            text.clear();
            let read = lines.read_line(&mut text);
            if read.map_err(|e| self.unreadable(&e))? == 0 {
                break;
            }
            let line = text.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (hash, name) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            // `sha256sum` marks files that it read as binary ones.
            let name = name.trim().trim_start_matches('*');
            each(self.line(number, hash, Some(name), None)?)?;
        }
        Ok(())
    }

    fn each_record(
        &self,
        object: impl Read,
        each: &mut dyn FnMut(Line<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut records = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .trim(csv::Trim::All)
            .comment(Some(b'#'))
            .from_reader(object);
        let mut record = csv::StringRecord::new();
        let mut columns = None;
        while records
            .read_record(&mut record)
            .map_err(|e| self.unreadable(&e))?
        {
            let number = record.position().map_or(0, csv::Position::line);
            if columns.is_none() {
                let (found, is_header) = Columns::of(&record);
                columns = Some(found);
                if is_header {
                    continue;
                }
            }
            let Some(columns) = &columns else { continue };
            let field = |column: Option<usize>| column.and_then(|column| record.get(column));
            let hash = record.get(columns.hash).unwrap_or_default();
            each(self.line(number, hash, field(columns.name), field(columns.label))?)?;
        }
        Ok(())
    }

    fn line<'a>(
        &self,
        number: u64,
        hash: &'a str,
        name: Option<&'a str>,
        label: Option<&'a str>,
    ) -> Result<Line<'a>> {
        let given = |text: &&str| !text.is_empty();
        Ok(Line {
            name: name.filter(given).unwrap_or(hash),
            label: label.filter(given),
            hash: Hash::parse(hash).map_err(|what| {
                let uri = self.store.uri(&self.path);
                Error::data(format!("{uri}: line {number}: {what}")).hint(
                    "expected SHA-256 (64 hexadecimal digits) or 64-bit perceptual hashes (16 digits)",
                )
            })?,
        })
    }

    fn unreadable(&self, e: &(dyn std::error::Error + 'static)) -> Error {
        let uri = self.store.uri(&self.path);
        let class = sluice_manifest::Class::of(e);
        match class {
            Some(sluice_manifest::Class::Transient) => Error::transient(format!("{uri}: {e}")),
            _ => Error::data(format!("{uri}: cannot be read as text: {e}")),
        }
    }
}

/// A line of a list.
struct Line<'a> {
    hash: Hash,
    name: &'a str,
    label: Option<&'a str>,
}

impl Hash {
    /// Parses a hash by its number of digits.
    fn parse(text: &str) -> Result<Self, String> {
        let mut digest = [0; 32];
        match text.len() {
            64 if hex::decode_to_slice(text, &mut digest).is_ok() => Ok(Self::Sha256(digest)),
            16 => u64::from_str_radix(text, 16)
                .map(Self::Perceptual)
                .map_err(|_| format!("{text:?} is not a hash")),
            32 => Err(format!("{text:?}: MD5 is not compared")),
            _ => Err(format!("{text:?} is not a hash")),
        }
    }
}

impl Columns {
    /// Returns the columns that the first line of a CSV names, and whether it names some.
    fn of(first: &csv::StringRecord) -> (Self, bool) {
        let named = |names: &[&str]| {
            let mut fields = first.iter();
            fields.position(|field| names.iter().any(|name| field.eq_ignore_ascii_case(name)))
        };
        let bare = Self {
            hash: 0,
            name: Some(1),
            label: Some(2),
        };
        let Some(hash) = named(&HASHES) else {
            return (bare, false);
        };
        let columns = Self {
            hash,
            name: named(&NAMES),
            label: named(&["label"]),
        };
        (columns, true)
    }
}
