//! Image formats, detected from the first bytes of a file.

use std::fmt;

use crate::decode::DecodeError;

/// The supported image formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// JPEG, baseline and progressive.
    Jpeg,
    /// PNG.
    Png,
    /// WebP, lossy and lossless.
    WebP,
    /// GIF; the first frame of an animation.
    Gif,
    /// Windows bitmap.
    Bmp,
    /// TIFF; the first page.
    Tiff,
}

impl Format {
    /// Returns the name in manifests: `jpeg`, `png`, `webp`, `gif`, `bmp` or `tiff`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Jpeg => "jpeg",
            Self::Png => "png",
            Self::WebP => "webp",
            Self::Gif => "gif",
            Self::Bmp => "bmp",
            Self::Tiff => "tiff",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Detects the format from the first bytes of a file.
pub(crate) fn sniff(bytes: &[u8]) -> Result<Format, DecodeError> {
    let at = |offset: usize, magic: &[u8]| {
        bytes
            .get(offset..)
            .is_some_and(|rest| rest.starts_with(magic))
    };
    let unsupported = |format: &str| {
        Err(DecodeError::Unsupported {
            format: format.to_owned(),
        })
    };
    let no_image = |looks_like| Err(DecodeError::NotAnImage { looks_like });

    if at(0, b"\xff\xd8") {
        return Ok(Format::Jpeg);
    } else if at(0, b"\x89PNG\r\n\x1a\n") {
        return Ok(Format::Png);
    } else if at(0, b"RIFF") && at(8, b"WEBP") {
        return Ok(Format::WebP);
    } else if at(0, b"GIF87a") || at(0, b"GIF89a") {
        return Ok(Format::Gif);
    } else if at(0, b"II*\0") || at(0, b"MM\0*") || at(0, b"II+\0") || at(0, b"MM\0+") {
        return Ok(Format::Tiff);
    } else if at(0, b"BM") && bytes.get(14..18).is_some_and(is_bmp_header_size) {
        return Ok(Format::Bmp);
    }

    if at(4, b"ftyp") {
        return unsupported(media_of(bytes));
    }
    let foreign: [(&[u8], &str); 14] = [
        (b"\0\0\0\x0cjP  \r\n\x87\n", "jpeg 2000"),
        (b"\xff\x4f\xff\x51", "jpeg 2000"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "jpeg xl"),
        (b"\xff\x0a", "jpeg xl"),
        (b"8BPS", "psd"),
        (b"\0\0\x01\0", "ico"),
        (b"qoif", "qoi"),
        (b"DDS ", "dds"),
        (b"\x76\x2f\x31\x01", "openexr"),
        (b"#?RADIANCE", "radiance hdr"),
        (b"P7\n", "pam"),
        (b"SIMPLE  =", "fits"),
        (b"\xd7\xcd\xc6\x9a", "wmf"),
        (b"gimp xcf", "xcf"),
    ];
    if let Some((_, name)) = foreign.iter().find(|(magic, _)| at(0, magic)) {
        return unsupported(name);
    }
    if let [b'P', b'1'..=b'6', space, ..] = bytes
        && space.is_ascii_whitespace()
    {
        return unsupported("pnm");
    }

    if at(0, b"%PDF-") {
        return no_image("pdf");
    } else if at(0, b"PK\x03\x04") {
        return no_image("zip");
    } else if at(0, b"\x1f\x8b") {
        return no_image("gzip");
    }
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(1024)]).to_lowercase();
    let start = start.trim_start_matches('\u{feff}').trim_start();
    if start.starts_with('<') && start.contains("<svg") {
        unsupported("svg")
    } else if start.starts_with("version https://git-lfs.github.com/spec/") {
        no_image("git lfs pointer")
    } else if start.starts_with("<!doctype html") || start.contains("<html") {
        no_image("html")
    } else if !start.contains(|c: char| c == '\u{fffd}' || (c.is_control() && !c.is_whitespace())) {
        no_image("text")
    } else {
        no_image("unknown bytes")
    }
}

/// `BM` alone could be text. A BMP has the size of its second header at offset 14.
fn is_bmp_header_size(bytes: &[u8]) -> bool {
    matches!(bytes, [12 | 16 | 40 | 52 | 56 | 64 | 108 | 124, 0, 0, 0])
}

/// Identifies a file in ISO's media container by its brands: the major one and the compatible ones.
fn media_of(bytes: &[u8]) -> &'static str {
    let length = bytes[..4]
        .iter()
        .fold(0, |sum, &byte| sum << 8 | usize::from(byte));
    let end = length.clamp(8, bytes.len()).max(8);
    let mut brands = bytes[8..end].as_chunks::<4>().0.iter();
    let known = brands.find_map(|brand| match brand {
        b"avif" | b"avis" => Some("avif"),
        b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" => Some("heic"),
        _ => None,
    });
    match bytes.get(8..12) {
        Some(b"mif1" | b"msf1") => known.unwrap_or("heif"),
        _ => known.unwrap_or("iso media file"),
    }
}
