//! Made-up vectors.

use sluice_testkit::Numbers;

/// `n` unit vectors of `dim` values around `topics` directions; every third is a
/// noisy copy of an earlier one, every seventh an exact copy.
pub(super) fn vectors(n: usize, dim: usize, topics: usize, seed: u64) -> Vec<f32> {
    let mut numbers = Numbers::new(seed);
    let centres: Vec<f32> = (0..topics * dim).map(|_| numbers.normal()).collect();
    let mut data: Vec<f32> = Vec::with_capacity(n * dim);
    for i in 0..n {
        let noise = 0.2 * (dim as f32).powf(-0.5);
        if i > 0 && i % 7 == 0 {
            let original = numbers.below(i);
            data.extend_from_within(original * dim..(original + 1) * dim);
            continue;
        }
        let vector: Vec<f32> = if i > 0 && i % 3 == 0 {
            let original = &data[numbers.below(i) * dim..][..dim];
            original
                .iter()
                .map(|x| x + noise * numbers.normal())
                .collect()
        } else {
            let centre = &centres[numbers.below(topics) * dim..][..dim];
            centre.iter().map(|x| x + numbers.normal()).collect()
        };
        data.extend(unit(&vector));
    }
    data
}

pub(super) fn unit(vector: &[f32]) -> Vec<f32> {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.iter().map(|x| x / length).collect()
}

/// Runs `work` in a pool of `threads` threads.
pub(super) fn with_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .expect("a pool")
        .install(work)
}
