//! The groups of duplicates: a kept image and all images that were removed as its duplicates, directly
//! or through other images that were removed later.
//!
//! The row of a removed image names its original. Following these links ends at an image that no dedup
//! step removed, the root. All images with the same root are a group, across all dedup steps and
//! methods. A group's number is the start of the SHA-256 of the root's `image_id`. An image without
//! duplicates is a group of one. Images of reference sets have no group.
//!
//! The links are kept in memory: 32 bytes of hashes for each removed duplicate.

use std::collections::HashMap;

use anyhow::Result;
use sha2::{Digest, Sha256};
use sluice_harness::Context;
use sluice_manifest::layout::{GROUPS, IMAGES};
use sluice_manifest::rows::{GroupRow, NameRow};
use sluice_manifest::{ImageId, Output, Partition, StepName, Unit, UnitKind};
use sluice_run::{Plan, Survivors};
use sluice_store::Store;

/// The group of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// The group's number.
    pub id: u64,
    /// The number of images in the group, including the kept one.
    pub size: u32,
}

impl Group {
    /// Returns the group of an image without duplicates.
    pub fn alone(id: &ImageId) -> Self {
        Self {
            id: number_of(name_of(id)),
            size: 1,
        }
    }
}

/// Returns the 128-bit hash that identifies an image.
fn name_of(id: &ImageId) -> u128 {
    let digest = Sha256::digest(id.as_str());
    digest[..16]
        .iter()
        .fold(0, |name, byte| name << 8 | u128::from(*byte))
}

/// Returns the number of the group with this root.
fn number_of(name: u128) -> u64 {
    (name >> 64) as u64
}

/// The groups of more than one image.
#[derive(Debug, Default)]
pub struct Groups {
    /// The removed images, ascending, each with its original.
    links: Vec<(u128, u128)>,
    /// The roots, ascending, each with its group's size.
    sizes: Vec<(u128, u32)>,
}

impl Groups {
    /// Follows the duplicates of all dedup steps of a chain.
    ///
    /// # Errors
    ///
    /// Fails if a manifest is missing, damaged or cannot be read.
    pub fn of(survivors: &Survivors<'_>) -> sluice_manifest::Result<Self> {
        let mut links = Vec::new();
        survivors.each_duplicate(|row| {
            if row.reference.is_none() {
                links.push((name_of(&row.image_id), name_of(&row.duplicate_of)));
            }
        })?;
        Ok(Self::from_links(links))
    }

    fn from_links(mut links: Vec<(u128, u128)>) -> Self {
        links.sort_unstable();
        let mut groups = Self {
            links,
            sizes: Vec::new(),
        };
        let roots = groups.links.iter().map(|(name, _)| groups.root(*name));
        let mut roots: Vec<u128> = roots.collect();
        roots.sort_unstable();
        let of_root = roots.chunk_by(|a, b| a == b);
        let sizes = of_root.map(|equal| (equal[0], equal.len() as u32 + 1));
        groups.sizes = sizes.collect();
        groups
    }

    /// Returns the original of a removed image.
    fn parent(&self, name: u128) -> Option<u128> {
        let found = self.links.binary_search_by_key(&name, |(child, _)| *child);
        found.ok().map(|index| self.links[index].1)
    }

    /// Returns the end of the links from an image.
    fn root(&self, name: u128) -> u128 {
        let mut at = name;
        // The links of a damaged manifest may form a cycle.
        for _ in 0..self.links.len() {
            match self.parent(at) {
                Some(parent) => at = parent,
                None => break,
            }
        }
        at
    }

    /// Returns the group of an image, or `None` if it has no duplicates.
    pub fn of_image(&self, id: &ImageId) -> Option<Group> {
        let root = self.root(name_of(id));
        let found = self.sizes.binary_search_by_key(&root, |(root, _)| *root);
        found.ok().map(|index| Group {
            id: number_of(root),
            size: self.sizes[index].1,
        })
    }
}

/// Writes the images of all groups with more than one image.
///
/// # Errors
///
/// Fails if a manifest is missing or damaged, if the storage fails, or if the process is asked to
/// stop.
pub fn write(
    context: &Context,
    source: &Plan,
    survivors: &Survivors<'_>,
    path: &str,
) -> Result<Output> {
    let groups = Groups::of(survivors)?;
    let mut writer = context.run.write_rows(path, &[])?;
    for planned in source
        .partitions
        .iter()
        .filter(|_| !groups.links.is_empty())
    {
        context.check_stop()?;
        let path = IMAGES.path(&StepName::read(), planned.partition.into());
        for row in context.run.rows::<NameRow>(&path)? {
            let image_id = row?.image_id;
            if let Some(group) = groups.of_image(&image_id) {
                writer.push(GroupRow {
                    partition: planned.partition,
                    image_id,
                    group_id: group.id,
                    group_size: group.size,
                })?;
            }
        }
    }
    Ok(writer.finish()?)
}

/// Returns the groups of a partition's images that have duplicates, as written by `plan`.
///
/// # Errors
///
/// Fails if the manifest is missing, damaged or cannot be read.
pub fn of_partition(
    run: &Store,
    export: &StepName,
    partition: Partition,
) -> sluice_manifest::Result<HashMap<ImageId, Group>> {
    let rows = run.rows::<GroupRow>(&GROUPS.path(export, Unit::once(UnitKind::Plan)))?;
    let rows = rows.within("partition", partition.0..partition.0 + 1)?;
    let mine = rows.filter(|row| row.as_ref().map_or(true, |row| row.partition == partition));
    let groups = mine.map(|row| {
        row.map(|row| {
            let (id, size) = (row.group_id, row.group_size);
            (row.image_id, Group { id, size })
        })
    });
    groups.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_end_at_the_kept_image() {
        let id = |name: &str| ImageId::from_text(name);
        let links = [("c", "b"), ("b", "a"), ("d", "a"), ("y", "x")];
        let links = links.map(|(from, to)| (name_of(&id(from)), name_of(&id(to))));
        let groups = Groups::from_links(links.to_vec());
        let of_a = Some(Group {
            id: Group::alone(&id("a")).id,
            size: 4,
        });
        for name in ["a", "b", "c", "d"] {
            assert_eq!(groups.of_image(&id(name)), of_a, "{name}");
        }
        let of_x = groups.of_image(&id("y"));
        assert_eq!(of_x.map(|group| group.size), Some(2));
        assert_eq!(groups.of_image(&id("x")), of_x);
        assert_eq!(groups.of_image(&id("e")), None);
    }

    #[test]
    fn cycles_end() {
        let links = vec![(1, 2), (2, 1)];
        // Each image of it is an end.
        assert_eq!(Groups::from_links(links).sizes.len(), 2);
    }
}
