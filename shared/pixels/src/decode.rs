//! Decoding within limits.
//!
//! The format is told by the first bytes of the file, never by its name. Then, before any pixel is
//! decoded, the size in the header is held against [`Limits`]: pixels, and the memory that decoding
//! this very picture would take (a progressive JPEG keeps its coefficients, a 16-bit PNG has six
//! bytes a pixel). JPEG goes to libjpeg-turbo (`jpeg.rs`), everything else to the `image` crate,
//! whose decoders are pure Rust; should one of them panic, the file counts as corrupt.
//!
//! Every picture becomes 8-bit RGB by the rules of Pillow and transformers 5:
//! - 16-bit samples keep their high byte, 16-bit grey too (nothing is clipped);
//! - grey is repeated three times, palettes are looked up;
//! - alpha is laid over white, with Pillow's `alpha_composite` rounding;
//! - of an animation the first frame counts;
//! - colour profiles are not applied.

use std::fmt;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::codecs::{bmp, gif, png, tiff, webp};
use image::{ColorType, ImageDecoder, ImageError, ImageResult};

use crate::jpeg::Reduction;
use crate::{buffers, jpeg, orient};

/// What a picture may cost. Checked from the file's header, before decoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most pixels (width times height). Default 2^28, 268 megapixels: above every camera on sale
    /// (200 megapixels), below every decompression bomb worth the name.
    pub max_pixels: u64,
    /// Most bytes of the file itself. Default 256 MiB.
    pub max_bytes: u64,
    /// Most bytes of memory that decoding and setting upright may take, as estimated from the
    /// header. Default 768 MiB: what 2^28 pixels take as 8-bit RGB, and low enough that a process
    /// stays below 1 GiB with what it needs besides.
    pub max_memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_pixels: 1 << 28,
            max_bytes: 256 << 20,
            max_memory: 768 << 20,
        }
    }
}

impl Limits {
    /// Err when a picture of this size, taking `memory` bytes to decode, is too large.
    pub(crate) fn check(&self, width: u32, height: u32, memory: u64) -> Result<(), DecodeError> {
        let pixels = u64::from(width) * u64::from(height);
        if pixels > self.max_pixels {
            return Err(DecodeError::TooLarge {
                what: Measure::Pixels,
                found: pixels,
                limit: self.max_pixels,
            });
        }
        if memory > self.max_memory {
            return Err(DecodeError::TooLarge {
                what: Measure::Memory,
                found: memory,
                limit: self.max_memory,
            });
        }
        Ok(())
    }
}

/// The formats that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    Jpeg,
    Png,
    WebP,
    Gif,
    Bmp,
    Tiff,
}

impl Format {
    /// The name in manifests: `jpeg`, `png`, `webp`, `gif`, `bmp`, `tiff`.
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

/// Interleaved 8-bit RGB, rows from top to bottom, no padding: `data.len() == 3 * width * height`.
#[derive(Clone, PartialEq, Eq)]
pub struct RgbImage {
    pub width: u32,
    pub height: u32,
    pub data: Vec<u8>,
}

impl RgbImage {
    /// An image that is one colour throughout.
    pub fn filled(width: u32, height: u32, rgb: [u8; 3]) -> Self {
        Self::from_fn(width, height, |_, _| rgb)
    }

    /// An image from a function of column and row.
    pub fn from_fn(width: u32, height: u32, mut rgb: impl FnMut(u32, u32) -> [u8; 3]) -> Self {
        let mut data = Vec::with_capacity(width as usize * height as usize * 3);
        for y in 0..height {
            for x in 0..width {
                data.extend_from_slice(&rgb(x, y));
            }
        }
        Self {
            width,
            height,
            data,
        }
    }

    /// Gives the memory to this thread's next picture, where dropping it would give it to the system
    /// only to ask for it again.
    pub fn recycle(self) {
        buffers::give(self.data);
    }

    /// Bytes of one row.
    pub(crate) fn stride(&self) -> usize {
        self.width as usize * 3
    }

    /// The bytes of row `y`.
    pub(crate) fn row(&self, y: usize) -> &[u8] {
        &self.data[y * self.stride()..][..self.stride()]
    }
}

impl fmt::Debug for RgbImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RgbImage({}x{})", self.width, self.height)
    }
}

/// A decoded picture, as stored in its file.
#[derive(Debug, Clone)]
pub struct Decoded {
    pub format: Format,
    /// Exif orientation, 1 to 8. 1 (upright) when the file has none, or a broken or illegal one.
    pub orientation: u8,
    /// Width and height as stored, by `reduction` more than those of `image`.
    pub(crate) stored: (u32, u32),
    pub(crate) reduction: Reduction,
    /// As stored: `orientation` is not applied yet.
    pub image: RgbImage,
}

impl Decoded {
    /// The picture as it is meant to be seen: turned and mirrored as its orientation says.
    pub fn upright(self) -> RgbImage {
        orient::upright(self.image, self.orientation)
    }

    /// Width and height of the upright picture.
    pub fn upright_size(&self) -> (u32, u32) {
        match self.orientation {
            5..=8 => (self.image.height, self.image.width),
            _ => (self.image.width, self.image.height),
        }
    }
}

/// Which of the [`Limits`] was passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    Bytes,
    Pixels,
    Memory,
    Scans,
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bytes => "bytes",
            Self::Pixels => "pixels",
            Self::Memory => "bytes of memory",
            Self::Scans => "progressive scans",
        })
    }
}

/// Why a file gives no picture. Classed by what is wrong with the file, since that is what the
/// reader of a report asks; nothing here is cured by trying again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("empty file")]
    Empty,
    /// The first bytes are of no picture format we know.
    #[error("not an image ({looks_like})")]
    NotAnImage { looks_like: &'static str },
    /// A picture, but of a format, or a kind of its format, that is not read.
    #[error("unsupported image format: {format}")]
    Unsupported { format: String },
    #[error("too large: {found} {what}, limit {limit}")]
    TooLarge {
        what: Measure,
        found: u64,
        limit: u64,
    },
    /// The file ends before its picture does.
    #[error("truncated {format}: {detail}")]
    Truncated { format: Format, detail: String },
    /// The file contradicts itself.
    #[error("corrupt {format}: {detail}")]
    Corrupt { format: Format, detail: String },
}

impl DecodeError {
    /// One word for tables: `empty`, `not-an-image`, `unsupported`, `too-large`, `truncated`, `corrupt`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::NotAnImage { .. } => "not-an-image",
            Self::Unsupported { .. } => "unsupported",
            Self::TooLarge { .. } => "too-large",
            Self::Truncated { .. } => "truncated",
            Self::Corrupt { .. } => "corrupt",
        }
    }
}

/// Decodes a picture file into 8-bit RGB.
///
/// Strict: what is cut or damaged is an error. Tolerated is what stands outside the picture: bytes
/// after its end, a broken Exif block or colour profile, stray bytes between the header's segments,
/// filling before the end marker of a JPEG.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Decoded, DecodeError> {
    decode_admitted(bytes, limits, &mut |_| {})
}

/// [`decode`], but `admit` is called with the bytes of memory that decoding and setting upright take,
/// as estimated from the header, before they are allocated. It may wait until there is room for them.
/// It is not called for a file that is refused by its header.
///
/// # Errors
/// Those of [`decode`].
pub fn decode_admitted(
    bytes: &[u8],
    limits: &Limits,
    admit: Admit<'_>,
) -> Result<Decoded, DecodeError> {
    decode_reduced(bytes, limits, admit, |_, _| Reduction::None)
}

/// Hears how many bytes of memory an image takes, before they are allocated.
pub type Admit<'a> = &'a mut dyn FnMut(u64);

/// [`decode`], but where the file is a JPEG reduced by what `reduction` says for the width and height
/// of the upright picture. As strict: all of the file is read.
pub(crate) fn decode_reduced(
    bytes: &[u8],
    limits: &Limits,
    admit: Admit<'_>,
    reduction: impl FnOnce(u32, u32) -> Reduction,
) -> Result<Decoded, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    let length = bytes.len() as u64;
    if length > limits.max_bytes {
        return Err(DecodeError::TooLarge {
            what: Measure::Bytes,
            found: length,
            limit: limits.max_bytes,
        });
    }
    let format = sniff(bytes)?;
    if format == Format::Jpeg {
        return jpeg::decode(bytes, limits, admit, reduction);
    }
    // Only owned values cross the boundary, so a panic leaves nothing half-done behind.
    let decoded = AssertUnwindSafe(|| decode_other(format, bytes, limits, admit));
    catch_unwind(decoded).unwrap_or_else(|_| {
        Err(DecodeError::Corrupt {
            format,
            detail: "the decoder gave up".to_owned(),
        })
    })
}

/// Tells the format by its first bytes.
fn sniff(bytes: &[u8]) -> Result<Format, DecodeError> {
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
        return unsupported(match bytes.get(8..12) {
            Some(b"avif" | b"avis") => "avif",
            Some(b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"mif1" | b"msf1") => "heic",
            _ => "iso media file",
        });
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

/// `BM` alone is two letters of text; a BMP has the size of its second header at offset 14.
fn is_bmp_header_size(bytes: &[u8]) -> bool {
    matches!(bytes, [12 | 16 | 40 | 52 | 56 | 64 | 108 | 124, 0, 0, 0])
}

fn decode_other(
    format: Format,
    bytes: &[u8],
    limits: &Limits,
    admit: Admit<'_>,
) -> Result<Decoded, DecodeError> {
    let reader = || Cursor::new(bytes);
    let fail = |error| from_image_error(format, limits, error);
    let inner = {
        let mut inner = image::Limits::no_limits();
        inner.max_alloc = Some(limits.max_memory);
        inner
    };
    match format {
        Format::Jpeg => jpeg::decode(bytes, limits, admit, |_, _| Reduction::None),
        Format::Png => {
            // The png crate has a size limit of its own, so look first, for the better message.
            if let (Some(width), Some(height)) = (be_u32(bytes, 16), be_u32(bytes, 20)) {
                limits.check(width, height, 0)?;
            }
            let decoder = png::PngDecoder::with_limits(reader(), inner).map_err(fail)?;
            read(format, decoder, 0, limits, admit)
        }
        Format::Bmp => read(
            format,
            bmp::BmpDecoder::new(reader()).map_err(fail)?,
            0,
            limits,
            admit,
        ),
        // The other three hold the picture a second time inside while they decode.
        Format::WebP => {
            // RIFF says how long it is; the decoder would not always miss what is cut off.
            let declared = bytes.get(4..8).and_then(|four| four.try_into().ok());
            let declared = declared.map_or(0, |four| u64::from(u32::from_le_bytes(four)));
            if declared + 8 > bytes.len() as u64 {
                return Err(DecodeError::Truncated {
                    format,
                    detail: format!("{} of {} bytes", bytes.len(), declared + 8),
                });
            }
            let mut decoder = webp::WebPDecoder::new(reader()).map_err(fail)?;
            decoder.set_limits(inner).map_err(fail)?;
            let inside = if decoder.has_animation() { 8 } else { 4 };
            read(format, decoder, inside, limits, admit)
        }
        Format::Gif => {
            let decoder = gif::GifDecoder::new(reader()).map_err(fail)?;
            let (width, height) = decoder.dimensions();
            limits.check(width, height, 0)?;
            read(format, decoder, 4, limits, admit)
        }
        Format::Tiff => {
            let mut decoder = tiff::TiffDecoder::new(reader()).map_err(fail)?;
            let (width, height) = decoder.dimensions();
            limits.check(width, height, 0)?;
            decoder.set_limits(inner).map_err(fail)?;
            let inside = u64::from(decoder.color_type().bytes_per_pixel());
            read(format, decoder, inside, limits, admit)
        }
    }
}

/// Reads the decoder's picture and makes it RGB. `inside` is how many bytes a pixel the decoder holds
/// while it works, besides our buffer (measured on pictures of 25 megapixels).
fn read(
    format: Format,
    mut decoder: impl ImageDecoder,
    inside: u64,
    limits: &Limits,
    admit: Admit<'_>,
) -> Result<Decoded, DecodeError> {
    let fail = |error| from_image_error(format, limits, error);
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(DecodeError::Corrupt {
            format,
            detail: format!("size {width}x{height}"),
        });
    }
    let color = decoder.color_type();
    let orientation = quiet_orientation(decoder.orientation());

    let pixels = u64::from(width) * u64::from(height);
    let per_pixel = u64::from(color.bytes_per_pixel());
    // Wider pixels are narrowed in place; grey needs a second buffer, and so does turning.
    let second = if per_pixel < 3 || orientation >= 5 {
        3
    } else {
        0
    };
    let memory = pixels.saturating_mul(per_pixel + inside.max(second));
    limits.check(width, height, memory)?;
    admit(memory);

    let mut data = vec![0u8; (pixels * per_pixel) as usize];
    decoder.read_image(&mut data).map_err(fail)?;
    let data = to_rgb(data, color).ok_or_else(|| DecodeError::Unsupported {
        format: format!("{format} with colour type {color:?}"),
    })?;
    Ok(Decoded {
        format,
        orientation,
        stored: (width, height),
        reduction: Reduction::None,
        image: RgbImage {
            width,
            height,
            data,
        },
    })
}

/// A picture with a broken Exif block is still a picture.
fn quiet_orientation(found: ImageResult<image::metadata::Orientation>) -> u8 {
    found.map_or(1, image::metadata::Orientation::to_exif)
}

fn be_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    let four = bytes.get(offset..offset + 4)?;
    Some(u32::from_be_bytes(four.try_into().ok()?))
}

/// Decoder output (samples of more than 8 bits in native byte order) to RGB, in place where the
/// pixels are wide enough. None for a colour type that the `image` crate does not have today.
fn to_rgb(data: Vec<u8>, color: ColorType) -> Option<Vec<u8>> {
    /// High byte of a 16-bit sample.
    fn high(bytes: &[u8], sample: usize) -> u8 {
        (u16::from_ne_bytes([bytes[2 * sample], bytes[2 * sample + 1]]) >> 8) as u8
    }
    fn float(bytes: &[u8], sample: usize) -> u8 {
        let at = 4 * sample;
        let value = f32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        (value.clamp(0.0, 1.0) * 255.0).round() as u8 // NaN becomes 0
    }
    fn grey(value: u8) -> [u8; 3] {
        [value; 3]
    }
    Some(match color {
        ColorType::Rgb8 => data,
        ColorType::L8 => map_pixels::<1>(data, |p| grey(p[0])),
        ColorType::La8 => map_pixels::<2>(data, |p| over_white(grey(p[0]), p[1])),
        ColorType::Rgba8 => map_pixels::<4>(data, |p| over_white([p[0], p[1], p[2]], p[3])),
        ColorType::L16 => map_pixels::<2>(data, |p| grey(high(p, 0))),
        ColorType::La16 => map_pixels::<4>(data, |p| over_white(grey(high(p, 0)), high(p, 1))),
        ColorType::Rgb16 => map_pixels::<6>(data, |p| [high(p, 0), high(p, 1), high(p, 2)]),
        ColorType::Rgba16 => map_pixels::<8>(data, |p| {
            over_white([high(p, 0), high(p, 1), high(p, 2)], high(p, 3))
        }),
        ColorType::Rgb32F => map_pixels::<12>(data, |p| [float(p, 0), float(p, 1), float(p, 2)]),
        ColorType::Rgba32F => map_pixels::<16>(data, |p| {
            over_white([float(p, 0), float(p, 1), float(p, 2)], float(p, 3))
        }),
        _ => return None,
    })
}

/// Replaces every `N` bytes by three; in place when `N >= 3`.
pub(crate) fn map_pixels<const N: usize>(
    mut data: Vec<u8>,
    rgb: impl Fn(&[u8; N]) -> [u8; 3],
) -> Vec<u8> {
    if N < 3 {
        return data.as_chunks::<N>().0.iter().flat_map(rgb).collect();
    }
    let pixels = data.len() / N;
    for i in 0..pixels {
        let mut pixel = [0; N];
        pixel.copy_from_slice(&data[N * i..N * (i + 1)]);
        data[3 * i..3 * (i + 1)].copy_from_slice(&rgb(&pixel));
    }
    data.truncate(pixels * 3);
    data.shrink_to_fit();
    data
}

/// Alpha over white, bit for bit as Pillow's `Image.alpha_composite` rounds it
/// (`src/libImaging/AlphaComposite.c`: 7 extra bits, division by 255 by shifts).
fn over_white(rgb: [u8; 3], alpha: u8) -> [u8; 3] {
    const EXTRA_BITS: u32 = 7;
    let alpha = u32::from(alpha);
    rgb.map(|value| {
        let sum = (u32::from(value) * alpha + 255 * (255 - alpha)) << EXTRA_BITS;
        let sum = sum + (0x80 << EXTRA_BITS);
        ((((sum >> 8) + sum) >> 8) >> EXTRA_BITS) as u8
    })
}

fn from_image_error(format: Format, limits: &Limits, error: ImageError) -> DecodeError {
    let detail = error.to_string();
    match &error {
        ImageError::Limits(_) => DecodeError::TooLarge {
            what: Measure::Memory,
            found: limits.max_memory.saturating_add(1),
            limit: limits.max_memory,
        },
        ImageError::Unsupported(_) => DecodeError::Unsupported {
            format: format!("{format} ({detail})"),
        },
        _ if ends_early(&error) => DecodeError::Truncated { format, detail },
        _ => DecodeError::Corrupt { format, detail },
    }
}

/// Whether an unexpected end of file is at the bottom of this error.
fn ends_early(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::UnexpectedEof
        {
            return true;
        }
        let text = error.to_string().to_lowercase();
        if text.contains("unexpected end of file") || text.contains("unexpected eof") {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alpha_over_white_is_the_rounded_blend() {
        assert_eq!(over_white([10, 20, 30], 255), [10, 20, 30]);
        assert_eq!(over_white([10, 20, 30], 0), [255; 3]);
        for value in 0..=255u8 {
            for alpha in 0..=255u8 {
                let (v, a) = (f64::from(value), f64::from(alpha));
                let exact = (v * a + 255.0 * (255.0 - a)) / 255.0;
                let got = f64::from(over_white([value; 3], alpha)[0]);
                assert!(
                    (got - exact).abs() <= 0.51,
                    "{value} {alpha}: {got} {exact}"
                );
            }
        }
    }

    #[test]
    fn names_what_it_does_not_read() {
        let kind = |bytes: &[u8]| decode(bytes, &Limits::default()).unwrap_err().to_string();
        assert_eq!(kind(b""), "empty file");
        assert_eq!(kind(b"hello"), "not an image (text)");
        assert_eq!(
            kind(b"version https://git-lfs.github.com/spec/v1\noid sha256:0"),
            "not an image (git lfs pointer)"
        );
        assert_eq!(kind(b"BMW is a car maker"), "not an image (text)");
        assert_eq!(kind(b"%PDF-1.4"), "not an image (pdf)");
        assert_eq!(kind(b"<!DOCTYPE html><p>404"), "not an image (html)");
        assert_eq!(kind(b"<svg xmlns='x'/>"), "unsupported image format: svg");
        assert_eq!(
            kind(b"\0\0\0\x20ftypavif...."),
            "unsupported image format: avif"
        );
        assert_eq!(kind(b"P6\n1 1\n255\n..."), "unsupported image format: pnm");
        assert_eq!(kind(b"\x80\x01\x02"), "not an image (unknown bytes)");
    }

    #[test]
    fn limits_hold_before_decoding() {
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
        png.extend_from_slice(&u32::MAX.to_be_bytes());
        png.extend_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(
            decode(&png, &Limits::default()).unwrap_err().kind(),
            "too-large"
        );
        let limits = Limits {
            max_bytes: 3,
            ..Limits::default()
        };
        assert_eq!(decode(b"12345", &limits).unwrap_err().kind(), "too-large");
    }

    #[test]
    fn memory_is_admitted_once_and_before_decoding() {
        let mut image = image::RgbImage::new(30, 20);
        image.put_pixel(1, 1, image::Rgb([9, 8, 7]));
        for format in [
            image::ImageFormat::Png,
            image::ImageFormat::Jpeg,
            image::ImageFormat::Bmp,
            image::ImageFormat::Gif,
            image::ImageFormat::Tiff,
        ] {
            let mut bytes = Cursor::new(Vec::new());
            let _ = image.write_to(&mut bytes, format);
            let bytes = bytes.into_inner();
            if bytes.is_empty() {
                continue; // this build has no encoder for the format
            }
            let mut admitted = Vec::new();
            let admit = &mut |memory| admitted.push(memory);
            decode_admitted(&bytes, &Limits::default(), admit).unwrap();
            assert!(
                admitted.len() == 1 && admitted[0] >= 1800,
                "{format:?}: {admitted:?}"
            );
            admitted.clear();
            let tight = Limits {
                max_memory: 1,
                ..Limits::default()
            };
            let admit = &mut |memory| admitted.push(memory);
            decode_admitted(&bytes, &tight, admit).unwrap_err();
            assert!(admitted.is_empty(), "{format:?}: {admitted:?}");
        }
    }
}
