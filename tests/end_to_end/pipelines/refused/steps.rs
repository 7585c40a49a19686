//! Steps of pipeline files that are refused.

use sluice_manifest::Class::{self, Data, Usage};

use super::super::{AESTHETIC, EMBED, EXPORT, READ};

/// Steps of a pipeline file, the class of the error, and a part of its message.
pub(super) type RefusedSteps = (&'static [&'static str], Class, &'static str);

const MINE: &str = "stage = 'score'\nname = 'mine'\nimport = 'HERE/mine.csv'";
const KINDS: &str = "stage = 'score'\nname = 'kinds'\nmodel = 'kinds'";

const HIDDEN: &str = "rules read something else under the name";
const HIDDEN_COMPUTED: &str = "stage = 'score'\nname = 'pixels'\nimport = 'HERE/mine.csv'";
const HIDDEN_WORD: &str = "stage = 'score'\nname = 'in'\nimport = 'HERE/mine.csv'";
const HIDDEN_TYPE: &str = "stage = 'score'\nname = 'int'\nimport = 'HERE/mine.csv'";
const HIDDEN_DASHED: &str = "stage = 'score'\nname = 'odd-size'\nimport = 'HERE/mine.csv'";

pub(super) const FILES: &[RefusedSteps] = &[
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
