//! The reference sets that a step compares with: indexes and lists of hashes.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::UInt64Type;
use sluice_manifest::rows::Row;
use sluice_manifest::{Error, Fingerprint, ImageId, Input, InputOf, Output, Result};
use sluice_run::Upstream;
use sluice_store::{Checked, Location, Storage, Store, Table, vectors};

use super::list::HashList;
use super::{DESCRIPTION, Description, HashRow, VECTORS};
use crate::Check;
use crate::embeddings::Encoder;
use crate::hash::{self as phash, decode};
use crate::settings::HashKind;

/// The sets of `--against`, in their order.
#[derive(Debug, Default)]
pub(crate) struct References {
    sets: Vec<Set>,
}

/// A reference set.
#[derive(Debug)]
pub(crate) struct Set {
    /// Its URI.
    pub name: String,
    content: Content,
    fingerprint: Fingerprint,
}

#[derive(Debug)]
enum Content {
    Index { store: Store, about: Description },
    List(HashList),
}

/// An image of a reference set, with a hash.
pub(crate) struct Hashed<'a> {
    pub set: &'a Set,
    pub image_id: &'a str,
    pub label: Option<&'a str>,
    pub digest: Digest,
}

/// Images of a reference set, with their embeddings.
pub(crate) struct Embedded<'a> {
    pub set: &'a Set,
    ids: &'a StringArray,
    labels: &'a StringArray,
    /// One after the other.
    pub vectors: &'a [f32],
}

/// An image of a reference set because of which one is removed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Known {
    /// The set's URI.
    pub set: String,
    /// Its name in the set.
    pub image_id: ImageId,
    /// Its label in the set.
    pub label: Option<String>,
    /// How similar the removed image is.
    pub similarity: f32,
}

/// A hash of a reference set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Digest {
    Sha256([u8; 32]),
    Md5([u8; 16]),
    Phash(phash::Hash<1>),
    Pdq(phash::Hash<4>),
}

/// The hash by which images are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Sha256,
    Md5,
    Phash,
    Pdq,
}

impl References {
    /// Opens the sets and checks that none is empty.
    ///
    /// # Errors
    /// Data, when a set does not exist, is broken or empty; of storage.
    pub fn open(storage: &Storage, places: &[String]) -> Result<Self> {
        let sets = places.iter().map(|place| Set::open(storage, place));
        Ok(Self {
            sets: sets.collect::<Result<_>>()?,
        })
    }

    /// Whether there is no set.
    pub fn are_none(&self) -> bool {
        self.sets.is_empty()
    }

    /// Returns the sets' URIs.
    pub fn names(&self) -> Vec<String> {
        self.sets.iter().map(|set| set.name.clone()).collect()
    }

    /// Returns the sets as inputs of a unit.
    pub fn inputs(&self) -> impl Iterator<Item = Input> {
        self.sets.iter().map(|set| Input {
            of: InputOf::Object {
                uri: set.name.clone(),
            },
            fingerprint: set.fingerprint.clone(),
        })
    }

    /// Checks before the work that the embeddings of all sets can come from an encoder of the pipeline.
    ///
    /// # Errors
    /// Usage, when a set has those of another model.
    pub fn check_encoders(&self, upstream: &Upstream) -> Result<()> {
        let names: Vec<&str> = upstream.embedders().map(|e| e.model.as_str()).collect();
        for set in &self.sets {
            if let Some(encoder) = set.encoder()
                && !names.is_empty()
                && !names.contains(&encoder.name())
            {
                return Err(set.other_encoder(encoder, &names.join(", ")));
            }
        }
        Ok(())
    }

    /// Checks that the embeddings of all sets come from this encoder.
    ///
    /// # Errors
    /// Usage, when a set has those of another model.
    pub fn check_encoder(&self, own: &Encoder) -> Result<()> {
        let mut of_sets = self.sets.iter().map(|set| (set, set.encoder()));
        let other = of_sets.find_map(|(set, found)| {
            let found = found.filter(|found| *found != own);
            found.map(|found| (set, found))
        });
        match other {
            Some((set, found)) => Err(set.other_encoder(found, own.name())),
            None => Ok(()),
        }
    }

    /// Whether a set has embeddings.
    pub fn are_embedded(&self) -> bool {
        self.sets.iter().any(|set| set.encoder().is_some())
    }

    /// Checks that no list has only perceptual hashes of another kind.
    ///
    /// # Errors
    /// Usage, if one has: its hashes would not be compared.
    pub fn check_kind(&self, kind: HashKind) -> Result<()> {
        let (other, hint) = match kind {
            HashKind::Phash => (By::Pdq, "compare with it by --hash pdq"),
            HashKind::Pdq => (
                By::Phash,
                "compare with it by --hash phash, in a step of its own",
            ),
        };
        match self.sets.iter().find(|set| set.kinds() == [other]) {
            Some(set) => {
                let name = &set.name;
                let error = format!("{name}: its hashes are {}", other.column());
                Err(Error::usage(error).hint(hint))
            }
            None => Ok(()),
        }
    }

    /// Checks that no list has MD5 hashes, for images that have none.
    ///
    /// # Errors
    /// Usage, when one has.
    pub fn refuse_md5(&self) -> Result<()> {
        match self.sets.iter().find(|set| set.kinds().contains(&By::Md5)) {
            Some(set) => {
                let name = &set.name;
                Err(
                    Error::usage(format!("{name}: has MD5 hashes, and read/images has none"))
                        .hint("run sluice-read with --hashes md5"),
                )
            }
            None => Ok(()),
        }
    }

    /// Calls `each` with every hash of these kinds of the sets, set by set.
    ///
    /// # Errors
    /// Of `each` and `check`; data, when a set is damaged; of storage.
    pub fn each_hash(
        &self,
        by: &[By],
        check: Check<'_>,
        each: &mut dyn FnMut(Hashed<'_>) -> Result<()>,
    ) -> Result<()> {
        for set in &self.sets {
            match &set.content {
                Content::List(list) => list.each_hash(set, each)?,
                Content::Index { about, .. } => {
                    for part in &about.parts {
                        set.each_hash_of(&part.hashes, by, check, each)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Calls `each` with all embeddings of the sets, some at a time.
    ///
    /// # Errors
    /// As [`each_hash`](Self::each_hash).
    pub fn each_embedded(
        &self,
        check: Check<'_>,
        each: &mut dyn FnMut(Embedded<'_>) -> Result<()>,
    ) -> Result<()> {
        for set in &self.sets {
            let Content::Index { about, .. } = &set.content else {
                continue;
            };
            for part in about
                .parts
                .iter()
                .filter_map(|part| part.embeddings.as_ref())
            {
                let columns = ["image_id", "label", "embedding"];
                for batch in set.table(part, VECTORS, &columns)? {
                    check()?;
                    let batch = batch?;
                    each(Embedded {
                        set,
                        ids: texts(&batch, "image_id")?,
                        labels: texts(&batch, "label")?,
                        vectors: vectors(&batch, "embedding")?,
                    })?;
                }
            }
        }
        Ok(())
    }
}

impl Set {
    fn open(storage: &Storage, place: &str) -> Result<Self> {
        let location = Location::parse(place)?;
        let name = location.to_string();
        let set = if HashList::is_named(place) {
            let list = HashList::open(storage, &location)?;
            Self {
                fingerprint: list.fingerprint.clone(),
                content: Content::List(list),
                name,
            }
        } else {
            Self::open_index(storage, &location, name)?
        };
        match set.len() {
            0 => Err(Error::data(format!("{}: holds no image", set.name))
                .hint("make the index from a set that has images, or leave it out")),
            _ => Ok(set),
        }
    }

    fn open_index(storage: &Storage, location: &Location, name: String) -> Result<Self> {
        let missing = || {
            Error::data(format!("{name}: no such index"))
                .hint("make it with `sluice-dedup index`; lists of hashes end in .txt or .csv")
        };
        let store = storage.open_if_there(location)?.ok_or_else(missing)?;
        let json = store.get_if_there(DESCRIPTION)?.ok_or_else(missing)?;
        let about = Description::parse(&json, &store.uri(DESCRIPTION))?;
        Ok(Self {
            fingerprint: Fingerprint::of([&*String::from_utf8_lossy(&json)]),
            content: Content::Index { store, about },
            name,
        })
    }

    fn len(&self) -> u64 {
        match &self.content {
            Content::Index { about, .. } => about.images,
            Content::List(list) => list.entries,
        }
    }

    /// Returns the kinds of a list's hashes.
    fn kinds(&self) -> &[By] {
        match &self.content {
            Content::Index { .. } => &[],
            Content::List(list) => &list.kinds,
        }
    }

    fn encoder(&self) -> Option<&Encoder> {
        match &self.content {
            Content::Index { about, .. } => about.encoder.as_ref(),
            Content::List(_) => None,
        }
    }

    fn other_encoder(&self, found: &Encoder, own: &str) -> Error {
        Error::usage(format!(
            "{}: its embeddings are of {found}, those of the run of {own}",
            self.name
        ))
        .hint("make the index from a run with the same --model")
    }

    fn table(&self, part: &Output, schema: &str, columns: &[&str]) -> Result<Table> {
        let Content::Index { store, .. } = &self.content else {
            return Err(Error::bug(format!("{}: a list has no tables", self.name)));
        };
        let uri = store.uri(part.path.as_str());
        let checked = Checked {
            output: part.clone(),
            damaged: Arc::new(move |what| {
                Error::data(format!("{uri}: damaged: {what}")).hint("make the index again")
            }),
        };
        store.checked_table(checked, schema, columns)
    }

    fn each_hash_of(
        &self,
        part: &Output,
        by: &[By],
        check: Check<'_>,
        each: &mut dyn FnMut(Hashed<'_>) -> Result<()>,
    ) -> Result<()> {
        let kinds = by.iter().map(|by| by.column());
        let columns: Vec<&str> = ["image_id", "label"].into_iter().chain(kinds).collect();
        for batch in self.table(part, HashRow::SCHEMA, &columns)? {
            check()?;
            let batch = batch?;
            let (ids, labels) = (texts(&batch, "image_id")?, texts(&batch, "label")?);
            for row in 0..batch.num_rows() {
                for by in by {
                    let Some(digest) = by.digest(&batch, row)? else {
                        continue;
                    };
                    each(Hashed {
                        set: self,
                        image_id: ids.value(row),
                        label: at(labels, row),
                        digest,
                    })?;
                }
            }
        }
        Ok(())
    }
}

impl Digest {
    /// Returns the kind of hash.
    pub fn kind(&self) -> By {
        match self {
            Self::Sha256(_) => By::Sha256,
            Self::Md5(_) => By::Md5,
            Self::Phash(_) => By::Phash,
            Self::Pdq(_) => By::Pdq,
        }
    }
}

impl By {
    fn column(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Md5 => "md5",
            Self::Phash => "phash",
            Self::Pdq => "pdq",
        }
    }

    /// Returns the hash of a row; none where it has none.
    fn digest(self, batch: &RecordBatch, row: usize) -> Result<Option<Digest>> {
        if self == Self::Phash {
            let column = batch.column_by_name("phash");
            let column = column.and_then(|column| column.as_primitive_opt::<UInt64Type>());
            let column = column.ok_or_else(|| Error::data("column \"phash\" is not of numbers"))?;
            let hash = column.is_valid(row).then(|| column.value(row));
            return Ok(hash.map(|hash| Digest::Phash(phash::Hash([hash]))));
        }
        let Some(text) = at(texts(batch, self.column())?, row) else {
            return Ok(None);
        };
        Ok(match self {
            Self::Md5 => decode(text).map(Digest::Md5),
            Self::Pdq => phash::Hash::of_pdq(text).map(Digest::Pdq),
            Self::Sha256 | Self::Phash => decode(text).map(Digest::Sha256),
        })
    }
}

impl Hashed<'_> {
    /// Returns the image as one because of which another is removed.
    pub fn known(&self, similarity: f32) -> Known {
        Known::new(self.set, self.image_id, self.label, similarity)
    }
}

impl Embedded<'_> {
    /// As [`Hashed::known`], of an image by its row.
    pub fn known(&self, row: usize, similarity: f32) -> Known {
        Known::new(
            self.set,
            self.ids.value(row),
            at(self.labels, row),
            similarity,
        )
    }
}

impl Known {
    fn new(set: &Set, image_id: &str, label: Option<&str>, similarity: f32) -> Self {
        Self {
            set: set.name.clone(),
            image_id: ImageId::from_text(image_id),
            label: label.map(str::to_owned),
            similarity,
        }
    }
}

fn texts<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a StringArray> {
    let column = batch.column_by_name(name);
    let column = column.and_then(|column| column.as_string_opt::<i32>());
    column.ok_or_else(|| Error::data(format!("column {name:?} is not text")))
}

fn at(texts: &StringArray, row: usize) -> Option<&str> {
    texts.is_valid(row).then(|| texts.value(row))
}
