//! `--where`: selects rows by a CEL expression.

use arrow::datatypes::SchemaRef;
use cel::{Context, Program, Value as CelValue};
use serde_json::{Map, Value};
use sluice_manifest::{Error, Result};

/// The column with JSON documents. Expressions read their fields.
const METADATA: &str = "metadata";

/// An expression over the columns of a row.
pub(super) struct RowFilter {
    program: Program,
    columns: Vec<String>,
}

impl RowFilter {
    /// Compiles an expression for rows with these columns.
    ///
    /// # Errors
    /// Usage, when the expression is not valid CEL or reads an unknown column.
    pub(super) fn new(text: &str, schema: &SchemaRef) -> Result<Self> {
        let program = Program::compile(text).map_err(|e| {
            let first = e.to_string();
            let first = first.lines().next().unwrap_or_default().to_owned();
            Error::usage(format!("--where {text}: {first}"))
                .hint("write a CEL expression, such as width >= 256 && reason == 'not-an-image'")
        })?;
        let fields = schema.fields().iter().map(|field| field.name().clone());
        let fields: Vec<String> = fields.collect();
        let references = program.references();
        let read = references.variables().into_iter();
        let columns: Vec<String> = read.map(str::to_owned).collect();
        drop(references);
        match columns.iter().find(|column| !fields.contains(column)) {
            Some(column) => Err(Error::usage(format!("--where {text}: no column {column}"))
                .hint(format!("columns are {}", fields.join(", ")))),
            None => Ok(Self { program, columns }),
        }
    }

    /// Whether a row passes. A row for which the expression cannot be evaluated, for example
    /// because a value is missing, does not pass.
    pub(super) fn passes(&self, row: &Map<String, Value>) -> bool {
        let mut context = Context::default();
        for name in &self.columns {
            let value = row.get(name).unwrap_or(&Value::Null);
            let document = match value {
                Value::String(text) if name == METADATA => serde_json::from_str(text).ok(),
                _ => None,
            };
            let value: &Value = document.as_ref().unwrap_or(value);
            if context.add_variable(name.as_str(), value).is_err() {
                return false;
            }
        }
        matches!(self.program.execute(&context), Ok(CelValue::Bool(true)))
    }
}
