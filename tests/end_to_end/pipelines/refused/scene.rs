//! A folder in which everything can be invalid, and the check that a command line is refused.

use sluice_manifest::Class;
use sluice_testkit::onnx::{distance_from, likeness_to};
use sluice_tests::{Run, sluice};

use super::PLACES;
use crate::gallery::TestGallery;
use crate::support::word;

/// Writes models that cannot be used, and a score table.
fn put_models(gallery: &TestGallery) {
    let mut head = distance_from("head", [0; 3], 1.0);
    head.spec = "name = 'head'\nkind = 'head'\nembedder = 'clip-vit-l14'\n\
        [score]\nrange = [0.0, 1.0]\n"
        .to_owned();
    gallery.put_model("head", &head);
    let mut cut = likeness_to("cut", [0; 3], 1.0);
    cut.onnx.truncate(cut.onnx.len() / 2);
    gallery.put_model("cut", &cut);
    let mut unfed = distance_from("unfed", [0; 3], 1.0);
    unfed.spec = "name = 'unfed'\nkind = 'classifier'\n[score]\nrange = [0.0, 1.0]\n".to_owned();
    gallery.put_model("unfed", &unfed);
    let mut misspelt = distance_from("misspelt", [0; 3], 1.0);
    misspelt.spec = misspelt.spec.replace("threshold", "treshold");
    gallery.put_model("misspelt", &misspelt);
    let unreachable = distance_from("unreachable", [0; 3], 60.0);
    gallery.put_model("unreachable", &unreachable);
    let mut kinds = distance_from("kinds", [0; 3], 1.0);
    let (preprocess, _) = kinds.spec.split_once("[score]").unwrap();
    let outputs =
        ["cat", "bird"].map(|name| format!("[[scores]]\nname = '{name}'\nrange = [-6.0, 6.0]\n"));
    kinds.spec = format!("{preprocess}{}", outputs.concat());
    gallery.put_model("kinds", &kinds);
}

/// A folder with everything that can be invalid, and the names of the locations in it.
pub(super) struct Scene {
    place: tempfile::TempDir,
    pub(super) gallery: TestGallery,
}

impl Scene {
    pub(super) fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let gallery = TestGallery::new(word(place.path()));
        gallery.put("00000.tar", TestGallery::shard(0).finish());
        put_models(&gallery);
        let write = |path: &str, text: &str| {
            let path = place.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("mine.csv", "image_id,name,score\n00000/0000,first,0.5\n");
        write("theirs/notes.txt", "somebody's");
        Self { place, gallery }
    }

    /// Replaces the placeholders in a text.
    fn placed(&self, text: &str) -> String {
        let places = [
            ("HERE", ""),
            ("IN", "input"),
            ("OUT", "output"),
            ("RUN", "run"),
        ];
        places.iter().fold(text.to_owned(), |text, (name, path)| {
            let is_place = text.starts_with(name) || *name == "HERE";
            let place = self.place.path().join(path);
            if is_place {
                text.replacen(name, word(&place).trim_end_matches('/'), 1)
            } else {
                text
            }
        })
    }

    /// Runs a command line that must fail before the first image is read. The words of `given`
    /// replace the valid values of the same flags.
    pub(super) fn refused(&self, given: &[&str], sound: &[(&str, &str)], class: Class, part: &str) {
        let given: Vec<String> = given.iter().map(|text| self.placed(text)).collect();
        let mut line = vec!["run".to_owned()];
        for (flag, value) in sound {
            if !given
                .iter()
                .any(|word| word.split('=').next() == Some(flag))
            {
                line.extend([(*flag).to_owned(), self.placed(value)]);
            }
        }
        line.extend(given.iter().cloned());
        let said = sluice(&line).unwrap();
        let (found, words) = said
            .failed
            .unwrap_or_else(|| panic!("not refused: {line:?}"));
        assert_eq!(found, class, "{line:?}: {words}");
        assert!(
            words.contains(&self.placed(part)),
            "{line:?}: {part}: {words}"
        );
        for (flag, value) in sound {
            let is_given = given.iter().any(|word| word.starts_with(flag));
            let is_blamed = words.starts_with(&format!("{flag}: "));
            assert!(
                is_given || !is_blamed || words.contains(value),
                "{line:?}: {words}"
            );
        }
        let at = line.iter().position(|word| word == "--run").unwrap() + 1;
        let read = Run::at(&line[at]).unwrap().store.list("read").unwrap();
        assert!(read.is_empty(), "{line:?}: {read:?}");
    }

    /// Refuses a pipeline file. Location flags that the file does not use are left out, because
    /// they would be refused too.
    pub(super) fn refused_file(&self, text: &str, class: Class, part: &str) {
        let text = text.replace("HERE", word(self.place.path()));
        let file = self.gallery.put_pipeline(&text);
        let loaded = sluice::pipeline::open(&sluice_tests::shared().storage, Some(&file));
        let parameters = loaded
            .map(|pipeline| pipeline.parameters)
            .unwrap_or_default();
        let mut sound = PLACES.to_vec();
        sound.push(("--models", "HERE/models"));
        sound.retain(|(flag, _)| {
            let name = flag.trim_start_matches("--");
            name == "run" || parameters.iter().any(|parameter| parameter.name == name)
        });
        self.refused(&["--pipeline", &file], &sound, class, part);
    }
}
