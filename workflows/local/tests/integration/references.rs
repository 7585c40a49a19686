//! Reference sets in pipelines: what no step can compare with is refused before the work.

use sluice_manifest::Class;

use crate::support::{failure, sluice, store};

const STEPS: &str = r#"
[parameters]
against = { default = "" }
hashes = { default = "" }
hash = { default = "" }

[[steps]]
stage = "read"
hashes = "${hashes}"

[[steps]]
stage = "dedup"
name = "exact"
methods = ["exact"]
against = "${against}"
skip-unusable = true

[[steps]]
stage = "dedup"
name = "near"
methods = ["perceptual"]
hash = "${hash}"
against = "${against}"
skip-unusable = true
"#;

/// Checks a pipeline with values of its parameters. Returns the error.
fn check(file: &str, set: &str) -> Option<String> {
    let set = set.split_whitespace().flat_map(|value| ["--set", value]);
    let line: Vec<&str> = ["pipeline", "check", file].into_iter().chain(set).collect();
    let said = sluice(&line);
    if said.outcome.is_ok() {
        return None;
    }
    let (class, message) = failure(&said);
    assert_eq!(class, Class::Usage, "{message}");
    Some(message)
}

#[test]
fn a_set_is_refused_if_no_step_compares_with_it() {
    let base = "memory://references-check";
    let files = store(base);
    let write = |name: &str, text: &str| {
        files.put(name, text.to_owned()).unwrap();
        format!("{base}/{name}")
    };
    let file = write("mine.toml", STEPS);
    let md5 = write("known.md5", &"0a".repeat(16));
    let pdq = write("known.pdq", &"0a".repeat(32));
    let sha256 = write("known.txt", &"0a".repeat(32));
    for (set, words) in [
        (format!("against={sha256}"), None),
        (format!("against={md5} hashes=md5"), None),
        (format!("against={pdq} hashes=pdq hash=pdq"), None),
        (
            format!("against={sha256},{md5},{pdq} hashes=md5,pdq hash=pdq"),
            None,
        ),
        (format!("against={md5}"), Some((&md5, "read computes none"))),
        (
            format!("against={sha256},{pdq}"),
            Some((&pdq, "it has PDQ hashes")),
        ),
        (
            "hash=pdq".to_owned(),
            Some((&file, "pdq hashes are compared")),
        ),
    ] {
        match (check(&file, &set), words) {
            (None, None) => {}
            (Some(message), Some((name, words))) => {
                let is_named = message.contains(name.as_str()) || message.contains("step near");
                assert!(is_named && message.contains(words), "{set}: {message}");
            }
            (found, _) => panic!("{set}: {found:?}"),
        }
    }
    // Without the switch, a step refuses a set for another step.
    let strict = write("strict.toml", &STEPS.replace("skip-unusable = true", ""));
    let message = check(&strict, &format!("against={sha256}")).unwrap();
    assert!(
        message.contains("step near") && message.contains(&sha256),
        "{message}"
    );
}

#[test]
fn steps_that_lack_what_they_read_are_refused() {
    let base = "memory://references-impossible";
    let read = "[[steps]]\nstage = 'read'\n[[steps]]\nstage = 'dedup'\n";
    for (number, (steps, words)) in [
        ("methods = ['semantic']", "no step embed comes before it"),
        ("methods = ['exact']\nhash = 'pdq'", "hash has no effect"),
        ("methods = ['exact']\neps = 0.1", "eps has no effect"),
        (
            "methods = ['perceptual']\nhash = 'pdq'",
            "pdq hashes are compared",
        ),
        (
            "methods = ['perceptual']\ntransformations = ['hflip']",
            "transformed hashes are compared",
        ),
        (
            "methods = ['exact']\n[[steps]]\nstage = 'filter'\nsample-per-cluster = 9",
            "no earlier step dedup assigns images to clusters",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("{number}.toml");
        store(base).put(&name, format!("{read}{steps}\n")).unwrap();
        let message = check(&format!("{base}/{name}"), "").unwrap_or_default();
        assert!(message.contains(words), "{steps}: {message}");
    }
}
