//! Command lines of the default pipeline that are refused.

use sluice_manifest::Class::{self, Data, Usage};

/// Words of a command line, the class of the error, and a part of its message. `IN`, `OUT` and
/// `RUN` in a word are placeholders for locations, `HERE` for their parent folder.
pub(super) type RefusedLine = (&'static [&'static str], Class, &'static str);

const SIDE: &str = "parameter min-side: expected a whole number of at least 0";
const ASPECT: &str = "parameter max-aspect: expected a number of at least 1";

/// Invalid values for the default pipeline, invalid models, and invalid locations.
pub(super) const LINES: &[RefusedLine] = &[
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
