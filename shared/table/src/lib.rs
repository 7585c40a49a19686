//! Tables that users bring: Parquet, CSV, JSON lines, lists of text.
//!
//! They are read from a store front to back. Memory holds a page of each column or a record,
//! whatever the size of the file.

mod csv;
mod format;
mod json;
mod object;
mod parquet;
mod rows;

pub use self::csv::Records;
pub use self::parquet::{Batches, ParquetTable};
pub use format::Format;
pub use json::{JsonColumns, is_text};
pub use object::UserObject;
pub use rows::{Row, Rows};
