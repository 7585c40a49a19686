//! Runs in memory that have been read.

use std::sync::LazyLock;

use sluice_harness::{ProcessResources, Program, StepDone, run_step};
use sluice_store::{Location, Store};
use sluice_testkit::Shard;
use sluice_testkit::pictures::{flat, png, waves};

/// The pictures of each shard: grey ones have no embedding.
pub(super) const SHARDS: [&[Option<u64>]; 2] = [&[Some(1), None, Some(2)], &[Some(3), Some(4)]];

/// What all tests of this program share. Each test has its own name in memory.
pub(super) fn shared() -> &'static ProcessResources {
    static SHARED: LazyLock<ProcessResources> = LazyLock::new(ProcessResources::default);
    &SHARED
}

pub(super) fn store(uri: &str) -> Store {
    let location = Location::parse(uri).unwrap();
    shared().storage.create(&location).unwrap()
}

/// The file of a picture; without a seed it is an even grey.
pub(super) fn file(seed: Option<u64>) -> Vec<u8> {
    png(&match seed {
        Some(seed) => waves(seed, 24, 16),
        None => flat([128; 3], 24, 16),
    })
}

/// Makes a run of [`SHARDS`] under a URI, in one partition. Returns the run's URI.
pub(super) fn read_run(base: &str) -> String {
    let input = store(&format!("{base}/in"));
    for (number, pictures) in SHARDS.iter().enumerate() {
        let shard = pictures.iter().enumerate();
        let shard = shard.fold(Shard::new(), |shard, (key, &seed)| {
            shard
                .with(&format!("{key}.txt"), "a caption")
                .with(&format!("{key}.png"), file(seed))
        });
        input.put(&format!("{number}.tar"), shard.finish()).unwrap();
    }
    let (run, input) = (format!("{base}/run"), format!("{base}/in"));
    let partition = ["--input", &input, "--shards-per-partition", "2"];
    step::<sluice_partition::Args>("sluice-partition", &run, &partition).unwrap();
    step::<sluice_read::Args>("sluice-read", &run, &[]).unwrap();
    run
}

/// Runs a stage's program in this process.
pub(super) fn step<P: Program>(name: &str, run: &str, more: &[&str]) -> anyhow::Result<StepDone> {
    let words = [name, "--run", run].into_iter().chain(more.iter().copied());
    let words: Vec<String> = words.map(str::to_owned).collect();
    run_step::<P>(&words, shared())
}
