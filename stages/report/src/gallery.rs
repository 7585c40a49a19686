//! A page of pictures that somebody asked for.

use anyhow::Result;
use askama::Template;
use sluice_harness::{Context, Plan};

use crate::album::Album;
use crate::document::Document;
use crate::figures::{Figures, Gallery};
use crate::page::galleries::PairGallery;
use crate::page::{Options, with_pictures};
use crate::walk::Walk;

/// What a page of pictures shows.
#[derive(Debug, Default)]
pub struct Pictures {
    /// The title.
    pub title: String,
    /// What they are.
    pub about: String,
    /// Pictures.
    pub galleries: Vec<Gallery>,
    /// Pairs of pictures.
    pub pairs: Vec<PairGallery>,
    /// The pictures of both.
    pub album: Album,
}

#[derive(Template)]
#[template(path = "gallery.html")]
struct Body<'a> {
    title: &'a str,
    about: &'a str,
    galleries: &'a [Gallery],
    pairs: &'a [PairGallery],
    figures: Figures<'a>,
}

/// Returns a page of pictures.
///
/// # Errors
/// Of storage.
pub fn page(
    context: &Context,
    plan: &Plan,
    walk: &Walk<'_>,
    pictures: Pictures,
    options: Options,
) -> Result<String> {
    let run = context.run.location().to_string();
    let Pictures {
        title,
        about,
        galleries,
        pairs,
        mut album,
    } = pictures;
    with_pictures(context, plan, &mut album, options, |album| {
        let body = Body {
            title: &title,
            about: &about,
            galleries: &galleries,
            pairs: &pairs,
            figures: Figures {
                album,
                run: &run,
                scoring: &walk.scoring,
            },
        };
        Ok(Document::new(&title, &body.render()?, "[]", album).render()?)
    })
}
