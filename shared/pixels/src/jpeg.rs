//! Decodes JPEG with libjpeg-turbo, strictly.
//!
//! libjpeg turns damage into warnings and continues with grey, which a curated dataset must not
//! contain. The TurboJPEG interface reports the **first** warning of an image (later ones are
//! lost), or the error if there was one. So:
//!
//! 1. Parse the header: compare size and memory with the limits, read the Exif orientation.
//! 2. Decode. If there is no warning, return the image. (`tj3Decompress8` reads up to the end
//!    marker, so it also notices a file that is truncated after its last coded block.)
//! 3. Some warnings concern only the header: an unknown JFIF version, an unknown Adobe colour
//!    transform, stray bytes between segments, an invalid colour profile, unusual scan parameters
//!    in a sequential file. They do not affect the pixels, but hide later warnings. Rebuild the
//!    header without their cause and decode again.
//! 4. "Extraneous bytes before marker 0xd9", the end marker, as the first warning means that
//!    everything before it is valid: accept. Cameras and editors leave padding there.
//! 5. Everything else is an error: premature end, bad Huffman code, lost synchronisation.
//!
//! The texts are those of libjpeg-turbo's `src/jerror.h`, which have not changed in decades.
//!
//! The decoder uses libjpeg's defaults (accurate integer DCT, smooth chroma upsampling), which are
//! also Pillow's, so the pixels are equal.

use turbojpeg::{Compressor, Decompressor, Image, PixelFormat, ScalingFactor, Subsamp};

use crate::alpha::map_pixels;
use crate::buffers;
use crate::decode::{Admit, DecodeError, Decoded, Format, Limits, Measure, RgbImage};
use crate::orient::Orientations;

/// The maximum number of scans of a progressive file. Encoders write about ten, manual scripts a
/// few dozen. Each costs a pass over the whole image, and a decompression bomb may have thousands
/// in few bytes.
const MAX_SCANS: u32 = 100;

const SOI: [u8; 2] = [0xff, 0xd8];
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const APP0: u8 = 0xe0;
const APP1: u8 = 0xe1;
const APP14: u8 = 0xee;
const COM: u8 = 0xfe;

/// The factor by which a JPEG is reduced while it is decoded. libjpeg does this in the frequency
/// domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reduction {
    None = 1,
    Half = 2,
    Quarter = 4,
    Eighth = 8,
}

/// Decodes a JPEG, reduced by the factor that `reduction` returns for the upright width and height.
pub(crate) fn decode(
    bytes: &[u8],
    limits: &Limits,
    admit: Admit<'_>,
    reduction: impl FnOnce(u32, u32) -> Reduction,
) -> Result<Decoded, DecodeError> {
    let header = JpegHeader::parse(bytes)?;
    let frame = &header.frame;
    if frame.precision != 8 {
        return Err(unsupported(format!("jpeg of {} bits", frame.precision)));
    }
    // Also for a reduced image, so that all stages accept the same files.
    limits.check(frame.width, frame.height, header.memory())?;
    admit(header.memory());

    let ink = frame.components.len() == 4;
    let format = if ink {
        PixelFormat::CMYK
    } else {
        PixelFormat::RGB
    };
    let reduction = match header.orientation {
        _ if frame.is_lossless() => Reduction::None,
        5..=8 => reduction(frame.height, frame.width),
        _ => reduction(frame.width, frame.height),
    };
    let factor = ScalingFactor::new(1, reduction as usize);
    let width = factor.scale(frame.width as usize);
    let height = factor.scale(frame.height as usize);
    let mut pixels = buffers::take(width * height * format.size());
    let mut run = |bytes: &[u8]| {
        // Use a new decompressor for each image: an old one keeps its tables, and would decode a
        // file without tables with those of the previous image.
        let mut decompressor = Decompressor::new()?;
        decompressor.set_scan_limit(MAX_SCANS)?;
        decompressor.set_scaling_factor(factor)?;
        decompressor.decompress(
            bytes,
            Image {
                pixels: pixels.as_mut_slice(),
                width,
                pitch: width * format.size(),
                height,
                format,
            },
        )
    };

    let mut outcome = run(bytes).map_err(message);
    if outcome.as_ref().is_err_and(|text| is_about_header(text)) {
        outcome = run(&header.rebuild(bytes)).map_err(message);
    }
    if let Err(text) = outcome
        && !is_filling_before_end(&text)
    {
        return Err(classify(text));
    }

    let data = if ink {
        map_pixels::<4>(pixels, rgb_from_inverted_ink)
    } else {
        pixels
    };
    Ok(Decoded {
        format: Format::Jpeg,
        orientation: header.orientation,
        warnings: Vec::new(),
        stored: (frame.width, frame.height),
        reduction,
        image: RgbImage {
            width: width as u32,
            height: height as u32,
            data,
        },
    })
}

/// Encodes the image as a baseline JPEG with 4:2:0 chroma and decodes it, like Pillow's
/// `save(quality=quality)` and `open`. `quality` is 1 to 100; the sides are at most 65500.
pub(crate) fn round_trip(image: &RgbImage, quality: u8) -> Result<RgbImage, String> {
    let bytes = encode(image, quality)?;
    let decoded = turbojpeg::decompress(&bytes, PixelFormat::RGB).map_err(message)?;
    Ok(RgbImage {
        width: image.width,
        height: image.height,
        data: decoded.pixels,
    })
}

/// Encodes the image as a baseline JPEG with 4:2:0 chroma.
pub(crate) fn encode(image: &RgbImage, quality: u8) -> Result<Vec<u8>, String> {
    let mut compressor = Compressor::new().map_err(message)?;
    compressor
        .set_quality(i32::from(quality))
        .map_err(message)?;
    compressor.set_subsamp(Subsamp::Sub2x2).map_err(message)?;
    compressor
        .compress_to_vec(Image {
            pixels: image.data.as_slice(),
            width: image.width as usize,
            pitch: image.stride(),
            height: image.height as usize,
            format: PixelFormat::RGB,
        })
        .map_err(message)
}

/// Converts inverted CMYK, as Adobe writes it and Pillow expects in every four-component JPEG, to
/// RGB by Pillow's formula (`cmyk2rgb` in `src/libImaging/Convert.c`).
pub(crate) fn rgb_from_inverted_ink(&[c, m, y, k]: &[u8; 4]) -> [u8; 3] {
    let white = u32::from(k); // 255 - black, and black is 255 - k
    [c, m, y].map(|stored| {
        let product = (255 - u32::from(stored)) * white + 128;
        let taken = ((product >> 8) + product) >> 8;
        white.saturating_sub(taken) as u8
    })
}

fn message(error: turbojpeg::Error) -> String {
    match error {
        turbojpeg::Error::TurboJpegError(text) => text,
        other => other.to_string(),
    }
}

/// Returns whether [`JpegHeader::rebuild`] removes the cause of a warning.
fn is_about_header(text: &str) -> bool {
    [
        "unknown JFIF revision",
        "Unknown Adobe color transform",
        "extraneous bytes before marker",
        "bad ICC marker",
        "Invalid SOS parameters",
    ]
    .iter()
    .any(|part| text.contains(part))
        && !is_filling_before_end(text)
}

fn is_filling_before_end(text: &str) -> bool {
    text.contains("extraneous bytes before marker 0xd9")
}

fn classify(text: String) -> DecodeError {
    let has = |part: &str| text.contains(part);
    if has("Premature end of") {
        truncated(text)
    } else if has("more than") && has("scans") {
        DecodeError::TooLarge {
            what: Measure::Scans,
            found: u64::from(MAX_SCANS) + 1,
            limit: u64::from(MAX_SCANS),
        }
    } else if has("Unsupported JPEG") || has("not implemented") || has("colorspace") {
        unsupported(format!("jpeg ({text})"))
    } else {
        corrupt(text.trim_start_matches("Corrupt JPEG data: "))
    }
}

fn unsupported(format: String) -> DecodeError {
    DecodeError::Unsupported { format }
}

fn truncated(detail: impl Into<String>) -> DecodeError {
    Format::Jpeg.truncated(detail)
}

fn corrupt(detail: impl Into<String>) -> DecodeError {
    Format::Jpeg.corrupt(detail)
}

/// A frame header (SOF).
struct FrameHeader {
    marker: u8,
    precision: u8,
    width: u32,
    height: u32,
    /// The horizontal and vertical sampling factors of each component.
    components: Vec<(u8, u8)>,
}

impl FrameHeader {
    fn parse(marker: u8, body: &[u8]) -> Result<Self, DecodeError> {
        let [precision, h1, h0, w1, w0, count, rest @ ..] = body else {
            return Err(corrupt("frame header too short"));
        };
        let (width, height) = (
            u16::from_be_bytes([*w1, *w0]),
            u16::from_be_bytes([*h1, *h0]),
        );
        if width == 0 || height == 0 {
            return Err(corrupt(format!("size {width}x{height}")));
        }
        let components: Vec<_> = rest
            .as_chunks::<3>()
            .0
            .iter()
            .take(usize::from(*count))
            .map(|[_, sampling, _]| (sampling >> 4, sampling & 15))
            .collect();
        if components.len() != usize::from(*count) || components.is_empty() {
            return Err(corrupt("frame header too short"));
        }
        if components.iter().any(|&(h, v)| h == 0 || v == 0) {
            return Err(corrupt("component without samples"));
        }
        Ok(Self {
            marker,
            precision: *precision,
            width: u32::from(width),
            height: u32::from(height),
            components,
        })
    }

    fn is_progressive(&self) -> bool {
        matches!(self.marker, 0xc2 | 0xc6 | 0xca | 0xce)
    }

    /// Returns whether the image is lossless. Such images cannot be reduced.
    fn is_lossless(&self) -> bool {
        matches!(self.marker, 0xc3 | 0xc7 | 0xcb | 0xcf)
    }

    /// Returns the bytes for all coefficients of the image: two each, in whole blocks.
    fn coefficient_bytes(&self) -> u64 {
        let largest = |side: fn(&(u8, u8)) -> u8| {
            u64::from(self.components.iter().map(side).max().unwrap_or(1))
        };
        let (most_h, most_v) = (largest(|c| c.0), largest(|c| c.1));
        let units_across = u64::from(self.width).div_ceil(8 * most_h);
        let units_down = u64::from(self.height).div_ceil(8 * most_v);
        let blocks: u64 = self
            .components
            .iter()
            .map(|&(h, v)| units_across * u64::from(h) * units_down * u64::from(v))
            .sum();
        blocks * 64 * 2
    }
}

/// A marker segment of the header. `body` is the range after its length.
struct Segment {
    marker: u8,
    body: std::ops::Range<usize>,
}

/// Everything before the data of the first scan.
struct JpegHeader {
    frame: FrameHeader,
    /// All segments. The scan header is the last one.
    segments: Vec<Segment>,
    /// The number of components in the first scan.
    scan_components: usize,
    /// The offset of the first scan's data.
    data_start: usize,
    orientation: u8,
}

impl JpegHeader {
    fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut frame = None;
        let mut orientations = Orientations::default();
        let mut segments = Vec::new();
        let mut at = SOI.len();
        loop {
            // Stray bytes before a marker are skipped, as in libjpeg.
            while *bytes.get(at).ok_or_else(cut_in_header)? != 0xff {
                at += 1;
            }
            while *bytes.get(at).ok_or_else(cut_in_header)? == 0xff {
                at += 1;
            }
            let marker = bytes[at];
            at += 1;
            match marker {
                0x00 | 0x01 | 0xd0..=0xd8 => continue, // no segments
                EOI => return Err(corrupt("end marker before any picture data")),
                _ => {}
            }
            let length = match bytes.get(at..at + 2) {
                Some(&[high, low]) => usize::from(u16::from_be_bytes([high, low])),
                _ => return Err(cut_in_header()),
            };
            if length < 2 {
                return Err(corrupt("marker segment without a length"));
            }
            let range = at + 2..at + length;
            let body = bytes.get(range.clone()).ok_or_else(cut_in_header)?;
            at += length;
            segments.push(Segment {
                marker,
                body: range,
            });
            match marker {
                0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                    if frame.is_some() {
                        return Err(corrupt("two frame headers"));
                    }
                    frame = Some(FrameHeader::parse(marker, body)?);
                }
                APP1 => orientations.add_app1(body),
                SOS => {
                    return Ok(Self {
                        frame: frame.ok_or_else(|| corrupt("scan before the frame header"))?,
                        segments,
                        scan_components: usize::from(body.first().copied().unwrap_or(0)),
                        data_start: at,
                        orientation: orientations.get(),
                    });
                }
                _ => {}
            }
        }
    }

    /// Returns the bytes of memory needed for decoding and rotating.
    fn memory(&self) -> u64 {
        let frame = &self.frame;
        let pixels = u64::from(frame.width) * u64::from(frame.height);
        let output = pixels * if frame.components.len() == 4 { 4 } else { 3 };
        // libjpeg keeps all coefficients if the components are not in one scan.
        let several_scans = frame.is_progressive() || self.scan_components < frame.components.len();
        let coefficients = if several_scans {
            frame.coefficient_bytes()
        } else {
            0
        };
        let turned = if self.orientation >= 5 { pixels * 3 } else { 0 };
        output + coefficients.max(turned)
    }

    /// Returns the same file with a header that only has what decoding needs.
    fn rebuild(&self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        out.extend_from_slice(&SOI);
        let components = self.frame.components.len();
        for segment in &self.segments {
            let mut body = bytes[segment.body.clone()].to_vec();
            match segment.marker {
                // These two determine the colours, so they are kept, with valid values.
                APP0 if body.starts_with(b"JFIF\0") && body.len() >= 7 => body[5] = 1,
                APP14 if body.starts_with(b"Adobe") && body.len() >= 12 => {
                    body[11] = match (body[11], components) {
                        (0, _) => 0,
                        (_, 4) => 2,
                        _ => 1,
                    };
                }
                0xe0..=0xef | COM => continue,
                SOS if !self.frame.is_progressive() && self.frame.marker != 0xc3 => {
                    let spectral = 1 + 2 * self.scan_components;
                    if let Some(parameters) = body.get_mut(spectral..spectral + 3) {
                        parameters.copy_from_slice(&[0, 63, 0]);
                    }
                }
                _ => {}
            }
            out.extend_from_slice(&[0xff, segment.marker]);
            // Unwrap safety: the body came from a segment, whose length is 16 bits.
            out.extend_from_slice(&u16::try_from(body.len() + 2).unwrap().to_be_bytes());
            out.extend_from_slice(&body);
        }
        out.extend_from_slice(&bytes[self.data_start..]);
        out
    }
}

fn cut_in_header() -> DecodeError {
    truncated("file ends in its header")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn photo() -> RgbImage {
        RgbImage::from_fn(64, 48, |x, y| [(x * 4) as u8, (y * 5) as u8, (x ^ y) as u8])
    }

    fn jpeg() -> Vec<u8> {
        let image = photo();
        let source = Image {
            pixels: image.data.as_slice(),
            width: 64,
            pitch: 192,
            height: 48,
            format: PixelFormat::RGB,
        };
        turbojpeg::compress(source, 90, Subsamp::Sub2x2)
            .unwrap()
            .to_vec()
    }

    fn outcome(bytes: &[u8]) -> Result<Vec<u8>, &'static str> {
        let whole = decode(bytes, &Limits::default(), &mut |_| {}, |_, _| {
            Reduction::None
        });
        let reduced = decode(bytes, &Limits::default(), &mut |_| {}, |_, _| {
            Reduction::Eighth
        });
        let kind = |outcome: &Result<Decoded, DecodeError>| {
            outcome.as_ref().err().map(|error| error.kind())
        };
        assert_eq!(kind(&whole), kind(&reduced), "strict in every size");
        whole
            .map(|decoded| decoded.image.data)
            .map_err(|error| error.kind())
    }

    #[test]
    fn cut_anywhere_is_an_error() {
        let bytes = jpeg();
        assert!(outcome(&bytes).is_ok());
        for length in 2..bytes.len() {
            assert!(outcome(&bytes[..length]).is_err(), "cut at {length}");
        }
        assert_eq!(outcome(&bytes[..bytes.len() - 2]), Err("truncated"));
    }

    #[test]
    fn harmless_oddities_decode_to_the_same_pixels() {
        let plain = jpeg();
        let pixels = outcome(&plain);
        let jfif = plain.windows(5).position(|w| w == b"JFIF\0").unwrap();

        let mut future = plain.clone();
        future[jfif + 5] = 9;
        assert_eq!(outcome(&future), pixels, "JFIF version");

        let mut stray = plain.clone();
        stray.splice(2..2, [1, 2, 3]);
        assert_eq!(outcome(&stray), pixels, "stray bytes in the header");

        let mut filled = plain.clone();
        let end = filled.len() - 2;
        filled.splice(end..end, [0; 40]);
        assert_eq!(outcome(&filled), pixels, "filling before the end");

        let mut trailing = plain.clone();
        trailing.extend_from_slice(&[0x5a; 100]);
        assert_eq!(outcome(&trailing), pixels, "bytes after the end");

        let scan = plain.windows(2).position(|w| w == [0xff, SOS]).unwrap();
        let mut parameters = plain.clone();
        parameters[scan + 4 + 1 + 6 + 1] = 0; // last coefficient of a sequential scan
        assert_eq!(outcome(&parameters), pixels, "scan parameters");
    }

    #[test]
    fn damage_behind_a_harmless_oddity_is_still_found() {
        let mut bytes = jpeg();
        bytes.splice(2..2, [1, 2, 3]);
        let cut = bytes.len() * 3 / 4;
        bytes.truncate(cut);
        assert_eq!(outcome(&bytes), Err("truncated"));
        bytes.extend_from_slice(&[0xff, EOI]);
        assert_eq!(outcome(&bytes), Err("corrupt"));
    }

    #[test]
    fn ink_as_pillow_mixes_it() {
        assert_eq!(rgb_from_inverted_ink(&[255, 255, 255, 255]), [255; 3]);
        assert_eq!(rgb_from_inverted_ink(&[255, 255, 255, 0]), [0; 3]);
        assert_eq!(rgb_from_inverted_ink(&[0, 255, 0, 255]), [0, 255, 0]);
        assert_eq!(rgb_from_inverted_ink(&[128, 64, 200, 100]), [50, 25, 78]);
    }

    #[test]
    fn memory_counts_the_coefficients_of_a_progressive_file() {
        let frame = FrameHeader::parse(
            0xc2,
            &[8, 1, 0, 1, 0, 3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1],
        );
        assert_eq!(frame.unwrap().coefficient_bytes(), 256 * 256 * 3);
    }
}
