//! Extracts the thresholds that filters set for scores from their receipts.
//!
//! The format of a filter's settings belongs to the filter. This module finds every object in them
//! with the keys `score` and `threshold`. The key of that object, `min`, `max` or `top`, determines
//! which side is kept.

use serde_json::Value;
use sluice_manifest::{Keep, ReasonKind, Receipt, ScoreName};

/// A threshold of a filter.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    /// The name of the score.
    pub score: ScoreName,
    /// The value of the threshold.
    pub value: f32,
    /// The reason of the samples that it drops.
    pub reason: ReasonKind,
}

impl Threshold {
    /// Returns which scores it keeps.
    pub fn keep(&self) -> Keep {
        match self.reason {
            ReasonKind::AboveMax => Keep::Below,
            _ => Keep::AtLeast,
        }
    }
}

/// Returns the thresholds in a receipt's settings, in their order.
pub fn of_receipt(receipt: &Receipt) -> Vec<Threshold> {
    let mut found = Vec::new();
    collect(&receipt.settings, "", &mut found);
    found
}

/// Returns the names of the rules in a receipt's settings, in their order.
pub fn rules_of(receipt: &Receipt) -> Vec<String> {
    let conditions = receipt.settings["conditions"].as_array();
    let rules = conditions.into_iter().flatten();
    let names = rules.filter_map(|condition| condition["rule"]["name"].as_str());
    names.map(str::to_owned).collect()
}

fn collect(value: &Value, key: &str, found: &mut Vec<Threshold>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, key, found)),
        Value::Object(fields) => {
            found.extend(threshold(value, key));
            fields
                .iter()
                .for_each(|(key, value)| collect(value, key, found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn threshold(value: &Value, key: &str) -> Option<Threshold> {
    Some(Threshold {
        score: value["score"].as_str()?.parse().ok()?,
        value: value["threshold"].as_f64()? as f32,
        reason: match key {
            "min" => ReasonKind::BelowMin,
            "max" => ReasonKind::AboveMax,
            "top" => ReasonKind::BelowTop,
            _ => return None,
        },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn thresholds_are_found_wherever_they_are() {
        let settings = json!({
            "conditions": [
                { "min": { "score": "aesthetic", "threshold": 5.0 } },
                { "rule": { "name": "large", "expression": "width >= 256" } },
                { "max": { "score": "nsfw.porn", "threshold": 0.5 } },
                { "top": { "score": "clip", "fraction": 0.3, "threshold": 0.25 } },
            ],
            "max": [{ "score": "a", "threshold": null }, { "score": "b", "threshold": 1 }],
            "near": { "score": "c", "threshold": 2 },
        });
        let mut found = Vec::new();
        collect(&settings, "", &mut found);
        let found: Vec<_> = found
            .iter()
            .map(|threshold| {
                (
                    threshold.score.to_string(),
                    threshold.value,
                    threshold.reason,
                )
            })
            .collect();
        let expected = [
            ("aesthetic".to_owned(), 5.0, ReasonKind::BelowMin),
            ("nsfw.porn".to_owned(), 0.5, ReasonKind::AboveMax),
            ("clip".to_owned(), 0.25, ReasonKind::BelowTop),
            ("b".to_owned(), 1.0, ReasonKind::AboveMax),
        ];
        assert_eq!(found, expected);
    }
}
