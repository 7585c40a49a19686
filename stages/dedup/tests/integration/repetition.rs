//! What makes a unit run again, and what of earlier work is removed.

use sluice_dedup::{AssignSettings, ExactSettings, FitSettings, MatchSettings, PerceptualSettings};
use sluice_manifest::{InputOf, Receipt, Unit, UnitKind};

use super::support::{Made, Run, made};

fn run(name: &str) -> Run {
    let ids = ["a/1", "a/2", "a/3", "b/1", "b/2", "b/3"];
    let samples = ids.into_iter().zip([1, 2, 3, 1, 4, 5]);
    let samples: Vec<Made> = samples.map(|(id, content)| made(id, content)).collect();
    let run = Run::new(name, &samples);
    run.embed("embed", |_| true);
    run.score("aesthetic", |_| true);
    run
}

/// Which of the subcommands did something.
fn worked(run: &Run, lines: [&str; 5]) -> [bool; 5] {
    lines.map(|line| {
        let done = run.dedup(line).unwrap();
        done.up_to_date < done.units
    })
}

#[test]
fn a_change_runs_again_what_it_concerns() {
    let run = run("repetition-change");
    let lines = ["exact", "perceptual", "fit", "assign", "match"];
    assert_eq!(worked(&run, lines), [true; 5]);
    assert_eq!(worked(&run, lines), [false; 5]);
    let lines = ["exact", "perceptual", "fit", "assign", "match --eps=0.2"];
    assert_eq!(worked(&run, lines), [false, false, false, false, true]);
    let lines = [
        "exact",
        "perceptual",
        "fit",
        "assign",
        "match --eps=0.2 --seed=7",
    ];
    assert_eq!(worked(&run, lines), [false; 5], "nothing is random");
    let lines = [
        "exact",
        "perceptual",
        "fit",
        "assign",
        "match --keep=random --seed=7",
    ];
    assert_eq!(worked(&run, lines), [false, false, false, false, true]);
    let lines = [
        "exact",
        "perceptual",
        "fit",
        "assign --rank-by=aesthetic",
        "match",
    ];
    assert_eq!(worked(&run, lines), [false, false, false, true, true]);
    let lines = [
        "exact",
        "perceptual --max-distance=2",
        "fit",
        "assign",
        "match",
    ];
    assert_eq!(worked(&run, lines), [false, true, false, true, true]);
    let lines = ["exact", "perceptual", "fit --seed=1", "assign", "match"];
    assert_eq!(worked(&run, lines), [false, true, true, true, true]);
}

#[test]
fn another_early_step_runs_all_but_the_fit_again() {
    let run = run("repetition-early");
    run.dedup_all("--step=early --methods=exact");
    let late = |line: &str| format!("{line} --step=late --survivors-of=early");
    let lines = ["exact", "perceptual", "fit", "assign", "match"].map(late);
    let lines = lines.each_ref().map(String::as_str);
    assert_eq!(worked(&run, lines), [true; 5]);
    run.dedup("exact --step=early --methods=exact --ranges=2")
        .unwrap();
    assert_eq!(worked(&run, lines), [true, true, false, true, true]);
}

#[test]
fn fewer_ranges_and_groups_leave_nothing_behind() {
    let run = run("repetition-fewer");
    run.dedup_all("--ranges=5 --clusters=3 --groups=3");
    let group = Unit::new(UnitKind::Group, 2);
    let range = Unit::new(UnitKind::Exact, 4);
    assert!(run.receipt("dedup", group).is_some() && run.receipt("dedup", range).is_some());
    let many = (run.removed("dedup"), run.survivors_of("dedup"));
    run.dedup_all("--ranges=1 --clusters=3 --groups=1");
    assert!(run.receipt("dedup", group).is_none() && run.receipt("dedup", range).is_none());
    assert_eq!((run.removed("dedup"), run.survivors_of("dedup")), many);
}

#[test]
fn the_name_of_a_step_changes_no_output() {
    let run = run("repetition-names");
    run.dedup_all("--step=one");
    run.dedup_all("--step=two");
    for kind in [UnitKind::Exact, UnitKind::Perceptual, UnitKind::Group] {
        let unit = Unit::once(kind);
        assert_eq!(run.duplicates("one", unit), run.duplicates("two", unit));
    }
}

#[test]
fn receipts_hold_typed_settings_and_inputs_that_can_be_followed() {
    let run = run("repetition-receipts");
    run.filter("filter", |_| true);
    run.dedup_all("--survivors-of=filter --rank-by=aesthetic --keep=random");
    let receipt = |kind| run.receipt("dedup", Unit::once(kind)).unwrap();
    let (exact, perceptual) = (receipt(UnitKind::Exact), receipt(UnitKind::Perceptual));
    let (fit, assign) = (receipt(UnitKind::Fit), receipt(UnitKind::Partition));
    let matched = receipt(UnitKind::Group);
    assert_eq!(exact.settings::<ExactSettings>().unwrap().ranges, 1);
    let settings = perceptual.settings::<PerceptualSettings>().unwrap();
    assert_eq!(settings.near.max_distance, 4);
    assert_eq!(fit.settings::<FitSettings>().unwrap().sample, 10_000);
    let settings = assign.settings::<AssignSettings>().unwrap();
    assert_eq!(settings.rank_by.unwrap().to_string(), "aesthetic");
    assert_eq!(matched.settings::<MatchSettings>().unwrap().seed, Some(42));
    for (receipt, expected) in [
        (exact, vec!["read*", "filter*", "aesthetic*"]),
        (
            perceptual,
            vec!["read*", "filter*", "dedup/exact*", "aesthetic*"],
        ),
        (fit, vec!["embed*"]),
        (
            assign,
            vec![
                "read",
                "filter",
                "dedup/exact*",
                "dedup/perceptual*",
                "aesthetic",
                "embed",
                "dedup/fit",
            ],
        ),
        (matched, vec!["dedup*"]),
    ] {
        assert_eq!(inputs(&receipt), expected);
    }
}

/// The inputs' steps, with the units where they are not partitions, and `*` for all units.
fn inputs(receipt: &Receipt) -> Vec<String> {
    let inputs = receipt.inputs.iter().map(|input| match &input.of {
        InputOf::Units { step, kind, .. } if *kind == UnitKind::Partition => format!("{step}*"),
        InputOf::Units { step, kind, .. } => format!("{step}/{}*", kind.as_str()),
        InputOf::Unit { step, unit } if unit.kind == UnitKind::Partition => step.to_string(),
        InputOf::Unit { step, unit } => format!("{step}/{unit}"),
        other => panic!("{other} cannot be followed"),
    });
    inputs.collect()
}
