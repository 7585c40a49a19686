//! What rules can read: columns of `read`, captions, metadata, and scores.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, UInt8Type, UInt32Type, UInt64Type};
use sluice_harness::Context;
use sluice_manifest::layout::IMAGES;
use sluice_manifest::rows::{Row as _, SampleRow};
use sluice_manifest::{Error, Result, StepName, Unit};
use sluice_run::Upstream;
use sluice_store::Table;

use crate::rules::{SampleValues, Value, Variable, VariableKind, is_of_language};

/// The sample's JSON.
const METADATA: &str = "metadata";

/// Variables that are computed from columns: the columns that they need.
const COMPUTED: [(&str, VariableKind); 2] = [
    ("pixels", VariableKind::Int),
    ("aspect", VariableKind::Float),
];

/// Columns of `read/images` that rules read as they are.
const COLUMNS: [(&str, VariableKind); 20] = [
    ("image_id", VariableKind::Text),
    ("shard", VariableKind::Text),
    ("key", VariableKind::Text),
    ("image_extension", VariableKind::Text),
    ("format", VariableKind::Text),
    ("width", VariableKind::Int),
    ("height", VariableKind::Int),
    ("orientation", VariableKind::Int),
    ("bytes", VariableKind::Int),
    ("sha256", VariableKind::Text),
    ("phash", VariableKind::Int),
    ("dark", VariableKind::Float),
    ("light", VariableKind::Float),
    ("blurry", VariableKind::Float),
    ("low_information", VariableKind::Float),
    ("odd_aspect", VariableKind::Float),
    ("odd_size", VariableKind::Float),
    ("caption", VariableKind::Text),
    (METADATA, VariableKind::Json),
    ("detail", VariableKind::Text),
];

/// Whether a name is not a score's.
pub(crate) fn is_column(name: &str) -> bool {
    let names = COLUMNS.iter().chain(&COMPUTED);
    names.clone().any(|(column, _)| *column == name)
}

/// Whether rules cannot read a score of this step, for they read something else under its name: a
/// column, or a word or a type of CEL.
pub(crate) fn is_reserved(step: &StepName) -> bool {
    let name = step.identifier();
    is_column(&name) || is_of_language(&name)
}

/// Refuses a step whose scores rules cannot read.
///
/// # Errors
/// Usage, when its name is taken.
pub fn refuse_reserved(step: &StepName) -> Result<()> {
    if is_reserved(step) {
        Err(Error::usage(format!(
            "step {step}: rules read something else under the name {}",
            step.identifier()
        ))
        .hint("give the step that scores another name"))
    } else {
        Ok(())
    }
}

/// Returns the variables that rules can read, given the scores of the steps before.
pub(crate) fn variables(upstream: &Upstream) -> Vec<Variable> {
    let columns = COLUMNS
        .iter()
        .chain(&COMPUTED)
        .map(|(name, kind)| Variable {
            name: (*name).to_owned(),
            kind: kind.clone(),
        });
    let scores = upstream.scorers().map(|(step, columns)| Variable {
        name: step.identifier(),
        kind: match columns {
            [_] => VariableKind::Score,
            several => VariableKind::ScoreMap(several.iter().map(|c| c.name.clone()).collect()),
        },
    });
    columns.chain(scores).collect()
}

/// The columns of `read/images` that some rules read, row by row.
pub(crate) struct ColumnReader {
    table: Table,
    names: Vec<&'static str>,
    has_pixels: bool,
    has_aspect: bool,
    batch: Option<RecordBatch>,
    row: usize,
}

impl ColumnReader {
    /// Opens the columns with these names among them.
    ///
    /// # Errors
    /// Data, when the manifest is missing or broken.
    pub(crate) fn open(
        context: &Context,
        unit: Unit,
        references: impl Fn(&str) -> bool,
    ) -> Result<Self> {
        let (has_pixels, has_aspect) = (references("pixels"), references("aspect"));
        let is_size = |name: &str| ["width", "height"].contains(&name);
        let names = COLUMNS.iter().map(|(name, _)| *name);
        let names: Vec<&'static str> = names
            .filter(|name| references(name) || (is_size(name) && (has_pixels || has_aspect)))
            .collect();
        let path = IMAGES.path(&StepName::read(), unit);
        // A table needs a column, to have rows.
        let columns = if names.is_empty() {
            vec!["image_id"]
        } else {
            names.clone()
        };
        Ok(Self {
            table: context.run.table(&path, SampleRow::SCHEMA, &columns)?,
            names,
            has_pixels,
            has_aspect,
            batch: None,
            row: 0,
        })
    }

    /// Moves to the next row.
    ///
    /// # Errors
    /// Data, when the manifest is broken or has no more rows.
    pub(crate) fn advance(&mut self) -> Result<()> {
        self.row += 1;
        while self
            .batch
            .as_ref()
            .is_none_or(|batch| self.row >= batch.num_rows())
        {
            let batch = self.table.next().transpose()?;
            self.batch = Some(batch.ok_or_else(|| Error::data("read/images: too few rows"))?);
            self.row = 0;
        }
        Ok(())
    }

    /// Sets the row's values.
    pub(crate) fn set<'r>(&'r self, row: &mut SampleValues<'r>) {
        let Some(batch) = &self.batch else { return };
        for name in &self.names {
            let column = batch.column_by_name(name);
            let value = column.map_or(Value::Null, |column| value(column, self.row));
            match *name {
                METADATA => row.set(name, Value::json(text(column, self.row))),
                name => row.set(name, value),
            }
        }
        let side = |name: &str| -> Option<u32> {
            let column = batch
                .column_by_name(name)?
                .as_primitive_opt::<UInt32Type>()?;
            column.is_valid(self.row).then(|| column.value(self.row))
        };
        if let (Some(width), Some(height)) = (side("width"), side("height")) {
            if self.has_pixels {
                row.set("pixels", i64::from(width) * i64::from(height));
            }
            if self.has_aspect {
                let (short, long) = (width.min(height), width.max(height));
                row.set("aspect", f64::from(long) / f64::from(short));
            }
        }
    }
}

fn text(column: Option<&ArrayRef>, row: usize) -> Option<&str> {
    let column = column?.as_string_opt::<i32>()?;
    column.is_valid(row).then(|| column.value(row))
}

fn value(column: &ArrayRef, row: usize) -> Value<'_> {
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Utf8 => text(Some(column), row).into(),
        DataType::UInt8 => i64::from(column.as_primitive::<UInt8Type>().value(row)).into(),
        DataType::UInt32 => i64::from(column.as_primitive::<UInt32Type>().value(row)).into(),
        // CEL's int has a sign: the bits of a hash are kept.
        DataType::UInt64 => (column.as_primitive::<UInt64Type>().value(row) as i64).into(),
        DataType::Float32 => f64::from(column.as_primitive::<Float32Type>().value(row)).into(),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_is_one_of_read() {
        let fields = SampleRow::fields();
        for (name, _) in COLUMNS {
            assert!(fields.iter().any(|field| field.name() == name), "{name}");
        }
    }
}
