//! The DAG: which steps there are, what each waits for, and what it fans out over.
//!
//! `sluice run` executes this table; the workflow engines' files are held against it.

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
    /// The steps that it waits for.
    pub after: &'static [&'static str],
}

const fn step(
    name: &'static str,
    stage: &'static str,
    subcommand: Option<&'static str>,
    fan_out: FanOut,
    after: &'static [&'static str],
) -> Step {
    Step {
        name,
        stage,
        subcommand,
        fan_out,
        after,
    }
}

/// Lists and groups the shards.
pub const PARTITION: Step = step("partition", "partition", None, FanOut::One, &[]);
/// Indexes and measures the samples.
pub const READ: Step = step("read", "read", None, FanOut::Partitions, &["partition"]);
/// Runs the image encoder.
pub const EMBED: Step = step("embed", "embed", None, FanOut::Partitions, &["read"]);
/// Scores quality.
pub const AESTHETIC: Step = step(
    "aesthetic",
    "aesthetic",
    None,
    FanOut::Partitions,
    &["embed"],
);
/// Scores what is not safe for work.
pub const NSFW: Step = step("nsfw", "nsfw", None, FanOut::Partitions, &["embed"]);
/// Finds equal bytes.
pub const DEDUP_EXACT: Step = step(
    "dedup-exact",
    "dedup",
    Some("exact"),
    FanOut::HashRanges,
    &["aesthetic", "nsfw"],
);
/// Finds near perceptual hashes.
pub const DEDUP_PERCEPTUAL: Step = step(
    "dedup-perceptual",
    "dedup",
    Some("perceptual"),
    FanOut::One,
    &["dedup-exact"],
);
/// Fits k-means on a sample of the embeddings.
pub const DEDUP_FIT: Step = step("dedup-fit", "dedup", Some("fit"), FanOut::One, &["embed"]);
/// Puts each embedding into its cluster.
pub const DEDUP_ASSIGN: Step = step(
    "dedup-assign",
    "dedup",
    Some("assign"),
    FanOut::Partitions,
    &["dedup-fit", "dedup-perceptual"],
);
/// Compares embeddings inside clusters.
pub const DEDUP_MATCH: Step = step(
    "dedup-match",
    "dedup",
    Some("match"),
    FanOut::ClusterGroups,
    &["dedup-assign"],
);
/// Joins the filters" decisions.
pub const EXPORT_DECIDE: Step = step(
    "export-decide",
    "export",
    Some("decide"),
    FanOut::Partitions,
    &["dedup-match"],
);
/// Packs the kept samples into output shards.
pub const EXPORT_PLAN: Step = step(
    "export-plan",
    "export",
    Some("plan"),
    FanOut::One,
    &["export-decide"],
);
/// Copies the kept samples.
pub const EXPORT_WRITE: Step = step(
    "export-write",
    "export",
    Some("write"),
    FanOut::OutputShards,
    &["export-plan"],
);
/// Writes the index and the card of the curated dataset.
pub const EXPORT_INDEX: Step = step(
    "export-index",
    "export",
    Some("index"),
    FanOut::One,
    &["export-write"],
);
/// Writes the page about the run.
pub const REPORT: Step = step("report", "report", None, FanOut::One, &["export-index"]);

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

#[cfg(test)]
mod tests {
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
