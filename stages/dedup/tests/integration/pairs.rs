//! `pairs`: perceptual duplicates in parts, by any number of parts and tasks the same.

use std::collections::BTreeMap;

use sluice_manifest::layout::PAIRS;
use sluice_manifest::{Class, Unit, UnitKind, layout};
use sluice_store::Location;

use super::support::{Made, Run, made, shared};
use sluice_testkit::Numbers;

const ALONE: Unit = Unit::once(UnitKind::Perceptual);

/// Images around a few hashes, equal ones among them, of several sizes in three partitions.
fn samples() -> Vec<Made> {
    let mut numbers = Numbers::new(3);
    let centres: Vec<u64> = (0..8).map(|_| numbers.next()).collect();
    let sample = |number: usize| {
        let flips = (0..numbers.below(7)).fold(0_u64, |flips, _| flips | 1 << numbers.below(64));
        let partition = ["a", "b", "c"][number % 3];
        Made {
            phash: centres[number % centres.len()] ^ flips,
            pixels: 100 + numbers.below(5) as u32,
            ..made(format!("{partition}/{number:03}").leak(), 1)
        }
    };
    (0..240).map(sample).collect()
}

/// Returns the flags of a step.
fn flags(step: &str, ranges: u32) -> String {
    format!("--methods=perceptual --step={step} --ranges={ranges}")
}

#[test]
fn parts_decide_what_one_process_decides() {
    let run = Run::new("pairs-parts", &samples());
    let folder = Location::parse("memory://pairs-parts/lists").unwrap();
    let lists = shared().storage.create(&folder).unwrap();
    let known: Vec<String> = samples()[..2]
        .iter()
        .map(|sample| format!("{:016x} bad", sample.phash))
        .collect();
    lists.put("known.txt", known.join("\n")).unwrap();
    for (name, against) in [
        ("own", String::new()),
        ("known", format!(" --against={folder}/known.txt")),
    ] {
        let decided = |ranges: u32| {
            let step = format!("{name}-{ranges}");
            run.dedup_all(&format!(
                "--methods=perceptual --step={step} --ranges={ranges}{against}"
            ));
            let counts = run.receipt(&step, ALONE).unwrap().counts;
            let counts = (counts.input, counts.kept, counts.dropped_total());
            (run.duplicates(&step, ALONE), counts)
        };
        let expected = decided(1);
        let removed = run.removed(&format!("{name}-1"));
        assert!((100..230).contains(&removed.len()), "{}", removed.len());
        assert_eq!(removed.iter().any(|(_, of)| of == "bad"), name == "known");
        for ranges in [2, 7, 40] {
            assert!(decided(ranges) == expected, "{name}, {ranges} ranges");
        }
    }
}

/// Runs `pairs` of a step of 16 ranges by so many tasks, the last one first, and `perceptual`.
fn by_tasks(run: &Run, step: &str, count: usize) {
    let words = flags(step, 16);
    for task in (0..count).rev() {
        let task = format!("--task-index={task} --task-count={count}");
        run.dedup(&format!("pairs {words} {task}")).unwrap();
    }
    run.dedup(&format!("perceptual {words}")).unwrap();
}

/// The bytes of all manifests of a step.
fn manifests(run: &Run, step: &str) -> BTreeMap<String, Vec<u8>> {
    let context = run.open(step, None);
    let store = &context.run;
    let objects = store.list(step).unwrap().into_iter();
    let paths = objects.map(|object| object.path);
    paths
        .filter(|path| path.ends_with(".parquet"))
        .map(|path| {
            let bytes = store.get(&path).unwrap().to_vec();
            (path.replace(step, "STEP"), bytes)
        })
        .collect()
}

#[test]
fn any_number_of_tasks_writes_the_same_bytes() {
    let run = Run::new("pairs-tasks", &samples());
    let of = |count: usize| {
        let step = format!("tasks-{count}");
        by_tasks(&run, &step, count);
        manifests(&run, &step)
    };
    let alone = of(1);
    assert_eq!(alone.len(), 17);
    for count in [4, 16] {
        assert!(of(count) == alone, "{count} tasks");
    }
}

/// A task that was killed leaves units without a receipt, with a manifest or without one. A task that
/// is started again does them, and no others.
#[test]
fn tasks_that_were_killed_are_resumed_with_the_same_bytes() {
    let run = Run::new("pairs-killed", &samples());
    for count in [1, 4, 16] {
        let step = format!("killed-{count}");
        by_tasks(&run, &step, count);
        let whole = manifests(&run, &step);
        let context = run.open(&step, None);
        let untouched = layout::receipt(context.step(), Unit::new(UnitKind::Pairs, 0));
        let written = context.run.get(&untouched).unwrap();
        for (index, has_manifest) in [(3, true), (8, false), (15, true)] {
            let unit = Unit::new(UnitKind::Pairs, index);
            let receipt = layout::receipt(context.step(), unit);
            context.run.delete(&receipt).unwrap();
            let manifest = PAIRS.path(context.step(), unit);
            if has_manifest {
                context.run.put(&manifest, "half").unwrap();
            } else {
                context.run.delete(&manifest).unwrap();
            }
        }
        by_tasks(&run, &step, count);
        assert!(manifests(&run, &step) == whole, "{count} tasks");
        assert_eq!(context.run.get(&untouched).unwrap(), written);
    }
}

#[test]
fn hashes_that_read_did_not_compute_are_refused_before_the_work() {
    let run = Run::new("pairs-no-pdq", &samples());
    for (subcommand, flags) in [
        ("pairs", "--hash=pdq --ranges=4"),
        ("perceptual", "--hash=pdq"),
        ("perceptual", "--transformations=hflip"),
    ] {
        let words = format!("{subcommand} --methods=perceptual {flags}");
        let error = run.dedup(&words).unwrap_err();
        assert_eq!(Class::of(error.as_ref()), Some(Class::Usage), "{error:#}");
        assert!(format!("{error:#}").contains("read computes none"));
        assert!(run.kinds("dedup").is_empty(), "{words}");
    }
}

#[test]
fn parts_must_be_there_and_made_with_the_same_flags() {
    let run = Run::new("pairs-flags", &samples());
    let words = flags("near", 4);
    let refused = |words: &str| {
        let error = run.dedup(words).unwrap_err();
        assert_eq!(Class::of(error.as_ref()), Some(Class::Data), "{error:#}");
        format!("{error:#}")
    };
    let error = refused(&format!("perceptual {words}"));
    assert!(error.contains("pairs-00000"), "{error}");
    run.dedup_all(&words);
    let error = refused(&format!("perceptual {words} --max-distance=6"));
    assert!(error.contains("flags of this command"), "{error}");
    // One range needs no parts, and removes those that are there.
    let words = flags("near", 1);
    run.dedup(&format!("perceptual {words}")).unwrap();
    assert!(!run.kinds("near").contains(&UnitKind::Pairs));
}
