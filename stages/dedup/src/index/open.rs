//! The reference sets that a step compares with: indexes and lists of hashes.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::UInt64Type;
use serde_json::{Value, json};
use sluice_harness::Context;
use sluice_manifest::rows::{Method, Row};
use sluice_manifest::{Error, Fingerprint, ImageId, Input, InputOf, Output, Result};
use sluice_run::{ReferenceUse, Upstream};
use sluice_store::{Checked, Location, Storage, Store, Table, vectors};

use super::list::HashList;
use super::{DESCRIPTION, Description, HashRow, VECTORS};
use crate::Check;
use crate::arguments::ReferenceArgs;
use crate::embeddings::Encoder;
use crate::hash::{self as phash, decode};
use crate::methods::Methods;
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
    /// Why the method does not compare with it.
    unused: Option<Unused>,
}

/// Why a method does not compare with a set.
#[derive(Debug, Clone, PartialEq)]
struct Unused {
    why: String,
    hint: String,
    /// Whether the set is for this method, but lacks what the method compares.
    is_lacking: bool,
}

/// By what a method compares images with reference sets.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Comparison {
    /// By SHA-256, and by MD5 where `read` computed it.
    Exact {
        /// Whether `read` computed MD5.
        has_md5: bool,
    },
    /// By the perceptual hash of this kind.
    Perceptual(HashKind),
    /// By embeddings.
    Semantic,
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
    /// Opens the sets for the comparison of one method of a step.
    ///
    /// # Errors
    /// Data, when a set does not exist, is broken or empty; usage, when no method of the step can compare
    /// with one, unless --skip-unusable is given; of storage.
    pub(crate) fn open(
        storage: &Storage,
        args: &ReferenceArgs,
        methods: &Methods,
        comparison: Comparison,
    ) -> Result<Self> {
        let mut sets = Vec::new();
        for place in &args.against {
            let mut set = Set::open(storage, place)?;
            set.unused = set.unused_by(comparison)?;
            if let Some(Unused { why, hint, .. }) = &set.unused
                && !args.skip_unusable
                && !set.suits_another(methods, comparison.method())?
            {
                let name = &set.name;
                return Err(Error::usage(format!(
                    "{name}: no method of this step can compare with it: {why}"
                ))
                .hint(format!("{hint}; --skip-unusable skips such sets")));
            }
            sets.push(set);
        }
        Ok(Self { sets })
    }

    /// Returns what an index has, for the result of the program that writes it.
    ///
    /// # Errors
    /// Data, when it is broken or empty; of storage.
    pub(crate) fn summary(storage: &Storage, place: &str) -> Result<Value> {
        let set = Set::open(storage, place)?;
        let mut hashes = Vec::new();
        for kind in [By::Sha256, By::Phash, By::Md5, By::Pdq] {
            if set.has(kind)? {
                hashes.push(kind.column());
            }
        }
        let mut methods = Vec::new();
        for method in [Method::Exact, Method::Perceptual, Method::Semantic] {
            if set.suits(method)? {
                methods.push(method);
            }
        }
        let Content::Index { about, .. } = &set.content else {
            return Err(Error::bug(format!("{}: a list is not written", set.name)));
        };
        let bytes: u64 = about.outputs().map(|output| output.bytes).sum();
        Ok(json!({
            "uri": set.name,
            "images": about.images,
            "embeddings": about.embedded,
            "model": about.encoder.as_ref().map(Encoder::name),
            "hashes": hashes,
            "methods": methods,
            "bytes": bytes,
        }))
    }

    /// Returns which sets the method compares with.
    pub(crate) fn uses(&self) -> Vec<ReferenceUse> {
        let of = |set: &Set| ReferenceUse {
            set: set.name.clone(),
            unused: set.unused.as_ref().map(|unused| unused.why.clone()),
            hint: set.unused.as_ref().map(|unused| unused.hint.clone()),
            is_lacking: set.unused.as_ref().is_some_and(|unused| unused.is_lacking),
        };
        self.sets.iter().map(of).collect()
    }

    /// Reports which sets the method compares with, in the result and, for the others, in the log.
    pub(crate) fn report(&self, context: &Context) {
        if self.sets.is_empty() {
            return;
        }
        for set in &self.sets {
            let name = &set.name;
            match &set.unused {
                Some(unused) if unused.is_lacking => {
                    let Unused { why, hint, .. } = unused;
                    tracing::warn!("{name}: not compared: {why}; hint: {hint}");
                }
                Some(Unused { why, .. }) => tracing::info!("{name}: not compared: {why}"),
                None => {}
            }
        }
        let sets = self.uses().into_iter().map(|one| match one.unused {
            None => json!({ "set": one.set, "compared": true }),
            Some(why) => json!({ "set": one.set, "compared": false, "because": why }),
        });
        context.report("references", sets.collect());
    }

    /// Whether there is no set.
    pub(crate) fn are_none(&self) -> bool {
        self.sets.is_empty()
    }

    /// Returns the sets' URIs.
    pub(crate) fn names(&self) -> Vec<String> {
        self.sets.iter().map(|set| set.name.clone()).collect()
    }

    /// Returns the sets as inputs of a unit.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = Input> {
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
    pub(crate) fn check_encoders(&self, upstream: &Upstream) -> Result<()> {
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
    pub(crate) fn check_encoder(&self, own: &Encoder) -> Result<()> {
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

    /// Whether there is a set to compare with.
    pub(crate) fn are_compared(&self) -> bool {
        self.compared().next().is_some()
    }

    fn compared(&self) -> impl Iterator<Item = &Set> {
        self.sets.iter().filter(|set| set.unused.is_none())
    }

    /// Calls `each` with every hash of these kinds of the compared sets, set by set.
    ///
    /// # Errors
    /// Of `each` and `check`; data, when a set is damaged; of storage.
    pub(crate) fn each_hash(
        &self,
        by: &[By],
        check: Check<'_>,
        each: &mut dyn FnMut(Hashed<'_>) -> Result<()>,
    ) -> Result<()> {
        for set in self.compared() {
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

    /// Calls `each` with all embeddings of the compared sets, some at a time.
    ///
    /// # Errors
    /// As [`each_hash`](Self::each_hash).
    pub(crate) fn each_embedded(
        &self,
        check: Check<'_>,
        each: &mut dyn FnMut(Embedded<'_>) -> Result<()>,
    ) -> Result<()> {
        for set in self.compared() {
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
                unused: None,
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
            unused: None,
        })
    }

    fn len(&self) -> u64 {
        match &self.content {
            Content::Index { about, .. } => about.images,
            Content::List(list) => list.entries,
        }
    }

    /// Whether the set has a hash of this kind. Reads an index up to the first one.
    fn has(&self, by: By) -> Result<bool> {
        let about = match &self.content {
            Content::List(list) => return Ok(list.kinds.contains(&by)),
            Content::Index { about, .. } => about,
        };
        let column = by.column();
        for part in &about.parts {
            for batch in self.table(&part.hashes, HashRow::SCHEMA, &[column])? {
                let batch = batch?;
                let hashes = batch.column_by_name(column);
                if hashes.is_some_and(|hashes| hashes.null_count() < hashes.len()) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn has_any(&self, kinds: &[By]) -> Result<bool> {
        for kind in kinds {
            if self.has(*kind)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a method could compare with the set, given the right flags and hashes of the run.
    fn suits(&self, method: Method) -> Result<bool> {
        match method {
            Method::Exact => self.has_any(&[By::Sha256, By::Md5]),
            Method::Perceptual => self.has_any(&[By::Phash, By::Pdq]),
            Method::Semantic => Ok(self.encoder().is_some()),
        }
    }

    fn suits_another(&self, methods: &Methods, own: Method) -> Result<bool> {
        for method in methods.iter().filter(|method| *method != own) {
            if self.suits(method)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns why a method does not compare with the set, if it does not.
    fn unused_by(&self, comparison: Comparison) -> Result<Option<Unused>> {
        let is_used = match comparison {
            Comparison::Exact { has_md5: true } => self.suits(Method::Exact)?,
            Comparison::Exact { has_md5: false } => self.has(By::Sha256)?,
            Comparison::Perceptual(HashKind::Phash) => self.has(By::Phash)?,
            Comparison::Perceptual(HashKind::Pdq) => self.has(By::Pdq)?,
            Comparison::Semantic => self.suits(Method::Semantic)?,
        };
        if is_used {
            return Ok(None);
        }
        let is_index = matches!(self.content, Content::Index { .. });
        let suits = self.suits(comparison.method())?;
        let (why, hint) = match comparison {
            Comparison::Exact { .. } if suits => (
                "it has MD5 hashes, and read computes none",
                "compute them: --hashes md5 of sluice-read or sluice run",
            ),
            Comparison::Exact { .. } => (
                "it has neither SHA-256 nor MD5 hashes",
                "compare with it by another method",
            ),
            Comparison::Perceptual(HashKind::Phash) if suits => (
                "it has PDQ hashes, and 64-bit ones are compared",
                "compare PDQ hashes: --hash pdq, with --hashes pdq of sluice-read or sluice run",
            ),
            Comparison::Perceptual(HashKind::Pdq) if suits && is_index => (
                "it has no PDQ hashes",
                "make the index from a run of sluice-read --hashes pdq, or compare 64-bit hashes",
            ),
            Comparison::Perceptual(HashKind::Pdq) if suits => (
                "it has 64-bit hashes, and PDQ ones are compared",
                "compare with it by --hash phash, in a step of its own",
            ),
            Comparison::Perceptual(_) => (
                "it has no perceptual hashes",
                "compare with it by another method",
            ),
            Comparison::Semantic if is_index => (
                "it has no embeddings",
                "make the index from a run that embeds, or from a dataset that was exported with --embeddings",
            ),
            Comparison::Semantic => (
                "a list of hashes has no embeddings",
                "compare with it by another method",
            ),
        };
        Ok(Some(Unused {
            why: why.to_owned(),
            hint: hint.to_owned(),
            is_lacking: suits || is_index,
        }))
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

impl Comparison {
    /// Returns the method that compares.
    pub(crate) fn method(self) -> Method {
        match self {
            Self::Exact { .. } => Method::Exact,
            Self::Perceptual(_) => Method::Perceptual,
            Self::Semantic => Method::Semantic,
        }
    }
}

impl Digest {
    /// Returns the kind of hash.
    pub(crate) fn kind(&self) -> By {
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
    pub(crate) fn known(&self, similarity: f32) -> Known {
        Known::new(self.set, self.image_id, self.label, similarity)
    }
}

impl Embedded<'_> {
    /// As [`Hashed::known`], of an image by its row.
    pub(crate) fn known(&self, row: usize, similarity: f32) -> Known {
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
