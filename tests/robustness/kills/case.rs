//! The disturbances of a run's processes.

use serde::{Deserialize, Serialize};

/// The disturbances of one run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct KillCase {
    /// Whether the run is on S3.
    pub on_s3: bool,
    /// Whether `sluice run` runs all steps, instead of one process for each step.
    pub whole: bool,
    /// The disturbances in the order of the nodes.
    pub disturbances: Vec<Disturbance>,
}

/// A disturbance of a node's process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Disturbance {
    /// The node, counted from 0.
    pub node: usize,
    /// The moment, as a fraction of the node's undisturbed duration.
    pub at: f64,
    /// The kind.
    pub what: What,
}

/// Kinds of disturbances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum What {
    /// The process is killed.
    Kill,
    /// The process receives SIGTERM.
    Terminate,
    /// A second process runs the same command line concurrently.
    Rival,
    /// The same, and the first process is killed.
    RivalOfKilled,
    /// The process is stopped, and continues when a later node begins.
    Zombie {
        /// The node before which it continues; after the last node if beyond it.
        until: usize,
        /// Whether its settings differ from those of the run that overtakes it.
        stale: bool,
    },
}

impl KillCase {
    /// Returns a random case for a run with this number of nodes.
    pub(super) fn random(random: &mut SplitMix, (nodes, on_s3): (usize, bool)) -> Self {
        // A process for each step takes long on S3.
        let whole = random.below(4) < if on_s3 { 3 } else { 1 };
        let nodes = if whole { 1 } else { nodes };
        let most = if whole { 5 } else { 16 };
        let count = 1 + random.below(most);
        let mut disturbances: Vec<Disturbance> = (0..count)
            .map(|_| Disturbance::random(random, nodes))
            .collect();
        disturbances.sort_by_key(|disturbance| disturbance.node);
        Self {
            on_s3,
            whole,
            disturbances,
        }
    }

    /// Returns the case as JSON.
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap()
    }

    /// Parses a case from JSON.
    pub(super) fn of_json(json: &str) -> Self {
        serde_json::from_str(json).unwrap()
    }
}

impl Disturbance {
    fn random(random: &mut SplitMix, nodes: usize) -> Self {
        let node = random.below(nodes);
        Self {
            node,
            at: 1.1 * random.unit(),
            what: match random.below(20) {
                0..12 => What::Kill,
                12 => What::Terminate,
                13 | 14 => What::Rival,
                15 | 16 => What::RivalOfKilled,
                _ => What::Zombie {
                    until: node + 1 + random.below(nodes - node),
                    stale: random.below(2) == 0,
                },
            },
        }
    }
}

/// A pseudo-random generator: SplitMix64.
pub(super) struct SplitMix(u64);

impl SplitMix {
    /// Returns the generator for a seed.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
