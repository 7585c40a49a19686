//! The section of pictures: what rules dropped, what `read` rejected, duplicates side by side with
//! what they duplicate, random samples.

use std::cmp::Ordering;
use std::collections::HashMap;

use askama::Template;
use sluice_manifest::rows::{DuplicateRow, Method};
use sluice_manifest::{ImageId, StepName};

use crate::album::Album;
use crate::card::Card;
use crate::duplicates::{Duplicates, Group, Pairs};
use crate::figures::{Figures, Gallery, Shown, state};
use crate::findings::Findings;
use crate::plot::number;
use sluice_manifest::numbers::{plural, thousands};

/// The pictures of a run.
#[derive(Debug)]
pub struct Galleries {
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
    /// What they are.
    pub about: String,
    /// The pairs.
    pub pairs: Vec<Pair>,
}

/// A duplicate beside what it duplicates.
#[derive(Debug)]
pub struct Pair {
    /// The one that was dropped.
    pub gone: Shown,
    /// The one that it duplicates.
    pub other: Shown,
    /// How similar they are.
    pub note: String,
}

/// A group of duplicates: the one that the others duplicate first.
#[derive(Debug)]
struct GroupGallery {
    of: String,
    count: String,
    shown: Vec<Shown>,
    more: u64,
}

#[derive(Template)]
#[template(path = "galleries.html")]
struct Section<'a> {
    galleries: &'a Galleries,
    figures: Figures<'a>,
}

impl Galleries {
    /// Returns the section. Pictures are added to the album.
    pub fn new(
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

    /// Returns the markup.
    ///
    /// # Errors
    /// None: drawing into a text does not fail.
    pub fn html(&self, figures: Figures<'_>) -> askama::Result<String> {
        Section {
            galleries: self,
            figures,
        }
        .render()
    }
}

/// Returns galleries of what `read` rejected, and of what rules dropped.
fn reasons(findings: &Findings, album: &mut Album) -> (Vec<Gallery>, Vec<Gallery>) {
    let (mut rejects, mut rules) = (Vec::new(), Vec::new());
    for (dropped, best) in &findings.reasons {
        let is_reject = dropped.step == StepName::read();
        let title = format!("{}: {}", dropped.step, dropped.reason);
        let about = dropped.reason.text();
        let detail = |card: &Card| card.detail.clone().unwrap_or_default();
        let gallery = Gallery::new(title, about, best.items(), album, detail);
        if is_reject { &mut rejects } else { &mut rules }.push(gallery);
    }
    (rejects, rules)
}

fn caption(card: &Card) -> String {
    card.caption
        .clone()
        .unwrap_or_else(|| "no caption".to_owned())
}

fn pair_gallery(pairs: &Pairs, named: &HashMap<ImageId, Card>, album: &mut Album) -> PairGallery {
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

/// Returns a method's name in manifests.
pub fn method_name(method: Method) -> &'static str {
    match method {
        Method::Exact => "exact",
        Method::Perceptual => "perceptual",
        Method::Semantic => "semantic",
    }
}

/// Returns how a duplicate was found, in words.
pub fn found_by(row: &DuplicateRow) -> String {
    match row.method {
        Method::Exact => "the same bytes".to_owned(),
        method => format!(
            "{}, similarity {}",
            method_name(method),
            number(row.similarity)
        ),
    }
}

/// Returns a pair; none where one of both is not known.
pub fn pair(row: &DuplicateRow, named: &HashMap<ImageId, Card>, album: &mut Album) -> Option<Pair> {
    let (gone, other) = (named.get(&row.image_id)?, named.get(&row.duplicate_of)?);
    // What looks like a blurred picture is blurred.
    let is_nsfw = gone.is_nsfw || other.is_nsfw;
    let mut shown = |card: &Card, note: String| Shown {
        place: album.add(&Card {
            is_nsfw,
            ..card.clone()
        }),
        value: None,
        note,
    };
    Some(Pair {
        note: format!("{}; {}", found_by(row), difference(gone, other)),
        gone: shown(gone, state(gone)),
        other: shown(other, state(other)),
    })
}

/// Returns what the one that stays has more of.
fn difference(gone: &Card, other: &Card) -> &'static str {
    match gone.pixels().cmp(&other.pixels()) {
        Ordering::Less => "the right one has more pixels",
        Ordering::Greater => "the right one has fewer pixels",
        Ordering::Equal => "as many pixels",
    }
}

fn group_gallery(group: &Group, named: &HashMap<ImageId, Card>, album: &mut Album) -> GroupGallery {
    let first = named.get(&group.of);
    let first = first.map(|card| (card, state(card)));
    let members = group
        .members
        .iter()
        .filter_map(|row| Some((named.get(&row.image_id)?, found_by(row))));
    let cards: Vec<(&Card, String)> = first.into_iter().chain(members).collect();
    let is_nsfw = cards.iter().any(|(card, _)| card.is_nsfw);
    let shown = cards.into_iter().map(|(card, note)| Shown {
        place: album.add(&Card {
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
