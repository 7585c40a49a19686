//! Batches: how they are put together, and how long a card would wait for them.

use std::time::{Duration, Instant};

use clap::Parser;
use sluice_embed::Args;
use sluice_harness::{Context, Program};
use sluice_inference::{BatchOptions, Images, PixelTensor, TensorBatch, each_batch};
use sluice_manifest::{ImageId, Result};
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
fn preprocess(side: u32) -> Preprocess {
    let exact = Resize::Exact {
        width: side,
        height: side,
    };
    Preprocess {
        rescale: 1.0,
        ..Preprocess::new(exact, Filter::Bilinear)
    }
}

/// How a model is fed in these tests.
fn feed(
    preprocess: &Preprocess,
    takes_bytes: bool,
    batch_size: usize,
    ahead: usize,
) -> BatchOptions<'_> {
    BatchOptions {
        preprocess,
        takes_bytes,
        batch_size,
        fidelity: Fidelity::Exact,
        ahead,
    }
}

/// Hands the run's batches to `work`. `takes` returns the models that take the image of this number.
fn batches(
    run: &str,
    feeds: &[BatchOptions<'_>],
    takes: impl Fn(usize) -> Vec<usize> + Send,
    work: impl FnMut(usize, &mut TensorBatch) -> Result<()>,
) {
    let args = Args::parse_from(["sluice-embed", "--run", run]);
    let context = Context::new(args.common(), Args::NAME, args.node(), shared()).unwrap();
    let plan = context.plan().unwrap();
    let images = Images {
        run: &context.run,
        input: &plan.input().unwrap(),
        partition: &plan.partitions[0],
        survivors: &context.survivors(None).unwrap(),
    };
    let takes = move |id: &ImageId| Ok(takes(number(id)));
    each_batch(images, &context.memory, feeds, takes, work).unwrap();
}

/// Returns the number in an image's name.
fn number(id: &ImageId) -> usize {
    let (_, key) = id.as_str().rsplit_once('/').unwrap();
    key.parse().unwrap()
}

fn floats(tensor: &PixelTensor) -> Vec<f32> {
    match tensor {
        PixelTensor::Float32(numbers) => numbers.clone(),
        PixelTensor::Uint8(numbers) => numbers.iter().map(|&value| f32::from(value)).collect(),
    }
}

#[test]
fn each_model_gets_the_batches_that_it_gets_alone() {
    let run = read_run("memory://embed-feeding-several");
    let (small, large) = (preprocess(32), preprocess(48));
    let feeds = [
        feed(&small, false, 4, 0),
        feed(&large, false, 3, 0),
        feed(&small, true, 5, 2),
    ];
    // The second model takes every other image, the third those from 15 on.
    let takes = |model: usize, image: usize| match model {
        0 => true,
        1 => image % 2 == 1,
        _ => image >= 15,
    };
    let mut together = vec![Vec::new(); feeds.len()];
    batches(
        &run,
        &feeds,
        |image| (0..3).filter(|&model| takes(model, image)).collect(),
        |model, batch| {
            let images: Vec<usize> = batch.ids.iter().map(number).collect();
            assert_eq!(batch.shape[0], images.len());
            together[model].push((images, floats(&batch.tensor)));
            Ok(())
        },
    );
    for (model, expected) in together.iter().enumerate() {
        let mut alone = Vec::new();
        let takes = |image| if takes(model, image) { vec![0] } else { vec![] };
        batches(&run, &feeds[model..=model], takes, |_, batch| {
            let images: Vec<usize> = batch.ids.iter().map(number).collect();
            alone.push((images, floats(&batch.tensor)));
            Ok(())
        });
        assert_eq!(alone, *expected, "model {model}");
    }
}

#[test]
fn bytes_are_the_numbers_that_float32_has() {
    let run = read_run("memory://embed-feeding-bytes");
    let preprocess = preprocess(32);
    let (mut bytes, mut numbers, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
    let all = |_| vec![0];
    batches(
        &run,
        &[feed(&preprocess, true, BATCH, 2)],
        all,
        |_, batch| {
            sizes.push(batch.ids.len());
            bytes.extend(floats(&batch.tensor));
            Ok(())
        },
    );
    batches(
        &run,
        &[feed(&preprocess, false, BATCH, 0)],
        all,
        |_, batch| {
            numbers.extend(floats(&batch.tensor));
            Ok(())
        },
    );
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
    let preprocess = preprocess(32);
    let feeds = [feed(&preprocess, true, BATCH, 2)];
    batches(
        &run,
        &feeds,
        |_| vec![0],
        |_, _| {
            let begun = Instant::now();
            started.get_or_insert(begun);
            std::thread::sleep(WORK);
            busy += begun.elapsed();
            Ok(())
        },
    );
    let idle = 1.0 - busy.as_secs_f64() / started.unwrap().elapsed().as_secs_f64();
    eprintln!("idle: {:.1} % of the time", idle * 100.0);
    // A few percent where nothing else runs.
    assert!(idle < 0.4, "{idle}");
}
