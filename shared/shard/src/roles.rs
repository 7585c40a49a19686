//! Decides which member of a sample is the image, the caption or the metadata.
//!
//! Only the extension counts, ignoring case. The decoder examines the content.

use crate::event::Member;

/// The file extensions of image members, in lower case.
pub const IMAGE_EXTENSIONS: [&str; 25] = [
    "jpg", "jpeg", "jpe", "jfif", "pjpeg", "mpo", "png", "apng", "webp", "gif", "bmp", "dib",
    "tif", "tiff", "avif", "avifs", "heic", "heif", "jp2", "j2k", "jxl", "ppm", "pgm", "pnm",
    "tga",
];
pub(crate) const CAPTION_EXTENSIONS: [&str; 2] = ["txt", "caption"];
pub(crate) const METADATA_EXTENSIONS: [&str; 1] = ["json"];

/// Returns the index of the sample's image: the first member in shard order whose extension is one
/// of [`IMAGE_EXTENSIONS`], else the first whose compound extension ends in one (`2.final.jpg`). So
/// `seg.mask.png` never replaces `seg.jpg`.
pub fn image_member(members: &[Member]) -> Option<usize> {
    image_members(members).first().copied()
}

/// Returns the indices of all members that could be the [`image_member`], in shard order: `jpg` and
/// `png`, or `0.jpg` and `1.jpg`. A mask next to an image (`jpg`, `mask.png`) is not one.
pub fn image_members(members: &[Member]) -> Vec<usize> {
    let simple = |m: &Member| one_of(&m.extension, &IMAGE_EXTENSIONS);
    let compound = |m: &Member| one_of(stem_and_last(&m.extension).1, &IMAGE_EXTENSIONS);
    let all = |is_image: &dyn Fn(&Member) -> bool| -> Vec<usize> {
        let members = members.iter().enumerate();
        let images = members.filter(|(_, member)| is_image(member));
        images.map(|(number, _)| number).collect()
    };
    match all(&simple) {
        none if none.is_empty() => all(&compound),
        images => images,
    }
}

/// Returns the index of the caption: the first `.txt`, else the first `.caption`. If there is
/// neither and the image has a compound extension (`2.final.jpg`), a caption with the same stem
/// (`2.final.txt`).
pub fn caption_member(members: &[Member]) -> Option<usize> {
    beside_image(members, &CAPTION_EXTENSIONS)
}

/// Returns the index of the metadata: the first `.json`, with compound extensions as in
/// [`caption_member`].
pub fn metadata_member(members: &[Member]) -> Option<usize> {
    beside_image(members, &METADATA_EXTENSIONS)
}

fn beside_image(members: &[Member], extensions: &[&str]) -> Option<usize> {
    let find = |stem: &str| {
        extensions.iter().find_map(|extension| {
            members.iter().position(|member| {
                let (of, last) = stem_and_last(&member.extension);
                of == stem && last.eq_ignore_ascii_case(extension)
            })
        })
    };
    find("").or_else(|| {
        let image = image_member(members)?;
        match stem_and_last(&members[image].extension).0 {
            "" => None,
            stem => find(stem),
        }
    })
}

/// Splits off the last part of an extension: `2.final.jpg` → (`2.final`, `jpg`); `jpg` → (``,
/// `jpg`).
pub(crate) fn stem_and_last(extension: &str) -> (&str, &str) {
    extension.rsplit_once('.').unwrap_or(("", extension))
}

fn one_of(extension: &str, known: &[&str]) -> bool {
    known
        .iter()
        .any(|known| extension.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(extensions: &[&str]) -> Vec<Member> {
        let member = |extension: &&str| Member {
            extension: (*extension).to_owned(),
            name: Vec::new(),
            offset: 0,
            size: 0,
            data: None,
            missing: None,
        };
        extensions.iter().map(member).collect()
    }

    #[test]
    fn the_picture() {
        assert_eq!(image_member(&members(&["txt", "json", "JPG"])), Some(2));
        assert_eq!(image_member(&members(&["jpg", "png"])), Some(0));
        assert_eq!(image_member(&members(&["mask.png", "jpg"])), Some(1));
        assert_eq!(
            image_member(&members(&["2.final.txt", "2.final.jpg"])),
            Some(1)
        );
        assert_eq!(image_member(&members(&["txt", "cls", "npy"])), None);
        assert_eq!(image_member(&[]), None);
        assert_eq!(image_members(&members(&["0.jpg", "txt", "1.jpg"])), [0, 2]);
        assert_eq!(image_members(&members(&["jpg", "mask.png", "PNG"])), [0, 2]);
    }

    #[test]
    fn caption_and_metadata() {
        let both = members(&["jpg", "caption", "TXT", "Json"]);
        assert_eq!(caption_member(&both), Some(2));
        assert_eq!(metadata_member(&both), Some(3));
        assert_eq!(caption_member(&members(&["jpg", "Caption"])), Some(1));
        assert_eq!(
            caption_member(&members(&["2.final.jpg", "2.final.txt"])),
            Some(1)
        );
        assert_eq!(caption_member(&members(&["jpg", "alt.txt"])), None);
        assert_eq!(metadata_member(&members(&["jpg"])), None);
    }
}
