//! The whole pipeline from bucket to bucket, with the same bytes as on local disk.

use std::path::Path;
use std::time::Duration;

use sluice_manifest::rows::SampleRow;
use sluice_tests::servers::{Azurite, FakeGcs, SeaweedFs, Site};
use sluice_tests::{Process, Run};

use crate::reference::{LARGE_SHARDS, Reference, SMALL_SHARDS, contents, curate, word};
use crate::remote::{RemoteFolder, result, said};

#[test]
fn on_s3_all_is_as_on_local_disk() {
    let Some(seaweedfs) = SeaweedFs::shared() else {
        return;
    };
    let Some(reference) = Reference::get() else {
        return;
    };
    // The models are in the bucket too.
    let remote = RemoteFolder::new(&seaweedfs.site, "s3 + ünï");
    remote.bring(&reference.input(), "photos");
    for model in ["efficientnet-lite0", "opennsfw"] {
        let folder = Path::new(&reference.models).join(model);
        remote.bring(&folder, &format!("models/{model}"));
    }
    let [input, run, output, models] =
        ["photos", "run", "output", "models"].map(|path| remote.at(path));
    let words = curate(&input, &run, &output, &models, LARGE_SHARDS);
    let finished = remote.done(&words);
    eprintln!(
        "S3: {:.1} s, {} kB of log, {}",
        finished.took.as_secs_f64(),
        finished.stderr.len() >> 10,
        result(&finished)["requests"]
    );
    remote.verify(&run);
    remote.compare(reference, LARGE_SHARDS);
    assert_eq!(seaweedfs.uploads("s3 + ünï"), [""; 0]);
    // Other clients find the objects under the expected names.
    let made = reference.made(LARGE_SHARDS);
    for (path, folder) in [("run", &made.0), ("output", &made.1)] {
        let expected: Vec<String> = contents(folder).into_keys().collect();
        assert_eq!(seaweedfs.names(&format!("s3 + ünï/{path}")), expected);
    }

    // Nothing is repeated, and the tools can read the results.
    let again = remote.done(&words);
    assert_eq!(result(&again)["status"], "up-to-date", "{}", said(&again));
    let images = remote.at("run/read/images/part-00000.parquet");
    let inspected = remote.done(&["sluice", "inspect", &images]);
    assert!(inspected.stdout.contains("00000/"), "{}", inspected.stdout);
    let id = first_image(reference);
    let explained = remote.done(&["sluice", "explain", "--run", &run, &id]);
    assert!(explained.stdout.contains(&id), "{}", explained.stdout);
}

/// Returns the first image of the input.
fn first_image(reference: &Reference) -> String {
    let run = Run::at(word(&reference.made(LARGE_SHARDS).0)).unwrap();
    let rows: Vec<SampleRow> = run.rows("read/images").unwrap();
    rows[0].image_id.to_string()
}

#[test]
fn on_azure_all_is_as_on_local_disk() {
    let Some(azurite) = Azurite::shared() else {
        return;
    };
    let Some(reference) = Reference::get() else {
        return;
    };
    let remote = RemoteFolder::new(&azurite.site, "azure + ünï");
    remote.bring(&reference.input(), "photos");
    let finished = remote.curate(reference, LARGE_SHARDS);
    eprintln!(
        "Azure: {:.1} s, {}",
        finished.took.as_secs_f64(),
        result(&finished)["requests"]
    );
    remote.verify(&remote.at("run"));
    remote.compare(reference, LARGE_SHARDS);
}

/// With output shards that fit into one request, because the server does not support multipart
/// uploads.
#[test]
fn on_google_cloud_storage_all_is_as_on_local_disk() {
    let Some(gcs) = FakeGcs::shared() else {
        return;
    };
    let Some(reference) = Reference::get() else {
        return;
    };
    let remote = RemoteFolder::new(&gcs.site, "gcs + ünï");
    remote.bring(&reference.input(), "photos");
    let finished = remote.curate(reference, SMALL_SHARDS);
    eprintln!(
        "Google Cloud Storage: {:.1} s, {}",
        finished.took.as_secs_f64(),
        result(&finished)["requests"]
    );
    remote.verify(&remote.at("run"));
    remote.compare(reference, SMALL_SHARDS);
}

#[test]
fn input_run_and_output_may_lie_on_three_stores() {
    let (Some(seaweedfs), Some(azurite)) = (SeaweedFs::shared(), Azurite::shared()) else {
        return;
    };
    let Some(reference) = Reference::get() else {
        return;
    };
    let azure = RemoteFolder::new(&azurite.site, "mixed");
    azure.bring(&reference.input(), "photos");
    let remote = RemoteFolder::new(&seaweedfs.site, "mixed").and(&azurite.site);
    let (input, run) = (azure.at("photos"), remote.at("run"));
    let folder = remote.here("output");
    let output = format!("file://{}", word(&folder));
    remote.done(&curate(
        &input,
        &run,
        &output,
        &reference.models,
        LARGE_SHARDS,
    ));
    remote.verify(&run);
    for (path, bytes) in contents(&folder) {
        remote.check_hidden(&path, &bytes);
    }
    let wrong = reference.differences(LARGE_SHARDS, &input, &remote.fetch("run"), &folder);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A `file://` URI is equivalent to the plain path.
#[test]
fn file_uris_are_plain_paths() {
    let Some(reference) = Reference::get() else {
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let limit = Duration::from_secs(60);
    let process = Process::new(env!("CARGO_BIN_EXE_sluice-tests-step"), limit).unwrap();
    let local = place.path().join("a run");
    let uri = |path: &Path| format!("file://{}", word(path));
    let (input, run) = (uri(&reference.input()), uri(&local));
    for command in [
        &[
            "sluice-partition",
            "--input",
            &input,
            "--shards-per-partition",
            "1",
            "--run",
            &run,
        ][..],
        &["sluice-read", "--run", &run],
    ] {
        let finished = process.run(command).unwrap();
        assert_eq!(finished.code, 0, "{}", said(&finished));
    }
    let made = contents(&local);
    let expected = contents(&reference.made(LARGE_SHARDS).0);
    let images = "read/images/part-00001.parquet";
    assert!(made.contains_key(images), "{:?}", made.keys());
    assert!(made[images] == expected[images]);
    let again = process
        .run(&["sluice-read", "--run", word(&local)])
        .unwrap();
    assert_eq!(result(&again)["status"], "up-to-date", "{}", said(&again));
    let images = format!("{run}/{images}");
    let inspected = process.run(&["sluice", "inspect", &images]).unwrap();
    assert_eq!(inspected.code, 0, "{}", said(&inspected));
    assert!(inspected.stdout.contains("00001/"), "{}", inspected.stdout);
}

/// Requests are not signed, and need not be.
#[test]
fn public_buckets_are_read_without_credentials() {
    let Some(azurite) = Azurite::shared() else {
        return;
    };
    let Some(reference) = Reference::get() else {
        return;
    };
    let public = Site {
        bucket: azurite.public.clone(),
        ..azurite.site.clone()
    };
    let owner = RemoteFolder::new(&public, "public");
    owner.bring(&reference.input(), "photos");
    let nobody = public
        .without("AZURE_STORAGE_KEY")
        .with("SLUICE_STORE_ANONYMOUS", "true");
    let nobody = RemoteFolder::new(&nobody, "public");
    let (input, run) = (nobody.at("photos"), nobody.here("run"));
    nobody.done(&["sluice-partition", "--input", &input, "--run", word(&run)]);
    nobody.done(&["sluice-read", "--run", word(&run)]);
    // Writing is denied.
    let refused = nobody.run(&[
        "sluice-partition",
        "--input",
        &input,
        "--run",
        &nobody.at("run"),
    ]);
    assert_eq!(refused.code, 2, "{}", said(&refused));
}

/// A single connection causes no deadlock.
#[test]
fn one_request_at_a_time_is_enough() {
    let Some(seaweedfs) = SeaweedFs::shared() else {
        return;
    };
    let Some(reference) = Reference::get() else {
        return;
    };
    let remote = RemoteFolder::new(&seaweedfs.site, "one").with("SLUICE_STORE_CONCURRENCY", "1");
    remote.bring(&reference.input(), "photos");
    let [input, run, output] = ["photos", "run", "output"].map(|path| remote.at(path));
    let step = |words: &[&str]| remote.done(&[words, &["--run", &run]].concat());
    step(&["sluice-partition", "--input", &input]);
    step(&["sluice-read"]);
    step(&["sluice-export", "decide"]);
    step(&["sluice-export", "plan", "--output", &output]);
    step(&["sluice-export", "write"]);
    let written = [".sluice.json", "shard-00000.parquet", "shard-00000.tar"];
    assert_eq!(seaweedfs.names("one/output"), written);
}
