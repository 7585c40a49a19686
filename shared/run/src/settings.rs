//! Formats a step's settings as text, for any stage.

use serde_json::Value;
use sluice_manifest::{InputOf, Receipt};

/// Returns the names and values of a step's settings, of its models, and of the objects outside of
/// the run that it read.
pub fn of(receipt: &Receipt) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    if let Value::Object(settings) = &receipt.settings {
        for (name, value) in settings {
            match model(name, value) {
                Some(model) => pairs.extend(model),
                None => pairs.push((name.replace('_', " "), text(value))),
            }
        }
    }
    let about = receipt.about.iter();
    pairs.extend(about.map(|(name, text)| (name.clone(), text.clone())));
    pairs.retain(|(_, value)| !value.is_empty());
    let objects = receipt.inputs.iter().filter_map(|input| match &input.of {
        InputOf::Object { uri } => Some(("read".to_owned(), uri.clone())),
        _ => None,
    });
    pairs.extend(objects);
    pairs
}

/// Returns the source of a unit's scores or embeddings: the model's name, or the object that they
/// were read from.
pub fn source(receipt: &Receipt) -> Option<String> {
    let model = receipt.settings["model"]["name"].as_str();
    let object = || {
        receipt.inputs.iter().find_map(|input| match &input.of {
            InputOf::Object { uri } => Some(uri.clone()),
            _ => None,
        })
    };
    model.map(str::to_owned).or_else(object)
}

/// Formats a value on one line. An empty value gives an empty text.
fn text(value: &Value) -> String {
    let filled = |(name, text): (&str, String)| (!text.is_empty()).then(|| [name, &text].join(" "));
    match value {
        Value::Null => String::new(),
        Value::Bool(value) => value.to_string(),
        Value::String(text) => text.clone(),
        // Most numbers with a decimal point are thresholds, which are float32.
        Value::Number(value) if value.is_f64() => match value.as_f64() {
            Some(value) if f64::from(value as f32) == value => (value as f32).to_string(),
            _ => value.to_string(),
        },
        Value::Number(value) => value.to_string(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(name, value)| (name.as_str(), text(value)));
            fields.filter_map(filled).collect::<Vec<_>>().join(" ")
        }
    }
}

/// Returns a model's name and the start of its hash.
fn model(name: &str, model: &Value) -> Option<[(String, String); 2]> {
    let (title, hash) = (model["name"].as_str()?, model["sha256"].as_str()?);
    let hash: String = hash.chars().take(12).collect();
    Some([
        (name.to_owned(), title.to_owned()),
        ("sha256".to_owned(), hash),
    ])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_of_all_kinds_are_on_one_line() {
        let settings = json!({
            "conditions": [
                { "min": { "score": "aesthetic", "threshold": 0.2_f32 } },
                { "rule": { "expression": "width >= 256", "name": "large" } },
            ],
            "eps": 0.01,
            "keep": null,
            "methods": ["exact", "semantic"],
            "seed": 7,
        });
        let expected = "conditions min score aesthetic threshold 0.2, \
            rule expression width >= 256 name large \
            eps 0.01 methods exact, semantic seed 7";
        assert_eq!(text(&settings), expected);
    }

    #[test]
    fn models_are_short() {
        let settings = json!({ "name": "m", "kind": "head", "sha256": "0123456789abcdef" });
        let pairs = model("model", &settings).unwrap();
        let pairs = pairs
            .each_ref()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        assert_eq!(pairs, [("model", "m"), ("sha256", "0123456789ab")]);
        assert_eq!(model("rule", &json!({ "name": "large" })), None);
    }
}
