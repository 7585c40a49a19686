//! Invalid inputs. Each is refused before the first image is read, with an error that names the
//! cause.

mod lines;
mod scene;
mod steps;
mod texts;

use sluice_manifest::Class::Usage;

use self::lines::LINES;
use self::scene::Scene;
use self::steps::FILES;
use self::texts::TEXTS;
use super::{READ, file};

const PLACES: [(&str, &str); 3] = [("--input", "IN"), ("--output", "OUT"), ("--run", "RUN")];

const MODELS: [(&str, &str); 4] = [
    ("--models", "HERE/models"),
    ("--embedder", "tiny-embedder"),
    ("--aesthetic", "tiny-beauty"),
    ("--nsfw", "tiny-shame"),
];

#[test]
fn wrong_values_models_and_places_are_refused_before_any_image_is_read() {
    let scene = Scene::new();
    scene.gallery.put_pipeline("");
    for (given, class, part) in LINES {
        let sound = [&PLACES[..], &MODELS].concat();
        scene.refused(given, &sound, *class, part);
    }
}

#[test]
fn wrong_pipeline_files_are_refused_before_any_image_is_read() {
    let scene = Scene::new();
    for (steps, class, part) in FILES {
        scene.refused_file(&file(steps), *class, part);
    }
    for (text, part) in TEXTS {
        scene.refused_file(text, Usage, part);
    }
}

#[test]
fn a_pipeline_of_any_size_is_read_or_refused_at_once() {
    let scene = Scene::new();
    let many: Vec<String> = (0..3000)
        .map(|n| format!("stage = 'score'\nname = 's{n}'\nmodel = 'kinds'"))
        .collect();
    let steps: Vec<&str> = std::iter::once(READ)
        .chain(many.iter().map(String::as_str))
        .collect();
    scene.refused_file(&file(&steps), Usage, "a pipeline has at most 500");
    let large = format!("{}#{}", file(&[READ]), " ".repeat(1 << 20));
    scene.refused_file(&large, Usage, "too large for a pipeline file");
    let sound = [PLACES[0], PLACES[1], PLACES[2]];
    for device in ["/dev/zero", "/dev/null", "HERE"] {
        scene.refused(&["--pipeline", device], &sound, Usage, "not a regular file");
    }
}
