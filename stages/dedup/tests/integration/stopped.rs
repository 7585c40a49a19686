//! Long computations end soon after a stop is requested, wherever they are.

use std::sync::atomic::{AtomicUsize, Ordering};

use sluice_dedup::bands::Part;
use sluice_dedup::hash::{Forms, Hash};
use sluice_dedup::perceptual;
use sluice_knn::Check;
use sluice_manifest::{Class, Error, Result};

use sluice_testkit::Numbers;

/// Runs `work` with a check that fails from its call number `last` on. Returns the outcome and the
/// number of calls.
fn checked(last: usize, work: &dyn Fn(Check<'_>) -> Result<()>) -> (Result<()>, usize) {
    let calls = AtomicUsize::new(0);
    let outcome = work(&|| match calls.fetch_add(1, Ordering::Relaxed) {
        call if call >= last => Err(Error::stopped()),
        _ => Ok(()),
    });
    (outcome, calls.load(Ordering::Relaxed))
}

#[test]
fn every_computation_checks_often_and_returns_the_error_of_the_check() {
    let mut numbers = Numbers::new(7);
    let hashes: Vec<u64> = (0..6000).map(|_| numbers.next()).collect();
    let forms: Vec<Forms<1>> = hashes.iter().map(|hash| Hash([*hash]).into()).collect();
    type Work<'a> = &'a dyn Fn(Check<'_>) -> Result<()>;
    let works: [(&str, usize, Work<'_>); 2] = [
        ("perceptual", 20, &|check| {
            perceptual::duplicates(&forms, 4, check).map(drop)
        }),
        ("pairs", 15, &|check| {
            let mut part = Part::new(4, 0, 1);
            let numbered = hashes.iter().enumerate();
            numbered.for_each(|(number, hash)| part.add(number as u64, Hash([*hash])));
            part.pairs(check).map(drop)
        }),
    ];
    for (name, least, work) in works {
        let (outcome, calls) = checked(usize::MAX, work);
        outcome.unwrap();
        assert!(calls >= least, "{name} checks {calls} times");
        for last in [0, calls / 2, calls - 1] {
            let (outcome, _) = checked(last, work);
            let stopped = outcome.expect_err(name);
            assert_eq!(stopped.class(), Class::Stopped, "{name} at {last}");
        }
    }
}
