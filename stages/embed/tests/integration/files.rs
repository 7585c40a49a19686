//! The image files of a partition's survivors.

use clap::Parser;
use sluice_embed::Args;
use sluice_harness::{Context, Program};
use sluice_inference::Images;
use sluice_manifest::{Class, ImageId, Unit, UnitKind};

use super::support::{SHARDS, file, read_run, shared, store};

/// The files for which `skip` is false, of partition 0.
fn files(
    run: &str,
    skip: impl FnMut(&ImageId) -> sluice_manifest::Result<bool>,
) -> sluice_manifest::Result<Vec<(String, Vec<u8>)>> {
    let args = Args::parse_from(["sluice-embed", "--run", run]);
    let context = Context::new(args.common(), Args::NAME, args.node(), shared())?;
    let plan = context.plan()?;
    let input = plan.input()?;
    let survivors = context.survivors(None)?;
    let images = Images {
        run: &context.run,
        input: &input,
        partition: plan.partition(Unit::new(UnitKind::Partition, 0))?,
        survivors: &survivors,
    };
    let files = images.files(skip)?;
    files
        .map(|file| file.map(|(id, bytes)| (id.to_string(), bytes)))
        .collect()
}

#[test]
fn files_come_whole_and_in_order_from_several_shards() {
    let run = read_run("memory://embed-files");
    let found = files(&run, |_| Ok(false)).unwrap();
    let expected = SHARDS.iter().enumerate().flat_map(|(shard, pictures)| {
        let named = pictures.iter().enumerate();
        named.map(move |(key, &seed)| (format!("{shard}/{key}"), file(seed)))
    });
    assert_eq!(found, expected.collect::<Vec<_>>());
    let found = files(&run, |id| Ok(id.as_str() != "1/0")).unwrap();
    assert_eq!(found, [("1/0".to_owned(), file(Some(3)))]);
}

#[test]
fn a_shard_that_changed_since_it_was_read_is_refused() {
    let base = "memory://embed-changed";
    let run = read_run(base);
    store(&format!("{base}/in"))
        .put("1.tar", b"another".to_vec())
        .unwrap();
    let error = files(&run, |_| Ok(false)).unwrap_err();
    assert_eq!(error.class(), Class::Data);
    assert!(error.to_string().contains("1.tar"), "{error}");
}
