//! The CPU time that rules cost for each row, measured.
//!
//! ```text
//! cargo run --release --example rule_cost [ROWS]
//! ```
//!
//! Five rules, one with a regular expression, over columns, two scores, a caption and a
//! metadata document of 15 fields that is parsed for each row. Prints a JSON object:
//! `passing` for rows that pass every rule, `failing` for rows that fail the last one by its value,
//! `missing` for rows whose metadata lacks the field that the last rule reads, `simple` for one
//! rule over two columns, in microseconds of CPU for each row.

use sluice_filter::rules::{RuleSet, SampleValues, Value, Variable, VariableKind};

const RULES: [(&str, &str); 5] = [
    ("large", "min(width, height) >= 256 && aspect <= 3"),
    ("beautiful", "aesthetic >= 4.5 && nsfw < 0.5"),
    (
        "clean-caption",
        r"!caption.matches(r'(?i)\b(shutterstock|getty|alamy)\b')",
    ),
    (
        "english",
        "metadata.language == 'en' || !has(metadata.language)",
    ),
    (
        "licensed",
        "metadata.license in ['cc0', 'cc-by', 'cc-by-sa']",
    ),
];

const METADATA: &str = r#"{"caption": "a red bicycle leans against a brick wall in the evening sun",
 "url": "https://images.example.org/photos/2021/06/000123456_large.jpg", "key": "000123456",
 "status": "success", "error_message": null, "width": 1024, "height": 683, "original_width": 4096,
 "original_height": 2731, "language": "en", "license": "LICENSE", "similarity": 0.3127,
 "exif": {"Image Make": "Canon", "Image Model": "EOS R5", "EXIF ISOSpeedRatings": 400},
 "tags": ["bicycle", "wall", "evening"], "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}"#;

#[expect(clippy::print_stdout, reason = "a program of its own")]
fn main() {
    let rows = std::env::args().nth(1).and_then(|rows| rows.parse().ok());
    let rows: u32 = rows.unwrap_or(300_000);
    let passing = METADATA.replace("LICENSE", "cc-by");
    let failing = METADATA.replace("LICENSE", "all-rights-reserved");
    let missing = METADATA.replace("license", "licence");
    let all = compile(&RULES);
    let simple = compile(&[("large", "width >= 256 && height >= 256")]);
    println!(
        r#"{{"passing": {:.2}, "failing": {:.2}, "missing": {:.2}, "simple": {:.2}}}"#,
        microseconds(rows, &all, &passing, true),
        microseconds(rows, &all, &failing, false),
        microseconds(rows, &all, &missing, false),
        microseconds(rows, &simple, &passing, true),
    );
}

fn compile(rules: &[(&str, &str)]) -> RuleSet {
    let rules: Vec<_> = rules
        .iter()
        .map(|&(name, text)| (name.to_owned(), text.to_owned()))
        .collect();
    let kinds = [
        ("width", VariableKind::Int),
        ("height", VariableKind::Int),
        ("aspect", VariableKind::Float),
        ("caption", VariableKind::Text),
        ("metadata", VariableKind::Json),
        ("aesthetic", VariableKind::Score),
        ("nsfw", VariableKind::Score),
    ];
    let variables = kinds.map(|(name, kind)| Variable {
        name: name.to_owned(),
        kind,
    });
    RuleSet::compile(&rules, &variables).expect("the rules compile")
}

/// Returns the time of one row: the row is made, the rules are evaluated, the failure is dropped.
fn microseconds(rows: u32, rules: &RuleSet, metadata: &str, passes: bool) -> f64 {
    let before = cpu_seconds();
    for index in 0..rows {
        let mut row = SampleValues::default();
        row.set("width", 1024 + i64::from(index % 7));
        row.set("height", 683);
        row.set("aspect", 1.499);
        row.set(
            "caption",
            "a red bicycle leans against a brick wall in the evening sun",
        );
        row.set("metadata", Value::json(Some(metadata)));
        row.set("aesthetic", 5.3);
        row.set("nsfw", 0.02);
        assert_eq!(rules.first_failure(&row).is_none(), passes);
    }
    (cpu_seconds() - before) * 1e6 / f64::from(rows)
}

/// Returns the CPU time that this thread has used, from Linux's scheduler.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads /proc")]
fn cpu_seconds() -> f64 {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanoseconds = times.split(' ').next().and_then(|time| time.parse().ok());
    nanoseconds.unwrap_or(f64::NAN) / 1e9
}
