//! Batches: how they are put together, and how long a card would wait for them.

use std::time::{Duration, Instant};

use clap::Parser;
use sluice_embed::Args;
use sluice_harness::{Context, Program};
use sluice_inference::{Feed, Images, each_batch};
use sluice_manifest::Result;
use sluice_model::Input;
use sluice_pixels::{Fidelity, Filter, Preprocess, Resize};
use sluice_testkit::Shard;
use sluice_testkit::pictures::{png, waves};

use super::support::{shared, step, store};

const IMAGES: u64 = 21;
const BATCH: usize = 4;

/// A run with one shard of pictures, read.
fn read_run(base: &str) -> String {
    let pictures = (0..IMAGES).fold(Shard::new(), |shard, number| {
        shard.with(&format!("{number:02}.png"), png(&waves(number, 320, 240)))
    });
    store(&format!("{base}/in"))
        .put("0.tar", pictures.finish())
        .unwrap();
    let (run, input) = (format!("{base}/run"), format!("{base}/in"));
    step::<sluice_partition::Args>("sluice-partition", &run, &["--input", &input]).unwrap();
    step::<sluice_read::Args>("sluice-read", &run, &[]).unwrap();
    run
}

/// Bytes go to models that take pixels as they are.
fn preprocess() -> Preprocess {
    let exact = Resize::Exact {
        width: 32,
        height: 32,
    };
    Preprocess {
        rescale: 1.0,
        ..Preprocess::new(exact, Filter::Bilinear)
    }
}

/// Hands the run's batches to `work`.
fn batches<N: Input>(run: &str, ahead: usize, mut work: impl FnMut(usize, &[N]) -> Result<()>) {
    let args = Args::parse_from(["sluice-embed", "--run", run]);
    let context = Context::new(args.common(), Args::NAME, args.node(), shared()).unwrap();
    let plan = context.plan().unwrap();
    let images = Images {
        context: &context,
        input: &plan.input().unwrap(),
        partition: &plan.partitions[0],
        survivors: &context.survivors(None).unwrap(),
    };
    let feed = Feed {
        batch_size: BATCH,
        fidelity: Fidelity::Exact,
        ahead,
    };
    each_batch::<N>(
        images,
        &preprocess(),
        feed,
        |_| Ok(false),
        |batch| work(batch.ids.len(), &batch.tensor),
    )
    .unwrap();
}

#[test]
fn bytes_are_the_numbers_that_float32_has() {
    let run = read_run("memory://embed-feeding-bytes");
    let (mut bytes, mut numbers, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
    batches::<u8>(&run, 2, |size, tensor| {
        sizes.push(size);
        bytes.extend(tensor.iter().map(|&value| f32::from(value)));
        Ok(())
    });
    batches::<f32>(&run, 0, |_, tensor| {
        numbers.extend_from_slice(tensor);
        Ok(())
    });
    assert_eq!(bytes, numbers);
    assert_eq!(sizes, [4, 4, 4, 4, 4, 1]);
}

/// A card that takes 100 ms for a batch waits little for the next ones, for they are made meanwhile.
#[test]
#[expect(clippy::print_stderr, reason = "the figure is what people look for")]
fn a_slow_card_is_seldom_idle() {
    const WORK: Duration = Duration::from_millis(100);
    let run = read_run("memory://embed-feeding-idle");
    let (mut started, mut busy) = (None, Duration::ZERO);
    batches::<u8>(&run, 2, |_, _| {
        let begun = Instant::now();
        started.get_or_insert(begun);
        std::thread::sleep(WORK);
        busy += begun.elapsed();
        Ok(())
    });
    let idle = 1.0 - busy.as_secs_f64() / started.unwrap().elapsed().as_secs_f64();
    eprintln!("idle: {:.1} % of the time", idle * 100.0);
    // A few percent where nothing else runs.
    assert!(idle < 0.4, "{idle}");
}
