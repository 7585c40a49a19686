//! The content of the page as a run progresses.

use clap::Parser;
use sluice_manifest::{Unit, UnitKind};

use crate::support::{HOSTILE, Run};

fn complete(name: &str) -> Run {
    let run = Run::new(name);
    run.read();
    run.score("made");
    run.filter("usable");
    run.deduplicate("twins", "usable");
    run.decide(Some("twins"));
    run
}

/// Returns the text between the first `from` and the next `to`.
fn between<'p>(page: &'p str, from: &str, to: &str) -> &'p str {
    let (_, rest) = page.split_once(from).unwrap();
    rest.split_once(to).unwrap().0
}

#[test]
fn a_run_that_has_begun_has_a_page() {
    let run = Run::new("report-begun");
    let page = run.report();
    assert!(page.contains("sluice-read has not been run"), "{page}");
    run.read();
    let page = run.report();
    for missing in [
        "sluice-export decide has not been run",
        "No step has looked for duplicates",
        "No output has been written",
    ] {
        assert!(page.contains(missing), "{missing}\n{page}");
    }
    assert!(!page.contains("sluice-read has not been run"), "{page}");
    assert!(page.contains("No step has given scores"), "{page}");
}

#[test]
fn the_page_shows_the_run() {
    let page = complete("report-complete").report();
    for part in [
        "<th scope=\"row\">usable</th><td>below-min:made.beauty",
        "<th scope=\"row\">twins</th><td>exact-duplicate",
        "not-an-image",
        "torn.tar",
        "<h3>made.beauty: at least 0.5 in usable</h3>",
        "<h3>made.ugliness</h3>",
        "--min made.beauty=0.5",
        "min = { &#34;made.beauty&#34; = 0.5 }",
        "from made-up",
        "<rect class=\"all\"",
        "2 images dropped because of it",
        "whole/0004",
        "survivors of",
        "Made-Up-1.0",
        "score made.beauty threshold 0.5",
        "the most pixels stay",
        "data:image/jpeg;base64,",
        "href=\"#t0\"",
        "<code>sluice explain --run memory://report-complete/run whole/0004</code>",
        "<th scope=\"col\" class=\"n\">CPU time</th>",
        "Short side in pixels",
    ] {
        assert!(page.contains(part), "{part}\n{page}");
    }
    assert_eq!(page.matches("<article class=\"control\"").count(), 2);
}

#[test]
fn steps_are_in_the_order_in_which_they_read_from_each_other() {
    let page = complete("report-order").report();
    let table = page.split_once("<h2>Steps</h2>").unwrap().1;
    let rows = table.split("<tr><th scope=\"row\">").skip(1);
    let names: Vec<&str> = rows.map(|row| row.split_once('<').unwrap().0).collect();
    let [partition, read, .., twins, export] = names.as_slice() else {
        panic!("{names:?}");
    };
    let ends = [*partition, *read, *twins, *export];
    assert_eq!(ends, ["partition", "read", "twins", "export"], "{names:?}");
}

#[test]
fn the_funnel_follows_the_chain_before_it_is_decided_too() {
    let run = complete("report-funnel");
    let rows = |page: &str| {
        let funnel = between(page, "came in", "</table>").to_owned();
        let levels = funnel.split("<tr ").skip(1);
        levels.map(str::to_owned).collect::<Vec<_>>()
    };
    let decided = rows(&run.report());
    run.forget("export", Unit::new(UnitKind::Partition, 1));
    let page = run.report();
    assert!(
        page.contains("sluice-export decide has not been run"),
        "{page}"
    );
    let counted = rows(&page);
    assert_eq!(counted.len(), decided.len());
    assert_eq!(counted[..counted.len() - 1], decided[..decided.len() - 1]);
}

#[test]
fn names_of_the_dataset_are_never_markup() {
    let page = complete("report-hostile").report();
    assert!(page.contains("alert("), "the name is shown");
    assert!(!page.contains(HOSTILE), "{page}");
    for outside in ["http://", "https://", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}\n{page}");
    }
    assert_eq!(
        page.matches("<script").count(),
        2,
        "the data and the script"
    );
    let policy = between(&page, "Content-Security-Policy\" content=\"", "\"");
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert!(policy.contains("script-src 'sha256-"), "{policy}");
}

#[test]
fn tags_are_closed_in_order() {
    let page = complete("report-tags").report();
    let mut open: Vec<&str> = Vec::new();
    let body = between(&page, "<body>", "<script");
    for tag in body.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').unwrap();
        let name = tag.split([' ', '/']).find(|part| !part.is_empty()).unwrap();
        if let Some(closed) = tag.strip_prefix('/') {
            let expected = open.pop().unwrap_or("body");
            assert!(
                closed == expected || open.is_empty(),
                "</{closed}> in <{expected}>"
            );
        } else if !tag.ends_with('/') && !["br", "input"].contains(&name) {
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
fn pictures_can_be_left_out_and_pages_kept_small() {
    let run = complete("report-small");
    run.step::<sluice_report::Args>(&["sluice-report", "--no-images"]);
    let without = run.page();
    assert!(
        !without.contains("data:image") && without.contains("whole/0004"),
        "{without}"
    );
    run.step::<sluice_report::Args>(&["sluice-report", "--max-bytes", "100000"]);
    let small = run.page();
    assert!(
        small.len() <= 100_000 && small.contains("data:image"),
        "{}",
        small.len()
    );
    assert!(
        sluice_report::Args::try_parse_from(["sluice-report", "--run=r", "--max-bytes=1"]).is_err()
    );
}

#[test]
fn a_page_is_made_when_the_input_is_gone() {
    let run = complete("report-gone");
    run.input().delete("whole.tar").unwrap();
    let page = run.report();
    assert!(page.contains("its shard cannot be read"), "{page}");
    assert!(page.contains("2 images dropped because of it"), "{page}");
}

#[test]
fn pictures_that_may_be_nsfw_are_blurred() {
    let run = Run::new("report-nsfw");
    run.read();
    run.score_as("made", "nsfw");
    run.decide(None);
    let page = run.report();
    let figure = |id: &str| between(&page, &format!("data-id=\"{id}\""), "</details>").to_owned();
    let class = |id: &str| {
        let (before, _) = page.split_once(&format!("\" data-id=\"{id}\"")).unwrap();
        before.rsplit_once('"').unwrap().1.to_owned()
    };
    // The n-th image has the score n / 8.
    assert_eq!(class("whole/0001"), "pic");
    assert_eq!(class("whole/0006"), "pic nsfw");
    assert!(
        figure("whole/0006").contains("blurred picture, may be NSFW"),
        "{page}"
    );
    assert!(
        page.contains(".pic.nsfw:not([open]) > summary svg { filter: blur"),
        "{page}"
    );
}

#[test]
fn any_step_that_is_done_again_makes_a_new_page() {
    let run = complete("report-new");
    run.report();
    run.score("more");
    let done = run.step::<sluice_report::Args>(&["sluice-report"]);
    assert_eq!((done.units, done.up_to_date), (1, 0));
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
