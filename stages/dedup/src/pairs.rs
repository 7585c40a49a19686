//! Perceptual duplicates in parts: `pairs` connects images with near hashes, part by part, and
//! `perceptual` decides.
//!
//! Pairs name images by partition and row of `read/images`. So a part needs hashes and numbers alone,
//! and `perceptual` needs the images of pairs, not all.
//!
//! # Memory
//! - A unit of `pairs`: 16 bytes for each entry of its tables (`bands.rs`) and for each pair. Of a
//!   billion images in 64 ranges 15 tables have 234 million entries a range: 3.8 GB.
//! - `perceptual`: about 130 bytes and the image's name for each image of a pair, and 16 for each pair.
//!   If a tenth of a billion images has a near one, that is about 20 GB. Images without a near one take
//!   nothing. What one component needs more is freed with it.

use anyhow::Result;
use sluice_harness::{Context, Work};
use sluice_manifest::layout::{KNOWN, PAIRS};
use sluice_manifest::rows::{DuplicateRow, Method, PairRow};
use sluice_manifest::{Counts, Error, ImageId, Partition, Unit, UnitKind};
use sluice_run::Plan;

use crate::arguments::{Pairs, Perceptual};
use crate::bands::{Pair, Part};
use crate::components::{Components, decide};
use crate::hash::{Forms, Hash};
use crate::hashes::{Decided, duplicate, in_reference, write_duplicates};
use crate::index::open::{Comparison, References};
use crate::ranking::{Candidate, best_first};
use crate::settings::{HashKind, NearSettings, PairsSettings};
use crate::survivors::{Image, Remaining, again, made_by, refuse_missing};
use crate::{Check, references};

/// Finds pairs of near perceptual hashes and, with reference sets, the images that those have. With one
/// range there is nothing to do: `perceptual` compares the hashes itself.
///
/// # Errors
/// Data, when a step before has not been run; of storage.
pub(crate) fn find(args: &Pairs, context: &Context) -> Result<()> {
    let ranges = args.near.ranges;
    let near = args.near.settings()?;
    remove_stale(context, ranges)?;
    match near.hash {
        _ if ranges == 1 => Ok(()),
        HashKind::Phash => find_by(args, &near, context, |image| image.phashes(&[])),
        HashKind::Pdq => find_by(args, &near, context, Image::pdq_hashes),
    }
}

fn find_by<const W: usize>(
    args: &Pairs,
    near: &NearSettings,
    context: &Context,
    forms: impl Fn(&Image) -> Option<Forms<W>> + Sync,
) -> Result<()> {
    let methods = args.stage.methods();
    let ranges = args.near.ranges;
    let plan = context.plan()?;
    let comparison = Comparison::Perceptual(near.hash);
    let references = References::open(&context.storage, &args.references, &methods, comparison)?;
    references.report(context);
    let remaining = Remaining::new(context, &methods, Method::Perceptual, None)?;
    let mut inputs = remaining.all_inputs()?;
    inputs.extend(references.inputs());
    refuse_missing(context, &plan, near)?;
    context.each_unit(Unit::all(UnitKind::Pairs, ranges), 1, |unit| {
        let work = Work {
            unit,
            units: ranges as usize,
            settings: PairsSettings {
                methods: methods.clone(),
                near: near.clone(),
                ranges,
                against: references.names(),
            },
            inputs: inputs.clone(),
        };
        let Some(mut open_unit) = context.begin(work)? else {
            return Ok(());
        };
        let check = || context.check_stop();
        let mut part = Part::new(near.max_distance, unit.index, ranges);
        let mut own: Vec<(Image, Forms<W>)> = Vec::new();
        each_left(context, &remaining, &plan, |number, image| {
            let Some(forms) = forms(&image) else { return };
            part.add(number, forms.own);
            if !references.are_none() && forms.own.range(ranges) == unit.index {
                own.push((image, forms));
            }
        })?;
        let own_count = own.len();
        let known = find_known(&references, own, near.max_distance, &check)?;
        let pairs = part.pairs(&check)?;
        open_unit.advance(own_count)?;
        let mut writer = context.run.write_rows(&open_unit.path(&PAIRS), &[])?;
        for pair in pairs {
            writer.push(row_of(pair))?;
        }
        open_unit.publish(|| writer.finish())?;
        if !references.are_none() {
            let path = open_unit.path(&KNOWN);
            open_unit.publish(|| write_duplicates(context, &path, known))?;
        }
        Ok(open_unit.commit(Counts::default())?)
    })
}

/// Removes the units of `pairs` that `ranges` ranges do not have.
///
/// # Errors
/// Of storage.
pub(crate) fn remove_stale(context: &Context, ranges: u32) -> Result<()> {
    let units = if ranges == 1 { 0 } else { ranges };
    Ok(context.remove_stale(context.step(), UnitKind::Pairs, units)?)
}

/// Calls `each` with the images that are left, and their numbers.
fn each_left(
    context: &Context,
    remaining: &Remaining<'_>,
    plan: &Plan,
    mut each: impl FnMut(u64, Image),
) -> Result<()> {
    for planned in &plan.partitions {
        context.check_stop()?;
        let rows = remaining.walk(planned.partition)?;
        for (row, walked) in rows.enumerate() {
            let walked = walked?;
            if walked.is_left {
                each(number(planned.partition, row as u32), walked.image);
            }
        }
    }
    Ok(())
}

/// Returns the number of an image: its partition, then its row of `read/images`.
fn number(partition: Partition, row: u32) -> u64 {
    u64::from(partition.0) << 32 | u64::from(row)
}

fn partition_of(number: u64) -> Partition {
    Partition((number >> 32) as u32)
}

fn row_of(pair: Pair) -> PairRow {
    PairRow {
        partition: partition_of(pair.one),
        row: pair.one as u32,
        other_partition: partition_of(pair.other),
        other_row: pair.other as u32,
    }
}

fn find_known<const W: usize>(
    references: &References,
    own: Vec<(Image, Forms<W>)>,
    max_distance: u32,
    check: Check<'_>,
) -> Result<Vec<DuplicateRow>> {
    let (own, forms): (Vec<Image>, Vec<Forms<W>>) = own.into_iter().unzip();
    let known = references::near(references, &forms, max_distance, check)?;
    let rows = own.iter().zip(known).filter_map(|(image, known)| {
        let (partition, id) = (image.partition, &image.image_id);
        Some(in_reference(partition, id, known?, Method::Perceptual))
    });
    Ok(rows.collect())
}

/// What the decision needs of an image of a pair.
struct PairedImage<const W: usize> {
    number: u64,
    hash: Hash<W>,
    image_id: ImageId,
    score: Option<f32>,
    pixels: u64,
    texts: u8,
}

impl<const W: usize> PairedImage<W> {
    fn new(number: u64, hash: Hash<W>, image: Image) -> Self {
        Self {
            number,
            hash,
            image_id: image.image_id,
            score: image.score,
            pixels: image.pixels,
            texts: image.texts,
        }
    }

    fn candidate(&self) -> Candidate<'_> {
        Candidate {
            image_id: self.image_id.as_str(),
            score: self.score,
            pixels: self.pixels,
            texts: self.texts,
            distance: 0.0,
        }
    }
}

/// What the units of `pairs` found.
pub(crate) struct FoundPairs {
    near: NearSettings,
    units: Vec<Unit>,
    has_known: bool,
}

impl FoundPairs {
    /// Opens the units of `pairs`, which must have been made with the flags of `perceptual`, of the
    /// samples and reference sets of today.
    ///
    /// # Errors
    /// Data, when they are missing, or were made with others.
    pub(crate) fn open(
        args: &Perceptual,
        context: &Context,
        references: &References,
        remaining: &Remaining<'_>,
    ) -> Result<Self> {
        let step = context.step();
        let units = Unit::all(UnitKind::Pairs, args.near.ranges);
        let expected = PairsSettings {
            methods: args.stage.methods(),
            near: args.near.settings()?,
            ranges: args.near.ranges,
            against: references.names(),
        };
        let mut inputs = remaining.unranked_inputs()?;
        inputs.extend(references.inputs());
        let receipts = context.required_receipts(step, &units);
        for receipt in made_by("pairs", context, receipts)? {
            let made: PairsSettings = receipt.settings()?;
            let unit = receipt.unit;
            if made != expected || receipt.survivors_of != context.node().survivors_of {
                return Err(Error::data(format!(
                    "{step}: {unit} was not made with the flags of this command"
                ))
                .hint(again(context, "pairs"))
                .into());
            }
            if receipt.inputs != inputs {
                return Err(Error::data(format!(
                    "{step}: {unit} is stale: samples or a reference set have changed since"
                ))
                .hint(again(context, "pairs"))
                .into());
            }
        }
        Ok(Self {
            near: expected.near,
            units,
            has_known: !references.are_none(),
        })
    }

    /// Decides about all images.
    ///
    /// # Errors
    /// Data, when a manifest is missing or broken.
    pub(crate) fn decide(
        &self,
        context: &Context,
        remaining: &Remaining<'_>,
        plan: &Plan,
    ) -> Result<Decided> {
        match self.near.hash {
            HashKind::Phash => {
                let hash = |image: &Image| Some(image.phashes(&[])?.own);
                self.decide_by(hash, context, remaining, plan)
            }
            HashKind::Pdq => {
                let hash = |image: &Image| Some(image.pdq_hashes()?.own);
                self.decide_by(hash, context, remaining, plan)
            }
        }
    }

    fn decide_by<const W: usize>(
        &self,
        hash: impl Fn(&Image) -> Option<Hash<W>>,
        context: &Context,
        remaining: &Remaining<'_>,
        plan: &Plan,
    ) -> Result<Decided> {
        let mut rows = self.known(context)?;
        let known = rows.iter().map(|row| (row.partition, row.image_id.clone()));
        let known: std::collections::HashSet<_> = known.collect();
        let components = Components::new(&self.pairs(context)?);
        let mut compared = 0_u64;
        let mut images: Vec<PairedImage<W>> = Vec::new();
        each_left(context, remaining, plan, |number, image| {
            let Some(hash) = hash(&image) else { return };
            compared += 1;
            let is_known = || known.contains(&(image.partition, image.image_id.clone()));
            if components.contain(number) && !is_known() {
                images.push(PairedImage::new(number, hash, image));
            }
        })?;
        images.sort_by(|a, b| best_first(&a.candidate(), &b.candidate()));
        let ranked = images.iter().map(|image| (image.number, image.hash));
        let ranked: Vec<(u64, Hash<W>)> = ranked.collect();
        let check = || context.check_stop();
        let decided = decide(&components, &ranked, self.near.max_distance, &check)?;
        for (image, found) in images.iter().zip(decided) {
            rows.extend(found.map(|(kept, distance)| {
                let kept = images[kept].image_id.clone();
                let similarity = Hash::<W>::similarity(distance);
                let (partition, id) = (partition_of(image.number), &image.image_id);
                duplicate(partition, id, kept, similarity, Method::Perceptual)
            }));
        }
        Ok(Decided { compared, rows })
    }

    fn pairs(&self, context: &Context) -> Result<Vec<Pair>> {
        let mut pairs = Vec::new();
        for &unit in &self.units {
            context.check_stop()?;
            let path = PAIRS.path(context.step(), unit);
            for row in context.run.rows::<PairRow>(&path)? {
                let row = row?;
                pairs.push(Pair {
                    one: number(row.partition, row.row),
                    other: number(row.other_partition, row.other_row),
                });
            }
        }
        Ok(pairs)
    }

    fn known(&self, context: &Context) -> Result<Vec<DuplicateRow>> {
        let mut known = Vec::new();
        for &unit in self.units.iter().filter(|_| self.has_known) {
            let path = KNOWN.path(context.step(), unit);
            for row in context.run.rows::<DuplicateRow>(&path)? {
                known.push(row?);
            }
        }
        Ok(known)
    }
}
