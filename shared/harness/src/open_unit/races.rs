//! Two processes work on one unit: a worker that was considered dead, or two concurrent runs.

use clap::Parser;
use sluice_manifest::{Operation, Resources};

use super::*;
use crate::{Common, ProcessResources};

const OPERATION: Operation = Operation {
    subcommand: None,
    unit: UnitKind::Plan,
    resources: Resources::Light,
    after: &[],
    revision: 1,
};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    common: Common,
}

fn context(memory: &str, flags: &[&str]) -> Context {
    let run = format!("--run=memory://{memory}");
    let words = ["sluice-mine", &run].into_iter();
    let common = Line::parse_from(words.chain(flags.iter().copied())).common;
    let node = ProgramNode {
        step: StepName::fixed("mine"),
        stage: "mine",
        operation: &OPERATION,
        survivors_of: None,
    };
    Context::new(&common, "sluice-mine", node, &ProcessResources::default()).unwrap()
}

fn begin<'c>(context: &'c Context, settings: &str, units: usize) -> Option<OpenUnit<'c>> {
    let work = Work {
        unit: Unit::once(UnitKind::Plan),
        units,
        settings: settings.to_owned(),
        inputs: Vec::new(),
    };
    context.begin(work).unwrap()
}

fn publish(context: &Context, open_unit: &mut OpenUnit<'_>, content: &str) {
    let mut object = context.run.writer("mine/x").unwrap();
    std::io::Write::write_all(&mut object, content.as_bytes()).unwrap();
    open_unit.publish(|| object.finish()).unwrap();
}

fn receipt(context: &Context) -> Option<Receipt> {
    context
        .receipt(context.step(), Unit::once(UnitKind::Plan))
        .unwrap()
}

#[test]
fn the_second_of_two_workers_takes_over_what_the_first_one_did() {
    let context = context("races-same", &[]);
    let mut late = begin(&context, "a", 1).unwrap();
    let mut early = begin(&context, "a", 1).unwrap();
    publish(&context, &mut early, "made");
    early.commit(Counts::all_kept(1)).unwrap();
    let first = receipt(&context).unwrap();
    // The receipt exists at all times, because later steps may already depend on it.
    publish(&context, &mut late, "made again");
    assert_eq!(receipt(&context).as_ref(), Some(&first));
    late.commit(Counts::all_kept(1)).unwrap();
    assert_eq!(receipt(&context), Some(first));
    assert_eq!(context.run.get("mine/x").unwrap(), "made");
    assert_eq!(context.units().1, 1);
}

#[test]
fn other_work_and_force_replace_what_is_there() {
    for (settings, flags) in [("b", &[][..]), ("a", &["--force"])] {
        let context = context(&format!("races-other-{settings}"), flags);
        let mut late = begin(&context, settings, 1).unwrap();
        let mut early = begin(&context, "a", 1).unwrap();
        publish(&context, &mut early, "made");
        early.commit(Counts::all_kept(1)).unwrap();
        publish(&context, &mut late, "replaced");
        assert_eq!(receipt(&context), None);
        late.commit(Counts::all_kept(1)).unwrap();
        assert_eq!(context.run.get("mine/x").unwrap(), "replaced");
    }
}

#[test]
fn a_receipt_whose_outputs_are_gone_is_replaced() {
    let context = context("races-gone", &[]);
    let mut open_unit = begin(&context, "a", 1).unwrap();
    publish(&context, &mut open_unit, "made");
    open_unit.commit(Counts::all_kept(1)).unwrap();
    assert!(begin(&context, "a", 1).is_none());
    context.run.delete("mine/x").unwrap();
    let mut open_unit = begin(&context, "a", 1).unwrap();
    publish(&context, &mut open_unit, "made anew");
    open_unit.commit(Counts::all_kept(1)).unwrap();
    assert_eq!(context.run.get("mine/x").unwrap(), "made anew");
}

#[test]
fn a_receipt_that_was_removed_is_not_written_again() {
    let context = context("races-units", &[]);
    let mut open_unit = begin(&context, "a", 1).unwrap();
    publish(&context, &mut open_unit, "made");
    open_unit.commit(Counts::all_kept(1)).unwrap();
    let seen = receipt(&context).unwrap();
    assert!(begin(&context, "a", 2).is_none());
    assert_eq!(receipt(&context).unwrap().units, 2);
    // Another process removes it between the check and the update of its number of units.
    context.run.delete("mine/receipts/plan.json").unwrap();
    let more = Receipt {
        units: 3,
        ..seen.clone()
    };
    context.update_receipt(&seen, &more, |_| ()).unwrap();
    assert_eq!(receipt(&context), None);
}

#[test]
fn an_input_that_is_done_again_is_not_read() {
    let context = context("races-input", &[]);
    let make = |settings: &str| {
        let mut open_unit = begin(&context, settings, 1).unwrap();
        publish(&context, &mut open_unit, settings);
        open_unit.commit(Counts::all_kept(1)).unwrap();
    };
    let input = || context.input(context.step(), Unit::once(UnitKind::Plan));
    make("a");
    let first = input().unwrap();
    // Another process repeats it with other settings before its manifest is read.
    make("b");
    let said = input().unwrap_err();
    assert_eq!(said.class(), sluice_manifest::Class::Transient, "{said}");
    assert!(
        said.to_string()
            .ends_with("was repeated by another process"),
        "{said}"
    );
    // And repeats it with the original settings.
    make("a");
    assert_eq!(input().unwrap(), first);
}
