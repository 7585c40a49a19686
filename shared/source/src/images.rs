//! Parquet files with a column of images: plain bytes, or Hugging Face's `{bytes, path}`.

use std::collections::VecDeque;

use arrow::array::{Array, ArrayRef, AsArray, LargeBinaryArray, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema};
use bytes::Bytes;
use serde_json::Value;
use sluice_manifest::rows::PlanRow;
use sluice_manifest::{Error, Result};
use sluice_shard::{IMAGE_EXTENSIONS, Limits, Member, Missing, Sample};
use sluice_table::{Batches, JsonColumns, ParquetTable, Row, UserObject, is_text};

use crate::reader::InputReader;
use crate::samples::text_member;

/// Names of columns that hold captions, the likeliest first.
const CAPTIONS: [&str; 6] = [
    "caption",
    "text",
    "prompt",
    "captions",
    "alt",
    "description",
];

/// The columns of a Parquet file that are images and captions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageColumns {
    /// The images.
    pub image: String,
    /// The captions.
    pub caption: Option<String>,
}

impl ImageColumns {
    /// Chooses the columns: those that are named, else the only one with bytes, and the likeliest one
    /// with captions. None where no column has bytes.
    ///
    /// # Errors
    /// Usage, when a column that is named does not exist or has another type, or several columns hold
    /// bytes.
    pub fn of(
        table: &ParquetTable,
        image: Option<&str>,
        caption: Option<&str>,
    ) -> Result<Option<Self>> {
        let schema = table.schema();
        let Some(image) = image_column(table, image)? else {
            return Ok(None);
        };
        let texts = schema.fields().iter();
        let texts = texts.filter(|field| is_text(field.data_type()));
        let texts: Vec<&str> = texts.map(|field| field.name().as_str()).collect();
        if let Some(name) = caption
            && !texts.contains(&name)
        {
            return Err(no_column(table, "--caption-column", name, &texts));
        }
        let caption = caption.or_else(|| caption_column(texts.iter().copied()));
        Ok(Some(Self {
            image,
            caption: caption.map(str::to_owned),
        }))
    }
}

/// Returns the likeliest column of captions.
pub fn caption_column<'n>(names: impl Iterator<Item = &'n str> + Clone) -> Option<&'n str> {
    let find = |caption: &&str| {
        let mut names = names.clone();
        names.find(|name| name.eq_ignore_ascii_case(caption))
    };
    CAPTIONS.iter().find_map(find)
}

/// Returns the caption in a row: the value of a column, else of the likeliest one.
pub(crate) fn caption_of(row: &Row, column: Option<&str>) -> Option<String> {
    let names = row.iter().filter(|(_, value)| value.is_string());
    let names = names.map(|(name, _)| name.as_str());
    let column = column.or_else(|| caption_column(names))?;
    let text = row.get(column)?.as_str()?;
    (!text.is_empty()).then(|| text.to_owned())
}

fn image_column(table: &ParquetTable, chosen: Option<&str>) -> Result<Option<String>> {
    let fields = table.schema().fields().iter();
    let images = fields.filter(|field| has_bytes(field.data_type()));
    let images: Vec<&str> = images.map(|field| field.name().as_str()).collect();
    match (chosen, images.as_slice()) {
        (Some(name), images) if images.contains(&name) => Ok(Some(name.to_owned())),
        (Some(name), images) => Err(no_column(table, "--image-column", name, images)),
        (None, []) => Ok(None),
        (None, [only]) => Ok(Some((*only).to_owned())),
        (None, several) => Err(Error::usage(format!(
            "{}: several columns hold bytes: {}",
            table.object.uri,
            several.join(", ")
        ))
        .hint("choose the images with --image-column")),
    }
}

fn no_column(table: &ParquetTable, flag: &str, name: &str, there: &[&str]) -> Error {
    let there = match there {
        [] => "there is none of its type".to_owned(),
        there => format!("there are {}", there.join(", ")),
    };
    Error::usage(format!(
        "{flag} {name}: {} has no such column; {there}",
        table.object.uri
    ))
}

fn is_binary(kind: &DataType) -> bool {
    matches!(
        kind,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView
    )
}

fn has_bytes(kind: &DataType) -> bool {
    match kind {
        DataType::Struct(fields) => fields
            .iter()
            .any(|field| field.name() == "bytes" && is_binary(field.data_type())),
        kind => is_binary(kind),
    }
}

/// Returns the place of a column in the schema.
fn root(table: &ParquetTable, name: &str) -> Result<usize> {
    table
        .schema()
        .index_of(name)
        .map_err(|_| table.unusable(format!("column {name:?} is missing")))
}

/// The images of a batch.
struct ImageBatch {
    /// Rows without an image. A struct that is null may have bytes.
    nulls: Option<NullBuffer>,
    bytes: LargeBinaryArray,
    paths: Option<ArrayRef>,
}

impl ImageBatch {
    fn of(table: &ParquetTable, batch: &RecordBatch, column: &str) -> Result<Self> {
        let missing = || table.unusable(format!("column {column:?} is missing"));
        let images = batch.column_by_name(column).ok_or_else(missing)?;
        let (bytes, paths) = match images.as_struct_opt() {
            None => (images.clone(), None),
            Some(images) => {
                let bytes = images.column_by_name("bytes").ok_or_else(missing)?;
                (bytes.clone(), images.column_by_name("path").cloned())
            }
        };
        let bytes = cast(&bytes, &DataType::LargeBinary).map_err(|e| table.unusable(e))?;
        let paths = paths.and_then(|paths| cast(&paths, &DataType::Utf8).ok());
        Ok(Self {
            nulls: images.logical_nulls(),
            bytes: bytes.as_binary::<i64>().clone(),
            paths,
        })
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn get(&self, row: usize) -> Option<&[u8]> {
        let is_null = self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
        (!is_null && self.bytes.is_valid(row)).then(|| self.bytes.value(row))
    }

    fn path(&self, row: usize) -> Option<&str> {
        let paths = self.paths.as_ref()?.as_string_opt::<i32>()?;
        (paths.is_valid(row) && !paths.value(row).is_empty()).then(|| paths.value(row))
    }
}

/// The samples of a Parquet file, one for each row.
pub(crate) struct ImageRows {
    table: ParquetTable,
    columns: ImageColumns,
    batches: Batches,
    ready: VecDeque<Sample>,
    /// The first row of the next batch.
    row: u64,
}

impl ImageRows {
    pub fn open(input: &InputReader, planned: &PlanRow) -> Result<Self> {
        let (table, columns) = open(input, planned)?;
        let schema: &Schema = table.schema();
        let mut roots = JsonColumns::of(schema).roots;
        roots.push(root(&table, &columns.image)?);
        Ok(Self {
            batches: table.batches(&roots, 0)?,
            table,
            columns,
            ready: VecDeque::new(),
            row: 0,
        })
    }

    pub fn step(&mut self) -> Result<Option<Sample>> {
        while self.ready.is_empty() {
            let Some(batch) = self.batches.next().transpose()? else {
                return Ok(None);
            };
            let images = ImageBatch::of(&self.table, &batch, &self.columns.image)?;
            for (number, row) in JsonColumns::rows(&batch).into_iter().enumerate() {
                let sample = self.sample(&images, number, row);
                self.ready.push_back(sample);
            }
            self.row += images.len() as u64;
        }
        Ok(self.ready.pop_front())
    }

    fn sample(&self, images: &ImageBatch, number: usize, mut row: Row) -> Sample {
        let offset = self.row + number as u64;
        let mut members = Vec::new();
        let path = images.path(number);
        if let Some(bytes) = images.get(number) {
            let fits = bytes.len() as u64 <= Limits::default().max_member_bytes;
            members.push(Member {
                extension: extension(path, bytes).to_owned(),
                name: Vec::new(),
                offset,
                size: bytes.len() as u64,
                data: fits.then(|| bytes.to_vec()),
                missing: (!fits).then_some(Missing::TooLarge),
            });
        }
        if let Some(column) = &self.columns.caption
            && let Some(caption) = caption_of(&row, Some(column))
        {
            members.extend(text_member("txt", caption));
        }
        if let Some(path) = path {
            row.entry("file_name").or_insert_with(|| path.into());
        }
        if !row.is_empty() {
            let json = Value::Object(row).to_string();
            members.extend(text_member("json", json));
        }
        Sample {
            key: format!("{offset:09}"),
            occurrence: 0,
            members,
            problem: None,
        }
    }
}

fn open(input: &InputReader, planned: &PlanRow) -> Result<(ParquetTable, ImageColumns)> {
    let path = planned.shard.as_str();
    let table = ParquetTable::open(UserObject::open(&input.input, path)?)?;
    let image = planned.image_column.clone().ok_or_else(|| {
        Error::data(format!("{path}: the plan names no column of images"))
            .hint("run sluice-partition again")
    })?;
    let caption = planned.caption_column.clone();
    Ok((table, ImageColumns { image, caption }))
}

/// Returns the extension of an image: that of its path, else what its first bytes say. What cannot
/// be recognised is called `jpg`: the decoder says what is wrong with it.
fn extension<'p>(path: Option<&'p str>, bytes: &[u8]) -> &'p str {
    let of_path = path
        .and_then(|path| path.rsplit_once('.'))
        .map(|(_, last)| last);
    let known = |extension: &&str| {
        let mut all = IMAGE_EXTENSIONS.iter();
        all.any(|known| known.eq_ignore_ascii_case(extension))
    };
    if let Some(extension) = of_path.filter(known) {
        return extension;
    }
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => "png",
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'E',
            b'B',
            b'P',
            ..,
        ] => "webp",
        [b'G', b'I', b'F', b'8', ..] => "gif",
        [b'B', b'M', ..] => "bmp",
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => "tiff",
        _ => "jpg",
    }
}

/// The images of a Parquet file by their rows, front to back.
pub(crate) struct ImageBytes {
    table: ParquetTable,
    column: String,
    root: usize,
    batches: Option<Batches>,
    images: Option<ImageBatch>,
    /// The first row of the batch, and of the next one.
    first: u64,
    next: u64,
}

impl ImageBytes {
    pub fn open(input: &InputReader, planned: &PlanRow) -> Result<Self> {
        let (table, ImageColumns { image, .. }) = open(input, planned)?;
        Ok(Self {
            root: root(&table, &image)?,
            column: image,
            table,
            batches: None,
            images: None,
            first: 0,
            next: 0,
        })
    }

    /// Returns the image of a row; none where there is no such row, or no image in it. Row groups
    /// without a row that is asked for are passed over.
    pub fn get(&mut self, row: u64) -> Result<Option<Bytes>> {
        let Some((group, first_of_group)) = self.table.group_of(row) else {
            return Ok(None);
        };
        if self.batches.is_none() || self.next < first_of_group {
            self.batches = Some(self.table.batches(&[self.root], group)?);
            self.next = first_of_group;
        }
        while self.next <= row {
            let Some(batch) = self.batches.as_mut().and_then(Iterator::next) else {
                return Ok(None);
            };
            let images = ImageBatch::of(&self.table, &batch?, &self.column)?;
            self.first = self.next;
            self.next += images.len() as u64;
            self.images = Some(images);
        }
        let images = self.images.as_ref().filter(|_| row >= self.first);
        let bytes = images.and_then(|images| images.get((row - self.first) as usize));
        Ok(bytes.map(Bytes::copy_from_slice))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_come_from_the_path_or_the_content() {
        for (path, bytes, expected) in [
            (Some("a/b.PNG"), &b""[..], "PNG"),
            (Some("a.b/c"), b"\x89PNG\r\n", "png"),
            (None, b"RIFF1234WEBPVP8 ", "webp"),
            (Some("x.bin"), b"GIF89a", "gif"),
            (None, b"\xff\xd8\xff", "jpg"),
            (None, b"<html>", "jpg"),
        ] {
            assert_eq!(extension(path, bytes), expected, "{path:?}");
        }
    }

    #[test]
    fn captions_are_the_likeliest_column() {
        for (names, expected) in [
            (&["url", "TEXT", "caption"][..], Some("caption")),
            (&["url", "TEXT"], Some("TEXT")),
            (&["url"], None),
        ] {
            assert_eq!(caption_column(names.iter().copied()), expected);
        }
    }
}
