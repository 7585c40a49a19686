//! Tables of users: Parquet, CSV, JSON lines, and lists of text.
//!
//! They are streamed from a store. The memory is limited to a page of each column, or to one
//! record, for files of any size.

mod csv;
mod format;
mod json;
mod object;
mod parquet;
mod rows;

pub use self::csv::Records;
pub use self::parquet::{Batches, ParquetTable};
pub use format::TableFormat;
pub use json::{JsonColumns, is_text};
pub use object::UserObject;
pub use rows::{JsonRow, Rows};
