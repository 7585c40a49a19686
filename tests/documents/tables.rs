//! Tables that equal what they describe.

use arrow::datatypes::{DataType, Field, Schema};
use clap::{Arg, ArgAction, Args};
use sluice_harness::Common;
use sluice_manifest::rows::{
    CuratedRow, DecisionRow, DuplicateRow, OutputPlanRow, PlanRow, Row, SampleRow, ScoreRow,
    ShardRow, SkippedRow, assignments, centroids, embeddings,
};
use sluice_manifest::{Class, ExitStatus, Reason};

use crate::{commands, document};

/// A cell without the marks around code.
fn plain(cell: &str) -> String {
    cell.replace('`', "")
}

/// A column's type as the documents write it.
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
    match field.is_nullable() {
        true => format!("{name}?"),
        false => name,
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
    let tables = [
        (
            "stages/partition/README.md",
            "`partition/plan`",
            PlanRow::fields(),
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
            ScoreRow::fields(),
        ),
        ("stages/nsfw/README.md", "`nsfw/scores`", ScoreRow::fields()),
        (
            "stages/dedup/README.md",
            "`dedup/duplicates`",
            DuplicateRow::fields(),
        ),
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
    let of = |reason: &Reason| [reason.as_str(), reason.stage(), reason.text()].map(str::to_owned);
    assert_eq!(told, Reason::ALL.iter().map(of).collect::<Vec<_>>());
}

#[test]
fn reasons_of_each_stage() {
    for stage in ["read", "embed", "aesthetic", "nsfw", "dedup"] {
        let path = format!("stages/{stage}/README.md");
        let (_, rows) = document(&path).table("What it drops");
        let told: Vec<String> = rows.iter().map(|row| plain(&row[0])).collect();
        let own = Reason::ALL.iter().filter(|reason| reason.stage() == stage);
        assert_eq!(
            told,
            own.map(|reason| reason.as_str()).collect::<Vec<_>>(),
            "{path}"
        );
    }
}

#[test]
fn exit_codes() {
    // A new exit code has to be added here: the match is exhaustive.
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

/// Flag, variable and default, as the documents write them.
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

fn common() -> Vec<[String; 3]> {
    let command = Common::augment_args(clap::Command::new("any"));
    command.get_arguments().filter_map(flag).collect()
}

#[test]
fn flags_of_every_program() {
    let (_, rows) = document("shared/harness/README.md").table("Flags of every program");
    let told: Vec<[String; 3]> = rows
        .iter()
        .map(|row| [plain(&row[0]), plain(&row[1]), row[2].clone()])
        .collect();
    assert_eq!(told, common());
}

#[test]
fn flags_of_each_stage() {
    let common = common();
    let own = |command: &clap::Command| -> Vec<[String; 3]> {
        let flags = command.get_arguments().filter_map(flag);
        flags
            .filter(|flag| !common.iter().any(|common| common[0] == flag[0]))
            .collect()
    };
    for stage in [
        "partition",
        "read",
        "embed",
        "aesthetic",
        "nsfw",
        "dedup",
        "export",
    ] {
        let command = commands::parser(&format!("sluice-{stage}"));
        let mut are: Vec<(String, [String; 3])> = Vec::new();
        are.extend(own(&command).into_iter().map(|flag| (String::new(), flag)));
        for sub in command.get_subcommands() {
            are.extend(
                own(sub)
                    .into_iter()
                    .map(|flag| (sub.get_name().to_owned(), flag)),
            );
        }
        let path = format!("stages/{stage}/README.md");
        let (head, rows) = document(&path).table("Flags");
        let column = |name: &str| head.iter().position(|column| column == name);
        let flag_column =
            column("flag").unwrap_or_else(|| panic!("{path}: a column for the flags"));
        assert_eq!(rows.len(), are.len(), "{path}: {are:?}");
        for (row, (sub, [flag, variable, default])) in rows.iter().zip(are) {
            let cell = |name: &str| column(name).map(|at| plain(&row[at]));
            let told = plain(&row[flag_column]);
            assert_eq!(told.split(' ').next(), Some(flag.as_str()), "{path}");
            assert_eq!(cell("step").unwrap_or_default(), sub, "{path}, {flag}");
            assert_eq!(
                cell("variable").unwrap_or(variable.clone()),
                variable,
                "{path}, {flag}"
            );
            assert_eq!(
                cell("default").unwrap_or(default.clone()),
                default,
                "{path}, {flag}"
            );
        }
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
            spec.score
                .as_ref()
                .map(|score| score.threshold.to_string())
                .unwrap_or_default(),
            spec.licence.clone(),
        ]
    };
    assert_eq!(
        told,
        sluice_model::catalogue().iter().map(of).collect::<Vec<_>>()
    );
}
