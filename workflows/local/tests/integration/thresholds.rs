//! The numbers of `sluice try` and of the page's threshold control equal those of a real run.

use std::collections::HashSet;

use serde_json::Value;
use sluice_manifest::{Class, StepName, UnitKind};
use sluice_report::findings::Findings;
use sluice_run::curve::Curve;
use sluice_run::walk::Walk;
use sluice_run::{Run, counted};

use crate::support::{again, failure, filter, judged, shared, sluice, store};

/// Returns the funnel of a run, and the funnel with these flags.
fn tried(run: &str, flags: &str) -> [Value; 2] {
    let line = format!("try --run {run} --json {flags}");
    let said = sluice(&line.split(' ').collect::<Vec<_>>());
    said.outcome.unwrap();
    let found: Value = serde_json::from_str(&said.out).unwrap();
    ["now", "then"].map(|when| found[when].clone())
}

#[test]
fn a_trial_equals_a_real_run() {
    let run = judged("try");
    let objects = || store(&run).list("").unwrap();
    for (min, max, of_perceptual, of_match) in [
        (0.2, 0.9, "", ""),
        (0.3, 0.7, "--max-distance 0", "--eps 0.5"),
        (0.0, 0.4, "--max-distance 16", "--keep hard"),
        (0.5, 1.0, "", "--eps 0 --keep easy"),
        (0.0, 2.0, "--max-distance 4", "--eps 1.5"),
    ] {
        let thresholds = format!("--min made.beauty={min} --max made.danger={max}");
        let settings = format!("{of_perceptual} {of_match}");
        let flags = format!("{thresholds} {settings}");
        let flags = flags.split_whitespace().collect::<Vec<_>>().join(" ");
        let before = objects();
        let [_, then] = tried(&run, &flags);
        assert_eq!(objects(), before, "nothing is written");
        filter(&run, &thresholds);
        for (part, flags) in [
            ("exact", ""),
            ("perceptual", of_perceptual),
            ("fit", ""),
            ("assign", ""),
            ("match", of_match),
        ] {
            let line = format!("sluice-dedup {part} --survivors-of filter {flags}");
            again::<sluice_dedup::Args>(&run, line.trim_end());
        }
        let [now, _] = tried(&run, &thresholds);
        assert_eq!(then, now, "{flags}");
    }
}

#[test]
fn new_conditions_and_fractions_are_tried_too() {
    let run = judged("try-new");
    let [now, then] = tried(&run, "--rule wide=width>10000 --filter usable");
    assert_eq!(then["kept"], 0);
    assert_eq!(now["in"], then["in"]);
    let scored = now["steps"][1]["left"].as_u64().unwrap();
    let [_, half] = tried(&run, "--keep-fraction made.beauty=0.5 --max made.danger=2");
    let filtered = &half["steps"][2];
    assert_eq!(filtered["step"], "filter");
    assert_eq!(
        filtered["left"].as_u64().unwrap(),
        scored.div_ceil(2),
        "{half}"
    );
    let words = sluice(&["try", "--run", &run, "--min", "made.beauty=0.9"]).out;
    assert!(
        words.contains("filter: made.beauty at least 0.9 (now made.beauty at least 0.3)"),
        "{words}"
    );
    assert!(words.contains("kept"), "{words}");
    for (flags, hint) in [
        ("", "nothing to try"),
        ("--min beauty=3", "aesthetic, made.beauty"),
        ("--max aesthetic=99", "the scores are from"),
        ("--rule a=b", "rule a"),
        ("--filter none --rule a=width>3", "no such filter"),
    ] {
        let line = format!("try --run {run} {flags}");
        let said = sluice(&line.split_whitespace().collect::<Vec<_>>());
        let (class, message) = failure(&said);
        assert_eq!(class, Class::Usage, "{message}");
        assert!(message.contains(hint), "{message}");
    }
}

/// Returns the number of images that the filter keeps, according to its receipts.
fn kept(run: &str) -> u64 {
    let recorded = Run::open_read_only(&shared().storage, run).unwrap();
    let receipts = recorded.receipts().unwrap();
    receipts
        .counts(&StepName::fixed("filter"), UnitKind::Partition)
        .kept
}

/// Returns the page's curve for one of the filter's thresholds.
fn curve(run: &str, score: &str) -> Curve {
    let recorded = Run::open_read_only(&shared().storage, run).unwrap();
    let plan = recorded.plan().unwrap();
    let receipts = counted::receipts(&recorded).unwrap();
    let walk = Walk::new(&recorded, &plan, &receipts).unwrap();
    let findings = Findings::of_run(&walk, &HashSet::new()).unwrap();
    let scoring = &walk.scoring;
    let place = scoring
        .controls
        .iter()
        .position(|control| scoring.scores[control.score].name.to_string() == score);
    let (control, found) = (
        &scoring.controls[place.unwrap()],
        &findings.controls[place.unwrap()],
    );
    Curve::new(
        control.keep,
        control.threshold,
        &found.kept,
        &found.regained,
        false,
    )
}

#[test]
fn the_threshold_control_equals_a_run_of_the_filter() {
    let run = judged("control");
    let (beauty, danger) = (curve(&run, "made.beauty"), curve(&run, "made.danger"));
    // Some images fail both thresholds. Changing only one does not keep them.
    assert!(beauty.total() < 8 && danger.total() < 8);
    for (curve, flags) in [
        (beauty, "--max made.danger=0.7 --min made.beauty"),
        (danger, "--min made.beauty=0.3 --max made.danger"),
    ] {
        let edges = curve.edges();
        assert!(edges.len() > 4, "{edges:?}");
        for threshold in edges.into_iter().chain([-1.0, 0.3, 0.33, 0.7, 2.0]) {
            filter(&run, &format!("{flags}={threshold}"));
            let certain = curve.kept(threshold).unwrap().certain;
            assert_eq!(certain, kept(&run), "{flags}={threshold}");
        }
    }
}
