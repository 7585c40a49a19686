//! Collects the captions of removed duplicates as metadata of the kept image (`--keep-captions
//! all`).
//!
//! A removed image records the image that it duplicates, which a later method or step may have
//! removed as well. The last image of such a chain is the kept one. The names and captions of
//! duplicates are held in memory.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sluice_harness::Context;
use sluice_manifest::layout::{CAPTIONS, IMAGES};
use sluice_manifest::rows::{CaptionedRow, CaptionsRow, MemberRow, SampleRow};
use sluice_manifest::{ImageId, Partition, StepName, Unit, UnitKind};
use sluice_run::{Plan, Survivors};
use sluice_store::Store;

/// The key of the captions in the metadata.
pub const KEY: &str = "duplicate_captions";

/// The extension of the metadata member.
const METADATA: &str = "json";

/// Captions to write for a group of duplicates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum KeepCaptions {
    /// That of the image that stays
    #[default]
    Kept,
    /// Those of the removed images too, in the metadata as `duplicate_captions`
    All,
}

impl KeepCaptions {
    /// Returns whether this is the default.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Returns the captions of removed duplicates, sorted by partition and kept image.
///
/// # Errors
///
/// Returns a data error if a manifest is missing or damaged, and otherwise a storage error.
pub fn collect(
    context: &Context,
    source: &Plan,
    survivors: &Survivors<'_>,
) -> Result<Vec<CaptionsRow>> {
    let parents = survivors.duplicates_of()?;
    let roots: HashSet<&ImageId> = parents.values().map(|id| root(&parents, id)).collect();
    let mut found: BTreeMap<&ImageId, Vec<(ImageId, String)>> = BTreeMap::new();
    let mut stay: HashMap<ImageId, (Partition, Option<String>)> = HashMap::new();
    for planned in &source.partitions {
        context.check_stop()?;
        let path = IMAGES.path(&StepName::read(), planned.partition.into());
        for row in context.run.rows::<CaptionedRow>(&path)? {
            let CaptionedRow { image_id, caption } = row?;
            if let Some(parent) = parents.get(&image_id) {
                let caption = caption.filter(|caption| !caption.trim().is_empty());
                let group = found.entry(root(&parents, parent)).or_default();
                group.extend(caption.map(|caption| (image_id, caption)));
            } else if roots.contains(&image_id) {
                stay.insert(image_id, (planned.partition, caption));
            }
        }
    }
    let rows = found.into_iter().filter_map(|(id, group)| {
        let (partition, own) = stay.get(id)?;
        Some(CaptionsRow {
            partition: *partition,
            image_id: id.clone(),
            captions: distinct(group, own.as_deref()),
        })
    });
    let mut rows: Vec<CaptionsRow> = rows.filter(|row| !row.captions.is_empty()).collect();
    rows.sort_by(|a, b| (a.partition, &a.image_id).cmp(&(b.partition, &b.image_id)));
    Ok(rows)
}

/// Follows the duplicates to the kept image.
fn root<'p>(parents: &'p HashMap<ImageId, ImageId>, id: &'p ImageId) -> &'p ImageId {
    let mut at = id;
    // In damaged manifests, the chain may be circular.
    for _ in 0..parents.len() {
        match parents.get(at) {
            Some(parent) => at = parent,
            None => break,
        }
    }
    at
}

/// Returns each caption once, in the order of the images' names, without that of the kept image.
fn distinct(mut group: Vec<(ImageId, String)>, own: Option<&str>) -> Vec<String> {
    group.sort();
    let mut seen: HashSet<String> = own.map(str::to_owned).into_iter().collect();
    let captions = group.into_iter().map(|(_, caption)| caption);
    captions
        .filter(|caption| seen.insert(caption.clone()))
        .collect()
}

/// Returns the captions of a partition's images that `plan` collected.
///
/// # Errors
///
/// Returns a data error if the manifest is missing or damaged, and otherwise a storage error.
pub fn of_partition(
    run: &Store,
    export: &StepName,
    partition: Partition,
) -> sluice_manifest::Result<HashMap<ImageId, Vec<String>>> {
    let rows = run.rows::<CaptionsRow>(&CAPTIONS.path(export, Unit::once(UnitKind::Plan)))?;
    let rows = rows.within("partition", partition.0..partition.0 + 1)?;
    let mine = rows.filter(|row| row.as_ref().map_or(true, |row| row.partition == partition));
    mine.map(|row| row.map(|row| (row.image_id, row.captions)))
        .collect()
}

/// Adds captions to a sample's metadata: to the JSON object in its `.json` member or, if it has
/// none, to a new one. Returns false if they cannot be added: the metadata is not an object, or
/// already has the key.
pub fn add(sample: &mut SampleRow, captions: &[String]) -> bool {
    let member = sample
        .members
        .iter()
        .position(|m| m.extension.eq_ignore_ascii_case(METADATA));
    let before = match (member, &sample.metadata) {
        (None, None) => "{}",
        (Some(_), Some(text)) => text,
        _ => return false,
    };
    let Some(text) = with_captions(before, captions) else {
        return false;
    };
    let added = MemberRow {
        extension: METADATA.to_owned(),
        offset: MemberRow::IN_ROW,
        size: text.len() as u64,
    };
    match member {
        Some(number) => sample.members[number] = added,
        None => sample.members.push(added),
    }
    sample.metadata = Some(text);
    true
}

/// Returns a JSON object with the captions as its last value. The rest is unchanged, byte for byte.
fn with_captions(object: &str, captions: &[String]) -> Option<String> {
    let fields: Map<String, Value> = serde_json::from_str(object).ok()?;
    if fields.contains_key(KEY) {
        return None;
    }
    let begin = object.trim_end().strip_suffix('}')?.trim_end();
    let comma = if fields.is_empty() { "" } else { ", " };
    let captions = Value::from(captions.to_vec());
    Some(format!("{begin}{comma}\"{KEY}\": {captions}}}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_are_the_last_value() {
        let add = |object: &str| with_captions(object, &["a \"b\"".to_owned(), "c".to_owned()]);
        let list = r#""duplicate_captions": ["a \"b\"","c"]}"#;
        assert_eq!(add("{}"), Some(format!("{{{list}")));
        assert_eq!(
            add("{\"n\": 1.50 }\n"),
            Some(format!("{{\"n\": 1.50, {list}"))
        );
        for other in ["[1]", "", "{", "{\"duplicate_captions\": 1}", "null"] {
            assert_eq!(add(other), None, "{other}");
        }
    }

    #[test]
    fn chains_end_at_the_image_that_stays() {
        let id = |text: &str| ImageId::from_text(text);
        let parents = [("c", "b"), ("b", "a"), ("x", "y"), ("y", "x")];
        let parents = parents.map(|(from, to)| (id(from), id(to))).into();
        assert_eq!(root(&parents, &id("c")), &id("a"));
        root(&parents, &id("x"));
        let group = ["2", "1", "3"].map(|name| (id(name), format!("caption {}", name.len())));
        assert_eq!(distinct(group.to_vec(), None), ["caption 1"]);
        assert!(distinct(group.to_vec(), Some("caption 1")).is_empty());
    }
}
