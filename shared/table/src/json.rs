//! Converts columns of scalar values to JSON.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, Schema, UInt64Type};
use serde_json::Value;

use crate::rows::JsonRow;

/// Returns whether a type is a text type.
pub fn is_text(kind: &DataType) -> bool {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

/// Returns the type that values are converted to, or `None` for lists, structs and bytes.
fn json_type(kind: &DataType) -> Option<DataType> {
    Some(match kind {
        DataType::Boolean => DataType::Boolean,
        DataType::Dictionary(_, values) => return json_type(values),
        kind if kind.is_unsigned_integer() => DataType::UInt64,
        kind if kind.is_integer() => DataType::Int64,
        kind if kind.is_numeric() => DataType::Float64,
        kind if is_text(kind) || kind.is_temporal() => DataType::Utf8,
        _ => return None,
    })
}

/// The columns of a table with scalar values.
#[derive(Debug, Clone)]
pub struct JsonColumns {
    /// The indices of the columns in the table's schema.
    pub roots: Vec<usize>,
}

impl JsonColumns {
    /// Returns all columns of a table with scalar values.
    pub fn of(schema: &Schema) -> Self {
        let fields = schema.fields().iter().enumerate();
        let roots = fields.filter(|(_, field)| json_type(field.data_type()).is_some());
        Self {
            roots: roots.map(|(root, _)| root).collect(),
        }
    }

    /// Returns the rows of a batch, without columns of other types.
    pub fn rows(batch: &RecordBatch) -> Vec<JsonRow> {
        let schema = batch.schema();
        let columns = schema.fields().iter().zip(batch.columns());
        let columns: Vec<(&str, Values)> = columns
            .filter_map(|(field, column)| Some((field.name().as_str(), Values::of(column)?)))
            .collect();
        let row = |number| {
            let values = columns.iter();
            let values = values.map(|(name, values)| ((*name).to_owned(), values.get(number)));
            values.collect()
        };
        (0..batch.num_rows()).map(row).collect()
    }
}

/// A column after conversion.
struct Values(ArrayRef);

impl Values {
    fn of(column: &ArrayRef) -> Option<Self> {
        let kind = json_type(column.data_type())?;
        // The shortest decimal of an `f32` is the number that was written: 0.1, not
        // 0.10000000149011612.
        let is_single = *column.data_type() == DataType::Float32;
        let text = is_single
            .then(|| cast(column, &DataType::Utf8).ok())
            .flatten();
        cast(text.as_ref().unwrap_or(column), &kind).ok().map(Self)
    }

    fn get(&self, row: usize) -> Value {
        let column = &self.0;
        if column.is_null(row) {
            return Value::Null;
        }
        match column.data_type() {
            DataType::Boolean => column.as_boolean().value(row).into(),
            DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
            DataType::UInt64 => column.as_primitive::<UInt64Type>().value(row).into(),
            // NaN and infinity become null.
            DataType::Float64 => column.as_primitive::<Float64Type>().value(row).into(),
            _ => column.as_string::<i32>().value(row).into(),
        }
    }
}
