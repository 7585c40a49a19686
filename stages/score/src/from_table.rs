//! The scorer that imports a table. The table is read once a process, when the first unit has work to
//! do.

use std::sync::OnceLock;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use sluice_harness::{Context, Work};
use sluice_manifest::rows::SampleRow;
use sluice_manifest::{Error, Fingerprint, Input, InputOf, ScoreColumn, Unit};
use sluice_scoring::ScoreWriter;
use sluice_store::{Location, Storage, Store};

use crate::import::{ImportOptions, ImportedScores};
use crate::{TableArgs, named_columns};

/// The settings that shape imported scores.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// What of an image the table is matched by.
    pub by: String,
    /// The table's column with it.
    pub by_column: Option<String>,
    /// The columns of scores.
    pub columns: Vec<String>,
}

/// Tables up to this many bytes are hashed, so that the same table with another time is the same.
const HASHED: u64 = 1 << 30;

/// Scores from a table.
pub(crate) struct FromTable {
    store: Store,
    path: String,
    options: ImportOptions,
    columns: Vec<ScoreColumn>,
    loaded: OnceLock<Result<ImportedScores, Error>>,
}

impl FromTable {
    /// Looks at a table's header.
    ///
    /// # Errors
    /// Usage or data, when the table cannot be used.
    pub(crate) fn new(storage: &Storage, uri: &str, args: &TableArgs) -> Result<Self, Error> {
        let location = Location::parse(uri)?;
        let not_an_object = || Error::usage(format!("--import {uri}: not the path of an object"));
        let (folder, path) = location.split().ok_or_else(not_an_object)?;
        let store = storage.open(&folder)?;
        let options = ImportOptions {
            by: args.by.clone(),
            by_column: args.by_column.clone(),
            columns: args.columns.clone(),
        };
        let names = ImportedScores::check(&store, &path, &options)?;
        Ok(Self {
            columns: named_columns(&names),
            options,
            store,
            path,
            loaded: OnceLock::new(),
        })
    }

    /// Returns the columns of the scores.
    pub(crate) fn columns(&self) -> &[ScoreColumn] {
        &self.columns
    }

    /// Joins the partitions that are this process's share.
    ///
    /// # Errors
    /// Data, when the table is broken; of storage.
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let plan = context.plan()?;
        let table = self.input()?;
        let survivors = context.survivors(context.node().survivors_of.as_ref())?;
        context.each_unit(plan.units(), context.jobs, |unit| {
            let partition = plan.partition(unit)?.partition;
            let mut inputs = survivors.inputs(partition)?;
            inputs.push(table.clone());
            let work = Work {
                unit,
                units: plan.partitions.len(),
                settings: Settings {
                    by: self.options.by.to_string(),
                    by_column: self.options.by_column.clone(),
                    columns: self.columns.iter().map(|c| c.name.clone()).collect(),
                },
                inputs,
            };
            let Some(mut open_unit) = context.begin(work)? else {
                return Ok(());
            };
            let scores = self.scores(context)?;
            let mut writer = ScoreWriter::open(context, &open_unit, &self.columns, &[])?;
            let (mut samples, mut found) = (0, 0);
            for sample in survivors.samples::<SampleRow>(partition)? {
                let sample = sample?;
                samples += 1;
                let key = self.options.by.value(&sample);
                if let Some(row) = key.and_then(|key| scores.lookup(&key)) {
                    found += 1;
                    writer.push(sample.image_id, row)?;
                }
            }
            open_unit.advance(samples as usize)?;
            open_unit.about("table", &told(scores));
            report(context, unit, samples, found, scores);
            Ok(writer.commit(open_unit, samples, 0)?)
        })
    }

    /// Returns the table as an input: its size, and its entity tag or the hash of its content. Where a
    /// store has no entity tags and the table is large, it is the modification time.
    fn input(&self) -> Result<Input, Error> {
        let uri = self.store.uri(&self.path);
        let info = self.store.stat(&self.path)?;
        let info = info.ok_or_else(|| Error::data(format!("{uri}: no such object")))?;
        let stamp = match (info.etag, info.modified) {
            (Some(etag), _) => etag,
            (None, Some(modified)) if info.bytes > HASHED => modified,
            (None, _) => self.store.blake3(&self.path)?,
        };
        Ok(Input {
            of: InputOf::Object { uri },
            fingerprint: Fingerprint::of([info.bytes.to_string().as_str(), &stamp]),
        })
    }

    fn scores(&self, context: &Context) -> Result<&ImportedScores, Error> {
        let load = || -> Result<ImportedScores, Error> {
            let scores = ImportedScores::load(&self.store, &self.path, &self.options)?;
            warn_of_conflicts(context, &scores);
            Ok(scores)
        };
        self.loaded.get_or_init(load).as_ref().map_err(Error::clone)
    }
}

/// What the table's rows gave, in words.
fn told(scores: &ImportedScores) -> String {
    let counts = scores.counts();
    format!(
        "{} rows, {} keys; {} rows without a key, {} repeated, {} in conflict for {} keys, {} without \
         a score",
        counts.rows,
        scores.keys(),
        counts.rows_without_key,
        counts.repeated_rows,
        counts.conflicting_rows,
        counts.conflicting_keys,
        counts.rows_without_score,
    )
}

fn warn_of_conflicts(context: &Context, scores: &ImportedScores) {
    let conflicts = scores.conflicts();
    if !conflicts.is_empty() {
        tracing::warn!(
            step = context.step().to_string(),
            "rows of one key disagree, so these keys have no score: {}; remove the wrong rows",
            conflicts.join(", ")
        );
    }
}

fn report(context: &Context, unit: Unit, samples: u64, found: u64, scores: &ImportedScores) {
    let step = context.step().to_string();
    let missing = samples - found;
    tracing::info!(
        step,
        unit = unit.to_string(),
        "{found} of {samples} images are in the table, {missing} are not; the table: {}",
        told(scores)
    );
    if found == 0 && samples > 0 {
        tracing::warn!(
            step,
            unit = unit.to_string(),
            "no image of this unit is in the table: look at --by and --by-column"
        );
    }
}
