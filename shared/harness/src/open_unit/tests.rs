//! Units on a store in memory: what makes a unit run again, and what a failure leaves.

use std::io::Write;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Parser;
use sluice_manifest::layout::DECISIONS;
use sluice_manifest::{Class, Fingerprint, Operation, Resources};

use super::*;
use crate::{Common, ProcessResources};

/// The settings of a made-up step.
#[derive(Serialize)]
struct Settings {
    threshold: u32,
}

const fn operation(revision: u32) -> Operation {
    Operation {
        subcommand: None,
        unit: UnitKind::Partition,
        resources: Resources::Light,
        after: &[],
        revision,
    }
}

static FIRST: Operation = operation(1);
static SECOND: Operation = operation(2);

fn node(operation: &'static Operation, survivors_of: Option<&str>) -> ProgramNode {
    ProgramNode {
        step: "made-up".parse().unwrap(),
        stage: "made-up",
        operation,
        survivors_of: survivors_of.map(|step| step.parse().unwrap()),
    }
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    common: Common,
}

/// The resources that the programs of these tests share.
fn shared() -> &'static ProcessResources {
    static SHARED: LazyLock<ProcessResources> = LazyLock::new(ProcessResources::default);
    &SHARED
}

/// Returns a program that works on the run `memory://<run>`.
fn at_work(run: &str, flags: &[&str], node: ProgramNode, shared: &ProcessResources) -> Context {
    let run = format!("--run=memory://{run}");
    let words = ["sluice-made-up", &run].into_iter();
    let line = Line::parse_from(words.chain(flags.iter().copied()));
    Context::new(&line.common, "sluice-made-up", node, shared).unwrap()
}

fn context(run: &str) -> Context {
    at_work(run, &[], node(&FIRST, None), shared())
}

fn work(index: u32, threshold: u32, input: &str) -> Work<Settings> {
    Work {
        unit: Unit::new(UnitKind::Partition, index),
        units: 3,
        settings: Settings { threshold },
        inputs: vec![Input {
            of: InputOf::Object {
                uri: "x".to_owned(),
            },
            fingerprint: Fingerprint::of([input]),
        }],
    }
}

fn output(context: &Context, path: &str) -> Result<Output> {
    let mut writer = context.run.writer(path)?;
    writer.write_all(b"decisions").unwrap();
    writer.finish()
}

/// Completes a unit. Returns whether it had work to do.
fn done(context: &Context, work: Work<Settings>) -> bool {
    let Some(mut open_unit) = context.begin(work).unwrap() else {
        return false;
    };
    let path = open_unit.path(&DECISIONS);
    open_unit.publish(|| output(context, &path)).unwrap();
    open_unit.commit(Counts::all_kept(5)).unwrap();
    true
}

#[test]
fn a_unit_is_done_again_when_something_changed_that_shapes_it() {
    let run = "task-changes";
    assert!(done(&context(run), work(0, 1, "a")));
    let again = context(run);
    assert!(!done(&again, work(0, 1, "a")));
    assert_eq!(again.units(), (0, 1));
    assert_eq!(again.counts(), Counts::all_kept(5));

    let shared = shared();
    let version = at_work(run, &[], node(&SECOND, None), shared);
    let survivors = at_work(run, &[], node(&FIRST, Some("filter")), shared);
    let forced = at_work(run, &["--force"], node(&FIRST, None), shared);
    for (what, context, changed) in [
        ("settings", context(run), work(0, 2, "a")),
        ("inputs", context(run), work(0, 2, "b")),
        ("survivors of", survivors, work(0, 2, "b")),
        ("version", version, work(0, 2, "b")),
        ("--force", forced, work(0, 2, "b")),
        ("another unit", context(run), work(1, 2, "b")),
    ] {
        assert!(done(&context, changed), "{what}");
    }
}

#[test]
fn a_unit_is_done_again_when_its_outputs_or_its_receipt_are_damaged() {
    let context = context("task-damage");
    let path = "made-up/decisions/part-00000.parquet";
    let receipt = "made-up/receipts/part-00000.json";
    assert!(done(&context, work(0, 1, "a")));
    let damages: [&dyn Fn(); 4] = [
        &|| context.run.delete(path).unwrap(),
        &|| context.run.put(path, b"shorter".to_vec()).unwrap(),
        &|| context.run.delete(receipt).unwrap(),
        &|| context.run.put(receipt, b"{\"step\":".to_vec()).unwrap(),
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        assert!(!done(&context, work(0, 1, "a")), "before damage {number}");
        damage();
        assert!(done(&context, work(0, 1, "a")), "after damage {number}");
    }
}

#[test]
fn more_units_are_no_reason_to_do_one_again() {
    let context = context("task-units");
    let unit = Unit::new(UnitKind::Partition, 0);
    assert!(done(&context, work(0, 1, "a")));
    let grown = Work {
        units: 9,
        ..work(0, 1, "a")
    };
    assert!(!done(&context, grown));
    let receipt = context.required_receipt(context.step(), unit).unwrap();
    assert_eq!(receipt.units, 9);
}

#[test]
fn no_receipt_vouches_for_outputs_that_are_being_replaced() {
    let context = context("task-replaced");
    let unit = Unit::new(UnitKind::Partition, 0);
    assert!(done(&context, work(0, 1, "a")));
    let mut open_unit = context.begin(work(0, 2, "a")).unwrap().unwrap();
    assert!(open_unit.previous().is_some());
    let failed = open_unit.publish(|| Err(Error::transient("no room")));
    assert_eq!(failed.unwrap_err().class(), Class::Transient);
    drop(open_unit);
    assert_eq!(context.receipt(context.step(), unit).unwrap(), None);
}

#[test]
fn a_lost_sample_is_a_bug_and_leaves_no_receipt() {
    let context = context("task-lost");
    let open_unit = context.begin(work(0, 1, "a")).unwrap().unwrap();
    let counts = Counts {
        input: 6,
        ..Counts::all_kept(5)
    };
    assert_eq!(open_unit.commit(counts).unwrap_err().class(), Class::Bug);
    let unit = Unit::new(UnitKind::Partition, 0);
    assert_eq!(context.receipt(context.step(), unit).unwrap(), None);
}

fn units() -> Vec<Unit> {
    Unit::all(UnitKind::Partition, 3)
}

#[test]
fn a_task_that_is_not_committed_does_not_count_as_done() {
    let context = context("task-dropped");
    let outcome: Result<()> = context.each_unit(units(), 1, |unit| {
        match context.begin(work(unit.index, 1, "a"))? {
            // Dropped without a commit.
            Some(_task) if unit.index == 1 => Ok(()),
            Some(open_unit) => open_unit.commit(Counts::all_kept(1)),
            None => Ok(()),
        }
    });
    let error = outcome.unwrap_err();
    assert_eq!(error.class(), Class::Bug);
    let message = error.to_string();
    assert!(message.contains("made-up part-00001"), "{message}");
    assert_eq!(context.totals().done, 1);
    // Without `each_unit`, the end of the program notices it.
    drop(context.begin(work(2, 1, "a")).unwrap());
    assert_eq!(context.check_committed().unwrap_err().class(), Class::Bug);
}

#[test]
fn each_unit_is_done_once_however_many_are_in_flight() {
    for in_flight in [1, 2, 8] {
        let context = context(&format!("task-in-flight-{in_flight}"));
        let all = || {
            let outcome: Result<()> = context.each_unit(units(), in_flight, |unit| {
                done(&context, work(unit.index, 1, "a"));
                Ok(())
            });
            outcome.unwrap();
            context.units()
        };
        assert_eq!(all(), (3, 0));
        assert_eq!(all(), (6, 3));
        assert_eq!(context.totals().done, 3);
    }
}

#[test]
fn the_first_error_and_a_signal_end_the_work() {
    let shared = ProcessResources::default();
    let context = at_work("task-ends", &[], node(&FIRST, None), &shared);
    let begun = AtomicUsize::new(0);
    let each = |fails: bool| -> Result<()> {
        context.each_unit(units(), 1, |_| {
            begun.fetch_add(1, Ordering::Relaxed);
            if fails {
                Err(Error::data("broken"))
            } else {
                Ok(())
            }
        })
    };
    assert_eq!(each(true).unwrap_err().class(), Class::Data);
    assert_eq!(begun.load(Ordering::Relaxed), 1);
    shared.stop.store(true, Ordering::Relaxed);
    assert_eq!(each(false).unwrap_err().class(), Class::Stopped);
    assert_eq!(begun.load(Ordering::Relaxed), 1);
}

#[test]
fn a_share_of_the_units_is_done() {
    let flags = ["--task-index=1", "--task-count=2"];
    let context = at_work("task-share", &flags, node(&FIRST, None), shared());
    let seen = std::sync::Mutex::new(Vec::new());
    let outcome: Result<()> = context.each_unit(units(), 1, |unit| {
        seen.lock().unwrap().push(unit.index);
        Ok(())
    });
    outcome.unwrap();
    assert_eq!(*seen.lock().unwrap(), [1]);
}

/// Returns a program of a stage that works on the step of that name.
fn of_stage(step: &str, stage: &'static str, shared: &ProcessResources) -> Result<Context> {
    let line = Line::parse_from(["sluice-made-up", "--run=memory://task-stages"]);
    let node = ProgramNode {
        step: step.parse().unwrap(),
        stage,
        ..node(&FIRST, None)
    };
    Context::new(&line.common, "sluice-made-up", node, shared)
}

#[test]
fn a_step_of_another_stage_is_refused_and_left_alone() {
    let shared = ProcessResources::default();
    let location = sluice_store::Location::parse("memory://task-stages-out").unwrap();
    let out = shared.storage.create(&location).unwrap();
    let export = of_stage("export", "export", &shared).unwrap();
    let export_one = || {
        let Some(mut open_unit) = export.begin(work(0, 1, "a")).unwrap() else {
            return; // up to date
        };
        let curated = || {
            let mut writer = out.writer("shard-00000.tar")?;
            writer.write_all(b"curated").unwrap();
            writer.finish()
        };
        open_unit.publish_outside(&out, curated).unwrap();
        open_unit.commit(Counts::all_kept(1)).unwrap();
    };
    export_one();
    for (step, stage, part) in [
        ("export", "filter", "is of the stage export"),
        ("export", "score", "is of the stage export"),
        ("partition", "filter", "the name of a stage"),
        ("read", "score", "the name of a stage"),
        ("read", "partition", "the name of a stage"),
    ] {
        let refused = of_stage(step, stage, &shared).map(|_| ()).unwrap_err();
        assert_eq!(refused.class(), Class::Usage, "{step} {stage}: {refused}");
        assert!(
            refused.to_string().contains(part),
            "{step} {stage}: {refused}"
        );
    }
    of_stage("export", "export", &shared).unwrap();
    of_stage("filter", "filter", &shared).unwrap();
    let is_there = || out.stat("shard-00000.tar").unwrap().is_some();
    let receipts = || export.run.list("export/receipts").unwrap().len();
    // Objects outside of the run are kept when stale units are removed.
    let partition = of_stage("partition", "partition", &shared).unwrap();
    for remover in [&partition, &export] {
        export_one();
        remover.remove_units("", |_, _| true).unwrap();
        assert_eq!((is_there(), receipts()), (true, 0));
    }
}
