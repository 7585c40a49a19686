//! Formats sizes, settings and tables for people.

use std::fmt::Write;

use serde_json::{Number, Value};
use sluice_manifest::numbers::{self, plural};

/// Formats a size, such as "8.8 MB".
pub fn bytes(number: u64) -> String {
    match number {
        ..1000 => plural(number, "byte"),
        _ => numbers::bytes(number),
    }
}

/// Returns the name and value of each of a step's settings that is set. For a model, only the
/// preprocessing: the table of models has the rest.
pub fn settings_of(settings: &Value) -> Vec<(String, String)> {
    let fields = settings.as_object().into_iter().flatten();
    let pairs = fields.map(|(name, value)| match name.as_str() {
        "model" if value.is_object() => ("preprocessing".to_owned(), words(&value["preprocess"])),
        name => (name.replace('_', "-"), words(value)),
    });
    pairs.filter(|(_, value)| !value.is_empty()).collect()
}

/// Formats a value. Returns an empty text if it is not set.
fn words(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => short(number),
        Value::String(text) => text.clone(),
        Value::Array(items) => joined(items.iter().map(words), ", "),
        Value::Object(fields) => {
            condition(value).unwrap_or_else(|| joined(fields.iter().map(named), ", "))
        }
    }
}

fn named((name, value): (&String, &Value)) -> String {
    match words(value) {
        words if words.is_empty() => words,
        words if value.is_object() => format!("{} ({words})", name.replace('_', "-")),
        words => format!("{} {words}", name.replace('_', "-")),
    }
}

/// Formats a filter's condition as it would be written.
fn condition(value: &Value) -> Option<String> {
    let score = |name: &str, sign: &str| {
        let condition = value.get(name)?;
        let (score, threshold) = (condition["score"].as_str()?, words(&condition["threshold"]));
        Some(format!("`{score} {sign} {threshold}`"))
    };
    let rule = || {
        let rule = value.get("rule")?;
        Some(format!(
            "{} `{}`",
            rule["name"].as_str()?,
            rule["expression"].as_str()?
        ))
    };
    score("min", ">=")
        .or_else(|| score("max", "<"))
        .or_else(rule)
}

fn joined(items: impl Iterator<Item = String>, separator: &str) -> String {
    let items: Vec<String> = items.filter(|item| !item.is_empty()).collect();
    items.join(separator)
}

/// Formats a number with as few digits as a float32 of its value needs. Most settings are float32.
fn short(number: &Number) -> String {
    match number.as_f64().filter(|_| number.is_f64()) {
        Some(value) if (f64::from(value as f32) - value).abs() <= value.abs() * 1e-12 => {
            format!("{}", value as f32)
        }
        _ => number.to_string(),
    }
}

/// Adds a row to a Markdown table.
pub fn table_row(text: &mut String, cells: &[&str]) {
    for cell in cells {
        let cell = cell.replace('|', "\\|").replace(['\n', '\r'], " ");
        // Writing to a string does not fail.
        let _ = write!(text, "| {cell} ");
    }
    text.push_str("|\n");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sizes_are_written_as_people_do() {
        let sizes = [1, 999, 8_796_160, 999_960_000].map(bytes);
        assert_eq!(sizes, ["1 byte", "999 bytes", "8.8 MB", "1.0 GB"]);
    }

    #[test]
    fn settings_are_readable() {
        let settings = json!({
            "conditions": [
                { "min": { "score": "aesthetic", "threshold": 0.5 } },
                { "max": { "score": "nsfw", "threshold": 0.2_f32 } },
                { "rule": { "expression": "width >= 1", "name": "large" } },
            ],
            "eps": 0.150_000_005_960_464_48,
            "fraction": 0.123_456_789_012,
            "keep": null,
            "max_distance": 4,
            "methods": ["exact", "semantic"],
            "model": { "name": "m", "preprocess": { "crop": { "width": 2 }, "mean": [1.0, 2.5] } },
        });
        let expected = [
            (
                "conditions",
                "`aesthetic >= 0.5`, `nsfw < 0.2`, large `width >= 1`",
            ),
            ("eps", "0.15"),
            ("fraction", "0.123456789012"),
            ("max-distance", "4"),
            ("methods", "exact, semantic"),
            ("preprocessing", "crop (width 2), mean 1, 2.5"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(settings_of(&settings), expected);
    }
}
