//! Rules over unusual captions and metadata.

use sluice_manifest::rows::FilterRow;
use sluice_tests::{fixtures, run};

use crate::gallery::verify;
use crate::support::{read, word};

/// All samples with a caption and without metadata.
const TEXTS: [&str; 7] = [
    "txt-bom",
    "txt-crlf",
    "txt-empty",
    "txt-latin1",
    "txt-long",
    "txt-nul",
    "txt-utf16",
];

/// All samples with metadata.
const JSON: [&str; 9] = [
    "json-array",
    "json-bigint",
    "json-broken",
    "json-clash",
    "json-deep",
    "json-dupkeys",
    "json-empty",
    "json-nan",
    "json-unicode",
];

/// A rule, the samples that pass it, and parts of the details of others.
type RuleCase = (
    &'static str,
    &'static [&'static str],
    &'static [(&'static str, &'static str)],
);

const CASES: &[RuleCase] = &[
    (
        "has(metadata.url)",
        &["json-clash"],
        &[
            ("txt-empty", "metadata.url is missing"),
            ("json-unicode", "metadata.url is missing"),
            (
                "json-array",
                "metadata is list, it has no such field or item",
            ),
            ("json-broken", "metadata is not valid JSON: EOF"),
            ("json-empty", "metadata is not valid JSON: EOF"),
            ("json-nan", "metadata is not valid JSON: expected value"),
            ("json-deep", "metadata is not valid JSON: recursion limit"),
        ],
    ),
    (
        "!has(metadata.url)",
        &[
            "json-bigint",
            "json-dupkeys",
            "json-unicode",
            "txt-bom",
            "txt-crlf",
            "txt-empty",
            "txt-latin1",
            "txt-long",
            "txt-nul",
            "txt-utf16",
        ],
        &[("json-array", "metadata is list")],
    ),
    // If a name occurs twice, the last value counts.
    (
        "metadata.a == 2",
        &["json-dupkeys"],
        &[("json-clash", "metadata.a is missing")],
    ),
    (
        "metadata.id > 1.2e29 && metadata.id < 1.3e29",
        &["json-bigint"],
        &[],
    ),
    (
        "metadata[1] == 2 && size(metadata) == 3",
        &["json-array"],
        &[("json-clash", "metadata[1] is missing")],
    ),
    ("metadata.caption == '猫 🐈'", &["json-unicode"], &[]),
    (
        "metadata['é'] == null",
        &["json-unicode"],
        &[("json-clash", "is missing")],
    ),
    ("metadata.aesthetic_score > 5", &["json-clash"], &[]),
    (
        "metadata.nsfw_score < 0.5",
        &[],
        &[(
            "json-clash",
            "metadata.nsfw_score is string, compared with double",
        )],
    ),
    (
        "metadata.key == key",
        &[],
        &[
            ("json-clash", "\"other\""),
            ("txt-bom", "metadata.key is missing"),
        ],
    ),
    (
        "metadata.width == 3",
        &[],
        &[("json-broken", "metadata is not valid JSON")],
    ),
    (
        "has(metadata.aesthetic_score) && metadata.aesthetic_score + 1 == 100",
        &["json-clash"],
        &[],
    ),
    (
        "caption == ''",
        &["txt-empty"],
        &[("json-clash", "caption")],
    ),
    ("caption.startsWith('\\uFEFF')", &["txt-bom"], &[]),
    ("caption.contains('\\r\\n')", &["txt-crlf"], &[]),
    ("size(caption) == 3", &["txt-nul"], &[]),
    ("size(caption) > 100000", &["txt-long"], &[]),
    (
        "caption.contains('\\uFFFD') && detail.contains('not UTF-8')",
        &["txt-latin1", "txt-utf16"],
        &[],
    ),
    (
        "detail.contains('metadata is no')",
        &["json-broken", "json-empty", "json-nan"],
        &[],
    ),
];

/// Runs one rule as a separate filter step.
fn decisions(uri: &str, step: &str, rule: &str) -> Vec<FilterRow> {
    let rule = format!("r={rule}");
    run(&[
        "sluice-filter",
        "--run",
        uri,
        "--step",
        step,
        "--rule",
        &rule,
    ])
    .unwrap();
    sluice_tests::Run::at(uri)
        .unwrap()
        .rows(&format!("{step}/decisions"))
        .unwrap()
}

fn key(row: &FilterRow) -> &str {
    row.image_id.as_str().rsplit('/').next().unwrap()
}

#[test]
fn odd_metadata_never_passes_by_accident_and_never_fails_a_unit() {
    let Some(fixtures) = fixtures() else { return };
    let shard = fixtures.join("hard/text-00000.tar");
    let read = read(word(&shard), "memory://rules", &[]);
    for (number, (rule, expected, details)) in CASES.iter().enumerate() {
        let rows = decisions(&read.uri, &format!("rule-{number}"), rule);
        assert_eq!(rows.len(), TEXTS.len() + JSON.len(), "{rule}");
        let mut kept: Vec<&str> = rows.iter().filter(|row| row.keep).map(key).collect();
        kept.sort_unstable();
        assert_eq!(kept, *expected, "{rule}");
        for row in rows.iter().filter(|row| !row.keep) {
            assert_eq!(
                row.reason.as_ref().unwrap().to_string(),
                "rule:r",
                "{row:?}"
            );
            assert!(
                row.detail.as_ref().is_some_and(|detail| !detail.is_empty()),
                "{row:?}"
            );
        }
        for (wanted, part) in *details {
            let row = rows.iter().find(|row| key(row) == *wanted).unwrap();
            let detail = row.detail.as_deref().unwrap_or_default();
            assert!(detail.contains(part), "{rule} on {wanted}: {detail}");
        }
    }

    // An unreadable value has no effect if it does not determine the result.
    let rows = decisions(&read.uri, "either", "has(metadata.score) || width > 0");
    assert!(rows.iter().all(|row| row.keep), "{rows:?}");
    verify(&read.uri);
}
