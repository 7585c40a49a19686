//! The reference sets that a step compares with: indexes and lists of hashes.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::UInt64Type;
use sluice_harness::Upstream;
use sluice_manifest::rows::Row;
use sluice_manifest::{Error, Fingerprint, ImageId, Input, InputOf, Output, Result};
use sluice_store::{Checked, Location, Storage, Store, Table, vectors};

use super::list::HashList;
use super::{DESCRIPTION, Description, HashRow, VECTORS};
use crate::Check;
use crate::embeddings::Encoder;

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
    pub sha256: Option<[u8; 32]>,
    pub phash: Option<u64>,
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

/// The SHA-256 and the perceptual hash of an image, as far as they are asked for.
type Hashes = (Option<[u8; 32]>, Option<u64>);

/// The hash by which images are compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum By {
    Sha256,
    Phash,
}

impl References {
    /// Opens the sets and checks that each holds something.
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

    /// Calls `each` with every image of the sets that has this hash, set by set.
    ///
    /// # Errors
    /// Of `each` and `check`; data, when a set is damaged; of storage.
    pub fn each_hash(
        &self,
        by: By,
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
        by: By,
        check: Check<'_>,
        each: &mut dyn FnMut(Hashed<'_>) -> Result<()>,
    ) -> Result<()> {
        let columns = ["image_id", "label", by.column()];
        for batch in self.table(part, HashRow::SCHEMA, &columns)? {
            check()?;
            let batch = batch?;
            let (ids, labels) = (texts(&batch, "image_id")?, texts(&batch, "label")?);
            for row in 0..batch.num_rows() {
                let Some((sha256, phash)) = by.hash(&batch, row)? else {
                    continue;
                };
                each(Hashed {
                    set: self,
                    image_id: ids.value(row),
                    label: at(labels, row),
                    sha256,
                    phash,
                })?;
            }
        }
        Ok(())
    }
}

impl By {
    fn column(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Phash => "phash",
        }
    }

    /// Returns the SHA-256 or the perceptual hash of a row; none where it has none.
    fn hash(self, batch: &RecordBatch, row: usize) -> Result<Option<Hashes>> {
        match self {
            Self::Sha256 => {
                let mut digest = [0; 32];
                let text = at(texts(batch, "sha256")?, row);
                let decoded = text.and_then(|text| hex::decode_to_slice(text, &mut digest).ok());
                Ok(decoded.map(|()| (Some(digest), None)))
            }
            Self::Phash => {
                let column = batch.column_by_name("phash");
                let column = column.and_then(|column| column.as_primitive_opt::<UInt64Type>());
                let column =
                    column.ok_or_else(|| Error::data("column \"phash\" is not of numbers"))?;
                Ok(column
                    .is_valid(row)
                    .then(|| (None, Some(column.value(row)))))
            }
        }
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
