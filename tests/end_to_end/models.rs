//! Embeddings and scores compared with those of other programs on the same pictures and vectors.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use serde_json::{Value, json};
use sluice_harness::{Common, Context, Program, ProgramNode, Work};
use sluice_manifest::rows::{
    DIMENSION_KEY, EMBEDDINGS, FilterRow, MODEL_KEY, MODEL_SHA256_KEY, NameRow, embeddings,
};
use sluice_manifest::{Class, Counts, StepName, Unit, UnitKind, layout};
use sluice_model::{Model, Precision};
use sluice_store::{Location, Storage};
use sluice_testkit::{Shard, pictures};
use sluice_tests::{
    Npy, Process, Run, failed, fixtures, model, models, python, run, runtime, shared_models,
};

use crate::support::{column, cosine, csv, read, run_script, shard_of, word};

/// The expected rows of `clip-reference`.
struct ClipReference {
    folder: PathBuf,
    items: Vec<Value>,
}

impl ClipReference {
    fn open(fixtures: &Path) -> Self {
        let folder = fixtures.join("clip-reference");
        let text = std::fs::read_to_string(folder.join("index.json")).unwrap();
        let index: Value = serde_json::from_str(&text).unwrap();
        Self {
            items: index["items"].as_array().unwrap().clone(),
            folder,
        }
    }

    /// Returns the row for a picture as Sluice prepares it: upright, alpha over white.
    fn row(&self, image_id: &str) -> usize {
        let key = image_id.rsplit('/').next().unwrap();
        let of_file = self.items.iter().filter(|item| {
            let file = Path::new(item["file"].as_str().unwrap());
            file.file_stem().unwrap() == key
        });
        let ours = of_file.filter(|item| item["alpha"] != "dropped");
        let row = ours.max_by_key(|item| item["exif_applied"].as_bool());
        let row = row.unwrap_or_else(|| panic!("no row for {image_id}"));
        row["row"].as_u64().unwrap() as usize
    }

    /// Returns a run over the pictures, up to `read`.
    fn read(&self, place: &Path) -> Run {
        let input = place.join("input");
        std::fs::create_dir_all(&input).unwrap();
        std::fs::write(
            input.join("pictures.tar"),
            shard_of(&self.folder.join("images")),
        )
        .unwrap();
        read(word(&input), word(&place.join("run")), &[])
    }

    /// Returns the distances of the run's embeddings from the reference's rows, the largest first.
    fn nearness(&self, run: &Run, expected: &Npy) -> Vec<(f64, String)> {
        let found = run.embeddings().unwrap();
        assert_eq!(found.len(), 28, "every picture has an embedding");
        let mut nearness: Vec<(f64, String)> = found
            .into_iter()
            .map(|(id, vector)| {
                let length = cosine(&vector, &vector)
                    * vector.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
                assert!((length - 1.0).abs() < 1e-6, "{id}: length² {length}");
                (cosine(&vector, expected.row(self.row(&id))), id)
            })
            .collect();
        nearness.sort_by(|a, b| a.0.total_cmp(&b.0));
        nearness
    }
}

/// Returns the folder of tiny-random-clip, in the layout of Hugging Face's exporter.
fn tiny_clip(place: &Path, shared: &Path) -> PathBuf {
    let name = "tiny-random-clip";
    let folder = model(place, name, &shared.join("tiny-random-clip.onnx")).unwrap();
    let processor = json!({
        "crop_size": { "height": 224, "width": 224 }, "do_center_crop": true,
        "do_convert_rgb": true, "do_normalize": true, "do_rescale": true, "do_resize": true,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_processor_type": "CLIPImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3, "rescale_factor": 1.0 / 255.0, "size": { "shortest_edge": 224 },
    });
    std::fs::write(
        folder.join("preprocessor_config.json"),
        processor.to_string(),
    )
    .unwrap();
    folder
}

/// The lowest cosine is the one in shared/model/README.md for random weights, with a tolerance.
#[test]
fn lower_precisions_stay_near_float32() {
    let (Some(fixtures), Some(shared)) = (fixtures(), shared_models()) else {
        return;
    };
    if runtime().is_none() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let reference = ClipReference::open(&fixtures);
    let read = reference.read(place.path());
    let clip = tiny_clip(place.path(), &shared);
    let embed = |precision| {
        let command = ["sluice-embed", "--run", &read.uri, "--model", word(&clip)];
        [&command[..], &["--precision", precision]].concat()
    };

    let (class, words) = failed(&embed("int8"));
    assert_eq!(class, Class::Usage, "{words}");
    assert!(words.contains("model.int8.onnx") && words.contains("sluice models quantize"));
    let (storage, cache) = (
        Storage::default(),
        Location::parse("memory://none").unwrap(),
    );
    let model = Model::find(&storage, word(&clip), &cache, Precision::Float32).unwrap();
    assert!(
        model
            .quantize(&storage, Precision::Int8, None, |_| Ok(()))
            .unwrap()
            .products
            > 8
    );
    run(&embed("int8")).unwrap();
    let expected = Npy::read(&reference.folder.join("tiny_clip_image_embeds.npy"));
    let nearness = reference.nearness(&read, &expected);
    eprintln!(
        "tiny CLIP in int8, cosine with transformers: lowest {:?}",
        nearness[0]
    );
    assert!((0.99..0.999_999).contains(&nearness[0].0), "{nearness:?}");

    let half = model
        .quantize(&storage, Precision::Float16, None, |_| Ok(()))
        .unwrap();
    assert!(half.products > 8);
    run(&embed("float16")).unwrap();
    let nearness = reference.nearness(&read, &expected);
    eprintln!(
        "tiny CLIP in float16, cosine with transformers: lowest {:?}",
        nearness[0]
    );
    assert!(nearness[0].0 > 0.9999, "{nearness:?}");

    // The ONNX Runtime of `make tools` has no OpenVINO.
    let (class, words) = failed(&embed("bfloat16"));
    assert_eq!(class, Class::Usage, "{words}");
    assert!(words.contains("onnxruntime-openvino"), "{words}");
}

/// The rewriting that `int8.py` does before quantisation.
#[test]
fn a_rewritten_transformer_gives_the_same_numbers() {
    let (Some(shared), Some(python)) = (shared_models(), python("onnx, onnxruntime")) else {
        return;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/end_to_end/rewrites.py");
    let transformer = shared.join("tiny-random-clip.onnx");
    let convolutions = shared.join("effnet-lite0-features.onnx");
    run_script(&python, script, &[&transformer, &convolutions]);
}

#[test]
fn clip_embeddings_are_those_of_transformers() {
    let (Some(fixtures), Some(shared)) = (fixtures(), shared_models()) else {
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let reference = ClipReference::open(&fixtures);
    let read = reference.read(place.path());
    let clip = tiny_clip(place.path(), &shared);
    run(&["sluice-embed", "--run", &read.uri, "--model", word(&clip)]).unwrap();
    let expected = Npy::read(&reference.folder.join("tiny_clip_image_embeds.npy"));
    let nearness = reference.nearness(&read, &expected);
    eprintln!(
        "tiny CLIP, cosine with transformers: lowest {:?}",
        nearness[0]
    );
    assert!(nearness[0].0 >= 0.9999, "{nearness:?}");

    // A head for other embeddings is refused by name, before anything is written.
    let head = &shared.join("laion-aesthetic-v2-l14.onnx");
    model(place.path(), "laion-aesthetic-v2", head).unwrap();
    let command = [
        "sluice-aesthetic",
        "--run",
        &read.uri,
        "--model",
        "laion-aesthetic-v2",
        "--models",
        word(place.path()),
    ];
    let (class, words) = failed(&command);
    assert_eq!(class, Class::Usage, "{words}");
    for name in ["laion-aesthetic-v2", "clip-vit-l14", "tiny-random-clip"] {
        assert!(words.contains(name), "{name}: {words}");
    }
    let limit = Duration::from_secs(60);
    let process = Process::new(env!("CARGO_BIN_EXE_sluice-tests-step"), limit).unwrap();
    let finished = process.run(&command).unwrap();
    assert_eq!(finished.code, 2, "{finished:?}");
    let result: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(result["error"]["kind"], "usage", "{result}");
    assert!(read.store.list("aesthetic").unwrap().is_empty());
}

#[test]
fn efficientnet_and_opennsfw_are_those_of_the_reference() {
    let Some(fixtures) = fixtures() else { return };
    let Some(models) = models(&["efficientnet-lite0", "opennsfw"]) else {
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let reference = ClipReference::open(&fixtures);
    let read = reference.read(place.path());
    let models = ["--models", word(&models)];
    let embed = [
        "sluice-embed",
        "--run",
        &read.uri,
        "--model",
        "efficientnet-lite0",
    ];
    run(&[&embed[..], &models].concat()).unwrap();
    let scores = fixtures.join("reference-scores");
    let expected = Npy::read(&scores.join("effnet_lite0_features.npy"));
    let nearness = reference.nearness(&read, &expected);
    eprintln!(
        "EfficientNet-Lite0, cosine with the reference: lowest {:?}",
        nearness[0]
    );
    assert!(nearness[0].0 >= 0.9999, "{nearness:?}");

    let nsfw = ["sluice-nsfw", "--run", &read.uri, "--model", "opennsfw"];
    run(&[&nsfw[..], &models].concat()).unwrap();
    let table = csv(&scores.join("opennsfw_clip_reference.csv"));
    let column = column(&table, "nsfw_with_jpeg_round_trip");
    let mut worst = (0.0, String::new());
    let found = read.scores("nsfw").unwrap();
    assert_eq!(found.len(), 28);
    for (id, score) in found {
        let expected: f64 = table[1 + reference.row(&id)][column].parse().unwrap();
        let off = (f64::from(score) - expected).abs();
        if off > worst.0 {
            worst = (off, id);
        }
    }
    eprintln!("OpenNSFW on clip-reference: at most {worst:?} from the reference");
    assert!(worst.0 < 1e-3, "{worst:?}");
}

/// A folder of embeddings, and its heads: file, catalogue name, column of scores.
struct Heads {
    folder: &'static str,
    embedder: &'static str,
    heads: &'static [(&'static str, &'static str)],
}

const HEADS: [Heads; 2] = [
    Heads {
        folder: "clip-l14-embeddings",
        embedder: "clip-vit-l14",
        heads: &[
            ("laion-aesthetic-v1-l14", "laion-aesthetic-v1"),
            ("laion-aesthetic-v2-l14", "laion-aesthetic-v2"),
            ("laion-nsfw-l14", "laion-nsfw"),
            ("laion-nsfw-l14-savedmodel", "laion-nsfw"),
        ],
    },
    Heads {
        folder: "clip-b32-embeddings",
        embedder: "clip-vit-b32",
        heads: &[
            ("laion-aesthetic-v1-b32", "laion-aesthetic-v1-b32"),
            ("laion-nsfw-b32", "laion-nsfw-b32"),
            ("laion-nsfw-b32-savedmodel", "laion-nsfw-b32"),
        ],
    },
];

impl Heads {
    /// Returns the real embeddings and similar ones, and the table of each head's scores for them.
    fn vectors(&self, fixtures: &Path) -> (Vec<f32>, Vec<Vec<String>>) {
        let folder = fixtures.join(self.folder);
        let mut table = csv(&folder.join("expected_scores.csv"));
        let mut values = Vec::new();
        for row in &table[1..] {
            values.extend_from_slice(Npy::read(&folder.join(&row[0])).values());
        }
        values.extend_from_slice(Npy::read(&folder.join("perturbed_256.npy")).values());
        let perturbed = csv(&folder.join("perturbed_256_scores.csv"));
        assert_eq!(table[0][1..], perturbed[0][1..]);
        table.extend_from_slice(&perturbed[1..]);
        (values, table)
    }
}

/// Returns the largest difference between scores and a column of the table.
fn farthest(scores: impl IntoIterator<Item = f32>, table: &[Vec<String>], head: &str) -> f64 {
    let column = column(table, head);
    let mut farthest: f64 = 0.0;
    let mut rows = 0;
    for (score, row) in scores.into_iter().zip(&table[1..]) {
        let expected: f64 = row[column].parse().unwrap();
        farthest = farthest.max((f64::from(score) - expected).abs());
        rows += 1;
    }
    assert_eq!(rows, table.len() - 1);
    farthest
}

#[test]
fn heads_score_as_expected() {
    let (Some(fixtures), Some(shared)) = (fixtures(), shared_models()) else {
        return;
    };
    for of in &HEADS {
        let (values, table) = of.vectors(&fixtures);
        for (file, name) in of.heads {
            let place = tempfile::tempdir().unwrap();
            model(place.path(), name, &shared.join(format!("{file}.onnx"))).unwrap();
            let cache = Location::parse(word(place.path())).unwrap();
            let head = Model::find(
                &sluice_tests::shared().storage,
                name,
                &cache,
                Precision::Float32,
            )
            .unwrap();
            let rows = table.len() - 1;
            let shape = [rows, head.spec.dimension.unwrap()];
            let scores = head.session(1).unwrap().run(&shape, &values).unwrap();
            let farthest = farthest(scores, &table, file);
            eprintln!("{file} on {rows} embeddings: at most {farthest:.1e} from the reference");
            assert!(farthest <= 1e-5, "{file}: {farthest}");
        }
    }
}

/// Writes embeddings for the images of a run, in the format of `embed`.
fn write_embeddings(uri: &str, embedder: &str, values: Vec<f32>, dimension: usize) {
    let common = Common::on(uri);
    let node = ProgramNode {
        step: StepName::fixed("embed"),
        stage: "embed",
        operation: &<sluice_embed::Args as Program>::OPERATIONS[0],
        survivors_of: None,
    };
    let context = Context::new(&common, "sluice-embed", node, sluice_tests::shared()).unwrap();
    let unit = Unit::once(UnitKind::Partition);
    let images: Vec<NameRow> = Run::at(uri).unwrap().rows("read/images").unwrap();
    let work = Work {
        unit,
        units: 1,
        settings: embedder,
        inputs: vec![context.input(&StepName::read(), unit).unwrap()],
    };
    let mut task = context.begin(work).unwrap().unwrap();
    let metadata = [
        (MODEL_KEY, embedder.to_owned()),
        (MODEL_SHA256_KEY, "0".repeat(64)),
        (DIMENSION_KEY, dimension.to_string()),
    ];
    let path = task.path(&layout::EMBEDDINGS);
    let schema = embeddings(dimension);
    let written = context
        .run
        .write_table(&path, EMBEDDINGS, schema, &metadata);
    let mut writer = written.unwrap();
    let schema = writer.schema().clone();
    let DataType::FixedSizeList(item, length) = schema.field(1).data_type().clone() else {
        panic!("{schema}");
    };
    let ids = StringArray::from_iter_values(images.iter().map(|image| image.image_id.as_str()));
    let values = Arc::new(Float32Array::from(values));
    let vectors = FixedSizeListArray::try_new(item, length, values, None).unwrap();
    let columns: Vec<ArrayRef> = vec![Arc::new(ids), Arc::new(vectors)];
    let batch = RecordBatch::try_new(schema, columns).unwrap();
    writer.write(&batch).unwrap();
    task.publish(|| writer.finish()).unwrap();
    task.commit(Counts::all_kept(images.len() as u64)).unwrap();
}

#[test]
fn the_stages_score_embeddings_as_expected() {
    let (Some(fixtures), Some(shared), Some(_)) = (fixtures(), shared_models(), runtime()) else {
        return;
    };
    for of in &HEADS {
        let (values, table) = of.vectors(&fixtures);
        let rows = table.len() - 1;
        let dimension = values.len() / rows;
        let place = tempfile::tempdir().unwrap();
        let input = place.path().join("input");
        std::fs::create_dir_all(&input).unwrap();
        let picture = pictures::png(&pictures::waves(1, 16, 16));
        let shard = (0..rows).fold(Shard::new(), |shard, row| {
            shard.with(&format!("{row:03}.png"), &picture)
        });
        std::fs::write(input.join("0.tar"), shard.finish()).unwrap();
        let read = read(word(&input), word(&place.path().join("run")), &[]);
        write_embeddings(&read.uri, of.embedder, values, dimension);
        for (file, name) in of.heads {
            let models = tempfile::tempdir().unwrap();
            model(models.path(), name, &shared.join(format!("{file}.onnx"))).unwrap();
            let stage = if name.contains("nsfw") {
                "nsfw"
            } else {
                "aesthetic"
            };
            let program = format!("sluice-{stage}");
            let models = word(models.path());
            let command = [
                &program, "--run", &read.uri, "--model", name, "--models", models,
            ];
            let done = run(&command).unwrap();
            assert_eq!(done.counts.input, rows as u64, "{file}");
            let scores = read.scores(stage).unwrap();
            // The model's own threshold and direction apply.
            run(&["sluice-filter", "--run", &read.uri, "--scores", stage]).unwrap();
            let decisions: Vec<FilterRow> = read.rows("filter/decisions").unwrap();
            let threshold = if stage == "nsfw" { 0.5 } else { 5.0 };
            for ((id, score), decision) in scores.iter().zip(&decisions) {
                assert_eq!(*id, decision.image_id.as_str());
                let above = *score >= threshold;
                assert_eq!(
                    decision.keep,
                    above == (stage == "aesthetic"),
                    "{id}: {score}"
                );
            }
            let scores = scores.into_iter().map(|(_, score)| score);
            let farthest = farthest(scores, &table, file);
            eprintln!("sluice-{stage} with {file}: at most {farthest:.1e} from the reference");
            assert!(farthest <= 1e-5, "{file}: {farthest}");
        }
    }
}
