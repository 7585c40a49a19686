//! Lists of known hashes: text or CSV.
//!
//! - *Text*: a hash on each line, then an optional name: what `sha256sum` prints. Empty lines
//!   and lines that begin with `#` are skipped.
//! - *CSV* (`.csv`): the first line names the columns. Hashes are in `sha256`, `phash` or `hash`; names in
//!   `image_id`, `id` or `name`; labels in `label`. Without such a first line the hash is in the first
//!   column and the name in the second.
//!
//! A hash of 64 hexadecimal digits is a SHA-256, one of 32 an MD5, one of 16 a 64-bit perceptual hash. In
//! a list that ends in `.pdq`, and in the column `pdq` of a CSV, 64 digits are a PDQ hash. A list is read line
//! by line whenever it is compared with, so its length does not matter.

use std::io::{BufRead, BufReader, Read};

use sluice_manifest::{Error, Fingerprint, Result};
use sluice_store::{Location, Storage, Store};

use super::open::{By, Digest, Hashed, Set};
use crate::hash::{Hash, decode};

/// Endings of the names of lists.
const ENDINGS: [&str; 5] = [".txt", ".csv", ".sha256", ".md5", ".pdq"];
const HASHES: [&str; 5] = ["hash", "sha256", "phash", "md5", "pdq"];
const NAMES: [&str; 3] = ["image_id", "id", "name"];

/// A list of hashes.
#[derive(Debug)]
pub(crate) struct HashList {
    store: Store,
    path: String,
    /// The number of its hashes.
    pub entries: u64,
    /// The kinds of its hashes.
    pub kinds: Vec<By>,
    /// Of its content.
    pub fingerprint: Fingerprint,
}

/// Which fields of a line are what.
struct Columns {
    hash: usize,
    /// Whether 64 digits are a PDQ hash.
    is_pdq: bool,
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
            kinds: Vec::new(),
            store,
            path,
        };
        let (mut entries, mut kinds) = (0, Vec::new());
        list.each_line(&mut |line| {
            entries += 1;
            let kind = line.digest.kind();
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
            Ok(())
        })?;
        (list.entries, list.kinds) = (entries, kinds);
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
            each(Hashed {
                set,
                image_id: line.name,
                label: line.label,
                digest: line.digest,
            })
        })
    }

    fn has_ending(&self, ending: &str) -> bool {
        self.path.to_ascii_lowercase().ends_with(ending)
    }

    fn each_line(&self, each: &mut dyn FnMut(Line<'_>) -> Result<()>) -> Result<()> {
        let object = self.store.reader(&self.path)?;
        if self.has_ending(".csv") {
            self.each_record(object, each)
        } else {
            self.each_text(object, each)
        }
    }

    fn each_text(
        &self,
        object: impl Read,
        each: &mut dyn FnMut(Line<'_>) -> Result<()>,
    ) -> Result<()> {
        let is_pdq = self.has_ending(".pdq");
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
            let between = |c: char| c.is_whitespace() || (is_pdq && c == ',');
            let (hash, name) = line.split_once(between).unwrap_or((line, ""));
            // `sha256sum` marks files that it read as binary ones.
            let name = name.trim().trim_start_matches('*');
            each(self.line(number, hash, is_pdq, [Some(name), None])?)?;
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
            let named = [field(columns.name), field(columns.label)];
            each(self.line(number, hash, columns.is_pdq, named)?)?;
        }
        Ok(())
    }

    fn line<'a>(
        &self,
        number: u64,
        hash: &'a str,
        is_pdq: bool,
        [name, label]: [Option<&'a str>; 2],
    ) -> Result<Line<'a>> {
        let given = |text: &&str| !text.is_empty();
        Ok(Line {
            name: name.filter(given).unwrap_or(hash),
            label: label.filter(given),
            digest: Digest::parse(hash, is_pdq).ok_or_else(|| {
                let uri = self.store.uri(&self.path);
                Error::data(format!("{uri}: line {number}: {hash:?} is not a hash")).hint(
                    "expected hexadecimal digits: 64 of a SHA-256 or PDQ hash, 32 of an MD5, 16 of a 64-bit \
                     perceptual hash",
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
    digest: Digest,
    name: &'a str,
    label: Option<&'a str>,
}

impl Digest {
    /// Parses a hash by its number of digits.
    fn parse(text: &str, is_pdq: bool) -> Option<Self> {
        match text.len() {
            64 if is_pdq => Hash::of_pdq(text).map(Self::Pdq),
            64 => decode(text).map(Self::Sha256),
            32 => decode(text).map(Self::Md5),
            16 => decode(text).map(|bytes| Self::Phash(Hash([u64::from_be_bytes(bytes)]))),
            _ => None,
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
            is_pdq: false,
            name: Some(1),
            label: Some(2),
        };
        let Some(hash) = named(&HASHES) else {
            return (bare, false);
        };
        let columns = Self {
            hash,
            is_pdq: first[hash].eq_ignore_ascii_case("pdq"),
            name: named(&NAMES),
            label: named(&["label"]),
        };
        (columns, true)
    }
}
