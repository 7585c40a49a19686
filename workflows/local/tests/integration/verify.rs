//! `sluice verify`: a sound run passes, and each kind of damage fails the check that covers it.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, RecordBatch};
use sluice_manifest::rows::{CuratedRow, DecisionRow, DuplicateRow, FilterRow, Row, SCORES};
use sluice_manifest::{Class, ImageId, ShardPath, Unit, UnitKind};
use sluice_store::Store;

use crate::support::{
    ProgramOutput, again, curate, deduplicate, export, failure, filter, forget, read, sluice,
    store, usable,
};

fn verify(run: &str) -> ProgramOutput {
    sluice(&["verify", "--run", run])
}

/// Returns the checks that failed.
fn failed(said: &ProgramOutput) -> Vec<&str> {
    let lines = said.out.lines();
    let failed = lines.filter_map(|line| line.strip_prefix("failed"));
    failed
        .filter_map(|rest| rest.split_whitespace().next())
        .collect()
}

#[test]
fn a_sound_run_passes() {
    let run = curate("verify-sound");
    let said = verify(&run);
    assert!(said.outcome.is_ok(), "{}", said.out);
    assert!(
        said.out.contains("the run is sound: 16 checks passed\n"),
        "{}",
        said.out
    );
    let said = sluice(&["verify", "--run", &run, "--quick"]);
    assert!(said.outcome.is_ok(), "{}", said.out);
}

/// Damages an object, expects these checks to fail, and restores the object.
fn damaged(run: &str, place: &Store, path: &str, bytes: Vec<u8>, checks: &[&str]) {
    let before = place.get(path).unwrap();
    place.put(path, bytes).unwrap();
    let said = verify(run);
    for check in checks {
        assert!(
            failed(&said).contains(check),
            "{path}: {check}\n{}",
            said.out
        );
    }
    assert_eq!(failure(&said).0, Class::Data);
    place.put(path, before).unwrap();
}

/// Returns a manifest with each row changed.
fn changed<R: Row>(place: &Store, path: &str, change: impl Fn(&mut R)) -> Vec<u8> {
    let rows: Vec<R> = place
        .rows::<R>(path)
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let mut writer = place.write_rows::<R>("changed.parquet", &[]).unwrap();
    for mut row in rows {
        change(&mut row);
        writer.push(row).unwrap();
    }
    writer.finish().unwrap();
    let bytes = place.get("changed.parquet").unwrap();
    place.delete("changed.parquet").unwrap();
    bytes.to_vec()
}

/// Returns a manifest in which all scores are equal.
fn same_scores(place: &Store, path: &str, score: f32) -> Vec<u8> {
    let table = place.table(path, SCORES, &["image_id", "score"]).unwrap();
    let schema = table.schema().as_ref().clone();
    let mut writer = place
        .write_table("changed.parquet", SCORES, schema, &[])
        .unwrap();
    for batch in table {
        let batch = batch.unwrap();
        let scores: ArrayRef = Arc::new(Float32Array::from(vec![score; batch.num_rows()]));
        let columns = vec![batch.column(0).clone(), scores];
        let batch = RecordBatch::try_new(writer.schema().clone(), columns).unwrap();
        writer.write(&batch).unwrap();
    }
    writer.finish().unwrap();
    let bytes = place.get("changed.parquet").unwrap();
    place.delete("changed.parquet").unwrap();
    bytes.to_vec()
}

#[test]
fn changed_manifests_are_found() {
    let run = curate("verify-manifests");
    let place = store(&run);
    let path = "export/decisions/part-00000.parquet";
    let bytes = changed::<DecisionRow>(&place, path, |row| {
        if row.image_id.as_str() == "a/keep-2" {
            row.keep = false;
        }
    });
    damaged(&run, &place, path, bytes, &["outputs", "decisions"]);
    let path = "aesthetic/scores/part-00000.parquet";
    let bytes = same_scores(&place, path, 0.1);
    damaged(
        &run,
        &place,
        path,
        bytes,
        &["outputs", "scores", "decisions"],
    );
    let path = "filter/decisions/part-00000.parquet";
    let bytes = changed::<FilterRow>(&place, path, |row| row.keep = !row.keep);
    damaged(&run, &place, path, bytes, &["outputs", "decisions"]);
    let path = "usable/decisions/part-00000.parquet";
    let bytes = changed::<FilterRow>(&place, path, |row| {
        (row.keep, row.reason) = (true, None);
    });
    let checks = ["outputs", "scores", "decisions"];
    damaged(&run, &place, path, bytes, &checks);
    let path = "dedup/duplicates/exact-00000.parquet";
    let bytes = changed::<DuplicateRow>(&place, path, |row| {
        row.duplicate_of = ImageId::new(&ShardPath::new("a.tar"), "nobody", 0);
    });
    damaged(&run, &place, path, bytes, &["outputs", "duplicates"]);
    let path = "nsfw/scores/part-00001.parquet";
    damaged(
        &run,
        &place,
        path,
        b"no parquet".to_vec(),
        &["outputs", "scores"],
    );
    let path = "read/receipts/part-00000.json";
    let receipt = String::from_utf8(place.get(path).unwrap().to_vec()).unwrap();
    let at = receipt.find("\"fingerprint\": \"").unwrap() + 16;
    let mut other = receipt.clone();
    other.replace_range(at..at + 4, "0000");
    damaged(&run, &place, path, other.into_bytes(), &["inputs"]);
    assert!(verify(&run).outcome.is_ok());
}

#[test]
fn changed_outputs_are_found() {
    let run = curate("verify-outputs");
    let place = store("memory://verify-outputs/out");
    let tar = place.get("shard-00000.tar").unwrap().to_vec();
    let mut flipped = tar.clone();
    flipped[600] ^= 1;
    damaged(
        &run,
        &place,
        "shard-00000.tar",
        flipped,
        &["outputs", "members"],
    );
    let cut = tar[..tar.len() - 2048].to_vec();
    damaged(
        &run,
        &place,
        "shard-00000.tar",
        cut,
        &["outputs", "members"],
    );
    let other = place.get("shard-00001.parquet").unwrap().to_vec();
    damaged(&run, &place, "shard-00000.parquet", other, &["packing"]);
    let path = "shard-00000.parquet";
    let larger = changed::<CuratedRow>(&place, path, |row| row.group_size += 1);
    damaged(&run, &place, path, larger, &["outputs", "duplicates"]);
    let other = changed::<CuratedRow>(&place, path, |row| row.group_id ^= 1);
    damaged(&run, &place, path, other, &["outputs", "duplicates"]);
    let index = br#"{"shardlist": []}"#.to_vec();
    damaged(&run, &place, "index.json", index, &["index"]);
    place.put("left-over.tar", "x").unwrap();
    let said = verify(&run);
    assert_eq!(failed(&said), ["extra"], "{}", said.out);
    place.delete("left-over.tar").unwrap();
    place.delete("shard-00001.tar").unwrap();
    let said = verify(&run);
    assert!(failed(&said).contains(&"outputs"), "{}", said.out);
}

#[test]
fn a_changed_source_is_found() {
    let run = curate("verify-source");
    let input = store("memory://verify-source/in");
    let mut bytes = input.get("a.tar").unwrap().to_vec();
    bytes.extend([0; 512]);
    input.put("a.tar", bytes).unwrap();
    let said = verify(&run);
    assert!(failed(&said).contains(&"source"), "{}", said.out);
}

#[test]
fn a_missing_receipt_is_named() {
    let run = curate("verify-receipts");
    forget(&run, "nsfw", Unit::new(UnitKind::Partition, 1));
    let said = verify(&run);
    assert!(
        said.out.contains("nsfw part-00001: no receipt"),
        "{}",
        said.out
    );
    assert!(failed(&said).contains(&"inputs"), "{}", said.out);
    let json = sluice(&["verify", "--run", &run, "--json"]);
    let checks: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(checks["checks"].as_array().unwrap().len(), 16);
}

#[test]
fn runs_of_any_steps_are_judged_by_what_they_have() {
    let run = read("verify-three");
    let said = verify(&run);
    assert!(said.outcome.is_ok(), "{}", said.out);
    assert!(said.out.contains("had nothing to look at"), "{}", said.out);
    usable(&run);
    let said = verify(&run);
    assert!(said.outcome.is_ok(), "{}", said.out);
    export(&run, Some("usable"));
    let said = verify(&run);
    assert!(said.outcome.is_ok(), "{}", said.out);
    // Scores.
    assert!(
        said.out.contains("1 had nothing to look at"),
        "{}",
        said.out
    );
}

#[test]
fn steps_of_the_pipeline_file_must_have_been_run() {
    let run = read("verify-planned");
    let pipeline =
        "[[steps]]\nstage = \"read\"\n\n[[steps]]\nstage = \"filter\"\nname = \"usable\"\n";
    store(&run).put("pipeline.toml", pipeline).unwrap();
    let said = verify(&run);
    assert_eq!(failed(&said), ["receipts"], "{}", said.out);
    assert!(
        said.out.contains("usable: has not been run"),
        "{}",
        said.out
    );
    usable(&run);
    assert!(verify(&run).outcome.is_ok());
}

#[test]
fn steps_that_are_left_over_are_named_and_not_judged() {
    let run = read("verify-left-over");
    usable(&run);
    let other = "sluice-filter --step other --rule none=false";
    again::<sluice_filter::Args>(&run, other);
    export(&run, Some("other"));
    // Steps that lead to no export count as long as they are up to date.
    let said = verify(&run);
    assert!(
        said.outcome.is_ok() && !said.out.contains("any more"),
        "{}",
        said.out
    );
    let input = run.replace("/run", "/in");
    store(&input)
        .put("more.tar", store(&input).get("a.tar").unwrap())
        .unwrap();
    again::<sluice_partition::Args>(&run, &format!("sluice-partition --input {input}"));
    again::<sluice_read::Args>(&run, "sluice-read");
    again::<sluice_filter::Args>(&run, other);
    export(&run, Some("other"));
    let said = verify(&run);
    assert!(said.outcome.is_ok(), "{}", said.out);
    let line = format!(
        "not part of the pipeline any more: usable; remove {run}/usable to free the space\n"
    );
    assert!(said.out.contains(&line), "{}", said.out);
    let said = sluice(&["verify", "--run", &run, "--json"]);
    let result: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(result["left_over"], serde_json::json!(["usable"]));
    // With a pipeline file, its steps are the ones that count.
    let planned = |name: &str| {
        let text = format!("[[steps]]\nstage = \"filter\"\nname = \"{name}\"\n");
        store(&run).put("pipeline.toml", text).unwrap();
        verify(&run)
    };
    assert!(failed(&planned("usable")).contains(&"inputs"));
    assert!(planned("other").outcome.is_ok());
}

#[test]
fn a_step_that_is_older_than_its_inputs_is_stale() {
    let run = curate("verify-stale");
    filter(&run, "--min aesthetic=0.1 --max nsfw=1");
    let said = verify(&run);
    assert!(failed(&said).contains(&"inputs"), "{}", said.out);
    for stale in [
        "dedup exact-00000: filter",
        "export part-00000: filter/part-00000",
    ] {
        assert!(said.out.contains(stale), "{stale}\n{}", said.out);
    }
    deduplicate(&run);
    export(&run, Some("dedup"));
    again::<sluice_report::Args>(&run, "sluice-report");
    let said = verify(&run);
    assert!(said.outcome.is_ok(), "{}", said.out);
}

#[test]
fn partitions_with_different_settings_are_found() {
    let run = curate("verify-mixed");
    filter(&run, "--min aesthetic=0.1 --max nsfw=1 --partitions 0");
    let said = verify(&run);
    assert!(failed(&said).contains(&"receipts"), "{}", said.out);
    assert!(
        said.out.contains("filter: part-00000 and part-00001"),
        "{}",
        said.out
    );
}

#[test]
fn a_step_that_has_decided_in_part_is_incomplete() {
    let run = curate("verify-part");
    forget(&run, "dedup", Unit::new(UnitKind::Group, 0));
    let said = verify(&run);
    assert!(
        said.out.contains("dedup group-00000: no receipt"),
        "{}",
        said.out
    );
    forget(&run, "export", Unit::new(UnitKind::Shard, 1));
    let said = verify(&run);
    assert!(
        said.out.contains("export shard-00001: no receipt"),
        "{}",
        said.out
    );
}
