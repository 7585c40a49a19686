//! Decodes image files within limits.
//!
//! The format is detected from the first bytes of the file, never from its name. Before any pixel
//! is decoded, the size in the header is compared with [`Limits`]: the number of pixels, and the
//! memory for decoding this image (a progressive JPEG keeps its coefficients, a 16-bit PNG has six
//! bytes a pixel). libjpeg-turbo decodes JPEG (`jpeg.rs`), decoders in pure Rust everything else
//! (`formats.rs`). If one of them panics, the file counts as corrupt.
//!
//! Every image becomes 8-bit RGB by the rules of Pillow and transformers 5:
//! - 16-bit samples keep their high byte, including 16-bit grey (nothing is clipped);
//! - grey is repeated three times, palettes are looked up;
//! - alpha is composited onto white, or onto black if the image would vanish on white (`alpha.rs`);
//! - of an animation, the first frame is used;
//! - colour profiles are not applied.

use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::format::sniff;
use crate::jpeg::Reduction;
use crate::{formats, jpeg, orient};

pub use crate::format::Format;
pub use crate::raster::RgbImage;

/// The limits for one image, checked against the file's header before decoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The maximum number of pixels (width times height). The default is 2^28, 268 megapixels: more
    /// than any camera on sale has (200 megapixels), and less than a decompression bomb needs.
    pub max_pixels: u64,
    /// The maximum size of the file in bytes. The default is 256 MiB.
    pub max_bytes: u64,
    /// The maximum number of bytes of memory for decoding and rotating, as estimated from the
    /// header. The default is 768 MiB: what 2^28 pixels take as 8-bit RGB, and little enough that
    /// the whole process stays below 1 GiB.
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
    pub(crate) fn memory_exceeded(&self) -> DecodeError {
        DecodeError::TooLarge {
            what: Measure::Memory,
            found: self.max_memory.saturating_add(1),
            limit: self.max_memory,
        }
    }

    /// Returns an error if an image of this size, which needs `memory` bytes to decode, exceeds the
    /// limits.
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

/// A decoded image, as stored in its file.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// The format that the first bytes of the file show.
    pub format: Format,
    /// The Exif orientation, 1 to 8. 1 (upright) if the file has none, or an invalid one.
    pub orientation: u8,
    /// Irregularities of the file that do not affect the image.
    pub warnings: Vec<String>,
    /// The stored width and height, which are `reduction` times those of `image`.
    pub(crate) stored: (u32, u32),
    pub(crate) reduction: Reduction,
    /// The pixels as stored, before `orientation` is applied.
    pub image: RgbImage,
}

impl Decoded {
    /// Returns the upright image: rotated and mirrored according to its orientation.
    pub fn upright(self) -> RgbImage {
        orient::upright(self.image, self.orientation)
    }

    /// Returns the width and height of the upright image.
    pub fn upright_size(&self) -> (u32, u32) {
        match self.orientation {
            5..=8 => (self.image.height, self.image.width),
            _ => (self.image.width, self.image.height),
        }
    }
}

/// The limit that was exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// The size of the file in bytes.
    Bytes,
    /// Width times height.
    Pixels,
    /// The bytes of memory that decoding needs.
    Memory,
    /// The number of scans of a progressive JPEG.
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

/// Why a file could not be decoded, classified by what is wrong with the file. A retry never helps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The file has no bytes.
    #[error("empty file")]
    Empty,
    /// The first bytes are not those of a known image format.
    #[error("not an image ({looks_like})")]
    NotAnImage {
        /// What the first bytes show instead, such as `HTML` or a Git LFS pointer.
        looks_like: &'static str,
    },
    /// The format, or the variant of the format, is not supported.
    #[error("unsupported image format: {format}")]
    Unsupported {
        /// The format or its variant.
        format: String,
    },
    /// The file or its image exceeds one of the [`Limits`].
    #[error("too large: {found} {what}, limit {limit}")]
    TooLarge {
        /// The limit that was exceeded, and the unit of the numbers.
        what: Measure,
        /// The amount that the file has or needs.
        found: u64,
        /// The maximum.
        limit: u64,
    },
    /// The file ends before its image does.
    #[error("truncated {format}: {detail}")]
    Truncated {
        /// The format of the file.
        format: Format,
        /// The decoder's message.
        detail: String,
    },
    /// The content of the file is invalid.
    #[error("corrupt {format}: {detail}")]
    Corrupt {
        /// The format of the file.
        format: Format,
        /// The decoder's message.
        detail: String,
    },
}

impl DecodeError {
    /// Returns a short name: `empty`, `not-an-image`, `unsupported`, `too-large`, `truncated` or
    /// `corrupt`.
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

/// Decodes an image file into 8-bit RGB.
///
/// Decoding is strict: a truncated or damaged image is an error. Damage outside the image is
/// tolerated: bytes after its end, an invalid Exif block or colour profile, stray bytes between the
/// header's segments, padding before the end marker of a JPEG.
///
/// # Errors
///
/// Returns an error if the file is empty, not an image, in an unsupported format, over the limits,
/// truncated or corrupt.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Decoded, DecodeError> {
    decode_admitted(bytes, limits, &mut |_| {})
}

/// Like [`decode`], but calls `admit` with the bytes of memory needed for decoding and rotating, as
/// estimated from the header, before they are allocated. `admit` may block until the memory is
/// available. It is not called for a file whose header is rejected.
///
/// # Errors
///
/// Fails like [`decode`].
pub fn decode_admitted(
    bytes: &[u8],
    limits: &Limits,
    admit: Admit<'_>,
) -> Result<Decoded, DecodeError> {
    decode_reduced(bytes, limits, admit, |_, _| Reduction::None)
}

/// A callback that receives the number of bytes an image needs, before they are allocated.
pub type Admit<'a> = &'a mut dyn FnMut(u64);

/// Like [`decode`], but a JPEG is reduced by the factor that `reduction` returns for the width and
/// height of the upright image. Equally strict: the whole file is read.
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
    // Only owned values cross the boundary, so a panic leaves no inconsistent state.
    let decoded = AssertUnwindSafe(|| formats::decode(format, bytes, limits, admit));
    catch_unwind(decoded).unwrap_or_else(|_| {
        Err(DecodeError::Corrupt {
            format,
            detail: "the decoder gave up".to_owned(),
        })
    })
}

impl Format {
    pub(crate) fn truncated(self, detail: impl Into<String>) -> DecodeError {
        DecodeError::Truncated {
            format: self,
            detail: detail.into(),
        }
    }

    pub(crate) fn corrupt(self, detail: impl Into<String>) -> DecodeError {
        DecodeError::Corrupt {
            format: self,
            detail: detail.into(),
        }
    }

    /// Classifies an error of a decoder.
    pub(crate) fn failure(self, error: &(dyn Error + 'static), limits: &Limits) -> DecodeError {
        let detail = error.to_string();
        match error.downcast_ref::<image::ImageError>() {
            Some(image::ImageError::Limits(_)) => limits.memory_exceeded(),
            Some(image::ImageError::Unsupported(_)) => DecodeError::Unsupported {
                format: format!("{self} ({detail})"),
            },
            _ if is_limit(error) => limits.memory_exceeded(),
            _ if ends_early(error) => self.truncated(detail),
            _ => self.corrupt(detail),
        }
    }
}

fn is_limit(error: &(dyn Error + 'static)) -> bool {
    matches!(
        error.downcast_ref(),
        Some(png::DecodingError::LimitsExceeded)
    )
}

/// Returns whether an unexpected end of file caused this error.
fn ends_early(error: &(dyn Error + 'static)) -> bool {
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
    use std::io::Cursor;

    use super::*;

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
