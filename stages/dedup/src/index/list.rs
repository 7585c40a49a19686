//! Lists of known hashes: text or CSV, in UTF-8 with or without a byte order mark.
//!
//! - *Text*: a hash on each line, then an optional name: what `sha256sum` prints. Empty lines
//!   and lines that begin with `#` are skipped.
//! - *CSV* (`.csv`): the first line names the columns. Hashes are in `sha256`, `md5`, `phash`, `pdq` and
//!   `hash`, names in `image_id`, `id` or `name`, labels in `label`. All columns of hashes count, and a
//!   cell may be empty if another one of the row is not. Without such a first line the hash is in the
//!   first column, the name in the second and the label in the third.
//!
//! A hash of 64 hexadecimal digits is a SHA-256, one of 32 an MD5, one of 16 a 64-bit perceptual hash. In
//! a list that ends in `.pdq`, and in the column `pdq` of a CSV, 64 digits are a PDQ hash. A list is read line
//! by line whenever it is compared with, so its length does not matter.

use std::io::{BufRead, BufReader, Read};

use sluice_manifest::{Class, Error, Fingerprint, Result};
use sluice_store::{Location, Storage, Store};

use super::open::{By, Digest, Hashed, Set};
use crate::hash::{Hash, decode};

/// Endings of the names of lists.
const ENDINGS: [&str; 5] = [".txt", ".csv", ".sha256", ".md5", ".pdq"];
const NAMES: [&str; 3] = ["image_id", "id", "name"];
/// What some programs write before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
const COLUMNS: &str = "the first line names the columns: sha256, md5, phash, pdq or hash; name; label; without \
                       names the hash comes first";

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

/// Which fields of a record are what.
struct Columns {
    /// The columns of hashes, and what they contain.
    hashes: Vec<(usize, Expected)>,
    name: Option<usize>,
    label: Option<usize>,
}

/// What a text contains if it is a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// Any hash, by its number of digits. 64 are a SHA-256.
    Any,
    /// Any hash. 64 digits are a PDQ hash.
    AnyPdq,
    /// A hash of this kind.
    Only(By),
}

impl HashList {
    /// Whether a place has the name of a list.
    pub(crate) fn is_named(place: &str) -> bool {
        let lower = place.to_ascii_lowercase();
        ENDINGS.iter().any(|ending| lower.ends_with(ending))
    }

    /// Opens a list and checks all of its lines.
    ///
    /// # Errors
    /// Data, when it does not exist or a line has no known hash; of storage.
    pub(crate) fn open(storage: &Storage, place: &Location) -> Result<Self> {
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
    pub(crate) fn each_hash(
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
        let mut object = BufReader::new(self.store.reader(&self.path)?);
        let head = object.fill_buf().map_err(|e| self.unreadable(&e))?;
        if head.starts_with(BYTE_ORDER_MARK) {
            object.consume(BYTE_ORDER_MARK.len());
        }
        if self.has_ending(".csv") {
            self.each_record(object, each)
        } else {
            self.each_text(object, each)
        }
    }

    fn each_text(
        &self,
        mut object: impl BufRead,
        each: &mut dyn FnMut(Line<'_>) -> Result<()>,
    ) -> Result<()> {
        let expected = if self.has_ending(".pdq") {
            Expected::AnyPdq
        } else {
            Expected::Any
        };
        let mut bytes = Vec::new();
        for number in 1.. {
            bytes.clear();
            let read = object.read_until(b'\n', &mut bytes);
            if read.map_err(|e| self.unreadable(&e))? == 0 {
                break;
            }
            let line = std::str::from_utf8(&bytes).map_err(|_| self.not_utf8(number))?;
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            // `sha256sum` marks lines with escaped names by a backslash, and files that it read as binary
            // ones by an asterisk.
            let line = line.strip_prefix('\\').unwrap_or(line);
            let between = |c: char| c.is_whitespace() || c == ',';
            let (hash, name) = line.split_once(between).unwrap_or((line, ""));
            let name = name.trim().trim_start_matches('*');
            each(self.line(number, hash, expected, [Some(name), None])?)?;
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
            .map_err(|e| self.not_a_record(&e))?
        {
            let number = record.position().map_or(0, csv::Position::line);
            if record.iter().all(str::is_empty) {
                continue;
            }
            let columns = match &columns {
                Some(columns) => columns,
                None => match Columns::named(&record) {
                    Some(named) => {
                        columns = Some(named);
                        continue;
                    }
                    None => columns.insert(Columns::bare()),
                },
            };
            self.each_of_record(number, &record, columns, each)?;
        }
        Ok(())
    }

    /// Calls `each` with all hashes of a record.
    fn each_of_record(
        &self,
        number: u64,
        record: &csv::StringRecord,
        columns: &Columns,
        each: &mut dyn FnMut(Line<'_>) -> Result<()>,
    ) -> Result<()> {
        let field = |column: Option<usize>| column.and_then(|column| record.get(column));
        let hashes = columns.hashes.iter();
        let hashes = hashes.filter_map(|&(column, expected)| Some((record.get(column)?, expected)));
        let mut hashes = hashes.filter(|(hash, _)| !hash.is_empty()).peekable();
        if hashes.peek().is_none() {
            let error = self.wrong(number, "the row has no hash");
            return Err(error.hint(COLUMNS));
        }
        for (hash, expected) in hashes {
            let named = [field(columns.name), field(columns.label)];
            each(self.line(number, hash, expected, named)?)?;
        }
        Ok(())
    }

    fn line<'a>(
        &self,
        number: u64,
        hash: &'a str,
        expected: Expected,
        [name, label]: [Option<&'a str>; 2],
    ) -> Result<Line<'a>> {
        let given = |text: &&str| !text.is_empty();
        Ok(Line {
            name: name.filter(given).unwrap_or(hash),
            label: label.filter(given),
            digest: Digest::parse(hash, expected).ok_or_else(|| {
                let error = self.wrong(number, format_args!("{hash:?} is not {}", expected.name()));
                let digits = format!("expected hexadecimal digits: {}", expected.digits());
                error.hint(if self.has_ending(".csv") {
                    format!("{digits}; {COLUMNS}")
                } else {
                    digits
                })
            })?,
        })
    }

    fn wrong(&self, number: u64, what: impl std::fmt::Display) -> Error {
        let uri = self.store.uri(&self.path);
        Error::data(format!("{uri}: line {number}: {what}"))
    }

    fn not_utf8(&self, number: u64) -> Error {
        self.wrong(number, "not UTF-8")
            .hint("save the list as UTF-8 text")
    }

    fn not_a_record(&self, e: &csv::Error) -> Error {
        match e.kind() {
            csv::ErrorKind::Utf8 { pos, .. } => {
                self.not_utf8(pos.as_ref().map_or(0, csv::Position::line))
            }
            _ => self.unreadable(e),
        }
    }

    fn unreadable(&self, e: &(dyn std::error::Error + 'static)) -> Error {
        let uri = self.store.uri(&self.path);
        match Class::of(e) {
            Some(Class::Transient) => Error::transient(format!("{uri}: {e}")),
            _ => Error::data(format!("{uri}: cannot be read as text: {e}")),
        }
    }
}

/// A hash of a list, with its name and label.
struct Line<'a> {
    digest: Digest,
    name: &'a str,
    label: Option<&'a str>,
}

impl Expected {
    /// Returns what the error about another text calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Any | Self::AnyPdq => "a hash",
            Self::Only(By::Sha256) => "a SHA-256",
            Self::Only(By::Md5) => "an MD5",
            Self::Only(By::Phash) => "a 64-bit perceptual hash",
            Self::Only(By::Pdq) => "a PDQ hash",
        }
    }

    /// Returns the numbers of digits.
    fn digits(self) -> &'static str {
        match self {
            Self::Any => "64 of a SHA-256, 32 of an MD5, 16 of a 64-bit perceptual hash",
            Self::AnyPdq => "64 of a PDQ hash, 32 of an MD5, 16 of a 64-bit perceptual hash",
            Self::Only(By::Sha256 | By::Pdq) => "64",
            Self::Only(By::Md5) => "32",
            Self::Only(By::Phash) => "16",
        }
    }
}

impl Digest {
    /// Parses a hash.
    fn parse(text: &str, expected: Expected) -> Option<Self> {
        let kind = match (expected, text.len()) {
            (Expected::Only(kind), _) => kind,
            (Expected::AnyPdq, 64) => By::Pdq,
            (Expected::Any, 64) => By::Sha256,
            (_, 32) => By::Md5,
            (_, 16) => By::Phash,
            _ => return None,
        };
        match kind {
            By::Sha256 => decode(text).map(Self::Sha256),
            By::Md5 => decode(text).map(Self::Md5),
            By::Phash => decode(text).map(|bytes| Self::Phash(Hash([u64::from_be_bytes(bytes)]))),
            By::Pdq => Hash::of_pdq(text).map(Self::Pdq),
        }
    }
}

impl Columns {
    /// Returns the columns that the first record of a CSV names; none if it names no hash.
    fn named(first: &csv::StringRecord) -> Option<Self> {
        let is = |field: &str, names: &[&str]| names.iter().any(|n| field.eq_ignore_ascii_case(n));
        let expected = |field: &str| match field.to_ascii_lowercase().as_str() {
            "hash" => Some(Expected::Any),
            "sha256" => Some(Expected::Only(By::Sha256)),
            "md5" => Some(Expected::Only(By::Md5)),
            "phash" => Some(Expected::Only(By::Phash)),
            "pdq" => Some(Expected::Only(By::Pdq)),
            _ => None,
        };
        let fields = first.iter().enumerate();
        let hashes = fields.filter_map(|(column, field)| Some((column, expected(field)?)));
        let hashes: Vec<(usize, Expected)> = hashes.collect();
        let named = |names: &[&str]| first.iter().position(|field| is(field, names));
        (!hashes.is_empty()).then(|| Self {
            hashes,
            name: named(&NAMES),
            label: named(&["label"]),
        })
    }

    /// Returns the columns of a CSV that does not name them.
    fn bare() -> Self {
        Self {
            hashes: vec![(0, Expected::Any)],
            name: Some(1),
            label: Some(2),
        }
    }
}
