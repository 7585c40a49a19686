//! The query of a search, as an embedding.

use std::path::Path;

use anyhow::{Context as _, Result};
use arrow::array::AsArray;
use sluice_harness::{ProcessResources, Program, run_step};
use sluice_manifest::layout::EMBEDDINGS;
use sluice_manifest::rows::{self, MODEL_KEY, MODEL_SHA256_KEY};
use sluice_manifest::{Class, Error, StepName, Unit, UnitKind};
use sluice_run::{Plan, Receipts, Run, settings};
use sluice_shard::ShardWriter;
use sluice_store::{Location, vectors};

use super::SearchArgs;
use crate::explain::Lookup;

/// The step of the query's own run.
const STEP: &str = "embed";

/// An embedding to search for.
pub(super) struct Query {
    /// The image or file of the embedding.
    pub name: String,
    /// The query's id if it is an image of the run. It is excluded from the results.
    pub image_id: Option<String>,
    /// The embedding.
    pub vector: Vec<f32>,
}

impl Query {
    /// Returns the embedding of an image of the run, or of a file.
    ///
    /// # Errors
    /// Usage, when neither exists; data, when the image has no embedding or the file is not a
    /// picture.
    pub(super) fn new(
        args: &SearchArgs,
        recorded: &Run,
        plan: &Plan,
        receipts: &Receipts,
        step: &StepName,
        shared: &ProcessResources,
    ) -> Result<Self> {
        let lookup = Lookup::new(recorded, plan, receipts);
        let is_id = lookup.locate(&args.query).is_ok();
        if !is_id && Path::new(&args.query).is_file() {
            return Self::of_file(args, recorded, receipts, step, shared);
        }
        let id = lookup.resolve(&args.query)?;
        let none = || Error::usage(format!("{id}: no embedding from the step {step}"));
        let partition = lookup.partition_of(&id)?.ok_or_else(none)?;
        let unit = Unit::from(partition);
        let (vector, _) = vector_of(recorded, step, unit, Some(id.as_str()))?.ok_or_else(none)?;
        Ok(Self {
            name: id.to_string(),
            image_id: Some(id.to_string()),
            vector,
        })
    }

    /// Embeds a file in a temporary run.
    fn of_file(
        args: &SearchArgs,
        recorded: &Run,
        receipts: &Receipts,
        step: &StepName,
        shared: &ProcessResources,
    ) -> Result<Self> {
        let scratch = tempfile::Builder::new().prefix("sluice-search-").tempdir();
        let scratch = scratch.context("cannot make a folder for the query")?;
        let at = |name: &str| scratch.path().join(name).to_string_lossy().into_owned();
        let (input, run) = (at("in"), at("run"));
        write_shard(&args.query, &input, shared)?;
        let first = receipts.of(step).first();
        let first = first.ok_or_else(|| Error::bug(format!("{step}: no receipt")))?;
        let model = args.model.clone().or_else(|| settings::source(first));
        let model = model.ok_or_else(|| {
            Error::usage("the run does not record its encoder").hint("pass it: --model MODEL")
        })?;
        run_step::<sluice_partition::Args>(
            &line("sluice-partition", &run, &[("input", Some(&input))]),
            shared,
        )?;
        let read = run_step::<sluice_read::Args>(&line("sluice-read", &run, &[]), shared);
        let read = read.map_err(|e| not_a_picture(&args.query, e))?;
        if read.counts.kept == 0 {
            return Err(
                Error::data(format!("{}: not a picture that can be decoded", args.query)).into(),
            );
        }
        let precision = first.settings["model"]["precision"].as_str();
        let flags = [
            ("model", Some(model.as_str())),
            ("models", args.models.as_deref()),
            ("precision", precision),
        ];
        run_step::<sluice_embed::Args>(&line(sluice_embed::Args::NAME, &run, &flags), shared)?;
        let own = Run::open_read_only(&shared.storage, &run)?;
        let unit = Unit::once(UnitKind::Partition);
        let embedded = vector_of(&own, &StepName::fixed(STEP), unit, None)?;
        let (vector, encoder) =
            embedded.ok_or_else(|| Error::data(format!("{}: cannot be embedded", args.query)))?;
        let units = receipts.of(step).iter().map(|receipt| receipt.unit);
        for unit in units.take(1) {
            check_encoder(recorded, step, unit, &encoder)?;
        }
        Ok(Self {
            name: args.query.clone(),
            image_id: None,
            vector,
        })
    }
}

fn not_a_picture(file: &str, e: anyhow::Error) -> anyhow::Error {
    match e.downcast_ref::<Error>().map(Error::class) {
        Some(Class::Data) => {
            Error::data(format!("{file}: not a picture that can be decoded")).into()
        }
        _ => e,
    }
}

fn line(program: &str, run: &str, flags: &[(&str, Option<&str>)]) -> Vec<String> {
    let mut line = vec![program.to_owned(), format!("--run={run}")];
    let given = flags
        .iter()
        .filter_map(|(name, value)| Some((name, (*value)?)));
    line.extend(given.map(|(name, value)| format!("--{name}={value}")));
    line
}

/// Writes a shard that contains only the file.
fn write_shard(file: &str, input: &str, shared: &ProcessResources) -> Result<()> {
    let none = || Error::usage(format!("{file}: not the path of a file"));
    let (folder, name) = Location::parse(file)?.split().ok_or_else(none)?;
    let content = shared.storage.open(&folder)?.get(&name)?;
    let extension = name
        .rsplit_once('.')
        .map_or("jpg", |(_, extension)| extension);
    let mut writer = ShardWriter::new(Vec::new());
    writer.append(format!("query.{extension}"), &content)?;
    let store = shared.storage.create(&Location::parse(input)?)?;
    Ok(store.put("query.tar", writer.finish()?)?)
}

/// The encoder's name and hash.
type EncoderId = (String, String);

/// Returns the embedding of the named image, or else of the first image, and its encoder.
fn vector_of(
    recorded: &Run,
    step: &StepName,
    unit: Unit,
    id: Option<&str>,
) -> Result<Option<(Vec<f32>, EncoderId)>> {
    let path = EMBEDDINGS.path(step, unit);
    let table = recorded.table(&path, rows::EMBEDDINGS, &["image_id", "embedding"])?;
    let encoder = encoder_of(&table)?;
    for batch in table {
        let batch = batch?;
        let ids = batch.column_by_name("image_id");
        let ids = ids.and_then(|ids| ids.as_string_opt::<i32>());
        let ids = ids.ok_or_else(|| Error::data(format!("{path}: image_id is not text")))?;
        let row = ids.iter().position(|other| id.is_none() || other == id);
        if let Some(row) = row {
            let all = vectors(&batch, "embedding")?;
            let dimension = all.len() / batch.num_rows();
            return Ok(Some((
                all[row * dimension..][..dimension].to_vec(),
                encoder,
            )));
        }
    }
    Ok(None)
}

fn encoder_of(table: &sluice_store::Table) -> Result<EncoderId, Error> {
    let hash = table.required(MODEL_SHA256_KEY)?;
    Ok((table.required(MODEL_KEY)?.to_owned(), hash.to_owned()))
}

/// Refuses an encoder other than the run's: vectors of two encoders cannot be compared.
fn check_encoder(recorded: &Run, step: &StepName, unit: Unit, own: &EncoderId) -> Result<()> {
    let path = EMBEDDINGS.path(step, unit);
    let table = recorded.table(&path, rows::EMBEDDINGS, &["image_id"])?;
    let of_run = encoder_of(&table)?;
    if of_run == *own {
        return Ok(());
    }
    Err(Error::usage(format!(
        "the run's embeddings are of {} ({:.12}), the file's would be of {} ({:.12})",
        of_run.0, of_run.1, own.0, own.1
    ))
    .hint("pass the run's encoder: --model MODEL")
    .into())
}
