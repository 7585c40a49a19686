//! Columns of other people's tables: which types hold numbers and text, and how they become ours.

use arrow::array::{ArrayRef, AsArray, Float32Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use arrow::error::ArrowError;

/// A missing score, in memory.
pub(crate) const MISSING: f32 = f32::NAN;

/// Column names that an error lists.
const LISTED: usize = 20;

/// 128 bits of a key's BLAKE3. Among a billion keys, two collide with a probability of 1e-21.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct KeyDigest([u8; 16]);

impl KeyDigest {
    pub(crate) fn of(key: &[u8]) -> Self {
        let mut digest = [0; 16];
        digest.copy_from_slice(&blake3::hash(key).as_bytes()[..16]);
        Self(digest)
    }
}

/// Returns whether a type is numeric: integers, floats and decimals of any width, and booleans.
pub(crate) fn is_number(kind: &DataType) -> bool {
    kind.is_numeric() || *kind == DataType::Boolean
}

/// Returns whether a type is text.
pub(crate) fn is_text(kind: &DataType) -> bool {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

/// Returns a value as a score: [`MISSING`] where it is null or no finite `f32`.
pub(crate) fn score(value: Option<f64>) -> f32 {
    let score = value.map_or(MISSING, |value| value as f32);
    if score.is_finite() { score } else { MISSING }
}

/// Returns a column of numbers as scores, without nulls: see [`score`]. Booleans are 0 and 1.
pub(crate) fn scores(column: &ArrayRef) -> Result<Float32Array, ArrowError> {
    let wide = cast(column, &DataType::Float64)?;
    let wide = wide.as_primitive::<Float64Type>();
    Ok(Float32Array::from_iter_values(wide.iter().map(score)))
}

/// Returns a column of text or integers as text.
pub(crate) fn texts(column: &ArrayRef) -> Result<StringArray, ArrowError> {
    let text = cast(column, &DataType::Utf8)?;
    Ok(text.as_string::<i32>().clone())
}

/// Lists column names for an error text.
pub(crate) fn listed<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let left_out = names.len().saturating_sub(LISTED);
    let names: Vec<_> = names.take(LISTED).map(|name| format!("{name:?}")).collect();
    match left_out {
        0 => names.join(", "),
        _ => format!("{}, and {left_out} more", names.join(", ")),
    }
}
