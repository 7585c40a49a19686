//! Parquet files with an image column: plain bytes, or Hugging Face's `{bytes, path}`.

use std::collections::VecDeque;
use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, LargeBinaryArray, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema};
use bytes::Bytes;
use serde_json::Value;
use sluice_manifest::rows::PlanRow;
use sluice_manifest::{Class, Error, Result};
use sluice_shard::{
    Damage, DamageKind, IMAGE_EXTENSIONS, Member, Missing, Sample, SampleProblem, ShardLimits,
};
use sluice_table::{Batches, JsonColumns, JsonRow, ParquetTable, UserObject, is_text};

use crate::reader::InputReader;
use crate::samples::text_member;

/// Names of caption columns, the most likely first.
const CAPTIONS: [&str; 6] = [
    "caption",
    "text",
    "prompt",
    "captions",
    "alt",
    "description",
];

/// The image column and the caption column of a Parquet file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageColumns {
    /// The image column.
    pub image: String,
    /// The caption column, if there is one.
    pub caption: Option<String>,
}

impl ImageColumns {
    /// Chooses the columns: the given ones, else the only column with bytes and the most likely
    /// caption column. Returns `None` if no column has bytes.
    ///
    /// # Errors
    ///
    /// Returns a usage error if a given column does not exist or has another type, or if several
    /// columns have bytes.
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

/// Returns the most likely caption column.
pub fn caption_column<'n>(names: impl Iterator<Item = &'n str> + Clone) -> Option<&'n str> {
    let find = |caption: &&str| {
        let mut names = names.clone();
        names.find(|name| name.eq_ignore_ascii_case(caption))
    };
    CAPTIONS.iter().find_map(find)
}

/// Returns the caption in a row, from the given column or else the most likely one.
pub(crate) fn caption_of(row: &JsonRow, column: Option<&str>) -> Option<String> {
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

/// Returns the index of a column in the schema.
fn root(table: &ParquetTable, name: &str) -> Result<usize> {
    table
        .schema()
        .index_of(name)
        .map_err(|_| table.unusable(format!("column {name:?} is missing")))
}

/// The images of a batch.
struct ImageBatch {
    /// Rows without an image. A null struct may have bytes.
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

/// The samples of a Parquet file, one for each row. From damage on, the rows of a row group are samples
/// with a problem; the next row group is read again.
pub(crate) struct ImageRows {
    table: ParquetTable,
    columns: ImageColumns,
    roots: Vec<usize>,
    /// The row groups still to be read.
    groups: VecDeque<(usize, Range<u64>)>,
    /// Those of the first one.
    batches: Option<Batches>,
    ready: VecDeque<Sample>,
    /// The first row of the next batch.
    row: u64,
    /// The next rows that cannot be decoded, and why.
    lost: Range<u64>,
    why: String,
    damage: Option<Damage>,
}

impl ImageRows {
    pub(crate) fn open(input: &InputReader, planned: &PlanRow) -> Result<Self> {
        let (table, columns) = open(input, planned)?;
        let schema: &Schema = table.schema();
        let mut roots = JsonColumns::of(schema).roots;
        roots.push(root(&table, &columns.image)?);
        Ok(Self {
            roots,
            groups: table.groups().enumerate().collect(),
            table,
            columns,
            batches: None,
            ready: VecDeque::new(),
            row: 0,
            lost: 0..0,
            why: String::new(),
            damage: None,
        })
    }

    pub(crate) fn step(&mut self) -> Result<Option<Sample>> {
        loop {
            if let Some(row) = self.lost.next() {
                let detail = self.why.clone();
                return Ok(Some(Sample {
                    problem: Some(SampleProblem::Undecodable { detail }),
                    ..of_row(row, Vec::new())
                }));
            }
            if let Some(sample) = self.ready.pop_front() {
                return Ok(Some(sample));
            }
            let Some((group, rows)) = self.groups.front().cloned() else {
                return Ok(None);
            };
            match self.read_batch(group) {
                Ok(true) => {}
                Ok(false) => self.end_group(rows.end, "it has fewer rows than its footer says"),
                Err(e) if e.class() == Class::Data => self.end_group(rows.end, &e.to_string()),
                Err(e) => return Err(e),
            }
        }
    }

    /// Returns the first damage, once all rows are read.
    pub(crate) fn damage(&mut self) -> Option<Damage> {
        self.damage.take()
    }

    /// Reads the next batch of a row group; false at its end.
    fn read_batch(&mut self, group: usize) -> Result<bool> {
        let batches = match &mut self.batches {
            Some(batches) => batches,
            none => none.insert(self.table.group_batches(&self.roots, group)?),
        };
        let Some(batch) = batches.next().transpose()? else {
            return Ok(false);
        };
        let images = ImageBatch::of(&self.table, &batch, &self.columns.image)?;
        for (number, row) in JsonColumns::rows(&batch).into_iter().enumerate() {
            let sample = self.sample(&images, number, row);
            self.ready.push_back(sample);
        }
        self.row += images.len() as u64;
        Ok(true)
    }

    /// Goes to the next row group. Rows before `end` that were not read are lost.
    fn end_group(&mut self, end: u64, why: &str) {
        self.groups.pop_front();
        self.batches = None;
        self.lost = self.row..end;
        self.row = end;
        if !self.lost.is_empty() {
            self.why = why.to_owned();
            let detail = format!("{why}; the rows of its row group from there on are dropped");
            self.damage.get_or_insert(Damage {
                offset: self.lost.start,
                kind: DamageKind::BrokenTable,
                detail,
            });
        }
    }

    fn sample(&self, images: &ImageBatch, number: usize, mut row: JsonRow) -> Sample {
        let offset = self.row + number as u64;
        let mut members = Vec::new();
        let path = images.path(number);
        if let Some(bytes) = images.get(number) {
            let fits = bytes.len() as u64 <= ShardLimits::default().max_member_bytes;
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
        of_row(offset, members)
    }
}

fn of_row(row: u64, members: Vec<Member>) -> Sample {
    Sample {
        key: format!("{row:09}"),
        occurrence: 0,
        members,
        problem: None,
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

/// Returns the extension of an image: that of its path, or else the one that its first bytes
/// indicate. An unknown image is called `jpg`, and its decoder reports the error.
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

/// The images of a Parquet file by row, in ascending order.
pub(crate) struct ImageBytes {
    table: ParquetTable,
    column: String,
    root: usize,
    group: usize,
    /// Those of the row group.
    batches: Option<Batches>,
    images: Option<ImageBatch>,
    /// The first row of the batch, and of the next one.
    first: u64,
    next: u64,
}

impl ImageBytes {
    pub(crate) fn open(input: &InputReader, planned: &PlanRow) -> Result<Self> {
        let (table, ImageColumns { image, .. }) = open(input, planned)?;
        Ok(Self {
            root: root(&table, &image)?,
            column: image,
            table,
            group: 0,
            batches: None,
            images: None,
            first: 0,
            next: 0,
        })
    }

    /// Returns the image of a row, or `None` if there is no such row or no image in it. Row groups
    /// without a requested row are skipped.
    pub(crate) fn get(&mut self, row: u64) -> Result<Option<Bytes>> {
        let is_of = |(_, rows): &(usize, Range<u64>)| rows.contains(&row);
        let found = self.table.groups().enumerate().find(is_of);
        let Some((group, rows)) = found else {
            return Ok(None);
        };
        if self.batches.is_none() || self.group != group {
            self.batches = Some(self.table.group_batches(&[self.root], group)?);
            (self.group, self.next) = (group, rows.start);
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
