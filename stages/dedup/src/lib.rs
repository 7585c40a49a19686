//! `sluice-dedup`: exact, perceptual and semantic duplicates among the survivors of the filters.
//!
//! | subcommand | finds | parallel over |
//! | --- | --- | --- |
//! | `exact` | equal bytes | ranges of content hashes |
//! | `perceptual` | perceptual hashes within a Hamming distance | one |
//! | `fit` | nothing yet: k-means on a sample of the embeddings | one |
//! | `assign` | nothing yet: each survivor's cluster | partitions |
//! | `match` | embeddings within `eps` inside a cluster | groups of clusters |
//!
//! An image that a filter dropped takes no part, so it never shadows a good one. Each subcommand
//! writes `dedup/duplicates`, one row for every image that it removes. The algorithms are in
//! modules of their own, on slices, without I/O.

mod arguments;
mod bytes;
mod codes;
mod estimates;
pub mod exact;
mod groups;
pub mod kmeans;
pub mod matching;
mod members;
pub mod perceptual;
mod points;
mod products;
pub mod ranking;
mod seeding;
mod semantic;
mod survivors;

use anyhow::Result;
use serde_json::json;
use sluice_harness::{Context, Plan, Program, Work};
use sluice_manifest::rows::{DuplicateRow, Method};
use sluice_manifest::{Counts, Filter, Reason, Unit, dag};

pub use crate::arguments::{Args, Command};
use crate::arguments::{Exact, Perceptual};
use crate::survivors::{Survivor, all_inputs, survivors};

impl Program for Args {
    const NAME: &'static str = "sluice-dedup";

    fn common(&self) -> &sluice_harness::Common {
        self.command.common()
    }

    fn run(&self, context: &Context) -> Result<()> {
        match &self.command {
            Command::Exact(args) => exact(args, context),
            Command::Perceptual(args) => perceptual(args, context),
            Command::Fit(args) => semantic::fit(args, context),
            Command::Assign(args) => semantic::assign(args, context),
            Command::Match(args) => groups::match_groups(args, context),
        }
    }
}

/// Equal content, one range of hashes after the other. The best image of each group stays.
fn exact(args: &Exact, context: &Context) -> Result<()> {
    let filters = Filter::parse_list(&args.filters)?;
    let plan = context.plan()?;
    let units: Vec<Unit> = (0..args.ranges)
        .map(|index| Unit::numbered("exact", index))
        .collect();
    context.remove_stale(&dag::DEDUP_EXACT, "exact", &units)?;
    context.each_unit(&dag::DEDUP_EXACT, units.clone(), 1, |unit| {
        let work = Work {
            step: &dag::DEDUP_EXACT,
            version: 1,
            unit,
            units: units.len(),
            settings: json!({ "filters": filters, "ranges": args.ranges }),
            basis: None,
            inputs: all_inputs(context, &plan, &filters)?,
        };
        let range = units
            .iter()
            .position(|other| other == unit)
            .unwrap_or_default() as u32;
        let found = |context: &Context, plan: &Plan| {
            let of_range = survivors(context, plan, &filters, |survivor| {
                survivor
                    .sha256
                    .is_some_and(|hash| range_of(&hash, args.ranges) == range)
            })?;
            let keyed: Vec<_> = of_range
                .iter()
                .map(|s| (s.sha256, s.candidate(0.0)))
                .collect();
            let duplicates = exact::duplicates(&keyed);
            let duplicates = duplicates
                .into_iter()
                .map(|kept| kept.map(|kept| (kept, 1.0)));
            Ok((duplicates.collect(), of_range))
        };
        remove(context, &plan, work, Method::Exact, found)
    })
}

/// The range that a content hash falls into, out of `ranges`.
fn range_of(hash: &[u8; 32], ranges: u32) -> u32 {
    let head = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    ((u64::from(head) * u64::from(ranges)) >> 32) as u32
}

/// Near perceptual hashes, the best images first: each is compared with those that stay.
fn perceptual(args: &Perceptual, context: &Context) -> Result<()> {
    let filters = Filter::parse_list(&args.filters)?;
    let plan = context.plan()?;
    let unit = Unit::numbered("perceptual", 0);
    context.each_unit(&dag::DEDUP_PERCEPTUAL, vec![unit], 1, |unit| {
        let work = Work {
            step: &dag::DEDUP_PERCEPTUAL,
            version: 1,
            unit,
            units: 1,
            settings: json!({ "filters": filters, "max_distance": args.max_distance }),
            basis: None,
            inputs: all_inputs(context, &plan, &filters)?,
        };
        let found = |context: &Context, plan: &Plan| {
            let mut hashed = survivors(context, plan, &filters, |s| {
                s.phash.is_some_and(says_something)
            })?;
            hashed.sort_by(|a, b| ranking::best_first(&a.candidate(0.0), &b.candidate(0.0)));
            let hashes: Vec<u64> = hashed.iter().filter_map(|s| s.phash).collect();
            let duplicates = perceptual::duplicates(&hashes, args.max_distance);
            let similar = |(kept, distance): (usize, u32)| (kept, 1.0 - distance as f32 / 64.0);
            Ok((
                duplicates
                    .into_iter()
                    .map(|found| found.map(similar))
                    .collect(),
                hashed,
            ))
        };
        remove(context, &plan, work, Method::Perceptual, found)
    })
}

/// Flat pictures have all one hash, whatever their colour: no bit but the mean's. They are not
/// compared, for they would all be each other's duplicates.
fn says_something(phash: u64) -> bool {
    phash.count_ones() > 1
}

/// For each survivor: none, or the survivor because of which it goes and how alike they are.
type Found = (Vec<Option<(usize, f32)>>, Vec<Survivor>);

/// Does one unit of `exact` or `perceptual`: finds the duplicates and writes them.
fn remove(
    context: &Context,
    plan: &Plan,
    work: Work<'_>,
    method: Method,
    find: impl FnOnce(&Context, &Plan) -> Result<Found>,
) -> Result<()> {
    let Some(mut task) = context.begin(work)? else {
        return Ok(());
    };
    let (duplicates, survivors) = find(context, plan)?;
    task.advance(survivors.len())?;
    let mut counts = Counts::default();
    let mut rows = Vec::new();
    for (survivor, found) in survivors.iter().zip(&duplicates) {
        counts.add(found.map(|_| reason(method)));
        if let Some((kept, similarity)) = *found {
            rows.push(DuplicateRow {
                partition: survivor.partition,
                image_id: survivor.image_id.clone(),
                duplicate_of: survivors[kept].image_id.clone(),
                similarity,
                method,
            });
        }
    }
    task.wrote(write_duplicates(context, &task.path("duplicates"), rows)?);
    Ok(task.commit(counts)?)
}

fn reason(method: Method) -> Reason {
    match method {
        Method::Exact => Reason::ExactDuplicate,
        Method::Perceptual => Reason::PerceptualDuplicate,
        Method::Semantic => Reason::SemanticDuplicate,
    }
}

/// Writes removed samples sorted by partition, so that `decide` reads its own alone.
fn write_duplicates(
    context: &Context,
    path: &str,
    mut rows: Vec<DuplicateRow>,
) -> sluice_manifest::Result<sluice_manifest::Output> {
    rows.sort_by(|a, b| (a.partition, &a.image_id).cmp(&(b.partition, &b.image_id)));
    let mut writer = context.run.write_rows(path, &[])?;
    for row in rows {
        writer.push(row)?;
    }
    writer.finish()
}
