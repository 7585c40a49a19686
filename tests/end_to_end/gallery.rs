//! A dataset made of formulas, and three tiny models whose scores can be told beforehand: small
//! enough to be curated many times, with something to do for every stage.

use sluice_store::{Location, Store};
use sluice_testkit::Shard;
use sluice_testkit::onnx::{TinyModel, distance_from, embedder, likeness_to};
use sluice_testkit::pictures::{noisy, png, waves};
use sluice_tests::{Said, sluice};

/// A folder, on disk or in memory, with input, models, run and output in it.
pub struct Gallery {
    store: Store,
}

impl Gallery {
    /// A place with the models in it, and no input yet.
    pub fn new(place: &str) -> Self {
        let store = Store::create(&Location::parse(place).unwrap()).unwrap();
        let white = [255; 3];
        let red = [255, 0, 0];
        let models: [(&str, TinyModel); 3] = [
            ("tiny-embedder", embedder("tiny-embedder")),
            // Waves score 4.8, near white less than 2.
            ("tiny-beauty", distance_from("tiny-beauty", white, 3.0)),
            // Waves score -4.8, near red more than -2.
            ("tiny-shame", likeness_to("tiny-shame", red, -3.0)),
        ];
        for (name, model) in models {
            let path = |file: &str| format!("models/{name}/{file}");
            store.put(&path("model.onnx"), model.onnx).unwrap();
            store.put(&path("model.toml"), model.spec).unwrap();
        }
        Self { store }
    }

    /// The whole URI of something in it.
    pub fn at(&self, path: &str) -> String {
        self.store.uri(path)
    }

    /// Writes a shard of the input.
    pub fn put(&self, shard: &str, bytes: Vec<u8>) {
        self.store.put(&format!("input/{shard}"), bytes).unwrap();
    }

    /// Six shards of eight pictures with captions and metadata; each shard has two copies, two
    /// near copies and two likenesses of pictures that are in other shards.
    pub fn fill(&self) {
        for number in 0..6 {
            self.put(&format!("{number:05}.tar"), Self::shard(number).finish());
        }
    }

    /// A shard of [`fill`](Self::fill).
    pub fn shard(number: u64) -> Shard {
        let next = (number + 1) % 6;
        let of = |seed: u64| waves(seed, 64, 48);
        let pictures = [
            of(10 * number),
            of(10 * number + 1),
            of(10 * next),
            of(10 * next + 1),
            noisy(of(10 * next), 7, 2),
            noisy(of(10 * next + 1), 8, 2),
            noisy(of(10 * next), 9, 60),
            noisy(of(10 * next + 1), 10, 60),
        ];
        let mut shard = Shard::new();
        for (key, picture) in pictures.iter().enumerate() {
            shard = shard
                .with(
                    &format!("{key:04}.txt"),
                    format!("picture {key} of {number}"),
                )
                .with(&format!("{key:04}.png"), png(picture))
                .with(&format!("{key:04}.json"), format!(r#"{{"n": {number}}}"#))
                .with(&format!("{key:04}.cls"), number.to_string());
        }
        shard
    }

    /// Runs `sluice run` on it.
    pub fn curate(&self, more: &[&str]) -> Said {
        let [input, models, run, output] =
            ["input", "models", "run", "output"].map(|path| self.at(path));
        let command = [
            "run",
            "--input",
            &input,
            "--models",
            &models,
            "--run",
            &run,
            "--output",
            &output,
            "--embedder",
            "tiny-embedder",
            "--aesthetic",
            "tiny-beauty",
            "--nsfw",
            "tiny-shame",
            "--eps",
            "0.1",
        ];
        let said = sluice(&[&command, more].concat()).unwrap();
        assert_eq!(said.failed, None, "{said:?}");
        said
    }

    /// Runs `sluice verify` on it.
    pub fn verify(&self) {
        verify(&self.at("run"));
    }
}

/// Runs `sluice verify`, which must find nothing.
pub fn verify(run: &str) {
    let said = sluice(&["verify", "--run", run]).unwrap();
    assert_eq!(said.failed, None, "{}", said.out);
}
