//! Decodes TIFF with the `tiff` crate, and converts samples to RGB as Pillow does.
//!
//! | stored | becomes |
//! |---|---|
//! | grey of 1, 2, 4 bits | spread over 0 to 255 |
//! | 16 bits | the high byte |
//! | grey of 32 and 64 bits, floats, signed | the value, clipped to 0 to 255 |
//! | RGB of floats | 0 to 1 spread over 0 to 255 |
//! | palette | looked up, high bytes |
//! | CMYK, YCbCr | by Pillow's formulas |
//! | associated alpha | divided out, then composited like any other |
//!
//! The crate does not decode palettes, but indices are stored like grey: the file is decoded as
//! grey, and the indices are looked up here. Variants without a decoder in the crate (Group 3 fax,
//! old JPEG, YCbCr with chroma subsampling outside JPEG, Lab) are unsupported, and the error names
//! them.

use std::borrow::Cow;
use std::io::Cursor;

use tiff::ColorType;
use tiff::decoder::{Decoder, DecodingResult};
use tiff::tags::{CompressionMethod, PhotometricInterpretation, Tag};
use tiff::{TiffError, TiffResult};

use super::ImageHeader;
use crate::alpha::{self, Rgb};
use crate::decode::{Admit, DecodeError, Decoded, Format, Limits};
use crate::jpeg::rgb_from_inverted_ink;
use crate::orient::Orientations;

/// The tag of XMP.
const XMP: Tag = Tag::Unknown(700);
const GREY: u16 = PhotometricInterpretation::BlackIsZero.to_u16();
const PALETTE: u16 = PhotometricInterpretation::RGBPalette.to_u16();
const ASSOCIATED_ALPHA: u16 = 1;

type TiffReader<'b> = Decoder<Cursor<Cow<'b, [u8]>>>;

pub(super) fn decode(
    bytes: &[u8],
    limits: &Limits,
    admit: Admit<'_>,
) -> Result<Decoded, DecodeError> {
    let fail = |error: TiffError| failure(error, limits);
    let (mut decoder, palette) = open(bytes, limits).map_err(fail)?;
    let mut frame = ImageHeader::new(Format::Tiff, decoder.dimensions().map_err(fail)?);
    limits.check(frame.width, frame.height, 0)?;
    frame.orientation = orientation(&mut decoder);
    let color = decoder.colortype().map_err(fail)?;
    let kind = SampleLayout::of(&mut decoder, color, palette.is_some())?;
    let layout = decoder.image_buffer_layout().map_err(fail)?;
    let pixels = frame.pixels();
    let stored = layout.complete_len as u64;
    let copies = if is_jpeg(&mut decoder) { 2 } else { 1 };
    let narrowed = if stored > pixels * kind.samples() as u64 {
        pixels * kind.samples() as u64
    } else {
        0
    };
    let memory =
        (stored * copies + narrowed).saturating_add(pixels * frame.second(stored / pixels.max(1)));
    frame.reserve(memory, limits, admit)?;
    let mut samples = DecodingResult::U8(Vec::new());
    decoder.read_image_to_buffer(&mut samples).map_err(fail)?;
    let size = (frame.width as usize, frame.height as usize);
    let bytes = eight_bits(samples, color, size).ok_or_else(|| unsupported(color))?;
    let bytes = if layout.planes > 1 {
        interleaved(&bytes, layout.planes)
    } else {
        bytes
    };
    if bytes.len() as u64 != pixels * kind.samples() as u64 {
        return Err(unsupported(color));
    }
    Ok(frame.finish(kind.rgb(bytes, palette.as_deref())))
}

/// Opens a file, one with a palette as if it were grey. Returns the palette as well.
fn open<'b>(bytes: &'b [u8], limits: &Limits) -> TiffResult<(TiffReader<'b>, Option<Vec<u16>>)> {
    let mut decoder = reader(Cow::Borrowed(bytes), limits)?;
    let kind = decoder.find_tag_unsigned::<u16>(Tag::PhotometricInterpretation)?;
    if kind != Some(PALETTE) {
        return Ok((decoder, None));
    }
    let palette = decoder.get_tag_u16_vec(Tag::ColorMap)?;
    let directory = decoder.ifd_pointer().map_or(0, |pointer| pointer.0);
    let grey = as_grey(bytes, directory as usize).unwrap_or_default();
    Ok((reader(Cow::Owned(grey), limits)?, Some(palette)))
}

fn reader<'b>(bytes: Cow<'b, [u8]>, limits: &Limits) -> TiffResult<TiffReader<'b>> {
    let mut inner = tiff::decoder::Limits::default();
    inner.decoding_buffer_size = limits.max_memory as usize;
    inner.intermediate_buffer_size = limits.max_memory as usize;
    inner.ifd_value_size = bytes.len();
    Ok(Decoder::new(Cursor::new(bytes))?.with_limits(inner))
}

/// Returns the file with "palette" replaced by "grey" in the directory at `directory`.
fn as_grey(bytes: &[u8], directory: usize) -> Option<Vec<u8>> {
    let little = bytes.starts_with(b"II");
    let is_big = bytes.get(2..4)?.contains(&43);
    let short = |at: usize| -> Option<u16> {
        let two: [u8; 2] = bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if little {
            u16::from_le_bytes(two)
        } else {
            u16::from_be_bytes(two)
        })
    };
    // A BigTIFF stores the number of entries in eight bytes, of which two are enough.
    let (count, entries, entry, value) = match (is_big, little) {
        (false, _) => (directory, directory + 2, 12, 8),
        (true, true) => (directory, directory + 8, 20, 12),
        (true, false) => (directory + 6, directory + 8, 20, 12),
    };
    let tag = Tag::PhotometricInterpretation.to_u16();
    let mut entries = (0..usize::from(short(count)?)).map(|number| entries + number * entry);
    let at = entries.find(|&at| short(at) == Some(tag))? + value;
    let mut grey = bytes.to_vec();
    let value = if little {
        GREY.to_le_bytes()
    } else {
        GREY.to_be_bytes()
    };
    grey.get_mut(at..at + 2)?.copy_from_slice(&value);
    Some(grey)
}

fn orientation(decoder: &mut TiffReader<'_>) -> u8 {
    let mut found = Orientations::default();
    if let Ok(Some(value)) = decoder.find_tag_unsigned::<u8>(Tag::Orientation) {
        found.add(value);
    }
    if let Ok(xmp) = decoder.get_tag_u8_vec(XMP) {
        found.add_xmp(&xmp);
    }
    found.get()
}

fn is_jpeg(decoder: &mut TiffReader<'_>) -> bool {
    let method = decoder.find_tag_unsigned::<u16>(Tag::Compression);
    matches!(method, Ok(Some(method)) if method == CompressionMethod::ModernJPEG.to_u16())
}

/// The meaning of a pixel's samples.
#[derive(Debug, Clone, Copy)]
enum SampleLayout {
    Grey { bits: u8 },
    GreyAlpha { associated: bool },
    Indexed { bits: u8 },
    Rgb,
    Rgba { associated: bool },
    Cmyk,
    YCbCr,
}

impl SampleLayout {
    fn of(
        decoder: &mut TiffReader<'_>,
        color: ColorType,
        has_palette: bool,
    ) -> Result<Self, DecodeError> {
        let extra = decoder.find_tag_unsigned_vec::<u16>(Tag::ExtraSamples);
        let extra = extra
            .ok()
            .flatten()
            .and_then(|extra| extra.first().copied());
        let associated = extra == Some(ASSOCIATED_ALPHA);
        Ok(match color {
            ColorType::Gray(bits @ ..=8) if has_palette => Self::Indexed { bits },
            _ if has_palette => return Err(unsupported(color)),
            ColorType::Gray(bits) => Self::Grey { bits },
            ColorType::Multiband { num_samples: 2, .. } => Self::GreyAlpha { associated },
            ColorType::RGB(_) => Self::Rgb,
            ColorType::RGBA(_) => Self::Rgba { associated },
            ColorType::CMYK(8 | 16) => Self::Cmyk,
            ColorType::YCbCr(8) => Self::YCbCr,
            _ => return Err(unsupported(color)),
        })
    }

    fn samples(self) -> usize {
        match self {
            Self::Grey { .. } | Self::Indexed { .. } => 1,
            Self::GreyAlpha { .. } => 2,
            Self::Rgb | Self::YCbCr => 3,
            Self::Rgba { .. } | Self::Cmyk => 4,
        }
    }

    fn rgb(self, data: Vec<u8>, palette: Option<&[u16]>) -> Rgb {
        let opaque = |data| Rgb {
            data,
            over_black: false,
        };
        match self {
            Self::Grey { bits } => {
                let scale = if bits < 8 { 255 / ((1 << bits) - 1) } else { 1 };
                opaque(alpha::map_pixels::<1>(data, |p| [p[0] * scale; 3]))
            }
            Self::Indexed { bits } => {
                let palette = palette.unwrap_or_default();
                opaque(alpha::map_pixels::<1>(data, |p| entry(palette, p[0], bits)))
            }
            Self::GreyAlpha { associated } => {
                alpha::composite::<2>(data, |p| ([divided(p[0], p[1], associated); 3], p[1]))
            }
            Self::Rgb => opaque(data),
            Self::Rgba { associated } => alpha::composite::<4>(data, |p| {
                let color = [p[0], p[1], p[2]];
                (color.map(|value| divided(value, p[3], associated)), p[3])
            }),
            Self::Cmyk => opaque(alpha::map_pixels::<4>(data, |p| {
                rgb_from_inverted_ink(&p.map(|value| 255 - value))
            })),
            Self::YCbCr => opaque(alpha::map_pixels::<3>(data, rgb_from_ycbcr)),
        }
    }
}

/// Returns the colour of an index. The table has all red values, then all green ones, then all blue
/// ones.
fn entry(palette: &[u16], index: u8, bits: u8) -> [u8; 3] {
    let size = 1_usize << bits;
    [0, 1, 2].map(|channel| {
        let value = palette.get(channel * size + usize::from(index));
        value.map_or(0, |value| (value >> 8) as u8)
    })
}

/// Divides a sample by its associated alpha, as Pillow does for `RGBa`.
fn divided(value: u8, alpha: u8, associated: bool) -> u8 {
    if !associated || alpha == 0 {
        return value;
    }
    (u32::from(value) * 255 / u32::from(alpha)).min(255) as u8
}

/// Converts YCbCr to RGB with JFIF's formula, rounded.
fn rgb_from_ycbcr(&[y, cb, cr]: &[u8; 3]) -> [u8; 3] {
    let (y, cb, cr) = (f32::from(y), f32::from(cb) - 128.0, f32::from(cr) - 128.0);
    let red = y + 1.402 * cr;
    let green = y - 0.344_136 * cb - 0.714_136 * cr;
    let blue = y + 1.772 * cb;
    [red, green, blue].map(|value| value.round().clamp(0.0, 255.0) as u8)
}

/// Converts samples of any type to bytes. Returns `None` for a combination of type and colour
/// without a meaning.
fn eight_bits(
    samples: DecodingResult,
    color: ColorType,
    (width, height): (usize, usize),
) -> Option<Vec<u8>> {
    let is_grey = matches!(color, ColorType::Gray(_));
    Some(match samples {
        DecodingResult::U8(packed) if is_grey && color.bit_depth() < 8 => {
            unpacked(&packed, color.bit_depth(), (width, height))
        }
        DecodingResult::U8(samples) => samples,
        DecodingResult::U16(samples) => each(samples, |value| (value >> 8) as u8),
        DecodingResult::F32(samples) if !is_grey => each(samples, |value| {
            (value.clamp(0.0, 1.0) * 255.0).round() as u8
        }),
        _ if !is_grey => return None,
        // The casts saturate.
        DecodingResult::F16(samples) => each(samples, |value| value.to_f32() as u8),
        DecodingResult::F32(samples) => each(samples, |value| value as u8),
        DecodingResult::F64(samples) => each(samples, |value| value as u8),
        DecodingResult::U32(samples) => each(samples, |value| value.min(255) as u8),
        DecodingResult::U64(samples) => each(samples, |value| value.min(255) as u8),
        DecodingResult::I8(samples) => each(samples, |value| value.max(0) as u8),
        DecodingResult::I16(samples) => each(samples, |value| value.clamp(0, 255) as u8),
        DecodingResult::I32(samples) => each(samples, |value| value.clamp(0, 255) as u8),
        DecodingResult::I64(samples) => each(samples, |value| value.clamp(0, 255) as u8),
    })
}

fn each<T>(samples: Vec<T>, byte: impl Fn(T) -> u8) -> Vec<u8> {
    samples.into_iter().map(byte).collect()
}

/// Expands pixels of 1, 2 or 4 bits to one byte each. Rows are aligned to bytes.
fn unpacked(packed: &[u8], bits: u8, (width, height): (usize, usize)) -> Vec<u8> {
    let stride = (width * usize::from(bits)).div_ceil(8).max(1);
    let in_byte = usize::from(8 / bits);
    let mut pixels = Vec::with_capacity(width * height);
    for row in packed.chunks_exact(stride).take(height) {
        pixels.extend((0..width).map(|x| {
            let shift = 8 - usize::from(bits) * (x % in_byte + 1);
            row[x / in_byte] >> shift & ((1 << bits) - 1)
        }));
    }
    pixels
}

/// Converts consecutive planes to interleaved pixels.
fn interleaved(planes: &[u8], count: usize) -> Vec<u8> {
    let length = planes.len() / count;
    let pixels = (0..length).flat_map(|pixel| (0..count).map(move |plane| plane * length + pixel));
    pixels.map(|at| planes[at]).collect()
}

fn unsupported(color: ColorType) -> DecodeError {
    DecodeError::Unsupported {
        format: format!("tiff of colour type {color:?}"),
    }
}

fn failure(error: TiffError, limits: &Limits) -> DecodeError {
    match error {
        TiffError::UnsupportedError(kind) => DecodeError::Unsupported {
            format: format!("tiff ({kind})"),
        },
        TiffError::LimitsExceeded => limits.memory_exceeded(),
        TiffError::IoError(error) => Format::Tiff.failure(&error, limits),
        error => Format::Tiff.failure(&error, limits),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const SHORT: u16 = 3;
    const LONG: u16 = 4;

    fn shorts(values: &[u16]) -> (u16, Vec<u8>) {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        (SHORT, bytes.collect())
    }

    /// Returns an uncompressed TIFF of 2x1 pixels in one strip.
    fn tiff(photometric: u16, bits: &[u16], more: &[(u16, &[u16])], pixels: &[u8]) -> Vec<u8> {
        let long = |value: usize| (LONG, (value as u32).to_le_bytes().to_vec());
        let mut tags = BTreeMap::from([
            (256, shorts(&[2])),
            (257, shorts(&[1])),
            (258, shorts(bits)),
            (259, shorts(&[1])),
            (262, shorts(&[photometric])),
            (273, long(0)),
            (277, shorts(&[bits.len() as u16])),
            (278, shorts(&[1])),
            (279, long(pixels.len())),
        ]);
        tags.extend(more.iter().map(|(tag, values)| (*tag, shorts(values))));
        let behind = 8 + 2 + 12 * tags.len() + 4;
        let outside = tags.values().filter(|(_, bytes)| bytes.len() > 4);
        let start = behind + outside.map(|(_, bytes)| bytes.len()).sum::<usize>();
        tags.insert(273, long(start));
        let mut file = b"II*\0\x08\0\0\0".to_vec();
        file.extend((tags.len() as u16).to_le_bytes());
        let mut values = Vec::new();
        for (tag, (kind, mut bytes)) in tags {
            let size = if kind == SHORT { 2 } else { 4 };
            let count = (bytes.len() / size) as u32;
            if bytes.len() > 4 {
                let at = (behind + values.len()) as u32;
                values.append(&mut bytes);
                bytes = at.to_le_bytes().to_vec();
            }
            bytes.resize(4, 0);
            file.extend(
                [tag, kind]
                    .iter()
                    .flat_map(|value: &u16| value.to_le_bytes()),
            );
            file.extend(count.to_le_bytes());
            file.extend(bytes);
        }
        file.extend([0; 4]);
        [file, values, pixels.to_vec()].concat()
    }

    fn pixels(file: &[u8]) -> Vec<u8> {
        let decoded = decode(file, &Limits::default(), &mut |_| {}).unwrap();
        decoded.image.data
    }

    fn floats(values: [f32; 2]) -> Vec<u8> {
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    }

    #[test]
    fn samples_of_every_kind_become_rgb() {
        let grey = |a: u8, b: u8| [[a; 3], [b; 3]].concat();
        let ramp: Vec<u16> = (0..768).map(|entry| (entry % 256) << 8).collect();
        let few: Vec<u16> = (0..48).map(|entry| (entry % 16 * 17) << 8).collect();
        for (name, file, expected) in [
            ("1 bit", tiff(1, &[1], &[], &[0b0100_0000]), grey(0, 255)),
            (
                "1 bit, white is 0",
                tiff(0, &[1], &[], &[0b0100_0000]),
                grey(255, 0),
            ),
            ("4 bits", tiff(1, &[4], &[], &[0x2f]), grey(34, 255)),
            (
                "8 bits, white is 0",
                tiff(0, &[8], &[], &[0, 200]),
                grey(255, 55),
            ),
            (
                "16 bits",
                tiff(1, &[16], &[], &[0xff, 0x12, 0, 0xab]),
                grey(0x12, 0xab),
            ),
            (
                "palette",
                tiff(3, &[8], &[(320, &ramp)], &[7, 201]),
                grey(7, 201),
            ),
            (
                "palette of 4 bits",
                tiff(3, &[4], &[(320, &few)], &[0x1f]),
                grey(17, 255),
            ),
            (
                "floats",
                tiff(1, &[32], &[(339, &[3])], &floats([99.7, 1e9])),
                grey(99, 255),
            ),
            (
                "32 bits",
                tiff(1, &[32], &[], &[9, 0, 0, 0, 0, 1, 0, 0]),
                grey(9, 255),
            ),
            (
                "signed",
                tiff(1, &[16], &[(339, &[2])], &[0xff, 0xff, 44, 0]),
                grey(0, 44),
            ),
            (
                "ink",
                tiff(5, &[8; 4], &[], &[0, 0, 0, 0, 0, 255, 255, 0]),
                vec![255, 255, 255, 255, 0, 0],
            ),
            (
                "YCbCr",
                tiff(6, &[8; 3], &[(530, &[1, 1])], &[80, 128, 128, 76, 85, 255]),
                vec![80, 80, 80, 254, 0, 0],
            ),
            (
                "alpha",
                tiff(2, &[8; 4], &[(338, &[2])], &[200, 0, 0, 255, 0, 0, 0, 0]),
                vec![200, 0, 0, 255, 255, 255],
            ),
            (
                "associated alpha",
                tiff(2, &[8; 4], &[(338, &[1])], &[100, 0, 0, 128, 0, 0, 0, 255]),
                vec![227, 127, 127, 0, 0, 0],
            ),
            (
                "no alpha",
                tiff(2, &[8; 4], &[(338, &[0])], &[1, 2, 3, 0, 4, 5, 6, 0]),
                vec![1, 2, 3, 4, 5, 6],
            ),
            (
                "grey with alpha",
                tiff(1, &[8; 2], &[(338, &[2])], &[50, 255, 50, 0]),
                grey(50, 255),
            ),
        ] {
            assert_eq!(pixels(&file), expected, "{name}");
        }
    }

    #[test]
    fn the_orientation_is_the_tags_and_damage_an_error() {
        let upright = |file: &[u8]| {
            let decoded = decode(file, &Limits::default(), &mut |_| {})?;
            Ok::<_, DecodeError>(decoded.upright_size())
        };
        let file = tiff(1, &[8], &[(274, &[6])], &[1, 2]);
        assert_eq!(upright(&file), Ok((1, 2)));
        let cut = upright(&file[..file.len() - 1]).unwrap_err();
        assert_eq!(cut.kind(), "truncated");
        let lab = tiff(8, &[8; 3], &[], &[0; 6]);
        assert_eq!(upright(&lab).unwrap_err().kind(), "unsupported");
    }
}
