//! `--max-bad-fraction`.

use std::sync::LazyLock;

use sluice_harness::{ProcessResources, describe, run_step};
use sluice_manifest::Class;
use sluice_store::Location;
use sluice_testkit::Shard;
use sluice_testkit::pictures::{png, waves};

static SHARED: LazyLock<ProcessResources> = LazyLock::new(ProcessResources::default);

/// Creates a run of four samples, of which one is bad, and partitions it.
fn run_of_four(name: &str) -> String {
    let base = format!("memory://{name}");
    let shard = (0..4).fold(Shard::new(), |shard, number| match number {
        0 => shard.with("0.png", "no image"),
        _ => shard.with(&format!("{number}.png"), png(&waves(number, 32, 32))),
    });
    let input = Location::parse(&format!("{base}/in")).unwrap();
    let store = SHARED.storage.create(&input).unwrap();
    store.put("a.tar", shard.finish()).unwrap();
    let run = format!("{base}/run");
    let words = [
        "sluice-partition",
        "--input",
        &format!("{base}/in"),
        "--run",
        &run,
    ];
    let words = words.map(str::to_owned);
    run_step::<sluice_partition::Args>(&words, &SHARED).unwrap();
    run
}

/// Runs `read`. Returns the class and message of its error.
fn read(run: &str, limit: &str) -> Option<(Class, String)> {
    let words = [
        "sluice-read",
        "--run",
        run,
        &format!("--max-bad-fraction={limit}"),
    ];
    let words = words.map(str::to_owned);
    let outcome = run_step::<sluice_read::Args>(&words, &SHARED);
    outcome.err().map(|error| describe(&error))
}

#[test]
fn more_bad_samples_than_allowed_are_refused() {
    let run = run_of_four("read-bad-fraction");
    for (limit, expected) in [
        ("1", None),
        ("0.25", None),
        ("0.2499", Some(Class::Data)),
        ("0", Some(Class::Data)),
        ("-0.1", Some(Class::Usage)),
        ("1.1", Some(Class::Usage)),
        ("NaN", Some(Class::Usage)),
        ("inf", Some(Class::Usage)),
        ("half", Some(Class::Usage)),
    ] {
        let failure = read(&run, limit);
        let class = failure.as_ref().map(|(class, _)| *class);
        assert_eq!(class, expected, "{limit}: {failure:?}");
        if let Some((Class::Data, message)) = failure {
            assert!(message.contains("1 of 4 samples"), "{message}");
        }
    }
}

#[test]
fn a_refused_dataset_is_refused_again_though_it_is_up_to_date() {
    let run = run_of_four("read-bad-again");
    for _ in 0..2 {
        assert_eq!(read(&run, "0.1").map(|(class, _)| class), Some(Class::Data));
    }
    assert_eq!(read(&run, "0.5"), None);
}
