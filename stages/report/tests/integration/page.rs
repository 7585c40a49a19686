//! What the page shows as a run goes on.

use clap::Parser;
use sluice_manifest::{Reason, dag};

use crate::support::{HOSTILE, Run};

fn complete(name: &str) -> Run {
    let run = Run::new(name);
    run.read();
    run.score(&dag::AESTHETIC, "min_score", Reason::BelowMinScore);
    run.deduplicate();
    run.decide();
    run
}

#[test]
fn steps_that_were_not_run_are_named() {
    let run = Run::new("report-begun");
    let page = run.report();
    assert!(page.contains("sluice-read has not been run"), "{page}");
    run.read();
    let page = run.report();
    for missing in [
        "sluice-export decide has not been run",
        "sluice-aesthetic has not been run",
        "sluice-nsfw has not been run",
        "sluice-dedup has not been run",
        "No output has been written",
    ] {
        assert!(page.contains(missing), "{missing}\n{page}");
    }
    assert!(!page.contains("sluice-read has not been run"), "{page}");
}

#[test]
fn the_page_tells_the_run() {
    let page = complete("report-complete").report();
    for part in [
        "below-min-score",
        "exact-duplicate",
        "not-an-image",
        "torn.tar",
        "threshold 0.5",
        "<rect class=\"kept\"",
        "<rect class=\"dropped\"",
        "2 images</p>",
        "whole/0004",
        "made-up",
    ] {
        let part = part.replace("2 images</p>", "2 images dropped because of it");
        assert!(page.contains(&part), "{part}\n{page}");
    }
}

#[test]
fn names_of_the_dataset_are_never_markup() {
    let page = complete("report-hostile").report();
    assert!(page.contains("alert("), "the name is shown");
    assert!(!page.contains(HOSTILE), "{page}");
    for outside in ["<script", "http://", "https://", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}\n{page}");
    }
}

#[test]
fn tags_are_closed_in_order() {
    let page = complete("report-tags").report();
    let mut open: Vec<&str> = Vec::new();
    let body = page.split_once("<body>").unwrap().1;
    for tag in body.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').unwrap();
        let name = tag.split([' ', '/']).find(|part| !part.is_empty()).unwrap();
        if let Some(closed) = tag.strip_prefix('/') {
            let expected = open.pop().unwrap_or("body");
            assert!(
                closed == expected || open.is_empty(),
                "</{closed}> in <{expected}>"
            );
        } else if !tag.ends_with('/') && name != "br" {
            open.push(name);
        }
    }
}

#[test]
fn the_same_run_gives_the_same_page_once() {
    let run = complete("report-again");
    let first = run.report();
    let done = run.step::<sluice_report::Args>(&["sluice-report"]);
    assert_eq!((done.units, done.up_to_date), (1, 1));
    let done = run.step::<sluice_report::Args>(&["sluice-report", "--force"]);
    assert_eq!((done.units, done.up_to_date), (1, 0));
    assert_eq!(first, run.report());
}

#[test]
fn the_readmes_command_lines_parse() {
    let readme = include_str!("../../README.md");
    let lines = readme.lines().filter(|line| line.starts_with("sluice-"));
    let mut count = 0;
    for line in lines {
        sluice_report::Args::try_parse_from(line.split_whitespace()).unwrap();
        count += 1;
    }
    assert!(count > 0);
}
