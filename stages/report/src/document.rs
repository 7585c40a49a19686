//! A self-contained HTML document with styles, a script and images.
//!
//! Names and captions come from the dataset and may be hostile. They are escaped, and the content
//! security policy forbids loading anything and running any script but the page's own.

use askama::Template;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::album::{Album, Thumb};

/// The script of every page.
const SCRIPT: &str = include_str!("../templates/script.js");
/// The styles of every page.
const STYLE: &str = include_str!("../templates/style.css");

/// An HTML document.
#[derive(Template)]
#[template(path = "page.html")]
pub(crate) struct Document<'a> {
    title: &'a str,
    body: &'a str,
    data: &'a str,
    thumbs: Vec<(usize, &'a Thumb)>,
    style: &'static str,
    script: &'static str,
    script_hash: String,
    version: &'static str,
}

impl<'a> Document<'a> {
    /// Creates a document with this body. `data` is the JSON that the script reads.
    pub(crate) fn new(title: &'a str, body: &'a str, data: &'a str, album: &'a Album) -> Self {
        let pictures = album.pictures.iter().enumerate();
        let thumbs = pictures.filter_map(|(place, picture)| {
            let thumb = picture.thumbnail.as_ref().ok()?;
            Some((place, thumb))
        });
        Self {
            title,
            body,
            data,
            thumbs: thumbs.collect(),
            style: STYLE,
            script: SCRIPT,
            script_hash: format!("sha256-{}", STANDARD.encode(Sha256::digest(SCRIPT))),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}
