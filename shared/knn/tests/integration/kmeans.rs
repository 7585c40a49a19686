use sluice_knn::kmeans::{self, Assignment, Centroids, KMeansSettings, inertia};

use super::data::{unit, vectors, with_threads};
use sluice_testkit::Numbers;

fn fit(vectors: &[f32], dim: usize, settings: &KMeansSettings) -> Centroids {
    kmeans::fit(vectors, dim, settings, &|| Ok(())).unwrap()
}

fn start(vectors: &[f32], dim: usize, settings: &KMeansSettings) -> Centroids {
    kmeans::start(vectors, dim, settings, &|| Ok(())).unwrap()
}

fn refine(vectors: &[f32], start: Centroids, settings: &KMeansSettings) -> Centroids {
    kmeans::refine(vectors, start, settings, &|| Ok(())).unwrap()
}

fn assign(vectors: &[f32], centroids: &Centroids) -> Vec<Assignment> {
    kmeans::assign(vectors, centroids, &|| Ok(())).unwrap()
}

fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(x - y).powi(2)).sum()
}

/// Index of the nearest centroid, and the squared distance.
fn nearest(vector: &[f32], centroids: &[Vec<f32>]) -> (usize, f64) {
    let mut best = (0, f64::INFINITY);
    for (index, centroid) in centroids.iter().enumerate() {
        let distance = squared_distance(vector, centroid);
        if distance < best.1 {
            best = (index, distance);
        }
    }
    best
}

/// Lloyd's algorithm as in a textbook.
fn naive_lloyd(vectors: &[f32], start: &Centroids, iterations: usize) -> f64 {
    let dim = start.dim;
    let mut centroids: Vec<Vec<f32>> = start.data.chunks(dim).map(<[f32]>::to_vec).collect();
    for _ in 0..iterations {
        let mut sums = vec![(vec![0.0_f64; dim], 0.0); centroids.len()];
        for vector in vectors.chunks(dim) {
            let (sum, count) = &mut sums[nearest(vector, &centroids).0];
            sum.iter_mut()
                .zip(vector)
                .for_each(|(s, x)| *s += f64::from(*x));
            *count += 1.0;
        }
        for (centroid, (sum, count)) in centroids.iter_mut().zip(&sums) {
            if *count > 0.0 {
                *centroid = sum.iter().map(|s| (s / count) as f32).collect();
            }
        }
    }
    vectors
        .chunks(dim)
        .map(|vector| nearest(vector, &centroids).1)
        .sum()
}

fn settings(clusters: usize, max_iterations: usize) -> KMeansSettings {
    KMeansSettings {
        clusters,
        max_iterations,
        tolerance: 0.0,
        seed: 9,
    }
}

#[test]
fn iterations_equal_naive_lloyd_from_the_same_start() {
    for (n, dim, k) in [(1300, 16, 20), (700, 33, 3), (300, 8, 60)] {
        let data = vectors(n, dim, k, 1);
        for iterations in [1, 2, 5] {
            let settings = settings(k, iterations);
            let start = start(&data, dim, &settings);
            let expected = naive_lloyd(&data, &start, iterations);
            let found = inertia(&data, &refine(&data, start, &settings));
            let off = (found - expected).abs() / expected;
            assert!(off < 1e-4, "{n} {dim} {k}: {found} {expected}");
        }
    }
}

#[test]
fn assigns_to_the_nearest_centroid() {
    // More centroids than a block has, fewer rows than a block has.
    for (n, dim, k) in [(600, 24, 11), (100, 5, 2500), (513, 3, 1)] {
        let data = vectors(n, dim, 30, 2);
        let mut numbers = Numbers::new(3);
        let centroids = Centroids {
            dim,
            data: (0..k * dim).map(|_| 0.5 * numbers.normal()).collect(),
        };
        let rows: Vec<Vec<f32>> = centroids.data.chunks(dim).map(<[f32]>::to_vec).collect();
        for (assignment, vector) in assign(&data, &centroids).iter().zip(data.chunks(dim)) {
            let chosen = &rows[assignment.cluster as usize];
            let (_, least) = nearest(vector, &rows);
            assert!(squared_distance(vector, chosen) <= least + 1e-5);
            let cosine: f32 = unit(chosen).iter().zip(vector).map(|(c, x)| c * x).sum();
            assert!((assignment.distance - (1.0 - cosine)).abs() < 1e-5);
        }
    }
}

#[test]
fn equal_vectors_have_equal_distances() {
    let data = vectors(2000, 48, 10, 4);
    let centroids = fit(&data, 48, &settings(10, 5));
    let assignments = assign(&data, &centroids);
    let mut seen = std::collections::HashMap::new();
    for (assignment, vector) in assignments.iter().zip(data.chunks(48)) {
        let bits: Vec<u32> = vector.iter().map(|x| x.to_bits()).collect();
        assert_eq!(seen.entry(bits).or_insert(assignment), &assignment);
    }
    assert!(seen.len() < assignments.len());
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let data = vectors(3000, 20, 50, 6);
    let work = || {
        let centroids = fit(&data, 20, &settings(50, 10));
        let assignments = assign(&data, &centroids);
        (centroids, assignments)
    };
    let one = with_threads(1, work);
    assert_eq!(one, with_threads(2, work));
    assert_eq!(one, with_threads(3, work));
}

#[test]
fn the_seed_matters() {
    let data = vectors(1000, 20, 50, 6);
    let with_seed = |seed| {
        start(
            &data,
            20,
            &KMeansSettings {
                seed,
                ..settings(20, 1)
            },
        )
    };
    assert_eq!(with_seed(1), with_seed(1));
    assert_ne!(with_seed(1), with_seed(2));
}

/// On well separated topics a careful start finds each topic, which a uniform
/// one would not.
#[test]
fn the_start_covers_separate_topics() {
    let (dim, topics) = (64, 200);
    let mut numbers = Numbers::new(8);
    let centres: Vec<f32> = (0..topics * dim).map(|_| numbers.normal()).collect();
    let data: Vec<f32> = (0..4000)
        .flat_map(|i| {
            let centre = &centres[i % topics * dim..][..dim];
            let vector: Vec<f32> = centre.iter().map(|x| x + 0.02 * numbers.normal()).collect();
            unit(&vector)
        })
        .collect();
    let start = start(&data, dim, &settings(topics, 0));
    assert_eq!(start.len(), topics);
    // Each topic's scatter is about 0.0004; two topics are about 2 apart. Missing
    // one of 200 topics would cost 20 rows x 2 = 40.
    let missed = inertia(&data, &start) / 40.0;
    assert!(missed < 3.0, "about {missed} topics missed");
}

#[test]
fn more_clusters_than_vectors() {
    let data = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]].concat();
    let centroids = fit(&data, 2, &settings(10, 5));
    assert_eq!(centroids.len(), 3, "one for each vector");
    assert!(inertia(&data, &centroids) < 1e-12);

    let equal = [0.6, 0.8].repeat(50);
    assert_eq!(
        fit(&equal, 2, &settings(4, 5)).len(),
        1,
        "one vector, 50 times"
    );

    assert!(fit(&[], 2, &settings(4, 5)).is_empty());
    assert!(fit(&data, 2, &settings(0, 5)).is_empty());
    assert_eq!(assign(&[], &centroids), []);
}

#[test]
fn empty_clusters_take_the_farthest_vectors() {
    // Two of the three centroids are nobody's nearest.
    let data = [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-1.0, 0.0]].concat();
    let start = Centroids {
        dim: 2,
        data: vec![1.0, 0.0, 9.0, 9.0, -9.0, 9.0],
    };
    let centroids = refine(&data, start, &settings(3, 1));
    assert_eq!(centroids.data[2..], [-1.0, 0.0, 0.0, 1.0], "farthest first");
    assert_eq!(centroids.data[..2], [0.9, 0.3], "without those two");
}
