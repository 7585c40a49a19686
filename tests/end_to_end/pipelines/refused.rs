//! Invalid inputs. Each is refused before the first image is read, with an error that names the
//! cause.

use sluice_manifest::Class::{self, Data, Usage};
use sluice_testkit::onnx::{distance_from, likeness_to};
use sluice_tests::{Run, sluice};

use super::{AESTHETIC, EMBED, EXPORT, READ, file};
use crate::gallery::TestGallery;
use crate::support::word;

/// Words of a command line, the class of the error, and a part of its message. `IN`, `OUT` and
/// `RUN` in a word are placeholders for locations, `HERE` for their parent folder.
type RefusedLine = (&'static [&'static str], Class, &'static str);

const SIDE: &str = "parameter min-side: expected a whole number of at least 0";
const ASPECT: &str = "parameter max-aspect: expected a number of at least 1";

/// Invalid values for the default pipeline, invalid models, and invalid locations.
const LINES: &[RefusedLine] = &[
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
    (&["--max-distance", "60"], Usage, "takes 0 to 16"),
    (&["--ranges", "0"], Usage, "0 is not in 1..=4096"),
    (&["--ranges", "100000"], Usage, "100000 is not in 1..=4096"),
    (&["--jobs", "0"], Usage, "0 is not in 1..=1024"),
    (&["--jobs", "100000"], Usage, "100000 is not in 1..=1024"),
    (
        &["--clusters", "100000000"],
        Usage,
        "100000000 is not in 1..=16777216",
    ),
    (&["--clusters", "0"], Usage, "0 is not in 1.."),
    (&["--shards-per-partition", "0"], Usage, "0 is not in 1.."),
    (&["--images-per-shard", "0"], Usage, "0 is not in 1.."),
    (
        &["--bytes-per-shard", "many"],
        Usage,
        "invalid value 'many'",
    ),
    (
        &["--images-per-shard", "5", "--bytes-per-shard", "100000"],
        Usage,
        "cannot be used with",
    ),
    (&["--bytes-per-shard", "1"], Usage, "1 is not in 2048.."),
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
    (&["--min-side", "small"], Usage, SIDE),
    (&["--min-side=-1"], Usage, SIDE),
    (&["--min-side", "1.5"], Usage, SIDE),
    (&["--min-side", "1 || true"], Usage, SIDE),
    (&["--min-side", "99999999999999999999"], Usage, SIDE),
    (&["--set", "min-side=+1"], Usage, SIDE),
    (&["--max-aspect", "3)"], Usage, ASPECT),
    (&["--max-aspect", "0"], Usage, ASPECT),
    (&["--max-aspect", "0.5"], Usage, ASPECT),
    (&["--max-aspect", "-3"], Usage, ASPECT),
    (&["--max-aspect", "inf"], Usage, ASPECT),
    (&["--max-aspect", "nan"], Usage, ASPECT),
    (&["--max-aspect", "3 || true"], Usage, ASPECT),
    (&["--set", "max-aspect=0"], Usage, ASPECT),
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
    (&["--output", "IN/out"], Usage, "is inside of --input"),
    (&["--output", "IN"], Usage, "is inside of --input"),
    (&["--output", "HERE"], Usage, "is inside of --output"),
    (&["--run", "OUT/run"], Usage, "is inside of --output"),
    (&["--run", "IN/run"], Usage, "is inside of --input"),
    (
        &["--run", "/proc/x/run"],
        Usage,
        "--run /proc/x/run: cannot write to /proc",
    ),
    (&["--output", "RUN/out"], Usage, "is inside of --run"),
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

/// Steps of a pipeline file, the class of the error, and a part of its message.
type RefusedSteps = (&'static [&'static str], Class, &'static str);

const MINE: &str = "stage = 'score'\nname = 'mine'\nimport = 'HERE/mine.csv'";
const KINDS: &str = "stage = 'score'\nname = 'kinds'\nmodel = 'kinds'";

const HIDDEN: &str = "rules read something else under the name";
const HIDDEN_COMPUTED: &str = "stage = 'score'\nname = 'pixels'\nimport = 'HERE/mine.csv'";
const HIDDEN_WORD: &str = "stage = 'score'\nname = 'in'\nimport = 'HERE/mine.csv'";
const HIDDEN_TYPE: &str = "stage = 'score'\nname = 'int'\nimport = 'HERE/mine.csv'";
const HIDDEN_DASHED: &str = "stage = 'score'\nname = 'odd-size'\nimport = 'HERE/mine.csv'";

const FILES: &[RefusedSteps] = &[
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
        &[READ, "stage = 'score'\ncommand = 'sh HERE/none.sh'", EXPORT],
        Usage,
        "none.sh",
    ),
    (
        &[
            READ,
            "stage = 'score'\ncommand = 'echo no module >&2; exit 1'",
            EXPORT,
        ],
        Usage,
        "stderr: no module",
    ),
    (
        &[READ, "stage = 'score'\ncommand = 'cat'", EXPORT],
        Usage,
        "no column \"score\"",
    ),
    (
        &[
            READ,
            "stage = 'score'\ncommand = 'cat'\noutputs = ['a', '']",
            EXPORT,
        ],
        Usage,
        "a value is required",
    ),
    (
        &[READ, "stage = 'colour'"],
        Usage,
        "hint: the stages are partition, read",
    ),
    (
        &[READ, "stage = 'filter'\ncolour = 3"],
        Usage,
        "hint: the keys are",
    ),
    (
        &[
            READ,
            "stage = 'score'\ncommand = 'cat'\nsend = 'embedding'",
            EXPORT,
        ],
        Usage,
        "no earlier step embed gives embeddings",
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
        HIDDEN,
    ),
    (&[READ, HIDDEN_COMPUTED, EXPORT], Usage, HIDDEN),
    (&[READ, HIDDEN_WORD, EXPORT], Usage, HIDDEN),
    (&[READ, HIDDEN_TYPE, EXPORT], Usage, HIDDEN),
    (&[READ, HIDDEN_DASHED, EXPORT], Usage, HIDDEN),
    (
        &[
            READ,
            EMBED,
            "stage = 'dedup'",
            "stage = 'filter'\nname = 'dedup-fit'\nrule = { r = 'width > 3' }",
            EXPORT,
        ],
        Usage,
        "steps dedup and dedup-fit: both have a node dedup-fit",
    ),
    (
        &[
            READ,
            "stage = 'filter'\nname = 'export-plan'\nrule = { r = 'width > 3' }",
            EXPORT,
        ],
        Usage,
        "both have a node export-plan",
    ),
    (
        &[READ, EXPORT, "stage = 'export'\nname = 'second'"],
        Usage,
        "is inside of step export:",
    ),
    (
        &[
            READ,
            EXPORT,
            "stage = 'export'\nname = 'second'\noutput = '${output}/second'",
        ],
        Usage,
        "is inside of step export:",
    ),
    (
        &[
            READ,
            "stage = 'export'\noutput = 'HERE/a'",
            "stage = 'export'\nname = 'second'\noutput = 'HERE/x/../a'",
        ],
        Usage,
        "is inside of step export:",
    ),
    (
        &[READ, EXPORT, "stage = 'filter'\nrule = { r = 'width > 3' }"],
        Usage,
        "step filter: it has no effect: no export comes after it",
    ),
    (
        &[READ, EXPORT, "stage = 'dedup'\nmethods = ['exact']"],
        Usage,
        "step dedup: it has no effect",
    ),
    (
        &[
            READ,
            "stage = 'dedup'\nmethods = ['exact']\neps = 0.1",
            EXPORT,
        ],
        Usage,
        "step dedup: eps has no effect: match does not run",
    ),
    (
        &[
            READ,
            "stage = 'dedup'\nmethods = ['exact']\nembeddings = 'embed'",
            EXPORT,
        ],
        Usage,
        "embeddings has no effect",
    ),
    (
        &[
            READ,
            "stage = 'dedup'\nmethods = ['exact']\nmax-distance = 3",
            EXPORT,
        ],
        Usage,
        "max-distance has no effect: pairs does not run",
    ),
    (
        &[READ, "stage = 'dedup'\nmethods = []", EXPORT],
        Usage,
        "step dedup: methods: the list is empty",
    ),
    (
        &[READ, "stage = 'export'\nscores = []"],
        Usage,
        "step export: scores: the list is empty",
    ),
    (
        &[
            READ,
            KINDS,
            "stage = 'filter'\nmin = { kinds.cat = 1 }",
            EXPORT,
        ],
        Usage,
        "quote a name with a dot: \"kinds.cat\"",
    ),
    (
        &[READ, "stage = 'score'\ncommand = 'cat'\nby = 'key'", EXPORT],
        Usage,
        "cannot be used with",
    ),
    (
        &[
            READ,
            "stage = 'score'\nimport = 'HERE/mine.csv'\nsend = 'caption'",
            EXPORT,
        ],
        Usage,
        "cannot be used with",
    ),
    (
        &[
            READ,
            "stage = 'score'\nimport = 'HERE/mine.csv'\noutputs = ['a']",
            EXPORT,
        ],
        Usage,
        "cannot be used with",
    ),
    (
        &[
            READ,
            "stage = 'embed'\nname = 'clip'\nmodel = 'tiny-embedder'",
            "stage = 'export'\nembeddings = true",
        ],
        Usage,
        "write embeddings = \"clip\"",
    ),
    (
        &[READ, "stage = 'export'\nimages-per-shard = '${size}'"],
        Usage,
        "${size}: there is no such parameter",
    ),
];

/// Complete files with other parts than steps.
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
        "the workflow engines reserve this name",
    ),
    (
        "[parameters]\nencoder = {}\n[[steps]]\nstage = 'read'\n[[steps]]\nstage = 'embed'\nmodel = '${encoder}'\n",
        "parameter encoder is required",
    ),
    (
        "[parameters]\nside = { min = 3 }\n[[steps]]\nstage = 'read'\n",
        "parameter side: min without a type",
    ),
    (
        "[parameters]\nside = { default = '-1', type = 'integer', min = 0 }\n[[steps]]\nstage = 'read'\n\
        [[steps]]\nstage = 'filter'\nrule = { r = 'width > ${side}' }\n",
        "parameter side: expected a whole number of at least 0, got \"-1\"",
    ),
    (
        "[parameters]\nside = { default = '1', type = 'side' }\n[[steps]]\nstage = 'read'\n",
        "unknown variant `side`",
    ),
];

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
struct Scene {
    place: tempfile::TempDir,
    gallery: TestGallery,
}

impl Scene {
    fn new() -> Self {
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
    fn refused_file(&self, text: &str, class: Class, part: &str) {
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
