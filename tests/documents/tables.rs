//! Tables that equal the types they describe.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::{DataType, Field, Schema};
use clap::{Arg, ArgAction, Args};
use sluice::programs::PROGRAMS;
use sluice_harness::{Common, StepArgs};
use sluice_manifest::rows::{
    CaptionsRow, CuratedRow, DecisionRow, DuplicateRow, FileRow, FilterRow, GroupRow,
    OutputPlanRow, PairRow, PlanRow, Row, SampleRow, ShardRow, SkippedRow, assignments, centroids,
    embeddings, scores,
};
use sluice_manifest::{Class, ExitStatus, Keep, ReasonKind, ScoreColumn};

use crate::document;

/// Returns a cell without the backticks around code.
fn plain(cell: &str) -> String {
    cell.replace('`', "")
}

/// Returns a column's type in the notation of the documents.
fn type_name(field: &Field) -> String {
    let name = match field.data_type() {
        DataType::Utf8 => "string".to_owned(),
        DataType::Boolean => "bool".to_owned(),
        DataType::FixedSizeList(item, _) => format!("{}[d]", type_name(item)),
        DataType::List(item) => format!("list of {}", type_name(item)),
        DataType::Struct(fields) => {
            let inner = fields
                .iter()
                .map(|field| format!("{} {}", field.name(), type_name(field)));
            format!("{{{}}}", inner.collect::<Vec<_>>().join(", "))
        }
        number => number.to_string().to_lowercase(),
    };
    if field.is_nullable() {
        format!("{name}?")
    } else {
        name
    }
}

fn check_columns(path: &str, heading: &str, fields: &[Field]) {
    let (head, rows) = document(path).table(heading);
    assert_eq!(head, ["column", "type", "meaning"], "{path}, {heading}");
    let told: Vec<(String, String)> = rows
        .iter()
        .map(|row| (plain(&row[0]), plain(&row[1])))
        .collect();
    let are: Vec<(String, String)> = fields
        .iter()
        .map(|f| (f.name().clone(), type_name(f)))
        .collect();
    assert_eq!(told, are, "{path}, {heading}");
    assert!(
        rows.iter().all(|row| !row[2].is_empty()),
        "{path}, {heading}: what a column means"
    );
}

#[test]
fn columns() {
    let manifest = "shared/manifest/README.md";
    let of = |schema: Schema| -> Vec<Field> {
        schema
            .fields()
            .iter()
            .map(|field| (**field).clone())
            .collect()
    };
    let one_score = || of(scores([ScoreColumn::ONLY]));
    let tables = [
        (
            "stages/partition/README.md",
            "`partition/plan`",
            PlanRow::fields(),
        ),
        (
            "stages/partition/README.md",
            "`partition/files`",
            FileRow::fields(),
        ),
        (
            "stages/read/README.md",
            "`read/images`",
            SampleRow::fields(),
        ),
        ("stages/read/README.md", "`read/shards`", ShardRow::fields()),
        (
            "stages/read/README.md",
            "`read/skipped`",
            SkippedRow::fields(),
        ),
        (
            "stages/embed/README.md",
            "`embed/embeddings`",
            of(embeddings(3)),
        ),
        (
            "stages/aesthetic/README.md",
            "`aesthetic/scores`",
            one_score(),
        ),
        ("stages/nsfw/README.md", "`nsfw/scores`", one_score()),
        ("stages/score/README.md", "`score/scores`", one_score()),
        (
            "stages/filter/README.md",
            "`filter/decisions`",
            FilterRow::fields(),
        ),
        (
            "stages/dedup/README.md",
            "`dedup/duplicates`",
            DuplicateRow::fields(),
        ),
        ("stages/dedup/README.md", "`dedup/pairs`", PairRow::fields()),
        (
            "stages/dedup/README.md",
            "`dedup/centroids`",
            of(centroids(3)),
        ),
        (
            "stages/dedup/README.md",
            "`dedup/assignments`",
            of(assignments(3)),
        ),
        (manifest, "`export/decisions`", DecisionRow::fields()),
        (manifest, "`export/plan`", OutputPlanRow::fields()),
        (manifest, "`export/captions`", CaptionsRow::fields()),
        (manifest, "`export/groups`", GroupRow::fields()),
        (manifest, "`curated`", CuratedRow::fields()),
    ];
    for (path, heading, fields) in tables {
        check_columns(path, heading, &fields);
    }
}

#[test]
fn reasons() {
    let (_, rows) = document("shared/manifest/README.md").table("Reasons");
    let told: Vec<[String; 3]> = rows
        .iter()
        .map(|row| [plain(&row[0]), row[1].clone(), row[2].clone()])
        .collect();
    let of = |kind: &ReasonKind| [kind.as_str(), kind.stage(), kind.text()].map(str::to_owned);
    assert_eq!(told, ReasonKind::ALL.iter().map(of).collect::<Vec<_>>());
}

#[test]
fn reasons_of_each_stage() {
    let stages: BTreeSet<&str> = ReasonKind::ALL.iter().map(|kind| kind.stage()).collect();
    for stage in stages {
        let path = format!("stages/{stage}/README.md");
        let (_, rows) = document(&path).table("What it drops");
        let told: Vec<String> = rows.iter().map(|row| plain(&row[0])).collect();
        let own = ReasonKind::ALL.iter().filter(|kind| kind.stage() == stage);
        assert_eq!(
            told,
            own.map(|kind| kind.as_str()).collect::<Vec<_>>(),
            "{path}"
        );
    }
}

#[test]
fn exit_codes() {
    // Extend this for a new exit code: the match is exhaustive.
    let kind = |status: ExitStatus| match status {
        ExitStatus::Done => "",
        ExitStatus::Bug => Class::Bug.as_str(),
        ExitStatus::Usage => Class::Usage.as_str(),
        ExitStatus::Data => Class::Data.as_str(),
        ExitStatus::TryAgain => Class::Transient.as_str(),
        ExitStatus::Stopped => Class::Stopped.as_str(),
    };
    let all = [
        ExitStatus::Done,
        ExitStatus::Bug,
        ExitStatus::Usage,
        ExitStatus::Data,
        ExitStatus::TryAgain,
        ExitStatus::Stopped,
    ];
    for class in [
        Class::Bug,
        Class::Usage,
        Class::Data,
        Class::Transient,
        Class::Stopped,
    ] {
        assert_eq!(kind(class.exit_status()), class.as_str());
    }
    let are: Vec<[String; 2]> = all
        .map(|status| [(status as u8).to_string(), kind(status).to_owned()])
        .into();
    for path in ["README.md", "shared/manifest/README.md"] {
        let (_, rows) = document(path).table("Exit codes");
        let told: Vec<[String; 2]> = rows
            .iter()
            .map(|row| [row[0].clone(), plain(&row[1])])
            .collect();
        assert_eq!(told, are, "{path}");
        let again: Vec<&str> = rows
            .iter()
            .filter(|row| row[3] == "yes")
            .map(|row| row[0].as_str())
            .collect();
        assert_eq!(again, ["75"], "{path}");
    }
}

/// Returns flag, variable and default in the notation of the documents.
fn flag(arg: &Arg) -> Option<[String; 3]> {
    let name = arg
        .get_long()
        .filter(|name| !["help", "version"].contains(name))?;
    let variable = arg
        .get_env()
        .map(|name| name.to_string_lossy().into_owned());
    let defaults: Vec<_> = arg
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy())
        .collect();
    let default = match (arg.get_action(), arg.is_required_set()) {
        (ArgAction::SetTrue, _) => String::new(),
        (_, true) => "required".to_owned(),
        (_, false) if defaults.is_empty() => "none".to_owned(),
        (_, false) => defaults.join(","),
    };
    Some([format!("--{name}"), variable.unwrap_or_default(), default])
}

fn flags(command: &clap::Command) -> Vec<[String; 3]> {
    command.get_arguments().filter_map(flag).collect()
}

fn flags_of<A: Args>() -> Vec<[String; 3]> {
    flags(&A::augment_args(clap::Command::new("any")))
}

fn told_flags(path: &str, heading: &str) -> Vec<[String; 3]> {
    let (_, rows) = document(path).table(heading);
    let rows = rows.iter();
    rows.map(|row| [plain(&row[0]), plain(&row[1]), row[2].clone()])
        .collect()
}

#[test]
fn flags_of_every_program() {
    let harness = "shared/harness/README.md";
    let common = flags_of::<Common>();
    assert_eq!(told_flags(harness, "Flags of every program"), common);
    let mut after_read = flags_of::<StepArgs>();
    after_read.retain(|flag| !common.contains(flag));
    assert_eq!(
        told_flags(harness, "Flags of the steps after read"),
        after_read
    );
}

/// A stage's own flags by subcommand and name: variable and default.
type Flags = BTreeMap<(String, String), [String; 2]>;

fn own_flags(command: &clap::Command) -> Flags {
    let shared = flags_of::<StepArgs>();
    let commands = std::iter::once((String::new(), command.clone()));
    let subcommands = command.get_subcommands();
    let subcommands = subcommands.map(|sub| (sub.get_name().to_owned(), sub.clone()));
    let mut own = Flags::new();
    for (name, command) in commands.chain(subcommands) {
        for [flag, variable, default] in flags(&command) {
            if !shared.iter().any(|shared| shared[0] == flag) {
                own.insert((name.clone(), flag), [variable, default]);
            }
        }
    }
    own
}

#[test]
fn flags_of_each_stage() {
    let shared = flags_of::<StepArgs>();
    for program in PROGRAMS {
        let are = own_flags(&(program.command)());
        if are.is_empty() {
            continue;
        }
        let path = format!("stages/{}/README.md", program.stage());
        let (head, rows) = document(&path).table("Flags");
        let column = |name: &str| head.iter().position(|column| column == name);
        let subcommand = column("step").or(column("subcommand"));
        let flag_column =
            column("flag").unwrap_or_else(|| panic!("{path}: a column for the flags"));
        let mut told = Flags::new();
        for row in &rows {
            let flag = plain(&row[flag_column]);
            let flag = flag.split([' ', '[']).next().unwrap_or_default().to_owned();
            if shared.iter().any(|shared| shared[0] == flag) {
                continue;
            }
            let name = subcommand.map_or_else(String::new, |at| plain(&row[at]));
            let of = are.get(&(name.clone(), flag.clone()));
            let of = of.unwrap_or_else(|| panic!("{path}: {name} has no flag {flag}"));
            let cell = |name: &str, known: &str| match column(name) {
                Some(at) => plain(&row[at]),
                None => known.to_owned(),
            };
            let cells = [cell("variable", &of[0]), cell("default", &of[1])];
            told.insert((name, flag), cells);
        }
        assert_eq!(told, are, "{path}");
    }
}

#[test]
fn models() {
    let (_, rows) = document("shared/model/README.md").table("Catalogue");
    let told: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| plain(cell)).collect())
        .collect();
    let of = |spec: &sluice_model::Spec| -> Vec<String> {
        vec![
            spec.name.clone(),
            spec.kind.as_str().to_owned(),
            spec.embedder.clone().unwrap_or_default(),
            spec.dimension
                .map(|dimension| dimension.to_string())
                .unwrap_or_default(),
            spec.eps.map(|eps| eps.to_string()).unwrap_or_default(),
            of_scores(spec, |score| {
                score.threshold.map(|threshold| threshold.to_string())
            }),
            of_scores(spec, |score| {
                Some(match score.keep {
                    Keep::AtLeast => "at-least".to_owned(),
                    Keep::Below => "below".to_owned(),
                })
            }),
            spec.licence.clone(),
        ]
    };
    assert_eq!(
        told,
        sluice_model::catalogue().iter().map(of).collect::<Vec<_>>()
    );
}

/// Returns a property of each score of a model, as text.
fn of_scores(
    spec: &sluice_model::Spec,
    text: impl Fn(&sluice_model::ScoreSpec) -> Option<String>,
) -> String {
    let texts: Vec<String> = spec.score_outputs().filter_map(text).collect();
    texts.join(", ")
}
