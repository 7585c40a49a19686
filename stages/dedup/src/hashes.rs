//! Duplicates by hash: `exact` and `perceptual`.

use anyhow::Result;
use sluice_harness::{Context, Task, Work, reason_of};
use sluice_manifest::layout::DUPLICATES;
use sluice_manifest::rows::{DuplicateRow, Method};
use sluice_manifest::{Counts, Reason, Unit, UnitKind};

use crate::arguments::{Exact, Perceptual};
use crate::settings::{ExactSettings, PerceptualSettings};
use crate::survivors::{Image, Remaining};
use crate::{exact, perceptual, ranking};

/// Finds equal content, one range of hashes after the other. The best image of each group stays.
///
/// # Errors
/// Data, when a step before has not been run; of storage.
pub fn exact(args: &Exact, context: &Context) -> Result<()> {
    let methods = args.stage.methods();
    let rank_by = args.rank.rank_by.as_ref();
    let plan = context.plan()?;
    let remaining = Remaining::new(context, &methods, Method::Exact, rank_by)?;
    let inputs = remaining.all_inputs()?;
    context.remove_stale(context.step(), UnitKind::Exact, args.ranges)?;
    let units = Unit::all(UnitKind::Exact, args.ranges);
    context.each_unit(units, 1, |unit| {
        let work = Work {
            unit,
            units: args.ranges as usize,
            settings: ExactSettings {
                methods: methods.clone(),
                rank_by: rank_by.cloned(),
                ranges: args.ranges,
            },
            inputs: inputs.clone(),
        };
        let Some(mut task) = context.begin(work)? else {
            return Ok(());
        };
        let is_in_range = |hash: [u8; 32]| range_of(&hash, args.ranges) == unit.index;
        let images = remaining.images(&plan, |image| image.sha256.is_some_and(is_in_range))?;
        let keyed: Vec<_> = images
            .iter()
            .map(|image| (image.sha256, image.candidate(0.0)))
            .collect();
        let found = exact::duplicates(&keyed).into_iter();
        let found = found.map(|kept| kept.map(|kept| (kept, 1.0)));
        task.decides(&methods.deciding_kinds());
        finish(context, task, Method::Exact, &images, found)
    })
}

/// Returns the range that a content hash falls into, out of `ranges`.
fn range_of(hash: &[u8; 32], ranges: u32) -> u32 {
    let head = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    ((u64::from(head) * u64::from(ranges)) >> 32) as u32
}

/// Finds near perceptual hashes. The images are ranked, the best first, and each is compared with
/// those that stay.
///
/// # Errors
/// As [`exact`].
pub fn perceptual(args: &Perceptual, context: &Context) -> Result<()> {
    let methods = args.stage.methods();
    let rank_by = args.rank.rank_by.as_ref();
    let plan = context.plan()?;
    let remaining = Remaining::new(context, &methods, Method::Perceptual, rank_by)?;
    let units = vec![Unit::once(UnitKind::Perceptual)];
    context.each_unit(units, 1, |unit| {
        let work = Work {
            unit,
            units: 1,
            settings: PerceptualSettings {
                methods: methods.clone(),
                rank_by: rank_by.cloned(),
                max_distance: args.max_distance,
            },
            inputs: remaining.all_inputs()?,
        };
        let Some(mut task) = context.begin(work)? else {
            return Ok(());
        };
        let mut images =
            remaining.images(&plan, |image| image.phash.is_some_and(is_informative))?;
        images.sort_by(|a, b| ranking::best_first(&a.candidate(0.0), &b.candidate(0.0)));
        let hashes: Vec<u64> = images.iter().filter_map(|image| image.phash).collect();
        let similar = |(kept, distance): (usize, u32)| (kept, 1.0 - distance as f32 / 64.0);
        let check = || context.check_stop();
        let found = perceptual::duplicates(&hashes, args.max_distance, &check)?;
        let found = found.into_iter().map(|found| found.map(similar));
        task.decides(&methods.deciding_kinds());
        finish(context, task, Method::Perceptual, &images, found)
    })
}

/// Whether a perceptual hash tells pictures apart. All flat pictures have one hash, whatever their
/// colour: no bit but the mean's. They are not compared, or they would all be duplicates.
fn is_informative(phash: u64) -> bool {
    phash.count_ones() > 1
}

/// Writes the duplicates of a unit and its receipt. `found` has, for each image that is removed,
/// the place of the image that stays and their similarity.
fn finish(
    context: &Context,
    mut task: Task<'_>,
    method: Method,
    images: &[Image],
    found: impl Iterator<Item = Option<(usize, f32)>>,
) -> Result<()> {
    task.advance(images.len())?;
    let reason = Reason::from(reason_of(method));
    let mut counts = Counts::default();
    let mut rows = Vec::new();
    for (image, found) in images.iter().zip(found) {
        counts.add(context.step(), found.map(|_| &reason));
        if let Some((kept, similarity)) = found {
            rows.push(DuplicateRow {
                partition: image.partition,
                image_id: image.image_id.clone(),
                duplicate_of: images[kept].image_id.clone(),
                similarity,
                method,
            });
        }
    }
    publish_duplicates(context, &mut task, rows)?;
    Ok(task.commit(counts)?)
}

/// Writes removed samples sorted by partition, so that a reader of one partition reads only its
/// row groups.
///
/// # Errors
/// Of storage.
pub fn publish_duplicates(
    context: &Context,
    task: &mut Task<'_>,
    mut rows: Vec<DuplicateRow>,
) -> Result<()> {
    rows.sort_by(|a, b| (a.partition, &a.image_id).cmp(&(b.partition, &b.image_id)));
    let mut writer = context.run.write_rows(&task.path(&DUPLICATES), &[])?;
    for row in rows {
        writer.push(row)?;
    }
    Ok(task.publish(|| writer.finish())?)
}
