//! `index`: writes the index of a run or of a curated dataset.
//!
//! What is in a run is known already, so nothing is decoded or embedded again. Memory is that of one row
//! group of embeddings.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::Result;
use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array, RecordBatch, StringArray,
};
use arrow::datatypes::{DataType, Field, Float32Type};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sluice_harness::Context;
use sluice_manifest::rows::{
    CuratedRow, NameRow, Row, SCHEMA_KEY, SampleRow, Status, some_of_read,
};
use sluice_manifest::{Error, Fingerprint, ImageId, Output, Reason, StepName, Unit, UnitKind};
use sluice_run::{InputPlaces, Plan, SampleColumns, Survivors, refuse_overlap};
use sluice_store::{Location, RowWriter, Store, Table, TableWriter};

use super::{DESCRIPTION, Description, HashRow, Part, VECTORS, vectors_schema};
use crate::arguments::Index;
use crate::embeddings::{EmbeddingReader, Encoder, open_embeddings};
use crate::index::open::References;

/// Embeddings of a row group.
const GROUP_ROWS: usize = 1024;
/// What the names of the parts begin with.
const PARTS: [&str; 2] = ["hashes-", "embeddings-"];

/// Writes an index.
///
/// # Errors
/// Usage, if the output contains other objects or, without --force, the index of another source; data, if
/// the run is not read yet, the dataset has no manifests, or there is no image; of storage.
pub(crate) fn write(args: &Index, context: &Context) -> Result<()> {
    let labels = args.labels.as_deref();
    let source: Box<dyn IndexSource + '_> = match &args.input {
        Some(input) => Box::new(OfDataset::open(context, input, labels)?),
        None => Box::new(OfRun::open(context, args)?),
    };
    let place = Location::parse(&args.output)?;
    let output = ("--output", &place);
    match &args.input {
        Some(input) => refuse_overlap(output, ("--input", &Location::parse(input)?))?,
        None => {
            refuse_overlap(output, ("--run", context.run.location()))?;
            InputPlaces::of_plan(&context.plan()?, &context.run)?.refuse(output.0, output.1)?;
        }
    }
    if source.is_empty()? {
        return Err(Error::data(format!("{}: no image to index", source.name()))
            .hint("an index of no image removes nothing: check --survivors-of and the source")
            .into());
    }
    let store = context.storage.create(&place)?;
    let settings = json!({ "labels": labels });
    let made_from = source.made_from(&settings)?;
    context.each_unit(vec![Unit::once(UnitKind::Index)], 1, |_| {
        let previous = previous(&store, &source.name(), args.common.force)?;
        let previous = previous.filter(|previous| previous.made_from == made_from);
        let (about, is_new) = match previous {
            Some(previous) if !args.common.force && are_there(&store, &previous)? => {
                (previous, false)
            }
            _ => {
                store.delete(DESCRIPTION)?;
                let about = parts(&*source, &store, context, made_from.clone(), labels)?;
                store.put(DESCRIPTION, serde_json::to_vec_pretty(&about)?)?;
                remove_others(&store, &about)?;
                (about, true)
            }
        };
        let outputs: Vec<Output> = about.outputs().cloned().collect();
        context.record_unit(&outputs, is_new);
        let summary = References::summary(&context.storage, &args.output)?;
        tracing::info!(index = %summary, "{}", if is_new { "written" } else { "up to date" });
        context.report("index", summary);
        Ok(())
    })
}

/// Returns the description of the index that is there, if this version of the program wrote it.
///
/// # Errors
/// Usage, if there are other objects, or, without --force, an index of another source.
fn previous(store: &Store, source: &str, force: bool) -> Result<Option<Description>> {
    let is_ours =
        |path: &str| path == DESCRIPTION || PARTS.iter().any(|part| path.starts_with(part));
    let objects = store.list("")?;
    if let Some(other) = objects.iter().find(|object| !is_ours(&object.path)) {
        let uri = store.uri(&other.path);
        return Err(Error::usage(format!("{uri}: not part of an index"))
            .hint("give --output a folder of its own")
            .into());
    }
    let Some(json) = store.get_if_there(DESCRIPTION)? else {
        return Ok(None);
    };
    let about: Option<Value> = serde_json::from_slice(&json).ok();
    let found = about.as_ref().and_then(|about| about["source"].as_str());
    if found != Some(source) && !force {
        let (uri, found) = (store.location(), found.unwrap_or("an unknown source"));
        return Err(Error::usage(format!(
            "--output {uri}: it has the index of {found}, not of {source}"
        ))
        .hint("give --output another folder, or replace the index with --force")
        .into());
    }
    // One of another version is replaced.
    Ok(Description::parse(&json, "").ok())
}

fn are_there(store: &Store, about: &Description) -> Result<bool> {
    for output in about.outputs() {
        let info = store.stat(output.path.as_str())?;
        if info.is_none_or(|info| info.bytes != output.bytes) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes the parts of an earlier, larger index.
fn remove_others(store: &Store, about: &Description) -> Result<()> {
    let names: HashSet<&str> = about.outputs().map(|output| output.path.as_str()).collect();
    for object in store.list("")? {
        let path = object.path.as_str();
        if path != DESCRIPTION && !names.contains(path) {
            store.delete(path)?;
        }
    }
    Ok(())
}

fn parts(
    source: &dyn IndexSource,
    store: &Store,
    context: &Context,
    made_from: Fingerprint,
    labels: Option<&str>,
) -> Result<Description> {
    let mut about = Description {
        index: Description::VERSION,
        source: source.name(),
        made_from,
        images: 0,
        embedded: 0,
        encoder: None,
        parts: Vec::new(),
    };
    let mut labelled = 0_u64;
    for number in 0..source.len() {
        let encoder = source.encoder(number)?;
        let mut writer = PartWriter::open(store, number, encoder.as_ref())?;
        source.each(number, &mut |row, vector| {
            context.check_stop()?;
            labelled += u64::from(row.label.is_some());
            writer.push(row, vector)
        })?;
        if let (Some(all), Some(found)) = (&about.encoder, &encoder)
            && all != found
        {
            return Err(Error::data(format!(
                "{}: its embeddings are of {all} and of {found}",
                source.name()
            ))
            .hint("run the step that embeds on all partitions with one --model")
            .into());
        }
        about.encoder = about.encoder.or(encoder);
        about.images += writer.images;
        about.embedded += writer.embedded;
        about.parts.push(writer.finish()?);
    }
    if let Some(field) = labels.filter(|_| labelled == 0) {
        tracing::warn!("--labels {field}: no image has this field in its metadata");
    }
    Ok(about)
}

/// Takes an image and its embedding.
type Each<'e> = dyn FnMut(HashRow, Option<&[f32]>) -> Result<()> + 'e;

/// What an index is made from: images in parts.
trait IndexSource: Sync {
    /// Returns its URI.
    fn name(&self) -> String;
    /// Returns the number of its parts.
    fn len(&self) -> usize;
    /// Whether it has no image.
    fn is_empty(&self) -> Result<bool>;
    /// Returns the fingerprint of what it is now.
    fn made_from(&self, settings: &Value) -> Result<Fingerprint>;
    /// Returns the encoder of a part's embeddings, where there are some.
    fn encoder(&self, part: usize) -> Result<Option<Encoder>>;
    /// Calls `each` with the images of a part, in order.
    fn each(&self, part: usize, each: &mut Each<'_>) -> Result<()>;
}

/// The survivors of a step of a run.
struct OfRun<'c> {
    context: &'c Context,
    plan: Plan,
    survivors: Survivors<'c>,
    embeddings: Option<StepName>,
    labels: Option<&'c str>,
}

/// The columns of `read/images` that an index has.
#[derive(Debug, Serialize, Deserialize)]
struct IndexedRow {
    image_id: ImageId,
    sha256: Option<String>,
    phash: Option<u64>,
    md5: Option<String>,
    pdq: Option<String>,
    metadata: Option<String>,
    status: Status,
    reason: Option<Reason>,
}

impl Row for IndexedRow {
    const SCHEMA: &'static str = SampleRow::SCHEMA;
    fn fields() -> Vec<Field> {
        some_of_read(&[
            "image_id", "sha256", "phash", "md5", "pdq", "metadata", "status", "reason",
        ])
    }
}

impl SampleColumns for IndexedRow {
    fn image_id(&self) -> &ImageId {
        &self.image_id
    }

    fn rejected(&self) -> Option<Reason> {
        match self.status {
            Status::Ok => None,
            Status::Rejected => self.reason.clone(),
        }
    }
}

impl<'c> OfRun<'c> {
    fn open(context: &'c Context, args: &'c Index) -> Result<Self> {
        Ok(Self {
            context,
            plan: context.plan()?,
            survivors: context.survivors(context.node().survivors_of.as_ref())?,
            embeddings: embeddings_of(context, args)?,
            labels: args.labels.as_deref(),
        })
    }

    fn unit(&self, part: usize) -> Unit {
        self.plan.partitions[part].partition.into()
    }

    fn table(&self, part: usize) -> Result<Option<Table>> {
        let step = self.embeddings.as_ref();
        let table = step.map(|step| open_embeddings(self.context, step, self.unit(part)));
        Ok(table.transpose()?)
    }
}

/// Returns the step that gives the embeddings: the one that is named, or `embed` where it was run.
fn embeddings_of(context: &Context, args: &Index) -> Result<Option<StepName>> {
    if let Some(step) = &args.embeddings {
        return Ok(Some(step.clone()));
    }
    let step = StepName::fixed("embed");
    let receipt = context.receipt(&step, Unit::once(UnitKind::Partition))?;
    if receipt.is_none() {
        tracing::warn!(
            "the run has no step embed, so the index has no embeddings; hint: --embeddings names another step"
        );
    }
    Ok(receipt.map(|_| step))
}

impl IndexSource for OfRun<'_> {
    fn name(&self) -> String {
        self.context.run.location().to_string()
    }

    fn len(&self) -> usize {
        self.plan.partitions.len()
    }

    fn is_empty(&self) -> Result<bool> {
        for planned in &self.plan.partitions {
            let mut names = self.survivors.samples::<NameRow>(planned.partition)?;
            if names.next().transpose()?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn made_from(&self, settings: &Value) -> Result<Fingerprint> {
        let mut inputs = self.survivors.all_inputs()?;
        if let Some(step) = &self.embeddings {
            inputs.push(self.context.combined_input(step, UnitKind::Partition)?);
        }
        let version = Description::VERSION;
        Ok(Fingerprint::of_work(
            "dedup index",
            version,
            settings,
            &inputs,
        ))
    }

    fn encoder(&self, part: usize) -> Result<Option<Encoder>> {
        let table = self.table(part)?;
        Ok(table.map(|table| Encoder::of(&table)).transpose()?)
    }

    fn each(&self, part: usize, each: &mut Each<'_>) -> Result<()> {
        let mut embeddings = self.table(part)?.map(EmbeddingReader::new);
        let partition = self.plan.partitions[part].partition;
        for verdict in self.survivors.verdicts::<IndexedRow>(partition)? {
            let verdict = verdict?;
            let sample = verdict.sample;
            let vector = match &mut embeddings {
                Some(embeddings) => embeddings.next_if(sample.image_id.as_str())?,
                None => None,
            };
            if verdict.dropped.is_none() {
                let label = label(self.labels, sample.metadata.as_deref());
                let row = HashRow {
                    image_id: sample.image_id,
                    label,
                    sha256: sample.sha256,
                    phash: sample.phash,
                    md5: sample.md5,
                    pdq: sample.pdq,
                };
                each(row, vector)?;
            }
        }
        embeddings.map_or(Ok(()), |embeddings| Ok(embeddings.finish()?))
    }
}

/// Returns the value of a field of an image's metadata.
fn label(field: Option<&str>, metadata: Option<&str>) -> Option<String> {
    let metadata: Value = serde_json::from_str(metadata?).ok()?;
    match metadata.get(field?)? {
        Value::String(text) => Some(text.clone()),
        value @ (Value::Number(_) | Value::Bool(_)) => Some(value.to_string()),
        _ => None,
    }
}

/// A curated dataset: the Parquet files next to its shards.
struct OfDataset<'c> {
    store: Store,
    files: Vec<CuratedFile>,
    labels: Option<&'c str>,
}

/// The images of a shard of a curated dataset.
struct CuratedFile {
    path: String,
    images: u64,
    /// The encoder of the embeddings, if it has some.
    encoder: Option<Encoder>,
}

impl<'c> OfDataset<'c> {
    fn open(context: &Context, input: &str, labels: Option<&'c str>) -> Result<Self> {
        let store = context.storage.open(&Location::parse(input)?)?;
        let mut files = Vec::new();
        for object in store.list("")? {
            if !object.path.ends_with(".parquet") {
                continue;
            }
            let table = store.any_table(&object.path)?;
            if table.metadata(SCHEMA_KEY) == Some(CuratedRow::SCHEMA) {
                let is_embedded = table.schema().field_with_name("embedding").is_ok();
                let encoder = is_embedded.then(|| Encoder::of(&table)).transpose()?;
                files.push(CuratedFile {
                    path: object.path,
                    images: table.len(),
                    encoder,
                });
            }
        }
        files.sort_by(|one: &CuratedFile, other| one.path.cmp(&other.path));
        if files.is_empty() {
            return Err(Error::data(format!(
                "{}: no Parquet file of a dataset that Sluice curated",
                store.location()
            ))
            .hint(
                "run sluice-partition, sluice-read and sluice-embed on other shards, then sluice-dedup index \
                 --run",
            )
            .into());
        }
        Ok(Self {
            store,
            files,
            labels,
        })
    }
}

impl IndexSource for OfDataset<'_> {
    fn name(&self) -> String {
        self.store.location().to_string()
    }

    fn len(&self) -> usize {
        self.files.len()
    }

    fn is_empty(&self) -> Result<bool> {
        Ok(self.files.iter().all(|file| file.images == 0))
    }

    fn made_from(&self, settings: &Value) -> Result<Fingerprint> {
        let hashes = self.files.iter().map(|file| self.store.blake3(&file.path));
        let hashes: Vec<String> = hashes.collect::<sluice_manifest::Result<_>>()?;
        let settings = format!("dataset index {} {settings}", Description::VERSION);
        let parts = std::iter::once(settings.as_str()).chain(hashes.iter().map(String::as_str));
        Ok(Fingerprint::of(parts))
    }

    fn encoder(&self, part: usize) -> Result<Option<Encoder>> {
        Ok(self.files[part].encoder.clone())
    }

    fn each(&self, part: usize, each: &mut Each<'_>) -> Result<()> {
        let CuratedFile { path, encoder, .. } = &self.files[part];
        let mut columns = vec!["image_id", "sha256", "phash", "metadata"];
        columns.extend(encoder.as_ref().map(|_| "embedding"));
        for batch in self.store.table(path, CuratedRow::SCHEMA, &columns)? {
            let batch = batch?;
            let text = |name: &str, row: usize| {
                let texts = batch[name].as_string::<i32>();
                texts.is_valid(row).then(|| texts.value(row))
            };
            let hashes = batch["phash"].as_primitive::<arrow::datatypes::UInt64Type>();
            let vectors = batch.column_by_name("embedding");
            let vectors = vectors.and_then(|vectors| vectors.as_fixed_size_list_opt());
            for row in 0..batch.num_rows() {
                let hashed = HashRow {
                    image_id: ImageId::from_text(text("image_id", row).unwrap_or_default()),
                    label: label(self.labels, text("metadata", row)),
                    sha256: text("sha256", row).map(str::to_owned),
                    phash: hashes.is_valid(row).then(|| hashes.value(row)),
                    md5: None,
                    pdq: None,
                };
                let vector = vectors.filter(|vectors| vectors.is_valid(row));
                let vector = vector.map(|vectors| vectors.value(row));
                let values = vector
                    .as_ref()
                    .map(|vector| vector.as_primitive::<Float32Type>());
                each(hashed, values.map(|values| &values.values()[..]))?;
            }
        }
        Ok(())
    }
}

/// A part that is being written.
struct PartWriter {
    hashes: RowWriter<HashRow>,
    vectors: Option<VectorWriter>,
    images: u64,
    embedded: u64,
}

impl PartWriter {
    fn open(store: &Store, number: usize, encoder: Option<&Encoder>) -> Result<Self> {
        let [hashes, embeddings] = PARTS.map(|part| format!("{part}{number:05}.parquet"));
        let vectors = encoder.map(|encoder| VectorWriter::open(store, &embeddings, encoder));
        Ok(Self {
            hashes: store.write_rows(&hashes, &[])?,
            vectors: vectors.transpose()?,
            images: 0,
            embedded: 0,
        })
    }

    fn push(&mut self, row: HashRow, vector: Option<&[f32]>) -> Result<()> {
        self.images += 1;
        if let (Some(writer), Some(vector)) = (&mut self.vectors, vector) {
            self.embedded += 1;
            writer.push(&row, vector)?;
        }
        Ok(self.hashes.push(row)?)
    }

    fn finish(self) -> Result<Part> {
        Ok(Part {
            hashes: self.hashes.finish()?,
            embeddings: self.vectors.map(VectorWriter::finish).transpose()?,
        })
    }
}

/// The embeddings of a part that is being written.
struct VectorWriter {
    table: TableWriter,
    ids: Vec<String>,
    labels: Vec<Option<String>>,
    values: Vec<f32>,
}

impl VectorWriter {
    fn open(store: &Store, path: &str, encoder: &Encoder) -> Result<Self> {
        let schema = vectors_schema(encoder.dimension);
        Ok(Self {
            table: store.write_table(path, VECTORS, schema, &encoder.metadata())?,
            ids: Vec::new(),
            labels: Vec::new(),
            values: Vec::new(),
        })
    }

    fn push(&mut self, row: &HashRow, vector: &[f32]) -> Result<()> {
        self.ids.push(row.image_id.to_string());
        self.labels.push(row.label.clone());
        self.values.extend_from_slice(vector);
        if self.ids.len() == GROUP_ROWS {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<()> {
        let schema = self.table.schema().clone();
        let DataType::FixedSizeList(item, length) = schema.field(2).data_type().clone() else {
            return Err(Error::bug("the embeddings of an index are not vectors").into());
        };
        let values = Arc::new(Float32Array::from(std::mem::take(&mut self.values)));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(std::mem::take(&mut self.ids))),
            Arc::new(StringArray::from(std::mem::take(&mut self.labels))),
            Arc::new(FixedSizeListArray::try_new(item, length, values, None)?),
        ];
        Ok(self.table.write(&RecordBatch::try_new(schema, columns)?)?)
    }

    fn finish(mut self) -> Result<Output> {
        if !self.ids.is_empty() {
            self.flush()?;
        }
        Ok(self.table.finish()?)
    }
}
