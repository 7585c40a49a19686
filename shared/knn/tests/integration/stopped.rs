//! Long computations end soon after a stop is requested, wherever they are.

use std::sync::atomic::{AtomicUsize, Ordering};

use sluice_knn::Check;
use sluice_knn::kmeans::{self, KMeansSettings};
use sluice_knn::matching::{self, RemovalRule};
use sluice_manifest::{Class, Error, Result};

use super::data::vectors;

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
    let dim = 16;
    let data = vectors(6000, dim, 40, 3);
    let settings = KMeansSettings::new(40, 5);
    let start = kmeans::start(&data, dim, &settings, &|| Ok(())).unwrap();
    type Work<'a> = &'a dyn Fn(Check<'_>) -> Result<()>;
    let works: [(&str, usize, Work<'_>); 4] = [
        ("k-means++", 20, &|check| {
            kmeans::start(&data, dim, &settings, check).map(drop)
        }),
        ("k-means", 20, &|check| {
            kmeans::refine(&data, start.clone(), &settings, check).map(drop)
        }),
        ("assign", 5, &|check| {
            kmeans::assign(&data, &start, check).map(drop)
        }),
        ("match", 20, &|check| {
            matching::matches(&data, dim, 0.9, RemovalRule::AnyEarlier, check).map(drop)
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
