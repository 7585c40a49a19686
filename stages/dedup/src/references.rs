//! What of the run is in a reference set: by hash here, by embedding in `groups.rs`.
//!
//! Reference sets are read from their first row to their last, some rows at a time, and compared with
//! what a unit holds of the run. So memory does not grow with a reference set.

use std::collections::{HashMap, HashSet};

use sluice_manifest::Result;

use crate::Check;
use crate::index::open::{By, Known, References};
use crate::perceptual::{is_informative, nearest};

/// Perceptual hashes of reference sets that are compared at a time: about 150 MB.
const AT_ONCE: usize = 1 << 20;

/// Returns, for each digest, the first image of the reference sets with the same.
///
/// # Errors
/// As [`References::each_hash`].
pub fn equal(
    references: &References,
    digests: &[Option<[u8; 32]>],
    check: Check<'_>,
) -> Result<Vec<Option<Known>>> {
    let own: HashSet<&[u8; 32]> = digests.iter().flatten().collect();
    let mut found: HashMap<[u8; 32], Known> = HashMap::new();
    references.each_hash(By::Sha256, check, &mut |hashed| {
        if let Some(digest) = hashed.sha256
            && own.contains(&digest)
        {
            found.entry(digest).or_insert_with(|| hashed.known(1.0));
        }
        Ok(())
    })?;
    let known = digests.iter().map(|digest| found.get(digest.as_ref()?));
    Ok(known.map(|known| known.cloned()).collect())
}

/// Returns, for each perceptual hash, the nearest image of the reference sets within `max_distance`
/// bits, the first of equally near ones.
///
/// # Errors
/// As [`References::each_hash`].
pub fn near(
    references: &References,
    hashes: &[u64],
    max_distance: u32,
    check: Check<'_>,
) -> Result<Vec<Option<Known>>> {
    let mut search = Near {
        hashes,
        max_distance,
        check,
        found: vec![None; hashes.len()],
        others: Vec::new(),
        known: Vec::new(),
        seen: HashSet::new(),
    };
    references.each_hash(By::Phash, check, &mut |hashed| {
        // Of equal hashes the first one counts.
        if let Some(hash) = hashed.phash.filter(|hash| is_informative(*hash))
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
struct Near<'a> {
    hashes: &'a [u64],
    max_distance: u32,
    check: Check<'a>,
    /// The distance of the nearest one, and that one.
    found: Vec<Option<(u32, Known)>>,
    /// Hashes to compare with, and their images.
    others: Vec<u64>,
    known: Vec<Known>,
    seen: HashSet<u64>,
}

impl Near<'_> {
    fn compare(&mut self) -> Result<()> {
        let nearest = nearest(self.hashes, &self.others, self.max_distance, self.check)?;
        for (found, nearest) in self.found.iter_mut().zip(nearest) {
            let Some((other, distance)) = nearest else {
                continue;
            };
            if found.as_ref().is_none_or(|(before, _)| distance < *before) {
                let similarity = 1.0 - distance as f32 / 64.0;
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
