//! Decodes WebP with the `image` crate.
//!
//! First, the container is scanned. An image chunk that extends beyond the container's size is an
//! error, as in libwebp; an Exif or XMP chunk that does is a warning.

use std::borrow::Cow;
use std::io::Cursor;

use image::ImageDecoder;
use image::codecs::webp::WebPDecoder;

use super::{ImageHeader, le_u32};
use crate::decode::{Admit, DecodeError, Decoded, Format, Limits};
use crate::orient::Orientations;

/// `RIFF`, the size, `WEBP`.
const HEADER: usize = 12;
const CHUNK_HEADER: usize = 8;
const PICTURE: [&[u8; 4]; 6] = [b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF"];
/// Bits of the extended header that announce Exif and XMP.
const FLAGS: [(&[u8; 4], u8); 2] = [(b"EXIF", 8), (b"XMP ", 4)];

pub(super) fn decode(
    bytes: &[u8],
    limits: &Limits,
    admit: Admit<'_>,
) -> Result<Decoded, DecodeError> {
    let fail = |error| Format::WebP.failure(&error, limits);
    let container = Container::walk(bytes)?;
    let mut inner = image::Limits::no_limits();
    inner.max_alloc = Some(limits.max_memory);
    let bytes = container.without_empty_promises(bytes);
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(fail)?;
    decoder.set_limits(inner).map_err(fail)?;
    // The decoder keeps a second copy of the image while it decodes.
    let inside = if decoder.has_animation() { 8 } else { 4 };
    let mut frame = ImageHeader::new(Format::WebP, decoder.dimensions());
    frame.orientation = container.orientations.get();
    frame.warnings = container.warnings;
    frame.read(decoder.color_type(), inside, limits, admit, |data| {
        decoder.read_image(data).map_err(fail)
    })
}

#[derive(Default)]
struct Container {
    /// The end of the container.
    end: usize,
    /// The offset of the extended header's flags.
    flags: Option<usize>,
    /// The flags of metadata that exists.
    found: u8,
    orientations: Orientations,
    warnings: Vec<String>,
}

impl Container {
    fn walk(bytes: &[u8]) -> Result<Self, DecodeError> {
        let declared = le_u32(bytes, 4).unwrap_or_default() as usize + 8;
        if declared > bytes.len() {
            let detail = format!("{} of {declared} bytes", bytes.len());
            return Err(Format::WebP.truncated(detail));
        }
        let mut container = Self {
            end: declared,
            ..Self::default()
        };
        let mut at = HEADER;
        while at + CHUNK_HEADER <= declared {
            let size = le_u32(bytes, at + 4).unwrap_or_default() as usize;
            let kind = &bytes[at..at + 4];
            let start = at + CHUNK_HEADER;
            let is_picture = PICTURE.iter().any(|known| *known == kind);
            match bytes[start..declared].get(..size) {
                Some(data) => container.take(kind, start, data),
                None if is_picture => return Err(beyond(kind)),
                None => {
                    let name = String::from_utf8_lossy(kind);
                    let warning = format!("damaged chunk {name:?}, not of the picture");
                    container.warnings.push(warning);
                }
            }
            at = start.saturating_add(size).saturating_add(size & 1);
        }
        Ok(container)
    }

    fn take(&mut self, kind: &[u8], start: usize, data: &[u8]) {
        match kind {
            b"VP8X" if !data.is_empty() => self.flags = Some(start),
            b"EXIF" => self.orientations.add_exif(data),
            b"XMP " => self.orientations.add_xmp(data),
            _ => {}
        }
        let flags = FLAGS.iter().filter(|(known, _)| *known == kind);
        flags.for_each(|(_, flag)| self.found |= flag);
    }

    /// Returns the container without flags for missing metadata, which the decoder would reject.
    fn without_empty_promises<'b>(&self, bytes: &'b [u8]) -> Cow<'b, [u8]> {
        let bytes = &bytes[..self.end];
        let promised = self.flags.map_or(0, |at| bytes[at] & (8 | 4));
        match self.flags {
            Some(at) if promised & !self.found != 0 => {
                let mut bytes = bytes.to_vec();
                bytes[at] &= !(8 | 4) | self.found;
                Cow::Owned(bytes)
            }
            _ => Cow::Borrowed(bytes),
        }
    }
}

fn beyond(kind: &[u8]) -> DecodeError {
    let name = String::from_utf8_lossy(kind);
    Format::WebP.corrupt(format!("chunk {name:?} reaches beyond the RIFF size"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orient::tests::{exif, xmp};

    fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let mut chunk = [&kind[..], &(data.len() as u32).to_le_bytes(), data].concat();
        chunk.resize(chunk.len() + data.len() % 2, 0);
        chunk
    }

    fn riff(chunks: &[u8]) -> Vec<u8> {
        let size = (chunks.len() as u32 + 4).to_le_bytes();
        [&b"RIFF"[..], &size, b"WEBP", chunks].concat()
    }

    /// Returns the chunk of an image of 3x2 pixels.
    fn picture() -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let image = image::RgbImage::from_pixel(3, 2, image::Rgb([120; 3]));
        image
            .write_to(&mut bytes, image::ImageFormat::WebP)
            .unwrap();
        bytes.into_inner()[HEADER..].to_vec()
    }

    fn extended(flags: u8, metadata: &[u8]) -> Vec<u8> {
        let header = chunk(b"VP8X", &[flags, 0, 0, 0, 2, 0, 0, 1, 0, 0]);
        riff(&[header, picture(), metadata.to_vec()].concat())
    }

    fn outcome(bytes: &[u8]) -> Result<Decoded, DecodeError> {
        decode(bytes, &Limits::default(), &mut |_| {})
    }

    #[test]
    fn the_orientation_is_found_wherever_it_is_stored() {
        let app1 = [&b"Exif\0\0"[..], &exif(6)].concat();
        for (flags, metadata) in [
            (8, chunk(b"EXIF", &exif(6))),
            (8, chunk(b"EXIF", &app1)),
            (4, chunk(b"XMP ", &xmp(6))),
            (0, chunk(b"EXIF", &exif(6))),
        ] {
            let decoded = outcome(&extended(flags, &metadata)).unwrap();
            assert_eq!(decoded.upright_size(), (2, 3), "{flags}");
            assert!(decoded.warnings.is_empty());
        }
    }

    #[test]
    fn a_wrong_riff_size_is_an_error_and_missing_metadata_none() {
        let sound = riff(&picture());
        assert!(outcome(&sound).is_ok());
        let with_size = |size: i64| {
            let mut bytes = sound.clone();
            let size = (bytes.len() as i64 - 8 + size) as u32;
            bytes[4..8].copy_from_slice(&size.to_le_bytes());
            outcome(&bytes).map_err(|error| error.kind())
        };
        assert_eq!(with_size(2).unwrap_err(), "truncated");
        assert_eq!(with_size(-4).unwrap_err(), "corrupt");
        assert!(outcome(&[&sound[..], b"behind it"].concat()).is_ok());
        assert!(outcome(&extended(12, b"")).is_ok());
        let mut cut = chunk(b"EXIF", &exif(6));
        cut.truncate(cut.len() - 4);
        assert_eq!(outcome(&extended(8, &cut)).unwrap().warnings.len(), 1);
    }
}
