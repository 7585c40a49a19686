//! `sluice inspect`.

use sluice_manifest::Class;

use crate::support::{again, curate, dataset, failure, sluice, store};

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
          group     UInt64

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

#[test]
fn folders_patterns_and_runs_are_printed() {
    let run = curate("inspect-many");
    let rows = |path: &str, flags: &[&str]| -> usize {
        let said = sluice(&[&["inspect", path, "--json", "--head", "100"], flags].concat());
        said.outcome.unwrap();
        said.out.lines().count()
    };
    let images = format!("{run}/read/images");
    assert_eq!(rows(&images, &[]), 13);
    assert_eq!(rows(&format!("{images}/*.parquet"), &[]), 13);
    let part = format!("{images}/part-00000.parquet");
    assert_eq!(rows(&part, &["--where", "status == 'rejected'"]), 3);
    let where_wide = "width >= 256 && low_information > 0.2";
    assert_eq!(
        rows(&part, &["--where", where_wide, "--columns", "image_id"]),
        2
    );
    assert_eq!(rows(&part, &["--where", "metadata.n == 1"]), 1);
    let decisions = format!("{run}/export/decisions");
    assert_eq!(
        rows(&decisions, &["--where", "!keep && step == 'usable'"]),
        1
    );
    let said = sluice(&["inspect", &run]);
    said.outcome.unwrap();
    assert!(
        said.out.contains("dedup-match") && said.out.contains("read/images"),
        "{}",
        said.out
    );
    for (flags, hint) in [
        (["--where", "widht > 3"], "width"),
        (["--where", "width >"], "CEL"),
    ] {
        let said = sluice(&[&["inspect", &part], flags.as_slice()].concat());
        let (class, message) = failure(&said);
        assert_eq!(class, Class::Usage);
        assert!(message.contains(hint), "{message}");
    }
    let (class, _) = failure(&sluice(&["inspect", &format!("{run}/nothing/*.parquet")]));
    assert_eq!(class, Class::Data);
}

#[test]
fn a_query_needs_duckdb() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().to_str().unwrap();
    dataset(&store(&format!("{place}/in")));
    again::<sluice_partition::Args>(
        &format!("{place}/run"),
        &format!("sluice-partition --input {place}/in"),
    );
    let run = format!("{place}/run");
    again::<sluice_read::Args>(&run, "sluice-read");
    let query = "SELECT count(*) AS n FROM read_images WHERE status = 'rejected'";
    let said = sluice(&["inspect", &run, "--json", "--sql", query]);
    let images = format!("{run}/read/images");
    let wrong = sluice(&["inspect", &images, "--sql", "SELECT none FROM manifest"]);
    let (class, message) = failure(&wrong);
    assert_eq!(class, Class::Usage, "{message}");
    match said.outcome {
        Ok(()) => {
            assert_eq!(said.out.trim(), r#"{"n":4}"#);
            assert!(message.contains("the views are manifest"), "{message}");
        }
        Err(_) => assert!(message.contains("pip install duckdb-cli"), "{message}"),
    }
}
