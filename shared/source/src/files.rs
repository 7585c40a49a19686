//! Samples that are plain files: the members listed in `partition/files`, read with prefetch.

use std::collections::VecDeque;

use sluice_manifest::layout::FILES;
use sluice_manifest::rows::{FileRow, PlanRow};
use sluice_manifest::{Error, Result, ShardPath, StepName};
use sluice_store::{ObjectReader, RowReader, Store};

use crate::reader::{InputReader, locate};

/// The maximum number of prefetched files. A small file takes as long as a request to an object
/// store.
const AHEAD_FILES: usize = 32;
/// The approximate maximum number of prefetched bytes.
const AHEAD_BYTES: u64 = 16 << 20;

/// The rows of `partition/files` that belong to one shard.
pub(crate) struct FileRows {
    input: InputReader,
    shard: ShardPath,
    rows: RowReader<FileRow>,
    /// The number of the next row.
    next: u64,
}

impl FileRows {
    pub(crate) fn open(input: &InputReader, planned: &PlanRow) -> Result<Self> {
        let path = FILES.path(&StepName::partition(), planned.partition.into());
        Ok(Self {
            rows: input.run.rows(&path)?,
            input: input.clone(),
            shard: planned.shard.clone(),
            next: 0,
        })
    }

    /// Returns the next row of the shard, with its number.
    pub(crate) fn step(&mut self) -> Result<Option<(u64, FileRow)>> {
        for row in self.rows.by_ref() {
            let number = self.next;
            self.next += 1;
            let row = row?;
            if row.shard == self.shard {
                return Ok(Some((number, row)));
            }
        }
        Ok(None)
    }

    /// Opens a row's file and requests its bytes. Returns `None` if the row is not a file, or one
    /// that cannot be read.
    pub(crate) fn open_file(&self, row: &FileRow) -> Result<Option<ObjectReader>> {
        let (Some(path), Some(bytes)) = (&row.path, row.bytes) else {
            return Ok(None);
        };
        let (store, path) = locate(&self.input.storage, &self.input.input, path)?;
        if store.location().as_local().is_some() {
            refuse_changed(&store, &path, row)?;
        }
        let mut reader = store
            .read_ranges(&path, bytes)
            .if_match(row.etag.as_deref());
        reader.prefetch(0..bytes);
        reader.start_prefetch();
        Ok(Some(reader))
    }

    /// Returns an error if a row's file is not the one that was listed.
    pub(crate) fn check_unchanged(&self, row: &FileRow) -> Result<()> {
        let (Some(path), Some(_)) = (&row.path, row.bytes) else {
            return Ok(());
        };
        let (store, path) = locate(&self.input.storage, &self.input.input, path)?;
        refuse_changed(&store, &path, row)
    }
}

fn refuse_changed(store: &Store, path: &str, row: &FileRow) -> Result<()> {
    let found = store.stat(path)?;
    let same = found.is_some_and(|found| {
        Some(found.bytes) == row.bytes && found.etag == row.etag && found.modified == row.modified
    });
    if same {
        return Ok(());
    }
    Err(Error::data(format!(
        "{}: changed or gone since the plan was made",
        store.uri(path)
    ))
    .hint("run sluice-partition again, then the steps after it"))
}

/// A requested file.
struct Requested {
    row: u64,
    bytes: u64,
    reader: ObjectReader,
}

/// The files of a shard by row, in ascending order, with prefetch.
pub(crate) struct RequestedFiles {
    rows: FileRows,
    ahead: VecDeque<Requested>,
}

impl RequestedFiles {
    pub(crate) fn open(input: &InputReader, planned: &PlanRow) -> Result<Self> {
        Ok(Self {
            rows: FileRows::open(input, planned)?,
            ahead: VecDeque::new(),
        })
    }

    /// Requests the file of a row. Rows must be requested in ascending order.
    pub(crate) fn prefetch(&mut self, wanted: u64) -> Result<()> {
        if self.ahead.back().is_some_and(|last| last.row >= wanted) {
            return Ok(());
        }
        while let Some((row, file)) = self.rows.step()? {
            if row < wanted {
                continue;
            }
            if let Some(reader) = self.rows.open_file(&file)? {
                let bytes = file.bytes.unwrap_or(0);
                self.ahead.push_back(Requested { row, bytes, reader });
            }
            break;
        }
        Ok(())
    }

    /// Returns whether enough files are requested.
    pub(crate) fn is_prefetch_full(&self) -> bool {
        let bytes = self.ahead.iter().map(|file| file.bytes).sum::<u64>();
        self.ahead.len() >= AHEAD_FILES || bytes >= AHEAD_BYTES
    }

    /// Returns the file of a row, or `None` if the list has no such file.
    pub(crate) fn take(&mut self, row: u64) -> Result<Option<ObjectReader>> {
        self.prefetch(row)?;
        while let Some(file) = self.ahead.pop_front() {
            if file.row == row {
                return Ok(Some(file.reader));
            }
        }
        Ok(None)
    }
}

/// The rows of a shard with their files, with prefetch.
pub(crate) struct Lookahead {
    rows: FileRows,
    ahead: VecDeque<(u64, FileRow, Option<ObjectReader>)>,
    done: bool,
}

impl Lookahead {
    pub(crate) fn open(input: &InputReader, planned: &PlanRow) -> Result<Self> {
        Ok(Self {
            rows: FileRows::open(input, planned)?,
            ahead: VecDeque::new(),
            done: false,
        })
    }

    fn fill(&mut self) -> Result<()> {
        let bytes = |row: &FileRow| row.bytes.unwrap_or(0);
        let mut sum: u64 = self.ahead.iter().map(|(_, row, _)| bytes(row)).sum();
        while !self.done
            && self.ahead.len() < AHEAD_FILES
            && (sum < AHEAD_BYTES || self.ahead.is_empty())
        {
            let Some((number, row)) = self.rows.step()? else {
                self.done = true;
                break;
            };
            sum += bytes(&row);
            let reader = self.rows.open_file(&row)?;
            self.ahead.push_back((number, row, reader));
        }
        Ok(())
    }

    /// Returns the next row if `accepts` returns true for it.
    pub(crate) fn next_if(
        &mut self,
        accepts: impl FnOnce(&FileRow) -> bool,
    ) -> Result<Option<(u64, FileRow, Option<ObjectReader>)>> {
        self.fill()?;
        let next = self.ahead.front().is_some_and(|(_, row, _)| accepts(row));
        Ok(if next { self.ahead.pop_front() } else { None })
    }
}
