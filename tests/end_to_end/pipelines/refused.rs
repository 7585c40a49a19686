//! Wrong inputs: each is refused before the first image is read, and the message says what is wrong.

use sluice_manifest::Class::{self, Data, Usage};
use sluice_testkit::onnx::{distance_from, likeness_to};
use sluice_tests::{Run, sluice};

use super::{AESTHETIC, EMBED, EXPORT, READ, file};
use crate::gallery::Gallery;
use crate::support::word;

/// Words of a command line, how it is refused, and a part of the message. `IN`, `OUT` and `RUN` in a
/// word stand for the places, `HERE` for the folder that they are in.
type Line = (&'static [&'static str], Class, &'static str);

/// Wrong values for the default pipeline, wrong models, and wrong places.
const LINES: &[Line] = &[
    (
        &["--min-aesthetic", "12"],
        Usage,
        "the scores are from -6 to 6",
    ),
    (&["--max-nsfw=-6.5"], Usage, "the scores are from -6 to 6"),
    (
        &["--min-aesthetic", "nan"],
        Usage,
        "expected a finite number",
    ),
    (&["--max-nsfw", "inf"], Usage, "expected a finite number"),
    (&["--max-nsfw=-inf"], Usage, "expected a finite number"),
    (
        &["--min-aesthetic", "good"],
        Usage,
        "expected a finite number",
    ),
    (&["--eps", "15"], Usage, "expected a number from 0 to 2"),
    (&["--eps=-0.1"], Usage, "expected a number from 0 to 2"),
    (&["--eps", "nan"], Usage, "expected a number from 0 to 2"),
    (&["--keep", "worst"], Usage, "invalid value 'worst'"),
    (&["--max-distance", "60"], Usage, "60 is not in 0..=16"),
    (&["--ranges", "0"], Usage, "0 is not in 1..=65536"),
    (&["--clusters", "0"], Usage, "0 is not in 1.."),
    (&["--shards-per-partition", "0"], Usage, "0 is not in 1.."),
    (&["--images-per-shard", "0"], Usage, "0 is not in 1.."),
    (
        &["--bytes-per-shard", "many"],
        Usage,
        "invalid value 'many'",
    ),
    (
        &["--images-per-shard", "5", "--bytes-per-shard", "1000"],
        Usage,
        "cannot be used with",
    ),
    (
        &["--precision", "float64"],
        Usage,
        "invalid value 'float64'",
    ),
    (
        &["--exact-decoding=perhaps"],
        Usage,
        "invalid value 'perhaps'",
    ),
    (
        &["--min-side", "small"],
        Usage,
        "unknown variable \"small\"",
    ),
    (&["--max-aspect", "3)"], Usage, "unexpected ')'"),
    (
        &["--min-beauty", "3"],
        Usage,
        "unexpected argument '--min-beauty'",
    ),
    (&["--set", "beauty=3"], Usage, "has no parameter beauty"),
    (&["--set", "eps"], Usage, "expected NAME=VALUE"),
    (&["--embedder", "no-such"], Usage, "no model.onnx in"),
    (&["--nsfw", "no-such"], Usage, "model \"no-such\""),
    (&["--models", "HERE/none"], Usage, "no model.onnx in"),
    (
        &["--aesthetic", "tiny-embedder"],
        Usage,
        "of kind \"embedder\", expected head or classifier or measure",
    ),
    (
        &["--embedder", "tiny-beauty"],
        Usage,
        "of kind \"classifier\", expected embedder",
    ),
    (
        &["--aesthetic", "head"],
        Usage,
        "takes embeddings of \"clip-vit-l14\", but these are of \"tiny-embedder\"",
    ),
    (&["--nsfw", "cut"], Data, "not a whole ONNX file"),
    (&["--nsfw", "unfed"], Usage, "needs [preprocess]"),
    (&["--nsfw", "misspelt"], Usage, "unknown field `treshold`"),
    (
        &["--nsfw", "unreachable"],
        Usage,
        "threshold is outside of range",
    ),
    (&["--pipeline", "HERE/none.toml"], Usage, "no such file"),
    (&["--output", "IN/out"], Usage, "lies inside of --input"),
    (&["--output", "IN"], Usage, "lies inside of --input"),
    (&["--output", "HERE"], Usage, "lies inside of --output"),
    (&["--run", "OUT/run"], Usage, "lies inside of --output"),
    (&["--run", "IN/run"], Usage, "lies inside of --input"),
    (&["--output", "RUN/out"], Usage, "lies inside of --run"),
    (
        &["--output", "HERE/theirs"],
        Usage,
        "\"notes.txt\", which no export wrote",
    ),
    (
        &["--output", "HERE/mine.toml/out"],
        Usage,
        "is not a folder",
    ),
    (
        &["--output", "ftp://host/out"],
        Usage,
        "no store for ftp://",
    ),
    (&["--input", "HERE/none/*.tar"], Data, "HERE/none"),
    (&["--input", "HERE/theirs"], Data, "no shards"),
    (
        &["--input", "IN/{3..1}.tar"],
        Usage,
        "not a range of shards",
    ),
];

/// Steps of a pipeline file, how it is refused, and a part of the message.
type Steps = (&'static [&'static str], Class, &'static str);

const MINE: &str = "stage = 'score'\nname = 'mine'\nimport = 'HERE/mine.csv'";
const KINDS: &str = "stage = 'score'\nname = 'kinds'\nmodel = 'kinds'";

const FILES: &[Steps] = &[
    (&[], Usage, "stage = \"read\""),
    (&[READ, "name = 'x'"], Usage, "has no stage"),
    (
        &[READ, "stage = 'aesthetics'"],
        Usage,
        "did you mean aesthetic?",
    ),
    (
        &[READ, "stage = 'filter'\ntreshold = 3"],
        Usage,
        "no flag --treshold",
    ),
    (
        &[READ, EXPORT, "stage = 'export'"],
        Usage,
        "two steps are named export",
    ),
    (
        &[READ, "stage = 'filter'\nname = 'My filter'"],
        Usage,
        "invalid step name",
    ),
    (&["stage = 'filter'", READ], Usage, "comes before read"),
    (
        &["stage = 'read'\nname = 'mine'"],
        Usage,
        "cannot be renamed",
    ),
    (
        &[READ, "stage = 'filter'\nsurvivors-of = 'read'"],
        Usage,
        "survivors-of cannot be set",
    ),
    (
        &["stage = 'read'\nmax-bad-fraction = 1.5"],
        Usage,
        "a number from 0 to 1",
    ),
    (
        &[READ, "stage = 'filter'", EXPORT],
        Usage,
        "has no condition",
    ),
    (
        &[READ, "stage = 'filter'\nmin = { beauty = 1 }", EXPORT],
        Usage,
        "no step beauty comes before it",
    ),
    (
        &[
            READ,
            "stage = 'filter'\nmin = { aesthetic = 1 }",
            AESTHETIC,
            EXPORT,
        ],
        Usage,
        "no step aesthetic comes before it",
    ),
    (
        &[
            READ,
            AESTHETIC,
            "stage = 'filter'\nmax = { aesthetic = 7 }",
            EXPORT,
        ],
        Usage,
        "from -6 to 6",
    ),
    (
        &[
            READ,
            AESTHETIC,
            "stage = 'filter'\nmin = { aesthetic = nan }",
            EXPORT,
        ],
        Usage,
        "expected a finite number",
    ),
    (
        &[
            READ,
            AESTHETIC,
            "stage = 'filter'\ntop = { aesthetic = '130%' }",
            EXPORT,
        ],
        Usage,
        "at most 100%",
    ),
    (
        &[READ, MINE, "stage = 'filter'\nmin = { mine = '' }", EXPORT],
        Usage,
        "mine has no threshold of its own",
    ),
    (
        &[READ, KINDS, "stage = 'filter'\nmin = { kinds = 1 }", EXPORT],
        Usage,
        "has several outputs",
    ),
    (
        &[
            READ,
            KINDS,
            "stage = 'filter'\nmin = { 'kinds.dog' = 1 }",
            EXPORT,
        ],
        Usage,
        "no output \"dog\"",
    ),
    (
        &[READ, "stage = 'filter'\nrule = { r = 'widht > 3' }", EXPORT],
        Usage,
        "widht",
    ),
    (
        &[READ, "stage = 'filter'\nrule = { r = 'width +' }", EXPORT],
        Usage,
        "rule r: syntax error",
    ),
    (
        &[READ, "stage = 'filter'\nrule = { r = 'width + 1' }", EXPORT],
        Usage,
        "not true or false",
    ),
    (
        &[
            READ,
            "stage = 'filter'\nrule = { r = 'caption > 3' }",
            EXPORT,
        ],
        Usage,
        "compared with",
    ),
    (
        &[
            READ,
            "stage = 'filter'\nrule = { r = 'hash(key) > 3' }",
            EXPORT,
        ],
        Usage,
        "unknown function",
    ),
    (
        &[READ, "stage = 'filter'\nrule = { R = 'width > 3' }", EXPORT],
        Usage,
        "is not a rule name",
    ),
    (
        &[READ, "stage = 'dedup'\nmethods = ['fuzzy']", EXPORT],
        Usage,
        "expected exact, perceptual or semantic",
    ),
    (
        &[READ, "stage = 'dedup'", EXPORT],
        Usage,
        "no step embed comes before it",
    ),
    (
        &[READ, EMBED, "stage = 'dedup'\nrank-by = 'quality'", EXPORT],
        Usage,
        "no step quality comes before it",
    ),
    (
        &[
            READ,
            EMBED,
            KINDS,
            "stage = 'dedup'\nrank-by = 'kinds'",
            EXPORT,
        ],
        Usage,
        "has several outputs",
    ),
    (
        &[READ, "stage = 'score'\nimport = 'HERE/none.csv'", EXPORT],
        Data,
        "none.csv: no such object",
    ),
    (
        &[
            READ,
            "stage = 'score'\nimport = 'HERE/mine.csv'\nby = 'sha256'",
            EXPORT,
        ],
        Usage,
        "no column \"sha256\"",
    ),
    (
        &[
            READ,
            "stage = 'score'\nimport = 'HERE/mine.csv'\nby = 'width'",
            EXPORT,
        ],
        Usage,
        "expected image_id, key, sha256 or metadata",
    ),
    (
        &[READ, "stage = 'score'\nimport = 'HERE/mine.toml'", EXPORT],
        Usage,
        "unknown format",
    ),
    (
        &[
            READ,
            "stage = 'score'\nimport = 'HERE/mine.csv'\ncolumns = 'name'",
            EXPORT,
        ],
        Usage,
        "expected numbers",
    ),
    (
        &[READ, "stage = 'score'\ncommand = 'no-such-program'", EXPORT],
        Usage,
        "no program \"no-such-program\"",
    ),
    (
        &[
            READ,
            "stage = 'score'\ncommand = 'cat'\nsend = 'embedding'",
            EXPORT,
        ],
        Usage,
        "no step embed before gives embeddings",
    ),
    (
        &[
            READ,
            "stage = 'score'\ncommand = 'cat'\nsend = 'sound'",
            EXPORT,
        ],
        Usage,
        "expected image, pixels",
    ),
    (
        &[
            READ,
            "stage = 'score'\ncommand = 'cat'\noutputs = ['a', 'a']",
            EXPORT,
        ],
        Usage,
        "\"a\" is named twice",
    ),
    (
        &[
            READ,
            "stage = 'score'\ncommand = 'cat'\nmodel = 'kinds'",
            EXPORT,
        ],
        Usage,
        "cannot be used with",
    ),
    (&[READ, "stage = 'score'", EXPORT], Usage, "required"),
    (
        &[READ, "stage = 'export'\nscores = ['beauty']"],
        Usage,
        "no step beauty comes before it",
    ),
    (
        &[READ, "stage = 'export'\nembeddings = true"],
        Usage,
        "no step embed comes before it",
    ),
    (
        &[
            READ,
            "stage = 'aesthetic'\nname = 'width'\nmodel = 'tiny-beauty'",
            EXPORT,
        ],
        Usage,
        "the column \"width\"",
    ),
    (
        &[READ, "stage = 'export'\nimages-per-shard = '${size}'"],
        Usage,
        "${size}: there is no such parameter",
    ),
];

/// Whole files that are not steps alone.
const TEXTS: &[(&str, &str)] = &[
    ("[[steps]\n", "TOML parse error"),
    ("[step]\nstage = 'read'\n", "unknown field `step`"),
    ("steps = 3\n", "invalid type"),
    (
        "[parameters]\nsize = [3]\n[[steps]]\nstage = 'read'\n",
        "expected text or a table",
    ),
    (
        "[parameters]\nsize = ''\n[[steps]]\nstage = 'read'\n",
        "size is not used",
    ),
    (
        "[parameters]\nrun = '1'\n[[steps]]\nstage = 'read'\nmax-bad-fraction = '${run}'\n",
        "engines have one of this name",
    ),
    (
        "[parameters]\nencoder = {}\n[[steps]]\nstage = 'read'\n[[steps]]\nstage = 'embed'\nmodel = '${encoder}'\n",
        "parameter encoder is required",
    ),
];

/// Models that cannot be used, and a score table.
fn put_models(gallery: &Gallery) {
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

/// A place with everything that can be wrong, and the names of the places in it.
struct Scene {
    place: tempfile::TempDir,
    gallery: Gallery,
}

impl Scene {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let gallery = Gallery::new(word(place.path()));
        gallery.put("00000.tar", Gallery::shard(0).finish());
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

    /// Puts the places into a text.
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
            match is_place {
                true => text.replacen(name, word(&place).trim_end_matches('/'), 1),
                false => text,
            }
        })
    }

    /// Runs a command line that must fail before the first image is read, with `given` in place of
    /// the sound values of the same flags.
    fn refused(&self, given: &[&str], sound: &[(&str, &str)], class: Class, part: &str) {
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
        line.extend(given);
        let said = sluice(&line).unwrap();
        let (found, words) = said
            .failed
            .unwrap_or_else(|| panic!("not refused: {line:?}"));
        assert_eq!(found, class, "{line:?}: {words}");
        assert!(
            words.contains(&self.placed(part)),
            "{line:?}: {part}: {words}"
        );
        let at = line.iter().position(|word| word == "--run").unwrap() + 1;
        let read = Run::at(&line[at]).unwrap().store.list("read").unwrap();
        assert!(read.is_empty(), "{line:?}: {read:?}");
    }

    /// Refuses a pipeline file. Flags for places that it does not use would be refused, too.
    fn refused_file(&self, text: &str, class: Class, part: &str) {
        let text = text.replace("HERE", word(self.place.path()));
        let file = self.gallery.put_pipeline(&text);
        let loaded = sluice::pipeline::open(Some(&file));
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
