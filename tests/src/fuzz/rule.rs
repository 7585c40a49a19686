//! Rules: compiled, and evaluated on a few rows.

use sluice_filter::rules::{RuleSet, SampleValues, Value, Variable, VariableKind, names};

/// The number of rows, which lack different values.
const ROWS: usize = 3;

fn variables() -> Vec<Variable> {
    let kinds = [
        ("width", VariableKind::Int),
        ("aspect", VariableKind::Float),
        ("caption", VariableKind::Text),
        ("metadata", VariableKind::Json),
        ("score", VariableKind::Score),
        (
            "tags",
            VariableKind::ScoreMap(vec!["cat".to_owned(), "dog".to_owned()]),
        ),
    ];
    let kinds = kinds.into_iter();
    kinds
        .map(|(name, kind)| Variable {
            name: name.to_owned(),
            kind,
        })
        .collect()
}

fn row(number: usize) -> SampleValues<'static> {
    let metadata = [r#"{"license":"cc0","n":[1,{"x":null}]}"#, "[]", "{"][number];
    let caption = [Some("a cat"), Some(""), None][number];
    let score = [Some(0.5), Some(f64::NAN), None][number];
    let mut row = SampleValues::default();
    row.set("width", 640_i64);
    row.set("aspect", f64::INFINITY);
    row.set("caption", caption);
    row.set("metadata", Value::json(Some(metadata)));
    row.set("score", score);
    row.set("tags", Value::Scores(vec![("cat", 1.0), ("dog", f64::NAN)]));
    row
}

pub(super) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let read = names("rule", text);
    let rules = RuleSet::compile(&[("rule".to_owned(), text.to_owned())], &variables());
    let Ok(rules) = rules else {
        return;
    };
    let read = read.expect("what compiles can be parsed");
    for name in rules.references() {
        assert!(read.contains(name), "{name} is read: {text}");
    }
    for number in 0..ROWS {
        let row = row(number);
        let details = [(); 2].map(|()| rules.first_failure(&row).map(|failure| failure.detail));
        assert_eq!(details[0], details[1], "{text}");
    }
}
