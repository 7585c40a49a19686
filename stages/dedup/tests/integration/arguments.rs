//! Command lines: what is refused when they are parsed or checked, and how they are wired.

use clap::{CommandFactory, Parser};
use sluice_dedup::{Args, Methods};
use sluice_harness::{Program, Wiring, check_step, wiring};
use sluice_manifest::rows::Method;
use sluice_manifest::{Role, ScoreColumn, StepName};
use sluice_run::{Embedder, StepOutputs, Upstream};

fn words(line: &str) -> Vec<String> {
    let line = format!("sluice-dedup {line} --run memory://none");
    line.split_whitespace().map(str::to_owned).collect()
}

fn methods(line: &str) -> Methods {
    let args = Args::try_parse_from(words(line)).unwrap();
    args.command.stage_args().unwrap().methods()
}

#[test]
fn wrong_values_are_refused_when_they_are_parsed() {
    for line in [
        "match --eps 15",
        "match --eps 2.0001",
        "match --eps NaN",
        "match --eps inf",
        "match --eps=-inf",
        "match --eps -1",
        "match --eps=-0.01",
        "match --eps x",
        "match --groups 0",
        "match --keep worst",
        "match --rank-by aesthetic",
        "exact --ranges 0",
        "exact --ranges 65537",
        "exact --methods x",
        "exact --methods=exact,",
        "exact --rank-by A",
        "exact --embeddings embed",
        "exact --filters aesthetic",
        "perceptual --max-distance 65",
        "perceptual --max-distance -1",
        "fit --clusters 0",
        "fit --sample 0",
        "fit --rank-by aesthetic",
        "fit --embeddings a/b",
        "assign --survivors-of A",
        "fit --against x",
        "index",
        "index --output x --input y",
    ] {
        assert!(Args::try_parse_from(words(line)).is_err(), "{line}");
    }
    let mut empty = words("exact");
    empty.extend(["--methods".to_owned(), String::new()]);
    assert!(Args::try_parse_from(empty).is_err());
}

#[test]
fn eps_is_anything_from_0_to_2() {
    for (line, threshold) in [
        ("match --eps 2", -1.0),
        ("match --eps=0.15", 0.85),
        ("match --eps 0", 1.0 - 1e-6),
        ("match --eps=-0", 1.0 - 1e-6),
    ] {
        let args = Args::try_parse_from(words(line)).unwrap();
        let sluice_dedup::Command::Match(args) = args.command else {
            panic!("another subcommand");
        };
        assert_eq!(args.eps.unwrap().threshold(), threshold, "{line}");
    }
}

#[test]
fn order_and_repetition_of_methods_do_not_matter() {
    let all = Methods::new([Method::Exact, Method::Perceptual, Method::Semantic]);
    assert_eq!(methods("exact"), all);
    for line in [
        "exact --methods=semantic,exact,perceptual",
        "exact --methods=semantic --methods=perceptual,exact,exact",
    ] {
        assert_eq!(methods(line), all, "{line}");
    }
    let json = serde_json::to_string(&methods("exact --methods semantic,exact")).unwrap();
    assert_eq!(json, r#"["exact","semantic"]"#);
}

#[test]
fn each_subcommand_is_an_operation() {
    let command = Args::command();
    let names: Vec<_> = command
        .get_subcommands()
        .map(|sub| sub.get_name())
        .collect();
    let operations = Args::OPERATIONS.iter();
    let operations: Vec<_> = operations
        .filter_map(|operation| operation.subcommand)
        .collect();
    // An index is made of a run that is done.
    assert_eq!(names.last(), Some(&"index"));
    assert_eq!(operations, names[..names.len() - 1]);
    assert_eq!(Args::ROLE, Role::Decider);
    for name in operations {
        let args = Args::try_parse_from(words(name)).unwrap();
        assert_eq!(args.node().operation.subcommand, Some(name));
        assert_eq!(args.node().step.as_str(), "dedup");
    }
    let index = Args::try_parse_from(words("index --output x --survivors-of dedup")).unwrap();
    let node = index.node();
    assert_eq!(node.operation.subcommand, Some("index"));
    assert_eq!(node.survivors_of, Some(StepName::fixed("dedup")));
    assert_ne!(node.step.as_str(), "dedup");
}

#[test]
fn methods_choose_the_subcommands() {
    let active = |list: &str| -> Vec<&str> {
        let operations = Args::OPERATIONS.iter();
        let names = operations.filter_map(|operation| operation.subcommand);
        let is_active = |name: &&str| {
            let line = words(&format!("{name} --methods={list}"));
            wiring::<Args>(&line).unwrap().is_active
        };
        names.filter(is_active).collect()
    };
    assert_eq!(active("exact"), ["exact"]);
    assert_eq!(active("perceptual,exact"), ["exact", "pairs", "perceptual"]);
    assert_eq!(active("semantic"), ["fit", "assign", "match"]);
}

#[test]
fn the_steps_that_are_read_are_known() {
    let needs = |line: &str| -> Vec<String> {
        let Wiring { needs, .. } = wiring::<Args>(&words(line)).unwrap();
        needs.iter().map(StepName::to_string).collect()
    };
    assert!(needs("exact").is_empty() && needs("match").is_empty());
    assert_eq!(needs("perceptual --rank-by nsfw.porn"), ["nsfw"]);
    assert_eq!(needs("fit"), ["embed"]);
    assert_eq!(needs("assign --embeddings clip --rank-by a"), ["clip", "a"]);
}

#[test]
fn scores_and_embeddings_that_no_step_gives_are_refused() {
    let mut upstream = Upstream::default();
    let gives = StepOutputs {
        scores: vec![ScoreColumn::named(ScoreColumn::ONLY)],
        ..StepOutputs::default()
    };
    upstream.insert(StepName::fixed("aesthetic"), gives);
    let embedder = Embedder {
        model: "clip".into(),
        dimension: None,
    };
    let gives = StepOutputs {
        embedder: Some(embedder),
        ..StepOutputs::default()
    };
    upstream.insert(StepName::fixed("embed"), gives);
    let check = |line: &str| check_step::<Args>(&words(line), &upstream);
    for line in ["exact --rank-by aesthetic", "fit", "assign", "match"] {
        let gives = StepOutputs {
            has_clusters: ["assign", "match"].contains(&line),
            ..StepOutputs::default()
        };
        assert_eq!(check(line).unwrap(), gives, "{line}");
    }
    for (line, named) in [
        ("exact --rank-by beauty", "beauty"),
        ("perceptual --rank-by aesthetic.x", "aesthetic"),
        ("assign --rank-by embed", "embed"),
        ("assign --embeddings aesthetic", "aesthetic"),
        ("fit --embeddings clip", "clip"),
    ] {
        let error = check(line).unwrap_err().to_string();
        assert!(error.contains(named), "{line}: {error}");
    }
}

#[test]
fn hashes_that_read_does_not_compute_are_refused() {
    let check = |hashes: &[&str], line: &str| {
        let mut upstream = Upstream::default();
        let gives = StepOutputs {
            hashes: Some(hashes.iter().map(|&hash| hash.to_owned()).collect()),
            ..StepOutputs::default()
        };
        upstream.insert(StepName::read(), gives);
        check_step::<Args>(&words(line), &upstream)
    };
    for (hash, line) in [
        ("pdq", "perceptual --hash pdq"),
        ("pdq", "pairs --hash pdq --ranges 2"),
        ("transformed", "perceptual --transformations hflip"),
    ] {
        check(&["md5", hash], line).unwrap();
        let error = check(&["md5"], line).unwrap_err().to_string();
        assert!(error.contains(hash), "{line}: {error}");
    }
}
