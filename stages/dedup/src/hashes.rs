//! Duplicates by hash: `exact` and `perceptual`.

use anyhow::Result;
use sluice_harness::{Context, OpenUnit, Work};
use sluice_manifest::layout::DUPLICATES;
use sluice_manifest::rows::{DuplicateRow, Method};
use sluice_manifest::{Counts, ImageId, Output, Partition, Unit, UnitKind};
use sluice_run::Plan;

use crate::arguments::{Exact, Perceptual};
use crate::hash::{Forms, Hash};
use crate::index::open::{Comparison, Known, References};
use crate::pairs::{self, FoundPairs};
use crate::settings::{ExactSettings, HashKind, NearSettings, OnRequest, PerceptualSettings};
use crate::survivors::{Image, Remaining, is_computed, made_by, refuse_missing};
use crate::{exact, perceptual, ranking, references};

/// Finds equal content, one range of hashes after the other. The best image of each group stays.
///
/// # Errors
/// Data, when a step before has not been run; of storage.
pub(crate) fn exact(args: &Exact, context: &Context) -> Result<()> {
    let methods = args.stage.methods();
    let rank_by = args.rank.rank_by.as_ref();
    let plan = context.plan()?;
    let has_sets = !args.references.against.is_empty();
    let has_md5 = has_sets && is_computed(context, &plan, OnRequest::Md5)?;
    let comparison = Comparison::Exact { has_md5 };
    let references = References::open(&context.storage, &args.references, &methods, comparison)?;
    references.report(context);
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
        let Some(mut open_unit) = context.begin(work)? else {
            return Ok(());
        };
        let is_in_range = |hash: [u8; 32]| range_of(&hash, args.ranges) == unit.index;
        let images = remaining.images(&plan, |image| image.sha256.is_some_and(is_in_range))?;
        let known = references::equal(&references, &images, &|| context.check_stop())?;
        let found = removed(&images, known, |images| {
            let keyed = images.iter();
            let keyed: Vec<_> = keyed
                .map(|image| (image.sha256, image.candidate(0.0)))
                .collect();
            let found = exact::duplicates(&keyed).into_iter();
            Ok(found.map(|kept| kept.map(|kept| (kept, 1.0))).collect())
        })?;
        open_unit.decides(&methods.deciding_kinds());
        finish(
            context,
            open_unit,
            Decided::new(Method::Exact, &images, found),
        )
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
pub(crate) fn perceptual(args: &Perceptual, context: &Context) -> Result<()> {
    let methods = args.stage.methods();
    let near = args.near.settings()?;
    let rank_by = args.rank.rank_by.as_ref();
    let plan = context.plan()?;
    let comparison = Comparison::Perceptual(near.hash);
    let references = References::open(&context.storage, &args.references, &methods, comparison)?;
    references.report(context);
    let remaining = Remaining::new(context, &methods, Method::Perceptual, rank_by)?;
    let mut inputs = remaining.all_inputs()?;
    inputs.extend(references.inputs());
    pairs::remove_stale(context, args.near.ranges)?;
    refuse_missing(context, &plan, &near)?;
    let pairs = match args.near.ranges {
        1 => None,
        _ => {
            let input = context.combined_input(context.step(), UnitKind::Pairs);
            inputs.push(made_by("pairs", context, input)?);
            Some(FoundPairs::open(args, context, &references, &remaining)?)
        }
    };
    let units = vec![Unit::once(UnitKind::Perceptual)];
    context.each_unit(units, 1, |unit| {
        let work = Work {
            unit,
            units: 1,
            settings: PerceptualSettings {
                methods: methods.clone(),
                rank_by: rank_by.cloned(),
                near: near.clone(),
                against: references.names(),
            },
            inputs: inputs.clone(),
        };
        let Some(mut open_unit) = context.begin(work)? else {
            return Ok(());
        };
        let decided = match &pairs {
            Some(pairs) => pairs.decide(context, &remaining, &plan)?,
            None => compare_all(&near, context, &remaining, &plan, &references)?,
        };
        open_unit.decides(&methods.deciding_kinds());
        finish(context, open_unit, decided)
    })
}

/// Compares all perceptual hashes with each other, in this process.
fn compare_all(
    near: &NearSettings,
    context: &Context,
    remaining: &Remaining<'_>,
    plan: &Plan,
    references: &References,
) -> Result<Decided> {
    let images = remaining.images(plan, |_| true)?;
    let distance = near.max_distance;
    match near.hash {
        HashKind::Phash => {
            let forms = |image: &Image| image.phashes(&near.transformations);
            compare(images, forms, distance, context, references)
        }
        HashKind::Pdq => compare(images, Image::pdq_hashes, distance, context, references),
    }
}

/// Compares the images that have hashes.
fn compare<const W: usize>(
    mut images: Vec<Image>,
    forms: impl Fn(&Image) -> Option<Forms<W>>,
    max_distance: u32,
    context: &Context,
    references: &References,
) -> Result<Decided> {
    let check = || context.check_stop();
    images.sort_by(|a, b| ranking::best_first(&a.candidate(0.0), &b.candidate(0.0)));
    let has_images = !images.is_empty();
    let (images, hashes): (Vec<Image>, Vec<Forms<W>>) = images
        .into_iter()
        .filter_map(|image| forms(&image).map(|forms| (image, forms)))
        .unzip();
    if has_images && images.is_empty() {
        tracing::warn!("no image has a hash to compare: all are of one colour or of low quality");
    }
    let known = references::near(references, &hashes, max_distance, &check)?;
    let found = removed(&images, known, |images| {
        let hashes: Option<Vec<Forms<W>>> = images.iter().map(|image| forms(image)).collect();
        let hashes = hashes.unwrap_or_default();
        let found = perceptual::duplicates(&hashes, max_distance, &check)?.into_iter();
        let similar = |(kept, distance): (usize, u32)| (kept, Hash::<W>::similarity(distance));
        Ok(found.map(|found| found.map(similar)).collect())
    })?;
    Ok(Decided::new(Method::Perceptual, &images, found))
}

/// What a unit decided.
pub(crate) struct Decided {
    /// Images that were compared.
    pub compared: u64,
    /// Those that are removed.
    pub rows: Vec<DuplicateRow>,
}

impl Decided {
    fn new(method: Method, images: &[Image], removed: Vec<Option<Because>>) -> Self {
        let rows = images.iter().zip(removed).filter_map(|(image, because)| {
            let (partition, id) = (image.partition, &image.image_id);
            Some(match because? {
                Because::Image(kept, similarity) => {
                    let kept = images[kept].image_id.clone();
                    duplicate(partition, id, kept, similarity, method)
                }
                Because::Known(known) => in_reference(partition, id, known, method),
            })
        });
        Self {
            compared: images.len() as u64,
            rows: rows.collect(),
        }
    }
}

/// Because of what an image is removed.
enum Because {
    /// An image of the run, by its place, and their similarity.
    Image(usize, f32),
    /// An image of a reference set.
    Known(Known),
}

/// For each image the place of the one that stays in its place, and their similarity.
type Matches = Vec<Option<(usize, f32)>>;

/// Returns because of what each image is removed. `compare` compares those that no reference set has.
fn removed(
    images: &[Image],
    known: Vec<Option<Known>>,
    compare: impl FnOnce(&[&Image]) -> Result<Matches>,
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
fn finish(context: &Context, mut open_unit: OpenUnit<'_>, decided: Decided) -> Result<()> {
    let Decided { compared, rows } = decided;
    open_unit.advance(compared as usize)?;
    let mut counts = Counts::all_kept(compared.saturating_sub(rows.len() as u64));
    for row in &rows {
        counts.add(context.step(), Some(&row.reason()));
    }
    publish_duplicates(context, &mut open_unit, rows)?;
    Ok(open_unit.commit(counts)?)
}

/// Returns the row of an image that is removed because of another one of the run.
pub(crate) fn duplicate(
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
pub(crate) fn in_reference(
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

/// Publishes the duplicates of a unit.
///
/// # Errors
/// Of storage.
pub(crate) fn publish_duplicates(
    context: &Context,
    open_unit: &mut OpenUnit<'_>,
    rows: Vec<DuplicateRow>,
) -> Result<()> {
    let path = open_unit.path(&DUPLICATES);
    Ok(open_unit.publish(|| write_duplicates(context, &path, rows))?)
}

/// Writes removed samples sorted by partition, so that a reader of one partition reads only its
/// row groups.
///
/// # Errors
/// Of storage.
pub(crate) fn write_duplicates(
    context: &Context,
    path: &str,
    mut rows: Vec<DuplicateRow>,
) -> sluice_manifest::Result<Output> {
    rows.sort_by(|a, b| (a.partition, &a.image_id).cmp(&(b.partition, &b.image_id)));
    let mut writer = context.run.write_rows(path, &[])?;
    for row in rows {
        writer.push(row)?;
    }
    writer.finish()
}
