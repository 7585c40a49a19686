//! The DAG: its parameters, its steps, what each waits for, what it fans out over, and what it is
//! told on its command line.
//!
//! `sluice run` executes this table, `sluice dag` prints it, and the workflow engines' files are
//! made from what it prints.

use std::collections::BTreeMap;

/// What a user sets once, whichever engine runs the DAG.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// Its name; `--<name>` of `sluice run`.
    pub name: &'static str,
    /// The environment variable that sets it.
    pub variable: &'static str,
    /// What its value is, in capitals; empty for a switch, which is on or off.
    pub value: &'static str,
    /// The value where none is given; none: the stage's own default holds.
    pub default: Option<&'static str>,
    /// Whether it must be given.
    pub required: bool,
    /// Whether it may have several values.
    pub many: bool,
    /// What it is, in a line.
    pub help: &'static str,
}

const fn parameter(
    name: &'static str,
    variable: &'static str,
    value: &'static str,
    default: Option<&'static str>,
    help: &'static str,
) -> Parameter {
    Parameter {
        name,
        variable,
        value,
        default,
        required: false,
        many: false,
        help,
    }
}

/// All parameters of the DAG. Besides these there is `run`, where the manifests go.
pub const PARAMETERS: &[Parameter] = &[
    Parameter {
        required: true,
        many: true,
        ..parameter(
            "input",
            "SLUICE_INPUT",
            "URI",
            None,
            "Where the shards are: folders, shards, globs (quoted), or ranges like train-{000..099}.tar",
        )
    },
    Parameter {
        required: true,
        ..parameter(
            "output",
            "SLUICE_OUTPUT",
            "URI",
            None,
            "Where the curated dataset goes",
        )
    },
    parameter(
        "embedder",
        "SLUICE_EMBEDDER",
        "MODEL",
        Some("clip-vit-l14"),
        "Image encoder: a name that `sluice models list` shows, or a URI",
    ),
    parameter(
        "precision",
        "SLUICE_PRECISION",
        "PRECISION",
        None,
        "What the image encoder computes in: float32, bfloat16 or int8",
    ),
    parameter(
        "exact-decoding",
        "SLUICE_EXACT_DECODING",
        "",
        None,
        "Decode large JPEGs in full size for the models, however small these want them",
    ),
    parameter(
        "aesthetic",
        "SLUICE_AESTHETIC_MODEL",
        "MODEL",
        Some("laion-aesthetic-v2"),
        "Model of the aesthetic score",
    ),
    parameter(
        "nsfw",
        "SLUICE_NSFW_MODEL",
        "MODEL",
        Some("laion-nsfw"),
        "Model of the NSFW score",
    ),
    parameter(
        "models",
        "SLUICE_MODELS",
        "URI",
        None,
        "Where the models are cached",
    ),
    parameter(
        "min-aesthetic",
        "SLUICE_AESTHETIC_MIN_SCORE",
        "SCORE",
        None,
        "Drop images whose aesthetic score is below this (default: the model's)",
    ),
    parameter(
        "max-nsfw",
        "SLUICE_NSFW_MAX_SCORE",
        "SCORE",
        None,
        "Drop images whose NSFW score reaches this (default: the model's)",
    ),
    parameter(
        "eps",
        "SLUICE_EPS",
        "EPS",
        None,
        "Two images are duplicates when their embeddings' cosine similarity is at least 1 - EPS",
    ),
    parameter(
        "keep",
        "SLUICE_KEEP",
        "RANKING",
        None,
        "Which image of a group of semantic duplicates stays: best, hard, easy or random",
    ),
    parameter(
        "clusters",
        "SLUICE_CLUSTERS",
        "N",
        None,
        "Clusters that semantic duplicates are sought in",
    ),
    parameter(
        "max-distance",
        "SLUICE_MAX_DISTANCE",
        "BITS",
        None,
        "Bits in which the perceptual hashes of duplicates may differ",
    ),
    parameter(
        "min-side",
        "SLUICE_MIN_SIDE",
        "PIXELS",
        None,
        "Drop images whose short side is below this many pixels",
    ),
    parameter(
        "max-aspect",
        "SLUICE_MAX_ASPECT",
        "RATIO",
        None,
        "Drop images whose long side is more than this many times the short side",
    ),
    parameter(
        "images-per-shard",
        "SLUICE_IMAGES_PER_SHARD",
        "N",
        None,
        "Images in an output shard",
    ),
    parameter(
        "bytes-per-shard",
        "SLUICE_BYTES_PER_SHARD",
        "BYTES",
        None,
        "Bytes in an output shard, in place of a number of images",
    ),
    parameter(
        "shards-per-partition",
        "SLUICE_SHARDS_PER_PARTITION",
        "N",
        None,
        "Input shards in a partition, the unit of work",
    ),
    parameter(
        "ranges",
        "SLUICE_RANGES",
        "N",
        None,
        "Ranges of hashes that exact duplicates are sought in, each by itself",
    ),
    parameter(
        "groups",
        "SLUICE_GROUPS",
        "N",
        None,
        "Groups of clusters that are compared, each by itself",
    ),
    parameter(
        "embeddings",
        "SLUICE_EMBEDDINGS",
        "",
        None,
        "Put the embeddings into the output's Parquet files",
    ),
];

/// What a step fans out over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FanOut {
    /// Runs once.
    One,
    /// One unit for each partition of the plan.
    Partitions,
    /// One unit for each range of content hashes (`--ranges`).
    HashRanges,
    /// One unit for each group of clusters (`--groups`).
    ClusterGroups,
    /// One unit for each output shard of the export's plan.
    OutputShards,
}

/// Who knows how many units there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountedBy {
    /// One, always.
    Nobody,
    /// This parameter, 1 where it is not given.
    Parameter(&'static str),
    /// This step; `fan_out` in its result tells. (More tasks than units do no harm: each takes its
    /// share, and some have none.)
    Step(&'static str),
}

impl FanOut {
    /// Who knows how many units there are.
    pub fn counted_by(self) -> CountedBy {
        match self {
            Self::One => CountedBy::Nobody,
            Self::Partitions => CountedBy::Step("partition"),
            Self::HashRanges => CountedBy::Parameter("ranges"),
            Self::ClusterGroups => CountedBy::Step("dedup-fit"),
            Self::OutputShards => CountedBy::Step("export-plan"),
        }
    }

    /// What one unit is called.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Partitions => "partitions",
            Self::HashRanges => "hash-ranges",
            Self::ClusterGroups => "cluster-groups",
            Self::OutputShards => "output-shards",
        }
    }
}

/// What a step needs of a machine: engines give requests and limits to each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resources {
    /// Reads and writes manifests.
    Light,
    /// Keeps its cores busy with pictures or vectors.
    Cpu,
    /// Runs a model: more cores and memory, or a GPU.
    Model,
    /// Moves image bytes.
    Copy,
}

impl Resources {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Light, Self::Cpu, Self::Model, Self::Copy];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Cpu => "cpu",
            Self::Model => "model",
            Self::Copy => "copy",
        }
    }

    /// CPUs and MiB of memory that a task asks for. The peaks measured lie well below, of the models
    /// that are not much larger than CLIP ViT-L/14.
    pub fn requests(self) -> (u32, u32) {
        match self {
            Self::Light => (1, 1024),
            Self::Cpu => (2, 2048),
            Self::Model => (4, 4096),
            Self::Copy => (2, 1024),
        }
    }
}

/// How a failed task is tried again.
pub mod retry {
    /// Tries after the first.
    pub const LIMIT: u32 = 4;
    /// Seconds before the second try; each further one waits twice as long.
    pub const FIRST_SECONDS: u32 = 15;
    /// Seconds that no wait exceeds.
    pub const LONGEST_SECONDS: u32 = 300;
    /// Exit codes that are tried again: storage and network, SIGKILL (memory, a lost node), SIGTERM
    /// (an eviction). Never a bug, usage or data.
    pub const EXIT_CODES: [u8; 3] = [75, 137, 143];
}

/// A parameter's way onto a step's command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argument {
    /// The program's flag.
    pub flag: &'static str,
    /// The parameter that gives its value.
    pub parameter: &'static str,
}

const fn argument(flag: &'static str, parameter: &'static str) -> Argument {
    Argument { flag, parameter }
}

/// A step of the DAG.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Its name in the DAG, in receipts and in logs.
    pub name: &'static str,
    /// The stage: folder, program `sluice-<stage>`, directory in the run.
    pub stage: &'static str,
    /// The program's subcommand, where it has some.
    pub subcommand: Option<&'static str>,
    /// What it fans out over.
    pub fan_out: FanOut,
    /// What it needs of a machine.
    pub resources: Resources,
    /// The steps that it waits for.
    pub after: &'static [&'static str],
    /// What it is told, besides `--run`.
    pub arguments: &'static [Argument],
}

/// Lists and groups the shards.
pub const PARTITION: Step = Step {
    name: "partition",
    stage: "partition",
    subcommand: None,
    fan_out: FanOut::One,
    resources: Resources::Light,
    after: &[],
    arguments: &[
        argument("--input", "input"),
        argument("--shards-per-partition", "shards-per-partition"),
    ],
};

/// Indexes and measures the samples.
pub const READ: Step = Step {
    name: "read",
    stage: "read",
    subcommand: None,
    fan_out: FanOut::Partitions,
    resources: Resources::Cpu,
    after: &["partition"],
    arguments: &[
        argument("--min-side", "min-side"),
        argument("--max-aspect", "max-aspect"),
    ],
};

/// Runs the image encoder.
pub const EMBED: Step = Step {
    name: "embed",
    stage: "embed",
    subcommand: None,
    fan_out: FanOut::Partitions,
    resources: Resources::Model,
    after: &["read"],
    arguments: &[
        argument("--model", "embedder"),
        argument("--precision", "precision"),
        argument("--exact-decoding", "exact-decoding"),
        argument("--models", "models"),
    ],
};

/// Scores quality.
pub const AESTHETIC: Step = Step {
    name: "aesthetic",
    stage: "aesthetic",
    subcommand: None,
    fan_out: FanOut::Partitions,
    resources: Resources::Model,
    after: &["embed"],
    arguments: &[
        argument("--model", "aesthetic"),
        argument("--min-score", "min-aesthetic"),
        argument("--exact-decoding", "exact-decoding"),
        argument("--models", "models"),
    ],
};

/// Scores what is not safe for work.
pub const NSFW: Step = Step {
    name: "nsfw",
    stage: "nsfw",
    subcommand: None,
    fan_out: FanOut::Partitions,
    resources: Resources::Model,
    after: &["embed"],
    arguments: &[
        argument("--model", "nsfw"),
        argument("--max-score", "max-nsfw"),
        argument("--exact-decoding", "exact-decoding"),
        argument("--models", "models"),
    ],
};

/// Finds equal bytes.
pub const DEDUP_EXACT: Step = Step {
    name: "dedup-exact",
    stage: "dedup",
    subcommand: Some("exact"),
    fan_out: FanOut::HashRanges,
    resources: Resources::Cpu,
    after: &["aesthetic", "nsfw"],
    arguments: &[argument("--ranges", "ranges")],
};

/// Finds near perceptual hashes.
pub const DEDUP_PERCEPTUAL: Step = Step {
    name: "dedup-perceptual",
    stage: "dedup",
    subcommand: Some("perceptual"),
    fan_out: FanOut::One,
    resources: Resources::Cpu,
    after: &["dedup-exact"],
    arguments: &[argument("--max-distance", "max-distance")],
};

/// Fits k-means on a sample of the embeddings.
pub const DEDUP_FIT: Step = Step {
    name: "dedup-fit",
    stage: "dedup",
    subcommand: Some("fit"),
    fan_out: FanOut::One,
    resources: Resources::Cpu,
    after: &["embed"],
    arguments: &[
        argument("--clusters", "clusters"),
        argument("--groups", "groups"),
    ],
};

/// Puts each embedding into its cluster.
pub const DEDUP_ASSIGN: Step = Step {
    name: "dedup-assign",
    stage: "dedup",
    subcommand: Some("assign"),
    fan_out: FanOut::Partitions,
    resources: Resources::Cpu,
    after: &["dedup-fit", "dedup-perceptual"],
    arguments: &[],
};

/// Compares embeddings inside clusters.
pub const DEDUP_MATCH: Step = Step {
    name: "dedup-match",
    stage: "dedup",
    subcommand: Some("match"),
    fan_out: FanOut::ClusterGroups,
    resources: Resources::Cpu,
    after: &["dedup-assign"],
    arguments: &[
        argument("--eps", "eps"),
        argument("--keep", "keep"),
        argument("--groups", "groups"),
    ],
};

/// Joins the filters' decisions.
pub const EXPORT_DECIDE: Step = Step {
    name: "export-decide",
    stage: "export",
    subcommand: Some("decide"),
    fan_out: FanOut::Partitions,
    resources: Resources::Light,
    after: &["dedup-match"],
    arguments: &[],
};

/// Packs the kept samples into output shards.
pub const EXPORT_PLAN: Step = Step {
    name: "export-plan",
    stage: "export",
    subcommand: Some("plan"),
    fan_out: FanOut::One,
    resources: Resources::Light,
    after: &["export-decide"],
    arguments: &[
        argument("--output", "output"),
        argument("--images-per-shard", "images-per-shard"),
        argument("--bytes-per-shard", "bytes-per-shard"),
        argument("--embeddings", "embeddings"),
    ],
};

/// Copies the kept samples.
pub const EXPORT_WRITE: Step = Step {
    name: "export-write",
    stage: "export",
    subcommand: Some("write"),
    fan_out: FanOut::OutputShards,
    resources: Resources::Copy,
    after: &["export-plan"],
    arguments: &[],
};

/// Writes the index and the card of the curated dataset.
pub const EXPORT_INDEX: Step = Step {
    name: "export-index",
    stage: "export",
    subcommand: Some("index"),
    fan_out: FanOut::One,
    resources: Resources::Light,
    after: &["export-write"],
    arguments: &[],
};

/// Writes the page about the run.
pub const REPORT: Step = Step {
    name: "report",
    stage: "report",
    subcommand: None,
    fan_out: FanOut::One,
    resources: Resources::Light,
    after: &["export-index"],
    arguments: &[],
};

/// All steps, each after those it waits for.
pub const STEPS: &[Step] = &[
    PARTITION,
    READ,
    EMBED,
    AESTHETIC,
    NSFW,
    DEDUP_EXACT,
    DEDUP_PERCEPTUAL,
    DEDUP_FIT,
    DEDUP_ASSIGN,
    DEDUP_MATCH,
    EXPORT_DECIDE,
    EXPORT_PLAN,
    EXPORT_WRITE,
    EXPORT_INDEX,
    REPORT,
];

/// The values of the parameters that were given, by name.
pub type Values = BTreeMap<&'static str, Vec<String>>;

impl Step {
    /// Its command line, the program's name first. A parameter that was not given is left out: the
    /// stage's own default holds.
    pub fn command(&self, run: &str, values: &Values) -> Vec<String> {
        let mut line = vec![format!("sluice-{}", self.stage)];
        line.extend(self.subcommand.map(str::to_owned));
        line.extend(["--run".to_owned(), run.to_owned()]);
        for argument in self.arguments {
            match values.get(argument.parameter).map(Vec::as_slice) {
                None | Some([]) => {}
                Some([on]) if on == "true" && argument.is_switch() => {
                    line.push(argument.flag.to_owned());
                }
                Some([_]) if argument.is_switch() => {}
                // `--min-score -1` would be read as another option.
                Some([value]) if value.starts_with('-') => {
                    line.push(format!("{}={value}", argument.flag));
                }
                Some(values) => {
                    line.push(argument.flag.to_owned());
                    line.extend(values.iter().cloned());
                }
            }
        }
        line
    }
}

impl Argument {
    fn is_switch(&self) -> bool {
        let parameter = PARAMETERS.iter().find(|p| p.name == self.parameter);
        parameter.is_some_and(|parameter| parameter.value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_step_comes_after_what_it_waits_for() {
        for (index, step) in STEPS.iter().enumerate() {
            for after in step.after {
                assert!(
                    STEPS[..index].iter().any(|earlier| earlier.name == *after),
                    "{} waits for {after}, which does not come before it",
                    step.name
                );
            }
        }
    }

    #[test]
    fn every_argument_has_its_parameter_and_every_parameter_is_used() {
        let used: BTreeSet<&str> = STEPS
            .iter()
            .flat_map(|step| step.arguments)
            .map(|argument| argument.parameter)
            .collect();
        let known: BTreeSet<&str> = PARAMETERS.iter().map(|p| p.name).collect();
        assert_eq!(used, known);
    }

    #[test]
    fn commands_hold_what_was_given() {
        let values = Values::from([
            ("input", vec!["a/*.tar".to_owned(), "b".to_owned()]),
            ("min-aesthetic", vec!["-1.5".to_owned()]),
            ("embeddings", vec!["true".to_owned()]),
        ]);
        let line = |step: Step| step.command("runs/a", &values).join(" ");
        assert_eq!(
            line(PARTITION),
            "sluice-partition --run runs/a --input a/*.tar b"
        );
        assert_eq!(
            line(AESTHETIC),
            "sluice-aesthetic --run runs/a --min-score=-1.5"
        );
        assert_eq!(
            line(EXPORT_PLAN),
            "sluice-export plan --run runs/a --embeddings"
        );
    }

    #[test]
    fn names_are_stage_and_subcommand() {
        for step in STEPS {
            let name = match step.subcommand {
                Some(sub) => format!("{}-{sub}", step.stage),
                None => step.stage.to_owned(),
            };
            assert_eq!(step.name, name);
        }
    }
}
