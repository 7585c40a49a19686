//! A page of requested images, for other programs: the one part of the report that they share.

use anyhow::Result;
use askama::Template;
use sluice_harness::MemoryBudget;
use sluice_run::walk::Walk;
use sluice_run::{Plan, Run};

use crate::document::Document;
use crate::figures::Figures;
use crate::page::with_pictures;

pub use crate::MAX_BYTES;
pub use crate::album::Album;
pub use crate::figures::Gallery;
pub use crate::page::Options;
pub use crate::page::galleries::{PairGallery, pair};

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
    run: &Run,
    memory: &MemoryBudget,
    plan: &Plan,
    walk: &Walk<'_>,
    pictures: Pictures,
    options: Options,
) -> Result<String> {
    let uri = run.location().to_string();
    let Pictures {
        title,
        about,
        galleries,
        pairs,
        mut album,
    } = pictures;
    with_pictures(run, memory, plan, &mut album, options, |album| {
        let body = GalleryTemplate {
            title: &title,
            about: &about,
            galleries: &galleries,
            pairs: &pairs,
            figures: Figures {
                album,
                run: &uri,
                scoring: &walk.scoring,
            },
        };
        Ok(Document::new(&title, &body.render()?, "[]", album).render()?)
    })
}
