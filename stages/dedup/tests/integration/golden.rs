//! Semantic deduplication against a restatement in numpy
//! (`tests/golden/make_golden.py`), step by step: assignment, ranking, removal.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use sluice_dedup::ranking::{Candidate, KeepRule, rank};
use sluice_knn::kmeans::{Centroids, assign};
use sluice_knn::matching::{Match, RemovalRule, matches};

const TOLERANCE: f32 = 1e-5;

/// A float whose equality is the tolerance of the goldens.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(transparent)]
struct Near(f32);

impl PartialEq for Near {
    fn eq(&self, other: &Self) -> bool {
        (self.0 - other.0).abs() < TOLERANCE
    }
}

#[derive(Deserialize)]
struct Golden {
    dim: usize,
    seed: u64,
    image_ids: Vec<String>,
    scores: Vec<Option<f32>>,
    pixels: Vec<u64>,
    clusters: Vec<u32>,
    distances: Vec<Near>,
    rankings: Rankings,
    removals: Vec<Removals>,
}

/// For each rule the rows of each cluster, most preferred first.
#[derive(Deserialize)]
struct Rankings {
    best: Vec<Vec<usize>>,
    hard: Vec<Vec<usize>>,
    easy: Vec<Vec<usize>>,
    random: Vec<Vec<usize>>,
}

impl Rankings {
    fn of(&self, keep: KeepRule) -> &[Vec<usize>] {
        match keep {
            KeepRule::Best => &self.best,
            KeepRule::Hard => &self.hard,
            KeepRule::Easy => &self.easy,
            KeepRule::Random => &self.random,
        }
    }
}

#[derive(Deserialize)]
struct Removals {
    keep: KeepRule,
    eps: f32,
    rule: String,
    /// Row, the row that it duplicates, similarity.
    rows: Vec<(usize, usize, Near)>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

#[expect(clippy::disallowed_methods, reason = "goldens lie beside the test")]
fn read(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).expect(name)
}

fn floats(name: &str) -> Vec<f32> {
    let bytes = read(name);
    let (floats, rest) = bytes.as_chunks::<4>();
    assert!(rest.is_empty());
    floats
        .iter()
        .map(|float| f32::from_le_bytes(*float))
        .collect()
}

fn check(name: &str) {
    let json = read(&format!("{name}.json"));
    let golden: Golden = serde_json::from_slice(&json).expect(name);
    let dim = golden.dim;
    let vectors = floats(&format!("{name}.vectors.f32"));
    let centroids = Centroids {
        dim,
        data: floats(&format!("{name}.centroids.f32")),
    };

    let assignments = assign(&vectors, &centroids, &|| Ok(())).unwrap();
    let clusters: Vec<u32> = assignments.iter().map(|a| a.cluster).collect();
    let distances: Vec<Near> = assignments.iter().map(|a| Near(a.distance)).collect();
    assert_eq!(clusters, golden.clusters);
    assert_eq!(distances, golden.distances);

    let candidate = |row: usize| Candidate {
        image_id: &golden.image_ids[row],
        score: golden.scores[row],
        pixels: golden.pixels[row],
        texts: 0,
        distance: assignments[row].distance,
    };
    let ranked = |keep: KeepRule| -> Vec<Vec<usize>> {
        (0..centroids.len() as u32)
            .map(|cluster| {
                let of_cluster = |row: &usize| clusters[*row] == cluster;
                let members: Vec<usize> = (0..clusters.len()).filter(of_cluster).collect();
                let candidates: Vec<Candidate> =
                    members.iter().map(|&row| candidate(row)).collect();
                let order = rank(&candidates, keep, golden.seed, cluster);
                order.into_iter().map(|i| members[i]).collect()
            })
            .collect()
    };

    assert!(golden.removals.len() >= 8, "all rankings by both rules");
    for expected in &golden.removals {
        let rankings = ranked(expected.keep);
        assert_eq!(
            rankings,
            golden.rankings.of(expected.keep),
            "{:?}",
            expected.keep
        );
        let rule = match expected.rule.as_str() {
            "kept-only" => RemovalRule::KeptOnly,
            "any-earlier" => RemovalRule::AnyEarlier,
            other => panic!("unknown rule {other}"),
        };
        let mut found = Vec::new();
        for rows in &rankings {
            let cluster: Vec<f32> = rows
                .iter()
                .flat_map(|&row| &vectors[row * dim..][..dim])
                .copied()
                .collect();
            let threshold = 1.0 - expected.eps;
            let matches = matches(&cluster, dim, threshold, rule, &|| Ok(())).unwrap();
            for (&row, found_match) in rows.iter().zip(matches) {
                if let Some(Match { of, similarity }) = found_match {
                    found.push((row, rows[of], Near(similarity)));
                }
            }
        }
        let case = format!("{:?} {} {:?}", expected.keep, expected.eps, rule);
        assert_eq!(found, expected.rows, "{case}");
        assert!(!found.is_empty(), "{case}");
    }
}

#[test]
fn small_clusters() {
    check("small");
}

#[test]
fn medium_clusters() {
    check("medium");
}

#[test]
fn large_clusters() {
    check("large");
}

#[test]
fn many_dimensions() {
    check("wide");
}
