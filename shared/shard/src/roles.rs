//! Which member of a sample is the picture, which the caption, which the metadata.
//!
//! Told by the extension, whatever its case. What a member truly holds is for its decoder to say.

use crate::event::Member;

/// Extensions that name a picture.
pub const IMAGE_EXTENSIONS: [&str; 25] = [
    "jpg", "jpeg", "jpe", "jfif", "pjpeg", "mpo", "png", "apng", "webp", "gif", "bmp", "dib",
    "tif", "tiff", "avif", "avifs", "heic", "heif", "jp2", "j2k", "jxl", "ppm", "pgm", "pnm",
    "tga",
];
pub(crate) const CAPTION_EXTENSIONS: [&str; 2] = ["txt", "caption"];
pub(crate) const METADATA_EXTENSIONS: [&str; 1] = ["json"];

/// The sample's picture: the first member in shard order whose extension is one of
/// [`IMAGE_EXTENSIONS`]; else the first whose extension ends in one behind a dot
/// (`2.final.jpg`). So `seg.mask.png` never stands in for `seg.jpg`.
pub fn image_member(members: &[Member]) -> Option<usize> {
    image_members(members).first().copied()
}

/// All pictures of a sample that could be its [`image_member`], in shard order: `jpg` and `png`, or
/// `0.jpg` and `1.jpg`. A mask beside a picture (`jpg`, `mask.png`) is none.
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

/// The caption: the first `.txt`, else the first `.caption`; beside a picture with a compound
/// extension (`2.final.jpg`), the one that shares its stem (`2.final.txt`) where there is no other.
pub fn caption_member(members: &[Member]) -> Option<usize> {
    beside_image(members, &CAPTION_EXTENSIONS)
}

/// The metadata: the first `.json`, with compound extensions as in [`caption_member`].
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

/// `2.final.jpg` → (`2.final`, `jpg`); `jpg` → (``, `jpg`).
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
