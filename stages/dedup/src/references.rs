//! What of the run is in a reference set: by hash here, by embedding in `groups.rs`.
//!
//! Reference sets are read from their first row to their last, some rows at a time, and compared with
//! the images of a unit. So memory does not grow with a reference set.

use std::collections::{HashMap, HashSet};

use sluice_manifest::Result;

use crate::Check;
use crate::hash::{Forms, Hash};
use crate::index::open::{By, Digest, Known, References};
use crate::perceptual::nearest;
use crate::survivors::Image;

/// Perceptual hashes of reference sets that are compared at a time: about 150 MB.
const AT_ONCE: usize = 1 << 20;

/// Returns, for each image, the first one of the reference sets with equal bytes: by SHA-256, or by MD5 for
/// lists that have it.
///
/// # Errors
/// As [`References::each_hash`].
pub(crate) fn equal(
    references: &References,
    images: &[Image],
    check: Check<'_>,
) -> Result<Vec<Option<Known>>> {
    let sha256: HashSet<[u8; 32]> = images.iter().filter_map(|image| image.sha256).collect();
    let md5: HashSet<[u8; 16]> = images.iter().filter_map(|image| image.md5).collect();
    let mut found: HashMap<Digest, Known> = HashMap::new();
    references.each_hash(&[By::Sha256, By::Md5], check, &mut |hashed| {
        let is_own = match &hashed.digest {
            Digest::Sha256(digest) => sha256.contains(digest),
            Digest::Md5(digest) => md5.contains(digest),
            Digest::Phash(_) | Digest::Pdq(_) => false,
        };
        if is_own {
            let known = found.entry(hashed.digest);
            known.or_insert_with(|| hashed.known(1.0));
        }
        Ok(())
    })?;
    let of = |image: &Image| {
        let sha256 = image.sha256.map(Digest::Sha256);
        let digests = sha256.into_iter().chain(image.md5.map(Digest::Md5));
        digests
            .filter_map(|digest| found.get(&digest))
            .next()
            .cloned()
    };
    Ok(images.iter().map(of).collect())
}

/// Returns, for each image, the nearest one of the reference sets whose hash is within `max_distance`
/// bits, the first of equally near ones.
///
/// # Errors
/// As [`References::each_hash`].
pub(crate) fn near<const W: usize>(
    references: &References,
    images: &[Forms<W>],
    max_distance: u32,
    check: Check<'_>,
) -> Result<Vec<Option<Known>>> {
    let mut search = Near {
        images,
        max_distance,
        check,
        found: vec![None; images.len()],
        others: Vec::new(),
        known: Vec::new(),
        seen: HashSet::new(),
    };
    references.each_hash(&[By::Phash, By::Pdq], check, &mut |hashed| {
        let hash = match &hashed.digest {
            Digest::Phash(hash) => Hash::of_words(&hash.0),
            Digest::Pdq(hash) => Hash::of_words(&hash.0),
            Digest::Sha256(_) | Digest::Md5(_) => None,
        };
        // Of equal hashes the first one counts.
        if let Some(hash) = hash.filter(|hash: &Hash<W>| hash.is_informative())
            && search.seen.insert(hash)
        {
            search.others.push(hash);
            search.known.push(hashed.known(0.0));
        }
        if search.others.len() == AT_ONCE {
            search.compare()?;
        }
        Ok(())
    })?;
    search.compare()?;
    Ok(search
        .found
        .into_iter()
        .map(|found| Some(found?.1))
        .collect())
}

/// The search for the nearest images of reference sets.
struct Near<'a, const W: usize> {
    images: &'a [Forms<W>],
    max_distance: u32,
    check: Check<'a>,
    /// The distance of the nearest one, and that one.
    found: Vec<Option<(u32, Known)>>,
    /// Hashes to compare with, and their images.
    others: Vec<Hash<W>>,
    known: Vec<Known>,
    seen: HashSet<Hash<W>>,
}

impl<const W: usize> Near<'_, W> {
    fn compare(&mut self) -> Result<()> {
        let nearest = nearest(self.images, &self.others, self.max_distance, self.check)?;
        for (found, nearest) in self.found.iter_mut().zip(nearest) {
            let Some((other, distance)) = nearest else {
                continue;
            };
            if found.as_ref().is_none_or(|(before, _)| distance < *before) {
                let similarity = Hash::<W>::similarity(distance);
                let known = Known {
                    similarity,
                    ..self.known[other].clone()
                };
                *found = Some((distance, known));
            }
        }
        self.others.clear();
        self.known.clear();
        self.seen.clear();
        Ok(())
    }
}
