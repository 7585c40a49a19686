//! The distance of semantic duplicates, given and not given.

use sluice_dedup::MatchSettings;
use sluice_manifest::{ABOUT_EPS, Unit, UnitKind};

use super::support::{Made, Run, made, pairs};

/// Two pictures whose embeddings are 20 degrees apart: a cosine of 0.94.
fn run(name: &str) -> Run {
    let at = |id, content, degrees| Made {
        degrees: Some(degrees),
        ..made(id, content)
    };
    let run = Run::new(name, &[at("a/1", 1, 0.0), at("a/2", 2, 20.0)]);
    run.embed("embed", |_| true);
    run.dedup("fit --clusters=1").unwrap();
    run.dedup("assign --methods=semantic").unwrap();
    run
}

/// Matches, and returns the distance that was used, who gave it, and whether there is a hint in the
/// result; none where the distance was given.
fn matched(run: &Run, flags: &str) -> (f64, String, Option<bool>) {
    let line = format!("match --methods=semantic {flags}");
    let done = run.dedup(line.trim()).unwrap();
    let receipt = run.receipt("dedup", Unit::once(UnitKind::Group)).unwrap();
    let settings: MatchSettings = receipt.settings().unwrap();
    let eps = settings.eps.to_string().parse().unwrap();
    let chosen = done.choices.get(ABOUT_EPS);
    if let Some(chosen) = chosen {
        assert_eq!(chosen.value, eps);
    }
    let hint = chosen.map(|chosen| chosen.hint.is_some());
    (eps, receipt.about[ABOUT_EPS].clone(), hint)
}

#[test]
fn the_embedder_states_the_distance_where_none_is_given() {
    let run = run("distance");
    let (eps, because, hint) = matched(&run, "");
    assert_eq!((eps, hint), (0.01, Some(true)));
    assert!(because.contains("CLIP's"), "{because}");
    assert_eq!(run.removed("dedup"), pairs(&[]));

    run.state_eps("embed", "0.1");
    let (eps, because, hint) = matched(&run, "");
    assert_eq!((eps, hint), (0.1, Some(false)));
    assert!(because.contains("stated by the embedder"), "{because}");
    assert_eq!(run.removed("dedup"), pairs(&[("a/2", "a/1")]));

    let given = matched(&run, "--eps=0.02");
    assert_eq!(given, (0.02, "--eps".to_owned(), None));
    assert_eq!(run.removed("dedup"), pairs(&[]));
}

#[test]
fn a_stated_distance_that_is_none_is_refused() {
    let run = run("distance-wrong");
    run.state_eps("embed", "far");
    let error = run.dedup("match --methods=semantic").unwrap_err();
    assert!(error.to_string().contains("\"far\""), "{error}");
}
