//! Rows that were computed before, and rows that are computed now, in the order of `read`.
//!
//! When only the survivors of a unit changed, most of its rows are in the unit's previous manifest.
//! They are taken over, so a looser rule costs the images that it lets through in addition. The rows
//! of both are parts of one order, so they are joined by walking the samples once.
//!
//! The manifest is read twice: ahead, for the images that need not be read, and for the rows. Another
//! process that works on the same unit may replace it in between, so both must have seen the same rows.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use sluice_harness::{Context, OpenUnit};
use sluice_manifest::layout::Manifest;
use sluice_manifest::rows::NameRow;
use sluice_manifest::{Error, ImageId, Partition, Result};
use sluice_run::{ScoreReader, Survivors, Verdicts};

/// The unit's previous manifest, when its rows can be taken over.
pub struct Previous {
    path: String,
    schema: &'static str,
    columns: Vec<String>,
    /// The ids of the rows that were seen ahead, in order.
    seen: Mutex<DefaultHasher>,
}

impl Previous {
    /// Returns the unit's previous manifest with these columns, if its rows can be taken over.
    ///
    /// # Errors
    /// Storage errors only.
    pub fn of<R>(
        open_unit: &OpenUnit<'_>,
        manifest: &Manifest<R>,
        schema: &'static str,
        columns: &[&str],
    ) -> Result<Option<Self>> {
        Ok(open_unit.is_reusable(manifest)?.then(|| Self {
            path: open_unit.path(manifest),
            schema,
            columns: columns.iter().map(|&name| name.to_owned()).collect(),
            seen: Mutex::default(),
        }))
    }

    fn open(&self, context: &Context, columns: &[&str]) -> Result<ScoreReader> {
        ScoreReader::open_path(context, &self.path, self.schema, columns)
    }

    /// Returns a test for samples, asked for in the order of `read`: whether they have a row.
    ///
    /// # Errors
    /// Data, when the manifest is broken.
    pub fn has_row<'p>(
        previous: Option<&'p Self>,
        context: &Context,
    ) -> Result<impl FnMut(&ImageId) -> Result<bool> + use<'p>> {
        let mut ids = match previous {
            Some(previous) => Some((previous, previous.open(context, &[])?)),
            None => None,
        };
        Ok(move |id: &ImageId| {
            let Some((previous, ids)) = &mut ids else {
                return Ok(false);
            };
            let is_there = ids.next_if(id.as_str())?.is_some();
            if is_there {
                id.as_str().hash(&mut *previous.seen());
            }
            Ok(is_there)
        })
    }

    fn seen(&self) -> impl std::ops::DerefMut<Target = DefaultHasher> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Walks the survivors of a partition and hands out the rows that are taken over, between those that
/// are computed.
pub struct Join {
    samples: Verdicts<NameRow>,
    previous: Option<ScoreReader>,
    /// The ids of the rows that were found, in order.
    found: DefaultHasher,
    /// Survivors passed.
    pub survivors: u64,
    /// Rows taken over.
    pub reused: u64,
}

impl Join {
    /// Begins at the partition's first sample.
    ///
    /// # Errors
    /// Data, when a manifest is missing or broken.
    pub fn open(
        context: &Context,
        survivors: &Survivors<'_>,
        partition: Partition,
        previous: Option<&Previous>,
    ) -> Result<Self> {
        let previous = match previous {
            Some(previous) => {
                let columns: Vec<&str> = previous.columns.iter().map(String::as_str).collect();
                Some(previous.open(context, &columns)?)
            }
            None => None,
        };
        Ok(Self {
            samples: survivors.verdicts(partition)?,
            previous,
            found: DefaultHasher::new(),
            survivors: 0,
            reused: 0,
        })
    }

    /// Walks to this image, or to the end, and hands out the rows on the way. Returns whether the
    /// image is a survivor.
    ///
    /// # Errors
    /// As `row`; data, when a manifest is broken.
    pub fn advance(
        &mut self,
        to: Option<&ImageId>,
        mut row: impl FnMut(ImageId, &[f32]) -> Result<()>,
    ) -> Result<bool> {
        for verdict in self.samples.by_ref() {
            let verdict = verdict?;
            let id = verdict.sample.image_id;
            let numbers = match &mut self.previous {
                Some(previous) => previous.next_if(id.as_str())?,
                None => None,
            };
            if numbers.is_some() {
                id.as_str().hash(&mut self.found);
            }
            let is_survivor = verdict.dropped.is_none();
            self.survivors += u64::from(is_survivor);
            if to == Some(&id) {
                return Ok(is_survivor);
            }
            if !is_survivor {
                continue;
            }
            if let Some(numbers) = numbers {
                self.reused += 1;
                row(id, &numbers)?;
            }
        }
        Ok(false)
    }

    /// Checks, at the end, that the rows are those that were seen ahead.
    ///
    /// # Errors
    /// Transient, when another process replaced the manifest meanwhile.
    pub fn check_same(&self, previous: Option<&Previous>) -> Result<()> {
        match previous {
            Some(previous) if previous.seen().finish() != self.found.finish() => {
                Err(Error::transient(format!(
                    "{}: was replaced while its rows were taken over",
                    previous.path
                ))
                .hint("another process works on the same unit; try again"))
            }
            _ => Ok(()),
        }
    }
}
