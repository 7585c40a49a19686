//! Reads the output with Python: `tarfile`, `webdataset`, and `wids` if it is installed.

use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sluice_testkit::python;

use crate::support::{Members, Run, picture, samples};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/read_output.py");

fn described(run: &Run, shards: u32) -> Value {
    let sample = |(key, members): (String, Members)| {
        let members = members.into_iter().map(|(extension, bytes)| {
            let sha256 = hex::encode(Sha256::digest(bytes));
            (extension, Value::from(sha256))
        });
        let members: serde_json::Map<String, Value> = members.collect();
        json!({ "key": key, "members": members })
    };
    let shards = (0..shards).map(|shard| {
        let samples = run.curated(shard).into_iter().map(sample);
        samples.collect::<Vec<_>>()
    });
    json!(shards.collect::<Vec<_>>())
}

#[test]
#[expect(clippy::print_stderr, reason = "it prints what Python read")]
fn python_reads_the_same_samples() {
    let Some(python) = python("webdataset") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let run = Run {
        base: folder.path().to_string_lossy().into_owned(),
    };
    run.shard("a.tar", &samples(0..20));
    let keys = ["v1.2/x", "café 猫", "new\nline", "../up", "UPPER"];
    let members = keys.iter().enumerate().flat_map(|(number, key)| {
        let text = (format!("{key}.TXT"), key.as_bytes().to_vec());
        [(format!("{key}.PNG"), picture(number as u32)), text]
    });
    run.shard("b/c.tar", &members.collect());
    run.read(1);
    run.export_all(None, &["--images-per-shard", "8"]);
    let expected = folder.path().join("expected.json");
    let text = described(&run, 3).to_string();
    run.store("").put("expected.json", text).unwrap();
    let output = Command::new(&python)
        .arg(SCRIPT)
        .arg(folder.path().join("out"))
        .arg(&expected)
        .env("WIDS_CACHE", folder.path().join("wids"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complaints}");
    eprintln!("{said}");
    assert!(
        said.contains("tarfile: ok") && said.contains("webdataset: ok"),
        "{said}"
    );
}
