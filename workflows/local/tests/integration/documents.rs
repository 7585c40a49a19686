//! The README's table of checks matches the program. Completions and manual pages can be generated.

const README: &str = include_str!("../../README.md");

#[test]
fn the_checks_are_those_that_verify_makes() {
    let run = crate::support::curate("documents");
    let said = crate::support::sluice(&["verify", "--run", &run, "--json"]);
    let found: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    for check in found["checks"].as_array().unwrap() {
        let (name, about) = (check["check"].as_str(), check["about"].as_str());
        let line = format!("| `{}` | {} |", name.unwrap(), about.unwrap());
        assert!(README.contains(&line), "{line}");
    }
}

#[test]
fn shells_and_man_read_the_definitions() {
    use crate::support::{failure, sluice, store};
    for shell in ["bash", "zsh", "fish"] {
        let said = sluice(&["completions", shell]);
        said.outcome.unwrap();
        assert!(said.out.contains("explain"), "{shell}");
    }
    let said = sluice(&["completions", "bash", "--program", "sluice-read"]);
    assert!(said.out.contains("sluice-read"), "{}", said.out);
    assert!(
        failure(&sluice(&["man", "--program", "sluice-reed"]))
            .1
            .contains("sluice-read")
    );
    assert!(sluice(&["man"]).out.contains(".TH sluice"));
    sluice(&["man", "--to", "memory://man/man1"])
        .outcome
        .unwrap();
    let pages = store("memory://man/man1").list("").unwrap();
    let names: Vec<&str> = pages.iter().map(|page| page.path.as_str()).collect();
    for name in [
        "sluice.1",
        "sluice-try.1",
        "sluice-pipeline-check.1",
        "sluice-dedup-match.1",
    ] {
        assert!(names.contains(&name), "{names:?}");
    }
}
