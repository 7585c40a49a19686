//! `pairs`: perceptual duplicates in parts, by any number of parts and tasks the same.

use sluice_manifest::{Class, Unit, UnitKind};
use sluice_store::Location;

use super::data::Numbers;
use super::support::{Made, Run, made, shared};

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

#[test]
fn tasks_share_the_parts() {
    let run = Run::new("pairs-tasks", &samples());
    run.dedup_all(&flags("alone", 4));
    let words = flags("shared", 4);
    for task in ["2", "0", "1"] {
        run.dedup(&format!("pairs {words} --task-index={task} --task-count=3"))
            .unwrap();
    }
    run.dedup(&format!("perceptual {words}")).unwrap();
    let [alone, shared] = ["alone", "shared"].map(|step| run.duplicates(step, ALONE));
    assert!(alone == shared);
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
