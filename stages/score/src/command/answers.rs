//! A program's output: an Arrow stream of scores, checked and converted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, Read};
use std::process::ChildStdout;
use std::sync::{Arc, Mutex, MutexGuard};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use sluice_manifest::{Error, Result};

use super::Failure;
use super::pipe::Pipe;
use crate::columns::{KeyDigest, is_number, is_text, listed, scores, texts};

/// The first bytes of every Arrow IPC stream.
const MARKER: [u8; 4] = [0xff; 4];
/// Bytes of other output that an error shows.
const SHOWN: usize = 40;

/// The scores in a program's output.
pub(super) struct ScoreStream<'a> {
    stdout: Pipe<'a, ChildStdout>,
    outputs: &'a [String],
}

impl<'a> ScoreStream<'a> {
    pub(super) fn new(stdout: Pipe<'a, ChildStdout>, outputs: &'a [String]) -> Self {
        Self { stdout, outputs }
    }

    /// Hands out the scores until the end of the stream, or until `each` returns false.
    pub(super) fn each(
        &mut self,
        mut each: impl FnMut(RecordBatch) -> bool,
    ) -> Result<(), Failure> {
        let start = self.read_start()?;
        let reader = StreamReader::try_new(start.chain(&mut self.stdout), None);
        let mut reader = match reader {
            Ok(reader) => reader,
            Err(e) => return Err(self.invalid(&e)),
        };
        let columns = ScoreColumns::find(&reader.schema(), self.outputs)?;
        // The reader borrows the pipe, and the pipe's state distinguishes its errors.
        let outcome = loop {
            match reader.next() {
                Some(Ok(batch)) if !each(columns.convert(&batch)?) => return Ok(()),
                Some(Ok(_)) => {}
                Some(Err(e)) => break Some(e),
                None => break None,
            }
        };
        match outcome {
            Some(e) => Err(self.invalid(&e)),
            // Arrow's reader takes the end of the pipe for the end of the stream.
            None if self.stdout.is_closed() => Err(incomplete()),
            None => Ok(()),
        }
    }

    /// Reads the first bytes, which differ between a stream and printed text.
    fn read_start(&mut self) -> Result<io::Cursor<Vec<u8>>, Failure> {
        let mut start = Vec::new();
        // An error is the end of the pipe, too.
        let _ = (&mut self.stdout).take(4).read_to_end(&mut start);
        if start == MARKER {
            return Ok(io::Cursor::new(start));
        }
        let more = SHOWN - start.len();
        let _ = (&mut self.stdout).take(more as u64).read_to_end(&mut start);
        let text = String::from_utf8_lossy(&start);
        Err(if start.is_empty() {
            Failure::NoOutput
        } else {
            Failure::data(format!(
                "its output is not an Arrow IPC stream, it starts with {text:?}"
            ))
            .hint("print to stderr; stdout carries the stream and nothing else")
        })
    }

    fn invalid(&self, e: &ArrowError) -> Failure {
        if self.stdout.is_closed() {
            incomplete()
        } else {
            Failure::data(format!("its output is not a valid Arrow IPC stream: {e}"))
        }
    }

    /// Reads to the end of the pipe.
    ///
    /// # Errors
    ///
    /// Fails when there was more than one stream.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        match self.drain() {
            0 => Ok(()),
            bytes => Err(Failure::data(format!(
                "{bytes} bytes of output follow the end of the Arrow stream"
            ))
            .hint("write one stream with many batches, and print to stderr")),
        }
    }

    /// Reads to the end of the pipe. Returns the number of bytes.
    pub(super) fn drain(&mut self) -> u64 {
        let mut buffer = [0; 8192];
        let mut bytes = 0;
        while let Ok(count @ 1..) = self.stdout.read(&mut buffer) {
            bytes += count as u64;
        }
        bytes
    }
}

fn incomplete() -> Failure {
    Failure::data("its output ends before the end of the Arrow stream")
        .hint("close the stream writer before the program exits")
}

/// Where the columns of scores are in a program's batches.
struct ScoreColumns {
    image_id: usize,
    outputs: Vec<usize>,
    schema: SchemaRef,
}

impl ScoreColumns {
    fn find(schema: &Schema, outputs: &[String]) -> Result<Self, Failure> {
        let find = |name: &str, fits: fn(&DataType) -> bool, expected: &str| {
            let Ok(index) = schema.index_of(name) else {
                let columns = listed(schema.fields().iter().map(|field| field.name().as_str()));
                return Err(Failure::data(format!(
                    "its output has no column {name:?}; the columns are [{columns}]"
                ))
                .hint("--outputs names the columns of scores"));
            };
            match schema.field(index).data_type() {
                kind if fits(kind) => Ok(index),
                kind => Err(Failure::data(format!(
                    "column {name:?} of its output is {kind}, expected {expected}"
                ))),
            }
        };
        let image_id = find("image_id", is_text, "text")?;
        let found = outputs.iter().map(|name| find(name, is_number, "numbers"));
        let found = found.collect::<Result<_, _>>()?;
        let mut fields = vec![Field::new("image_id", DataType::Utf8, false)];
        fields.extend(
            outputs
                .iter()
                .map(|name| Field::new(name, DataType::Float32, false)),
        );
        Ok(Self {
            image_id,
            outputs: found,
            schema: Arc::new(Schema::new(fields)),
        })
    }

    fn convert(&self, batch: &RecordBatch) -> Result<RecordBatch, Failure> {
        let ids = batch.column(self.image_id);
        if ids.logical_null_count() > 0 {
            return Err(Failure::data("column \"image_id\" of its output has nulls"));
        }
        let convert = || -> Result<RecordBatch, ArrowError> {
            let mut columns: Vec<ArrayRef> = vec![Arc::new(texts(ids)?)];
            for &index in &self.outputs {
                columns.push(Arc::new(scores(batch.column(index))?));
            }
            RecordBatch::try_new(self.schema.clone(), columns)
        };
        convert().map_err(|e| Failure::data(format!("its output cannot be converted: {e}")))
    }
}

/// The images that were sent, and whether they were answered.
#[derive(Default)]
pub(super) struct Ledger(Mutex<HashMap<KeyDigest, bool>>);

impl Ledger {
    /// Notes the images of a batch, before the program can answer them.
    pub(super) fn sent(&self, batch: &RecordBatch) -> Result<()> {
        let ids = batch.column_by_name("image_id");
        let Some(ids) = ids.and_then(|ids| ids.as_string_opt::<i32>()) else {
            return Err(Error::bug("samples are sent without image_id"));
        };
        let mut images = self.lock();
        for id in ids.iter().flatten() {
            if images.insert(KeyDigest::of(id.as_bytes()), false).is_some() {
                return Err(Error::bug(format!("image {id:?} is sent twice")));
            }
        }
        Ok(())
    }

    /// Notes the images of an answer.
    pub(super) fn answered(&self, scores: &RecordBatch) -> Result<(), Failure> {
        let mut images = self.lock();
        for id in scores.column(0).as_string::<i32>().iter().flatten() {
            let wrong = match images.entry(KeyDigest::of(id.as_bytes())) {
                Entry::Vacant(_) => "was not sent",
                Entry::Occupied(mut answered) => {
                    if answered.insert(true) {
                        "is answered twice"
                    } else {
                        continue;
                    }
                }
            };
            return Err(Failure::data(format!(
                "image_id {id:?} of its output {wrong}"
            )));
        }
        Ok(())
    }

    /// Returns whether nothing was sent.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<KeyDigest, bool>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}
