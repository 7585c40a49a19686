//! Decoders of all formats but JPEG. Each reads the header, checks the size, and returns RGB.

mod bmp;
mod gif;
mod png;
mod tiff;
mod webp;

use image::ColorType;

use crate::alpha;
use crate::decode::{Admit, DecodeError, Decoded, Format, Limits, RgbImage};
use crate::jpeg::{self, Reduction};

/// Decodes a file of a known format.
///
/// # Errors
///
/// Returns an error if the file is damaged, unsupported or over the limits.
pub(crate) fn decode(
    format: Format,
    bytes: &[u8],
    limits: &Limits,
    admit: Admit<'_>,
) -> Result<Decoded, DecodeError> {
    match format {
        Format::Jpeg => jpeg::decode(bytes, limits, admit, |_, _| Reduction::None),
        Format::Png => png::decode(bytes, limits, admit),
        Format::WebP => webp::decode(bytes, limits, admit),
        Format::Gif => gif::decode(bytes, limits, admit),
        Format::Bmp => bmp::decode(bytes, limits, admit),
        Format::Tiff => tiff::decode(bytes, limits, admit),
    }
}

/// The header of an image.
struct ImageHeader {
    format: Format,
    width: u32,
    height: u32,
    orientation: u8,
    warnings: Vec<String>,
}

impl ImageHeader {
    fn new(format: Format, (width, height): (u32, u32)) -> Self {
        Self {
            format,
            width,
            height,
            orientation: 1,
            warnings: Vec::new(),
        }
    }

    fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    /// Returns the bytes per pixel of the upright image, if it is allocated in addition to the
    /// decoded one: because `per_pixel` bytes cannot hold RGB, or because the image is rotated.
    fn second(&self, per_pixel: u64) -> u64 {
        if per_pixel < 3 || self.orientation >= 5 {
            3
        } else {
            0
        }
    }

    /// Checks the size, and announces the memory needed for decoding.
    fn reserve(&self, memory: u64, limits: &Limits, admit: Admit<'_>) -> Result<(), DecodeError> {
        let (width, height) = (self.width, self.height);
        if width == 0 || height == 0 {
            return Err(self.format.corrupt(format!("size {width}x{height}")));
        }
        limits.check(width, height, memory)?;
        admit(memory);
        Ok(())
    }

    /// Reads samples of a colour type and converts them to RGB. `inside` is the number of bytes per
    /// pixel that the decoder needs besides the samples (measured on images of 25 megapixels).
    fn read(
        self,
        color: ColorType,
        inside: u64,
        limits: &Limits,
        admit: Admit<'_>,
        fill: impl FnOnce(&mut [u8]) -> Result<(), DecodeError>,
    ) -> Result<Decoded, DecodeError> {
        let per_pixel = u64::from(color.bytes_per_pixel());
        let memory = self.pixels();
        let memory = memory.saturating_mul(per_pixel + inside.max(self.second(per_pixel)));
        self.reserve(memory, limits, admit)?;
        let mut data = vec![0; (self.pixels() * per_pixel) as usize];
        fill(&mut data)?;
        let data = alpha::rgb_of(data, color).ok_or_else(|| DecodeError::Unsupported {
            format: format!("{} with colour type {color:?}", self.format),
        })?;
        Ok(self.finish(data))
    }

    fn finish(mut self, data: alpha::Rgb) -> Decoded {
        if data.over_black {
            self.warnings.push(OVER_BLACK.to_owned());
        }
        Decoded {
            format: self.format,
            orientation: self.orientation,
            warnings: self.warnings,
            stored: (self.width, self.height),
            reduction: Reduction::None,
            image: RgbImage {
                width: self.width,
                height: self.height,
                data: data.data,
            },
        }
    }
}

/// The warning for an image that would vanish on white.
const OVER_BLACK: &str = "white on transparency: laid over black";

fn le_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    let four = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_le_bytes(four.try_into().ok()?))
}

fn be_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    le_u32(bytes, offset).map(u32::swap_bytes)
}
