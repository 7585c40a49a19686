//! `sluice try` keeps the same images as a real run, for random settings.
//!
//! `SLUICE_TESTS_TRIES` is the number of settings, `SLUICE_TESTS_SEED` the seed.

use std::collections::BTreeSet;

use sluice_manifest::StepName;
use sluice_manifest::rows::NameRow;
use sluice_run::Run;

use crate::support::{
    DIMENSION, again, embed_as, filter, picture, read_input, score, shard, shared, sluice, store,
    usable,
};

const SETTINGS: u64 = 20;
const SEED: u64 = 1;
/// The number of images in each shard, and of each motif.
const IN_SHARD: u64 = 16;
const OF_MOTIF: u64 = 4;

/// A pseudo-random generator: SplitMix64.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Returns a number from 0 to 1 with two digits, so that thresholds equal some scores.
    fn hundredths(&mut self) -> f32 {
        self.below(101) as f32 / 100.0
    }
}

/// Settings of the deciding steps, in the syntax of the command line.
#[derive(Debug, Clone, Copy, PartialEq)]
struct TrialSettings {
    best: BestCondition,
    most_danger: f32,
    eps: f32,
    keep: &'static str,
    distance: u64,
}

/// The condition on the first score.
#[derive(Debug, Clone, Copy, PartialEq)]
enum BestCondition {
    Min(f32),
    Top(u64),
}

impl TrialSettings {
    const FIRST: Self = Self {
        best: BestCondition::Min(0.2),
        most_danger: 0.9,
        eps: 0.05,
        keep: "best",
        distance: 4,
    };

    /// Returns new settings, some unchanged.
    fn changed(self, draw: &mut Draw) -> Self {
        let mut next = self;
        let changes = 1 + draw.below(31);
        if changes & 1 != 0 {
            next.best = match draw.below(4) {
                0 => BestCondition::Top(1 + draw.below(100)),
                _ => BestCondition::Min(draw.hundredths() * 0.6),
            };
        }
        if changes & 2 != 0 {
            next.most_danger = 0.4 + draw.hundredths();
        }
        if changes & 4 != 0 {
            next.eps = draw.hundredths() * 0.6;
        }
        if changes & 8 != 0 {
            next.keep = ["best", "hard", "easy", "random"][draw.below(4) as usize];
        }
        if changes & 16 != 0 {
            next.distance = draw.below(17);
        }
        next
    }

    fn thresholds(&self) -> [String; 2] {
        let best = match self.best {
            BestCondition::Min(least) => format!("--min made.beauty={least}"),
            BestCondition::Top(percent) => format!("--top made.beauty={percent}%"),
        };
        [best, format!("--max made.danger={}", self.most_danger)]
    }

    fn of_match(&self) -> [String; 2] {
        [
            format!("--eps {}", self.eps),
            format!("--keep {}", self.keep),
        ]
    }

    fn of_perceptual(&self) -> String {
        format!("--max-distance {}", self.distance)
    }

    fn flags(&self) -> Vec<String> {
        let mut flags = [self.thresholds(), self.of_match()].concat();
        flags.push(self.of_perceptual());
        flags
    }

    /// Runs the deciding steps with these settings, by the stages' programs.
    fn decide(&self, run: &str) {
        filter(run, &self.thresholds().join(" "));
        let rank = "--rank-by made.beauty";
        for (part, flags) in [
            ("exact", rank.to_owned()),
            ("perceptual", format!("{rank} {}", self.of_perceptual())),
            ("fit", "--clusters 3".to_owned()),
            ("assign", rank.to_owned()),
            ("match", self.of_match().join(" ")),
        ] {
            let line = format!("sluice-dedup {part} --survivors-of filter {flags}");
            again::<sluice_dedup::Args>(run, &line);
        }
    }
}

/// Returns a run of motifs in several variants, with random scores and vectors. Some images have no
/// score.
fn made(name: &str, draw: &mut Draw) -> String {
    let input = store(&format!("memory://{name}/in"));
    let mut table = "image_id,beauty,danger\n".to_owned();
    for number in 0..3 {
        let pictures: Vec<(String, Vec<u8>)> = (0..IN_SHARD)
            .map(|key| {
                let motif = draw.below(3 * IN_SHARD / OF_MOTIF) as u32;
                (
                    format!("{key:02}.png"),
                    picture(motif, draw.below(3) as u8 * 2),
                )
            })
            .collect();
        let members: Vec<(&str, &[u8])> = pictures
            .iter()
            .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
            .collect();
        input
            .put(&format!("{number}.tar"), shard(&members))
            .unwrap();
        for key in 0..IN_SHARD {
            let (beauty, danger) = (draw.hundredths(), draw.hundredths());
            if key != number {
                table.push_str(&format!("{number}/{key:02},{beauty},{danger}\n"));
            }
        }
    }
    let run = read_input(name);
    usable(&run);
    let seed = draw.next();
    embed_as(&run, |_, number| vector(seed, number as u64)).unwrap();
    score(&run, table);
    run
}

/// Returns a vector of length 1 near those of some other images.
fn vector(seed: u64, number: u64) -> [f32; DIMENSION] {
    let mut centre = Draw(seed ^ (number / OF_MOTIF));
    let mut noise = Draw(seed.wrapping_add(1000 + number));
    let vector: [f32; DIMENSION] =
        std::array::from_fn(|_| centre.hundredths() - 0.5 + 0.6 * (noise.hundredths() - 0.5));
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    vector.map(|value| value / length)
}

fn kept(run: &str) -> BTreeSet<String> {
    let recorded = Run::open_read_only(&shared().storage, run).unwrap();
    let dedup = StepName::fixed("dedup");
    let survivors = recorded.survivors(Some(&dedup)).unwrap();
    let plan = recorded.plan().unwrap();
    let names = plan.partitions.iter().flat_map(|planned| {
        let rows = survivors.samples::<NameRow>(planned.partition).unwrap();
        rows.map(|row| row.unwrap().image_id.to_string())
    });
    names.collect()
}

/// Returns the lists of images that a trial writes: kept, gained, lost.
fn tried(run: &str, flags: &[String]) -> [BTreeSet<String>; 3] {
    let folder = run.replace("/run", "/tried");
    let line = format!("try --run {run} --json --ids {folder} {}", flags.join(" "));
    let said = sluice(&line.split(' ').collect::<Vec<_>>());
    said.outcome.unwrap_or_else(|e| panic!("{flags:?}: {e:#}"));
    let found: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let lists = ["kept", "gained", "lost"].map(|name| {
        let text = store(&folder).get(&format!("{name}.txt")).unwrap();
        let lines = std::str::from_utf8(&text).unwrap().lines();
        lines.map(str::to_owned).collect::<BTreeSet<String>>()
    });
    assert_eq!(found["then"]["kept"], lists[0].len(), "{flags:?}");
    lists
}

fn number(variable: &str, default: u64) -> u64 {
    let given = std::env::var(variable).ok();
    given.map_or(default, |text| text.parse().unwrap())
}

#[test]
fn a_trial_keeps_the_images_that_a_real_run_keeps() {
    let seed = number("SLUICE_TESTS_SEED", SEED);
    let mut draw = Draw(seed);
    let run = made("trials", &mut draw);
    let mut settings = TrialSettings::FIRST;
    settings.decide(&run);
    let mut before = kept(&run);
    let mut sizes = BTreeSet::new();
    for _ in 0..number("SLUICE_TESTS_TRIES", SETTINGS) {
        let next = settings.changed(&mut draw);
        let old = settings.flags();
        let flags: Vec<String> = next
            .flags()
            .into_iter()
            .filter(|f| !old.contains(f))
            .collect();
        if flags.is_empty() {
            continue;
        }
        let [then, gained, lost] = tried(&run, &flags);
        next.decide(&run);
        let after = kept(&run);
        assert_eq!(then, after, "seed {seed}: {settings:?} with {flags:?}");
        assert_eq!(gained, &after - &before);
        assert_eq!(lost, &before - &after);
        sizes.insert(after.len());
        (settings, before) = (next, after);
    }
    assert!(
        sizes.len() > 5,
        "settings that make no difference: {sizes:?}"
    );
}
