//! The section of images: dropped by rules, rejected by `read`, duplicates next to the images that
//! they duplicate, and random samples.

use std::cmp::Ordering;
use std::collections::HashMap;

use askama::Template;
use sluice_manifest::numbers::{plural, thousands};
use sluice_manifest::rows::{DuplicateRow, Method};
use sluice_manifest::{ImageId, StepName};
use sluice_run::card::ImageCard;
use sluice_run::duplicates::{found_by, method_name};

use crate::album::Album;
use crate::duplicates::{DuplicateGroup, Duplicates, Pairs};
use crate::figures::{Figures, Gallery, Shown};
use crate::findings::Findings;

/// The section of images.
#[derive(Debug)]
pub(crate) struct Galleries {
    read: bool,
    deduplicated: bool,
    rejects: Vec<Gallery>,
    rules: Vec<Gallery>,
    pairs: Vec<PairGallery>,
    groups: Vec<GroupGallery>,
    random: Vec<Gallery>,
}

/// Pairs of duplicates.
#[derive(Debug)]
pub struct PairGallery {
    /// The title.
    pub title: String,
    /// A description of the pairs.
    pub about: String,
    /// The pairs.
    pub pairs: Vec<Pair>,
}

/// A duplicate and the image that it duplicates.
#[derive(Debug)]
pub struct Pair {
    /// The dropped image.
    pub gone: Shown,
    /// The image that it duplicates.
    pub other: Shown,
    /// How similar they are.
    pub note: String,
}

/// A group of duplicates. The first image is the one that the others duplicate.
#[derive(Debug)]
struct GroupGallery {
    of: String,
    count: String,
    shown: Vec<Shown>,
    more: u64,
}

#[derive(Template)]
#[template(path = "galleries.html")]
struct GalleriesTemplate<'a> {
    galleries: &'a Galleries,
    figures: Figures<'a>,
}

impl Galleries {
    /// Creates the section. Images are added to the album.
    pub(crate) fn new(
        read: bool,
        deduplicated: bool,
        findings: &Findings,
        duplicates: &Duplicates,
        album: &mut Album,
    ) -> Self {
        let named = &findings.named;
        let pairs = duplicates.methods.iter();
        let pairs = pairs
            .map(|pairs| pair_gallery(pairs, named, album))
            .collect();
        let (rejects, rules) = reasons(findings, album);
        let groups = duplicates.groups.iter();
        let groups = groups
            .map(|group| group_gallery(group, named, album))
            .collect();
        let kept = Gallery::new("Kept", "", findings.kept.items(), album, caption);
        let dropped = findings.dropped.items();
        let dropped = Gallery::new("Dropped", "", dropped, album, |card| {
            let reason = card
                .dropped
                .as_ref()
                .map(|dropped| dropped.reason.to_string());
            reason.unwrap_or_default()
        });
        Self {
            read,
            deduplicated,
            rejects,
            rules,
            pairs,
            groups,
            random: vec![kept, dropped],
        }
    }

    /// Returns the HTML of the section.
    ///
    /// # Errors
    ///
    /// Rendering to a string does not fail, so no error is expected.
    pub(crate) fn html(&self, figures: Figures<'_>) -> askama::Result<String> {
        GalleriesTemplate {
            galleries: self,
            figures,
        }
        .render()
    }
}

/// Returns galleries of the samples rejected by `read`, and of those dropped by rules.
fn reasons(findings: &Findings, album: &mut Album) -> (Vec<Gallery>, Vec<Gallery>) {
    let (mut rejects, mut rules) = (Vec::new(), Vec::new());
    for (dropped, best) in &findings.reasons {
        let is_reject = dropped.step == StepName::read();
        let title = format!("{}: {}", dropped.step, dropped.reason);
        let about = dropped.reason.text();
        let detail = |card: &ImageCard| card.detail.clone().unwrap_or_default();
        let gallery = Gallery::new(title, about, best.items(), album, detail);
        if is_reject { &mut rejects } else { &mut rules }.push(gallery);
    }
    (rejects, rules)
}

fn caption(card: &ImageCard) -> String {
    card.caption
        .clone()
        .unwrap_or_else(|| "no caption".to_owned())
}

fn pair_gallery(
    pairs: &Pairs,
    named: &HashMap<ImageId, ImageCard>,
    album: &mut Album,
) -> PairGallery {
    let method = method_name(pairs.method);
    let shown = pairs.pairs.iter().filter_map(|row| pair(row, named, album));
    PairGallery {
        pairs: shown.collect(),
        title: format!("{}: {method} duplicates", pairs.step),
        about: format!(
            "{} dropped; of each group {}.{}",
            plural(pairs.count, "image"),
            pairs.choice,
            match pairs.method {
                Method::Exact => "",
                _ => " The least similar pairs come first.",
            }
        ),
    }
}

/// Returns a pair, or `None` if one of its images is unknown.
pub fn pair(
    row: &DuplicateRow,
    named: &HashMap<ImageId, ImageCard>,
    album: &mut Album,
) -> Option<Pair> {
    let (gone, other) = (named.get(&row.image_id)?, named.get(&row.duplicate_of)?);
    // A duplicate of a blurred image is blurred as well.
    let is_nsfw = gone.is_nsfw || other.is_nsfw;
    let mut shown = |card: &ImageCard, note: String| Shown {
        place: album.add(&ImageCard {
            is_nsfw,
            ..card.clone()
        }),
        value: None,
        note,
    };
    Some(Pair {
        note: format!("{}; {}", found_by(row), difference(gone, other)),
        gone: shown(gone, gone.state()),
        other: shown(other, other.state()),
    })
}

/// Describes which image has more pixels.
fn difference(gone: &ImageCard, other: &ImageCard) -> &'static str {
    match gone.pixels().cmp(&other.pixels()) {
        Ordering::Less => "the right one has more pixels",
        Ordering::Greater => "the right one has fewer pixels",
        Ordering::Equal => "as many pixels",
    }
}

fn group_gallery(
    group: &DuplicateGroup,
    named: &HashMap<ImageId, ImageCard>,
    album: &mut Album,
) -> GroupGallery {
    let first = named.get(&group.of);
    let first = first.map(|card| (card, card.state()));
    let members = group
        .members
        .iter()
        .filter_map(|row| Some((named.get(&row.image_id)?, found_by(row))));
    let cards: Vec<(&ImageCard, String)> = first.into_iter().chain(members).collect();
    let is_nsfw = cards.iter().any(|(card, _)| card.is_nsfw);
    let shown = cards.into_iter().map(|(card, note)| Shown {
        place: album.add(&ImageCard {
            is_nsfw,
            ..card.clone()
        }),
        value: None,
        note,
    });
    GroupGallery {
        shown: shown.collect(),
        of: group.of.to_string(),
        count: plural(group.count, "image"),
        more: group.count - group.members.len() as u64,
    }
}

impl GroupGallery {
    fn more(&self) -> Option<String> {
        (self.more > 0).then(|| format!("and {} more", thousands(self.more)))
    }
}
