//! A dataset from formulas, and three tiny models with known scores. It is small enough to be
//! curated many times, and every stage has work.

use std::collections::{BTreeMap, BTreeSet};

use sluice_store::{Location, Store};
use sluice_testkit::Shard;
use sluice_testkit::onnx::{TinyModel, distance_from, embedder, likeness_to};
use sluice_testkit::pictures::{noisy, png, waves};
use sluice_tests::{SluiceOutput, shared, sluice};

/// A folder on disk or in memory, with the input, the models, the run and the output.
pub(crate) struct TestGallery {
    store: Store,
}

impl TestGallery {
    /// Returns a gallery with the models and without an input.
    pub(crate) fn new(place: &str) -> Self {
        let store = shared()
            .storage
            .create(&Location::parse(place).unwrap())
            .unwrap();
        let gallery = Self { store };
        let (white, red) = ([255; 3], [255, 0, 0]);
        gallery.put_model("tiny-embedder", &embedder("tiny-embedder"));
        // Waves score 4.8, almost white images less than 2.
        let beauty = distance_from("tiny-beauty", white, 3.0);
        gallery.put_model("tiny-beauty", &beauty);
        // Waves score -4.8, almost red images more than -2.
        let shame = likeness_to("tiny-shame", red, -3.0);
        gallery.put_model("tiny-shame", &shame);
        gallery
    }

    /// Returns the URI of a path in it.
    pub(crate) fn at(&self, path: &str) -> String {
        self.store.uri(path)
    }

    /// Writes a shard of the input.
    pub(crate) fn put(&self, shard: &str, bytes: Vec<u8>) {
        self.store.put(&format!("input/{shard}"), bytes).unwrap();
    }

    /// Writes six shards of eight pictures with captions and metadata. Each shard has two copies,
    /// two near copies and two similar pictures of other shards' pictures.
    pub(crate) fn fill(&self) {
        for number in 0..6 {
            self.put(&format!("{number:05}.tar"), Self::shard(number).finish());
        }
    }

    /// Returns a shard of [`fill`](Self::fill).
    pub(crate) fn shard(number: u64) -> Shard {
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

    /// Runs the default pipeline on it.
    pub(crate) fn curate(&self, more: &[&str]) -> SluiceOutput {
        let models = self.at("models");
        let options = ["--models", &models, "--embedder", "tiny-embedder"];
        let scorers = ["--aesthetic", "tiny-beauty", "--nsfw", "tiny-shame"];
        self.run(&[&options[..], &scorers, &["--eps", "0.1"], more].concat())
    }

    /// Writes a pipeline file next to the input, and returns its URI.
    pub(crate) fn put_pipeline(&self, text: &str) -> String {
        self.store.put("mine.toml", text.to_owned()).unwrap();
        self.at("mine.toml")
    }

    /// Runs a pipeline file on it.
    pub(crate) fn curate_by(&self, pipeline: &str, more: &[&str]) -> SluiceOutput {
        let file = self.put_pipeline(pipeline);
        self.run(&[&["--pipeline", &file], more].concat())
    }

    /// Adds a model.
    pub(crate) fn put_model(&self, name: &str, model: &TinyModel) {
        let path = |file: &str| format!("models/{name}/{file}");
        self.store
            .put(&path("model.onnx"), model.onnx.clone())
            .unwrap();
        self.store
            .put(&path("model.toml"), model.spec.clone())
            .unwrap();
    }

    /// Runs `sluice run` on it, which must succeed.
    fn run(&self, options: &[&str]) -> SluiceOutput {
        let [input, run, output] = ["input", "run", "output"].map(|path| self.at(path));
        let places = ["run", "--input", &input, "--run", &run, "--output", &output];
        let said = sluice(&[&places[..], options].concat()).unwrap();
        assert_eq!(said.failed, None, "{said:?}");
        said
    }

    /// Runs `sluice verify` on it.
    pub(crate) fn verify(&self) {
        verify(&self.at("run"));
    }
}

/// Returns the number of finished units and of all units for each node of a run.
pub(crate) fn done(said: &SluiceOutput) -> BTreeMap<String, (u64, u64)> {
    let steps = said.result["steps"].as_array().unwrap();
    let done = steps.iter().map(|line| {
        let units = &line["units"];
        let [done, total] = ["done", "total"].map(|name| units[name].as_u64().unwrap());
        assert_eq!(line["status"] == "up-to-date", done == 0, "{line}");
        (line["step"].as_str().unwrap().to_owned(), (done, total))
    });
    done.collect()
}

/// Returns the nodes of a run that had work.
pub(crate) fn busy(said: &SluiceOutput) -> BTreeSet<String> {
    let done = done(said).into_iter();
    done.filter(|(_, (units, _))| *units > 0)
        .map(|(node, _)| node)
        .collect()
}

/// Runs `sluice verify`, which must pass.
pub(crate) fn verify(run: &str) {
    let said = sluice(&["verify", "--run", run]).unwrap();
    assert_eq!(said.failed, None, "{}", said.out);
}
