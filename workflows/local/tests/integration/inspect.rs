//! `sluice inspect`.

use sluice_manifest::Class;

use crate::support::{curate, failure, sluice};

#[test]
fn a_manifest_is_printed() {
    let run = curate("inspect");
    let path = format!("{run}/export/decisions/part-00000.parquet");
    let said = sluice(&["inspect", &path, "--columns", "image_id,keep,reason"]);
    said.outcome.unwrap();
    insta::assert_snapshot!(said.out, @r"
        manifest  memory://inspect/run/export/decisions/part-00000.parquet
        schema    export/decisions, version 2
        rows      6

        columns
          image_id  Utf8
          keep      Boolean
          step      Utf8     may be null
          reason    Utf8     may be null
          detail    Utf8     may be null
          bytes     UInt64

        image_id     keep   reason
        a/keep-1     true   -
        a/keep-2     true   -
        a/html       false  not-an-image
        a/cut        false  truncated-image
        a/flat       false  rule:detailed
        a/text-only  false  no-image
        ");
    let said = sluice(&["inspect", &path, "--rows", "1"]);
    assert!(said.out.ends_with("more rows\n"), "{}", said.out);
}

#[test]
fn rows_come_as_json_lines_too() {
    let run = curate("inspect-json");
    let path = format!("{run}/embed/embeddings/part-00000.parquet");
    let said = sluice(&["inspect", &path, "--json", "--rows", "2"]);
    let lines: Vec<serde_json::Value> = said
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["image_id"], "a/keep-1");
    assert_eq!(lines[0]["embedding"].as_array().unwrap().len(), 16);
    let said = sluice(&["inspect", &path]);
    assert!(said.out.contains("… 16 values]"), "{}", said.out);
    assert!(said.out.contains("made-up"), "{}", said.out);
}

#[test]
fn wrong_files_and_columns_are_named() {
    let run = curate("inspect-wrong");
    let path = format!("{run}/read/images/part-00000.parquet");
    let said = sluice(&["inspect", &path, "--columns", "imageid"]);
    let (class, message) = failure(&said);
    assert_eq!(class, Class::Usage);
    assert!(message.contains("image_id"), "{message}");
    for wrong in ["run.json", "none.parquet"] {
        let said = sluice(&["inspect", &format!("{run}/{wrong}")]);
        assert_eq!(failure(&said).0, Class::Data);
    }
}
