//! A page of requested images.

use anyhow::Result;
use askama::Template;
use sluice_harness::{Context, Plan};

use crate::album::Album;
use crate::document::Document;
use crate::figures::{Figures, Gallery};
use crate::page::galleries::PairGallery;
use crate::page::{Options, with_pictures};
use crate::walk::Walk;

/// The content of a page of images.
#[derive(Debug, Default)]
pub struct Pictures {
    /// The title.
    pub title: String,
    /// A description of the images.
    pub about: String,
    /// Galleries of images.
    pub galleries: Vec<Gallery>,
    /// Galleries of pairs.
    pub pairs: Vec<PairGallery>,
    /// The images of all galleries.
    pub album: Album,
}

#[derive(Template)]
#[template(path = "gallery.html")]
struct GalleryTemplate<'a> {
    title: &'a str,
    about: &'a str,
    galleries: &'a [Gallery],
    pairs: &'a [PairGallery],
    figures: Figures<'a>,
}

/// Returns the HTML of a page of images.
///
/// # Errors
///
/// Returns a transient error if storage fails, and a stopped error after a signal.
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
        let body = GalleryTemplate {
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
