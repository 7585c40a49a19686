//! What a program gets: batches of samples, bounded in bytes.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, FixedSizeListArray, Float32Builder, RecordBatch, StringBuilder,
    UInt8Builder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use sluice_manifest::{Error, Result};

/// Bytes from which on a batch is full.
const BATCH_BYTES: usize = 8 << 20;
/// Rows of a batch at most.
const BATCH_ROWS: usize = 1024;
/// Pixels of a side at most.
const SIDE: u32 = 4096;

/// A column of samples. `image_id` is always sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// `image`: the file's bytes, as binary.
    Image,
    /// `pixels`: upright 8-bit RGB, as a tensor of height, width and channel.
    Pixels {
        /// Columns of pixels.
        width: u32,
        /// Rows of pixels.
        height: u32,
    },
    /// `caption`: text, or null.
    Caption,
    /// `metadata`: the JSON member's text, or null.
    Metadata,
    /// `embedding`: a vector of `f32`.
    Embedding,
}

impl Sent {
    /// Returns the column's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Pixels { .. } => "pixels",
            Self::Caption => "caption",
            Self::Metadata => "metadata",
            Self::Embedding => "embedding",
        }
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pixels { width, height } => write!(f, "pixels:{width}x{height}"),
            sent => f.write_str(sent.name()),
        }
    }
}

impl FromStr for Sent {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let side = |text: &str| text.parse().ok().filter(|side| (1..=SIDE).contains(side));
        let size = text.strip_prefix("pixels:").and_then(|size| {
            let (width, height) = size.split_once('x')?;
            Some((side(width)?, side(height)?))
        });
        match (text, size) {
            ("image", _) => Ok(Self::Image),
            ("caption", _) => Ok(Self::Caption),
            ("metadata", _) => Ok(Self::Metadata),
            ("embedding", _) => Ok(Self::Embedding),
            (_, Some((width, height))) => Ok(Self::Pixels { width, height }),
            _ => Err(Error::usage(format!(
                "expected image, pixels:WIDTHxHEIGHT (1 to {SIDE} each), caption, metadata or \
                 embedding, got {text:?}"
            ))),
        }
    }
}

/// A sample, as far as it is sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct SentSample<'a> {
    /// The image's name in the run.
    pub image_id: &'a str,
    /// The file's bytes.
    pub image: &'a [u8],
    /// `height * width * 3` bytes, row by row.
    pub pixels: &'a [u8],
    /// The caption.
    pub caption: Option<&'a str>,
    /// The JSON member's text.
    pub metadata: Option<&'a str>,
    /// The embedding.
    pub embedding: &'a [f32],
}

/// Collects samples for a batch.
pub struct SampleBatch {
    schema: SchemaRef,
    ids: StringBuilder,
    columns: Vec<(Sent, Values)>,
    rows: usize,
    bytes: usize,
}

/// The values of a column so far.
enum Values {
    Binary(BinaryBuilder),
    Text(StringBuilder),
    Pixels(UInt8Builder, usize),
    Vectors(Float32Builder, usize),
}

impl SampleBatch {
    /// Starts a batch. `dimension` is that of the embeddings, where they are sent. The schema's
    /// metadata carries `width` and `height` of the pixels, where they are sent.
    ///
    /// # Errors
    ///
    /// Usage: a column is named twice.
    pub fn new(sent: &[Sent], dimension: usize) -> Result<Self> {
        let mut fields = vec![Field::new("image_id", DataType::Utf8, false)];
        let mut metadata = HashMap::new();
        for &sent in sent {
            if fields.iter().any(|field| field.name() == sent.name()) {
                return Err(Error::usage(format!("--send names {} twice", sent.name())));
            }
            fields.push(field(sent, dimension));
            if let Sent::Pixels { width, height } = sent {
                metadata.insert("width".to_owned(), width.to_string());
                metadata.insert("height".to_owned(), height.to_string());
            }
        }
        let values = sent.iter().map(|&sent| match sent {
            Sent::Image => Values::Binary(BinaryBuilder::new()),
            Sent::Caption | Sent::Metadata => Values::Text(StringBuilder::new()),
            Sent::Pixels { width, height } => {
                Values::Pixels(UInt8Builder::new(), (width * height * 3) as usize)
            }
            Sent::Embedding => Values::Vectors(Float32Builder::new(), dimension),
        });
        Ok(Self {
            columns: sent.iter().copied().zip(values).collect(),
            schema: Arc::new(Schema::new_with_metadata(fields, metadata)),
            ids: StringBuilder::new(),
            rows: 0,
            bytes: 0,
        })
    }

    /// Returns the columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Adds a sample.
    ///
    /// # Errors
    ///
    /// Bug: the pixels or the embedding have another size than the column.
    pub fn push(&mut self, sample: &SentSample<'_>) -> Result<()> {
        for (sent, values) in &mut self.columns {
            self.bytes += values.push(*sent, sample)?;
        }
        self.ids.append_value(sample.image_id);
        self.bytes += sample.image_id.len();
        self.rows += 1;
        Ok(())
    }

    /// Returns whether the batch should be sent before another sample is added.
    pub fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES || self.rows >= BATCH_ROWS
    }

    /// Returns whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Returns the batch, and starts the next one.
    ///
    /// # Errors
    ///
    /// Bug: the columns do not fit the schema.
    pub fn take(&mut self) -> Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = vec![Arc::new(self.ids.finish())];
        let fields = self.schema.fields().iter().skip(1);
        let unfit = |e| Error::bug(format!("samples do not fit their schema: {e}"));
        for ((_, values), field) in self.columns.iter_mut().zip(fields) {
            columns.push(values.take(field).map_err(unfit)?);
        }
        (self.rows, self.bytes) = (0, 0);
        RecordBatch::try_new(self.schema.clone(), columns).map_err(unfit)
    }
}

impl Values {
    /// Adds a sample's value. Returns its bytes.
    fn push(&mut self, sent: Sent, sample: &SentSample<'_>) -> Result<usize> {
        let check = |length: usize, expected: usize| {
            if length == expected {
                Ok(())
            } else {
                Err(Error::bug(format!(
                    "{}: {length} values for {sent}, expected {expected}",
                    sample.image_id
                )))
            }
        };
        Ok(match self {
            Self::Binary(values) => {
                values.append_value(sample.image);
                sample.image.len()
            }
            Self::Text(values) => {
                let text = match sent {
                    Sent::Caption => sample.caption,
                    _ => sample.metadata,
                };
                values.append_option(text);
                text.map_or(0, str::len)
            }
            Self::Pixels(values, size) => {
                check(sample.pixels.len(), *size)?;
                values.append_slice(sample.pixels);
                *size
            }
            Self::Vectors(values, size) => {
                check(sample.embedding.len(), *size)?;
                values.append_slice(sample.embedding);
                *size * size_of::<f32>()
            }
        })
    }

    fn take(&mut self, field: &Field) -> Result<ArrayRef, ArrowError> {
        let values: ArrayRef = match self {
            Self::Binary(values) => Arc::new(values.finish()),
            Self::Text(values) => Arc::new(values.finish()),
            Self::Pixels(values, _) => Arc::new(values.finish()),
            Self::Vectors(values, _) => Arc::new(values.finish()),
        };
        Ok(match field.data_type() {
            DataType::FixedSizeList(item, length) => Arc::new(FixedSizeListArray::try_new(
                item.clone(),
                *length,
                values,
                None,
            )?),
            _ => values,
        })
    }
}

fn field(sent: Sent, dimension: usize) -> Field {
    match sent {
        Sent::Image => Field::new("image", DataType::Binary, false),
        Sent::Caption | Sent::Metadata => Field::new(sent.name(), DataType::Utf8, true),
        Sent::Pixels { width, height } => tensor(
            "pixels",
            DataType::UInt8,
            &[height as usize, width as usize, 3],
        ),
        Sent::Embedding => tensor("embedding", DataType::Float32, &[dimension]),
    }
}

/// Returns a field of tensors: a fixed-size list with Arrow's canonical extension type
/// `arrow.fixed_shape_tensor`, which pyarrow turns into one numpy array without a copy
/// (`to_numpy_ndarray`). Who does not know the type reads a list.
fn tensor(name: &str, item: DataType, shape: &[usize]) -> Field {
    let item = Arc::new(Field::new("item", item, false));
    let length = shape.iter().product::<usize>() as i32;
    let sides: Vec<_> = shape.iter().map(usize::to_string).collect();
    let shape = format!(r#"{{"shape":[{}]}}"#, sides.join(","));
    Field::new(name, DataType::FixedSizeList(item, length), false).with_metadata(
        [
            (
                "ARROW:extension:name",
                "arrow.fixed_shape_tensor".to_owned(),
            ),
            ("ARROW:extension:metadata", shape),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    )
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Float32Type, UInt8Type};

    use super::*;

    #[test]
    fn columns_parse_and_print() {
        for text in [
            "image",
            "pixels:224x336",
            "caption",
            "metadata",
            "embedding",
        ] {
            assert_eq!(text.parse::<Sent>().unwrap().to_string(), text);
        }
        for wrong in [
            "",
            "pixels",
            "pixels:0x1",
            "pixels:224",
            "pixels:9999x1",
            "url",
        ] {
            let error = wrong.parse::<Sent>().unwrap_err().to_string();
            assert!(error.contains("pixels:WIDTHxHEIGHT"), "{error}");
        }
    }

    #[test]
    fn samples_become_columns() {
        let pixels = Sent::Pixels {
            width: 2,
            height: 1,
        };
        let sent = [
            Sent::Image,
            pixels,
            Sent::Caption,
            Sent::Metadata,
            Sent::Embedding,
        ];
        let mut batch = SampleBatch::new(&sent, 2).unwrap();
        assert!(batch.is_empty());
        for (image_id, caption) in [("a/0", Some("a cat")), ("a/1", None)] {
            let sample = SentSample {
                image_id,
                image: b"jpeg",
                pixels: &[1, 2, 3, 4, 5, 6],
                caption,
                metadata: Some("{}"),
                embedding: &[0.5, -1.0],
            };
            batch.push(&sample).unwrap();
        }
        let table = batch.take().unwrap();
        assert!(batch.is_empty());
        assert_eq!(table.num_rows(), 2);
        assert_eq!(table.column(1).as_binary::<i32>().value(1), b"jpeg");
        let values = table.column(2).as_fixed_size_list().values();
        assert_eq!(
            values.as_primitive::<UInt8Type>().values()[6..],
            [1, 2, 3, 4, 5, 6]
        );
        assert!(table.column(3).is_null(1));
        let values = table.column(5).as_fixed_size_list().values();
        assert_eq!(
            values.as_primitive::<Float32Type>().values()[2..],
            [0.5, -1.0]
        );
        let field = table.schema_ref().field(2);
        let shape = &field.metadata()["ARROW:extension:metadata"];
        assert_eq!(shape, r#"{"shape":[1,2,3]}"#);
        let metadata = table.schema_ref().metadata();
        assert_eq!((&*metadata["width"], &*metadata["height"]), ("2", "1"));
    }

    #[test]
    fn batches_are_bounded_in_bytes_and_rows() {
        let mut batch = SampleBatch::new(&[Sent::Image], 0).unwrap();
        let image = vec![0; BATCH_BYTES / 2];
        for image_id in ["a", "b"] {
            assert!(!batch.is_full());
            let sample = SentSample {
                image_id,
                image: &image,
                ..SentSample::default()
            };
            batch.push(&sample).unwrap();
        }
        assert!(batch.is_full());
        batch.take().unwrap();
        for _ in 0..BATCH_ROWS {
            assert!(!batch.is_full());
            batch.push(&SentSample::default()).unwrap();
        }
        assert!(batch.is_full());
    }

    #[test]
    fn wrong_sizes_and_repeated_columns_are_refused() {
        let twice = SampleBatch::new(&[Sent::Caption, Sent::Caption], 0)
            .err()
            .unwrap();
        assert!(twice.to_string().contains("twice"));
        let mut batch = SampleBatch::new(&[Sent::Embedding], 3).unwrap();
        let error = batch.push(&SentSample {
            embedding: &[1.0],
            ..SentSample::default()
        });
        assert!(error.unwrap_err().to_string().contains("expected 3"));
    }
}
