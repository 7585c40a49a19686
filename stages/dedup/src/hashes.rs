//! Duplicates by hash: `exact` and `perceptual`.

use anyhow::Result;
use sluice_harness::{Context, Task, Work};
use sluice_manifest::layout::DUPLICATES;
use sluice_manifest::rows::{DuplicateRow, Method};
use sluice_manifest::{Counts, ImageId, Partition, Unit, UnitKind};

use crate::arguments::{Exact, Perceptual};
use crate::index::open::{Known, References};
use crate::perceptual::is_informative;
use crate::settings::{ExactSettings, PerceptualSettings};
use crate::survivors::{Image, Remaining};
use crate::{exact, perceptual, ranking, references};

/// Finds equal content, one range of hashes after the other. The best image of each group stays.
///
/// # Errors
/// Data, when a step before has not been run; of storage.
pub fn exact(args: &Exact, context: &Context) -> Result<()> {
    let methods = args.stage.methods();
    let rank_by = args.rank.rank_by.as_ref();
    let plan = context.plan()?;
    let references = References::open(&context.storage, &args.references.against)?;
    let remaining = Remaining::new(context, &methods, Method::Exact, rank_by)?;
    let mut inputs = remaining.all_inputs()?;
    inputs.extend(references.inputs());
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
                against: references.names(),
            },
            inputs: inputs.clone(),
        };
        let Some(mut task) = context.begin(work)? else {
            return Ok(());
        };
        let is_in_range = |hash: [u8; 32]| range_of(&hash, args.ranges) == unit.index;
        let images = remaining.images(&plan, |image| image.sha256.is_some_and(is_in_range))?;
        let digests: Vec<_> = images.iter().map(|image| image.sha256).collect();
        let known = references::equal(&references, &digests, &|| context.check_stop())?;
        let found = removed(&images, known, |images| {
            let keyed = images.iter();
            let keyed: Vec<_> = keyed
                .map(|image| (image.sha256, image.candidate(0.0)))
                .collect();
            let found = exact::duplicates(&keyed).into_iter();
            Ok(found.map(|kept| kept.map(|kept| (kept, 1.0))).collect())
        })?;
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
    let references = References::open(&context.storage, &args.references.against)?;
    let remaining = Remaining::new(context, &methods, Method::Perceptual, rank_by)?;
    let mut inputs = remaining.all_inputs()?;
    inputs.extend(references.inputs());
    let units = vec![Unit::once(UnitKind::Perceptual)];
    context.each_unit(units, 1, |unit| {
        let work = Work {
            unit,
            units: 1,
            settings: PerceptualSettings {
                methods: methods.clone(),
                rank_by: rank_by.cloned(),
                max_distance: args.max_distance,
                against: references.names(),
            },
            inputs: inputs.clone(),
        };
        let Some(mut task) = context.begin(work)? else {
            return Ok(());
        };
        let mut images =
            remaining.images(&plan, |image| image.phash.is_some_and(is_informative))?;
        images.sort_by(|a, b| ranking::best_first(&a.candidate(0.0), &b.candidate(0.0)));
        let hashes: Vec<u64> = images.iter().filter_map(|image| image.phash).collect();
        let check = || context.check_stop();
        let known = references::near(&references, &hashes, args.max_distance, &check)?;
        let found = removed(&images, known, |images| {
            let hashes: Vec<u64> = images.iter().filter_map(|image| image.phash).collect();
            let found = perceptual::duplicates(&hashes, args.max_distance, &check)?;
            let similar = |(kept, distance): (usize, u32)| (kept, 1.0 - distance as f32 / 64.0);
            Ok(found.into_iter().map(|found| found.map(similar)).collect())
        })?;
        task.decides(&methods.deciding_kinds());
        finish(context, task, Method::Perceptual, &images, found)
    })
}

/// Because of what an image is removed.
enum Because {
    /// An image of the run, by its place, and their similarity.
    Image(usize, f32),
    /// An image of a reference set.
    Known(Known),
}

/// For each image the place of the one that stays in its place, and their similarity.
type Found = Vec<Option<(usize, f32)>>;

/// Returns because of what each image is removed. `compare` compares those that no reference set has.
fn removed(
    images: &[Image],
    known: Vec<Option<Known>>,
    compare: impl FnOnce(&[&Image]) -> Result<Found>,
) -> Result<Vec<Option<Because>>> {
    let left: Vec<usize> = (0..images.len())
        .filter(|&place| known[place].is_none())
        .collect();
    let compared: Vec<&Image> = left.iter().map(|&place| &images[place]).collect();
    let mut because: Vec<Option<Because>> = known
        .into_iter()
        .map(|known| known.map(Because::Known))
        .collect();
    for (&place, found) in left.iter().zip(compare(&compared)?) {
        because[place] = found.map(|(kept, similarity)| Because::Image(left[kept], similarity));
    }
    Ok(because)
}

/// Writes the duplicates of a unit and its receipt.
fn finish(
    context: &Context,
    mut task: Task<'_>,
    method: Method,
    images: &[Image],
    removed: Vec<Option<Because>>,
) -> Result<()> {
    task.advance(images.len())?;
    let mut counts = Counts::default();
    let mut rows = Vec::new();
    for (image, because) in images.iter().zip(removed) {
        let row = because.map(|because| match because {
            Because::Image(kept, similarity) => {
                let kept = images[kept].image_id.clone();
                duplicate(image.partition, &image.image_id, kept, similarity, method)
            }
            Because::Known(known) => in_reference(image.partition, &image.image_id, known, method),
        });
        counts.add(
            context.step(),
            row.as_ref().map(DuplicateRow::reason).as_ref(),
        );
        rows.extend(row);
    }
    publish_duplicates(context, &mut task, rows)?;
    Ok(task.commit(counts)?)
}

/// Returns the row of an image that is removed because of another one of the run.
pub fn duplicate(
    partition: Partition,
    image_id: &ImageId,
    kept: ImageId,
    similarity: f32,
    method: Method,
) -> DuplicateRow {
    DuplicateRow {
        partition,
        image_id: image_id.clone(),
        duplicate_of: kept,
        reference: None,
        label: None,
        similarity,
        method,
    }
}

/// Returns the row of an image that is removed because of one of a reference set.
pub fn in_reference(
    partition: Partition,
    image_id: &ImageId,
    known: Known,
    method: Method,
) -> DuplicateRow {
    DuplicateRow {
        partition,
        image_id: image_id.clone(),
        duplicate_of: known.image_id,
        reference: Some(known.set),
        label: known.label,
        similarity: known.similarity,
        method,
    }
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
