//! Decodes PNG with the `png` crate, and verifies all checksums.
//!
//! First, all chunks are scanned. This finds the orientation wherever it is stored, even after the
//! image, and damage in chunks that do not affect the pixels, which is a warning. A wrong CRC of a
//! critical chunk, a wrong Adler-32 and a missing end are errors, as in libpng.

use std::io::{Cursor, Read};

use flate2::Crc;
use flate2::read::ZlibDecoder;
use image::ColorType;
use png::{BitDepth, Decoder, Transformations};

use super::{ImageHeader, be_u32};
use crate::decode::{Admit, DecodeError, Decoded, Format, Limits};
use crate::orient::Orientations;

const SIGNATURE: usize = 8;
/// The maximum number of bytes of decompressed metadata.
const TEXT: u64 = 4 << 20;
/// Keywords of texts in which ImageMagick stores Exif blocks as hexadecimal digits.
const RAW_PROFILES: [&[u8]; 3] = [
    b"Raw profile type exif",
    b"Raw profile type APP1",
    b"Raw profile type xmp",
];

pub(super) fn decode(
    bytes: &[u8],
    limits: &Limits,
    admit: Admit<'_>,
) -> Result<Decoded, DecodeError> {
    let fail = |error| Format::Png.failure(&error, limits);
    if bytes.get(12..16) == Some(b"CgBI") {
        let format = "cgbi (Apple's variant of png)".to_owned();
        return Err(DecodeError::Unsupported { format });
    }
    if let (Some(width), Some(height)) = (be_u32(bytes, 16), be_u32(bytes, 20)) {
        limits.check(width, height, 0)?; // The crate has a limit of its own with a poorer message.
    }
    let chunks = Chunks::walk(bytes)?;
    let inner = png::Limits {
        bytes: limits.max_memory as usize,
    };
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), inner);
    decoder.ignore_checksums(false);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(fail)?;
    let color = match reader.output_color_type() {
        (png::ColorType::Grayscale, BitDepth::Eight) => ColorType::L8,
        (png::ColorType::GrayscaleAlpha, BitDepth::Eight) => ColorType::La8,
        (png::ColorType::Rgb, BitDepth::Eight) => ColorType::Rgb8,
        (png::ColorType::Rgba, BitDepth::Eight) => ColorType::Rgba8,
        (color, depth) => {
            let format = format!("png of {depth:?} bits and colour {color:?}");
            return Err(DecodeError::Unsupported { format });
        }
    };
    let mut frame = ImageHeader::new(Format::Png, reader.info().size());
    frame.orientation = chunks.orientations.get();
    frame.warnings = chunks.warnings;
    frame.read(color, 0, limits, admit, |data| {
        reader.next_frame(data).map(drop).map_err(fail)
    })
}

/// The content of the chunks that do not hold the image.
#[derive(Default)]
struct Chunks {
    orientations: Orientations,
    warnings: Vec<String>,
}

impl Chunks {
    /// Scans all chunks. Fails if the file is truncated or a critical chunk is damaged.
    fn walk(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut chunks = Self::default();
        let mut at = SIGNATURE;
        loop {
            let length = be_u32(bytes, at).ok_or_else(cut)? as usize;
            let end = at.checked_add(8 + length).ok_or_else(cut)?;
            let body = bytes.get(at + 4..end).ok_or_else(cut)?;
            let sum = be_u32(bytes, end).ok_or_else(cut)?;
            let (kind, data) = body.split_at(4);
            if kind != b"IDAT" && crc(body) != sum {
                chunks.report_damage(kind)?;
            } else {
                chunks.take(kind, data);
            }
            if kind == b"IEND" {
                return Ok(chunks);
            }
            at = end + 4;
        }
    }

    fn report_damage(&mut self, kind: &[u8]) -> Result<(), DecodeError> {
        let name = String::from_utf8_lossy(kind);
        let ancillary = kind[0] & 0x20 != 0;
        if !ancillary {
            return Err(Format::Png.corrupt(format!("wrong checksum of chunk {name:?}")));
        }
        self.warnings
            .push(format!("damaged chunk {name:?}, not of the picture"));
        Ok(())
    }

    fn take(&mut self, kind: &[u8], data: &[u8]) {
        match kind {
            b"eXIf" => self.orientations.add_exif(data),
            b"tEXt" | b"zTXt" | b"iTXt" => self.take_text(kind, data).unwrap_or_default(),
            _ => {}
        }
    }

    fn take_text(&mut self, kind: &[u8], data: &[u8]) -> Option<()> {
        let end = data.iter().position(|&byte| byte == 0)?;
        let (keyword, text) = (&data[..end], &data[end + 1..]);
        let raw = RAW_PROFILES.contains(&keyword);
        if !raw && keyword != b"XML:com.adobe.xmp" {
            return None;
        }
        let text = match (kind, text) {
            (b"tEXt", text) => text.to_vec(),
            (b"zTXt", [_, packed @ ..]) => inflated(packed),
            (b"iTXt", [packed, _, rest @ ..]) => {
                // The text follows the language and the translated keyword.
                let text = rest.splitn(3, |&byte| byte == 0).nth(2)?;
                if *packed == 1 {
                    inflated(text)
                } else {
                    text.to_vec()
                }
            }
            _ => return None,
        };
        if raw {
            self.orientations.add_app1(&raw_profile(&text)?);
        } else {
            self.orientations.add_xmp(&text);
        }
        Some(())
    }
}

fn cut() -> DecodeError {
    Format::Png.truncated("the file ends before its last chunk")
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// Decompresses as much as possible.
fn inflated(packed: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    // A damaged text ends early, and then contains no orientation.
    let _ = ZlibDecoder::new(packed).take(TEXT).read_to_end(&mut text);
    text
}

/// Returns the bytes of a raw profile: a line feed, its name, its length, and hexadecimal digits.
fn raw_profile(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text.splitn(4, |&byte| byte == b'\n').nth(3)?;
    let digits = digits.iter().filter(|byte| !byte.is_ascii_whitespace());
    let values: Option<Vec<u8>> = digits
        .map(|&digit| char::from(digit).to_digit(16).map(|value| value as u8))
        .collect();
    let pairs = values?;
    Some(pairs.chunks_exact(2).map(|p| p[0] << 4 | p[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orient::tests::{exif, xmp};

    fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let body = [kind, data].concat();
        let length = (data.len() as u32).to_be_bytes();
        [&length[..], &body, &crc(&body).to_be_bytes()].concat()
    }

    /// Returns a PNG of 3x2 pixels with additional chunks before and after the image.
    fn png_with(before: &[u8], after: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        let mut encoder = png::Encoder::new(&mut plain, 3, 2);
        encoder.set_color(png::ColorType::Rgb);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&[120; 18]).unwrap();
        writer.finish().unwrap();
        let (header, rest) = plain.split_at(33);
        let (picture, end) = rest.split_at(rest.len() - 12);
        [header, before, picture, after, end].concat()
    }

    fn outcome(bytes: &[u8]) -> Result<Decoded, DecodeError> {
        decode(bytes, &Limits::default(), &mut |_| {})
    }

    #[test]
    fn the_orientation_is_found_wherever_it_is_stored() {
        let hex = |block: &[u8]| -> Vec<u8> {
            let digits: String = block.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("\nexif\n{:8}\n{digits}\n", block.len()).into_bytes()
        };
        let packed = |text: &[u8]| {
            let mut packed = Vec::new();
            let level = flate2::Compression::fast();
            let mut encoder = flate2::bufread::ZlibEncoder::new(text, level);
            encoder.read_to_end(&mut packed).unwrap();
            packed
        };
        let app1 = [&b"Exif\0\0"[..], &exif(6)].concat();
        let text = |keyword: &str, text: &[u8]| [keyword.as_bytes(), b"\0", text].concat();
        let xmp_text = text("XML:com.adobe.xmp", &[b"\0\0\0\0", &xmp(6)[..]].concat());
        let profile = text("Raw profile type exif", &hex(&app1));
        let zipped = [&b"\0"[..], &packed(&hex(&app1))].concat();
        let zipped = text("Raw profile type APP1", &zipped);
        for chunk in [
            chunk(b"eXIf", &exif(6)),
            chunk(b"eXIf", &app1),
            chunk(b"iTXt", &xmp_text),
            chunk(b"tEXt", &profile),
            chunk(b"zTXt", &zipped),
        ] {
            for bytes in [png_with(&chunk, b""), png_with(b"", &chunk)] {
                let decoded = outcome(&bytes).unwrap();
                assert_eq!(decoded.upright_size(), (2, 3));
            }
        }
        // Exif takes precedence over XMP.
        let both = [chunk(b"iTXt", &xmp_text), chunk(b"eXIf", &exif(3))].concat();
        assert_eq!(outcome(&png_with(&both, b"")).unwrap().orientation, 3);
    }

    #[test]
    fn damage_of_the_picture_is_an_error_and_other_damage_a_warning() {
        let sound = png_with(&chunk(b"eXIf", &exif(1)), b"");
        assert!(outcome(&sound).unwrap().warnings.is_empty());
        let at = |name: &[u8]| sound.windows(4).position(|w| w == name).unwrap();
        let flipped = |position: usize| {
            let mut bytes = sound.clone();
            bytes[position] ^= 1;
            outcome(&bytes).map(|decoded| decoded.warnings.len())
        };
        assert_eq!(flipped(at(b"eXIf") + 8), Ok(1));
        let kind = |outcome: Result<usize, DecodeError>| outcome.unwrap_err().kind();
        assert_eq!(kind(flipped(at(b"IHDR") + 17)), "corrupt"); // its checksum
        assert_eq!(kind(flipped(at(b"IEND") + 4)), "corrupt");
        let idat = at(b"IDAT");
        let length = be_u32(&sound, idat - 4).unwrap() as usize;
        assert_eq!(kind(flipped(idat + 4 + length)), "corrupt");
        // A wrong Adler-32, with the right checksum of the chunk.
        let mut wrong = sound.clone();
        wrong[idat + 3 + length] ^= 1;
        let sum = crc(&wrong[idat..idat + 4 + length]).to_be_bytes();
        wrong[idat + 4 + length..][..4].copy_from_slice(&sum);
        assert_eq!(outcome(&wrong).unwrap_err().kind(), "corrupt");
        for cut in [1, 4, 12, 13] {
            let error = outcome(&sound[..sound.len() - cut]).unwrap_err();
            assert_eq!(error.kind(), "truncated");
        }
    }

    #[test]
    fn apples_variant_is_refused_by_its_name() {
        let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
        bytes.extend(chunk(b"CgBI", &[0; 4]));
        let error = outcome(&bytes).unwrap_err();
        assert_eq!(error.kind(), "unsupported");
        assert!(error.to_string().contains("cgbi"), "{error}");
    }
}
