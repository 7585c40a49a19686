//! Converts images to another size or format, for outputs that request it.
//!
//! - Resizing uses Lanczos over three lobes, bit for bit like Pillow's `LANCZOS`.
//! - JPEG has quality 95 and 4:2:0 chroma; WebP and PNG are lossless.
//! - The image becomes upright, 8-bit RGB, with transparency on white. Exif and colour profiles are
//!   dropped.
//!
//! An image that already has the size and format is unchanged, byte for byte. So is one that is
//! larger than the format allows.

use std::borrow::Cow;
use std::fmt;
use std::io::Cursor;
use std::str::FromStr;

use image::{ExtendedColorType, ImageEncoder};
use serde::{Deserialize, Serialize};

use crate::axis::Filter;
use crate::decode::{Admit, DecodeError, Format, Limits, RgbImage, decode_admitted};
use crate::jpeg;
use crate::resize::{Window, resize, resize_window};

/// The quality of JPEGs, 1 to 100.
pub const JPEG_QUALITY: u8 = 95;

/// The maximum side of a WebP, and the maximum that can be requested.
const LARGEST_WEBP: u32 = 16_383;
/// The maximum side of a JPEG.
const LARGEST_JPEG: u32 = 65_500;

/// How images are resized to a target size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// The long side is at most this long. Nothing is enlarged.
    Fit,
    /// A square: the short side is resized to this length, and the centre is kept.
    Crop,
}

/// A target size. Formats as `512`, `512:fit` or `512:crop`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetSize {
    /// The side in pixels.
    pub side: u32,
    /// How the side is applied.
    pub shape: Shape,
}

impl FromStr for TargetSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (side, shape) = text.split_once(':').unwrap_or((text, "fit"));
        let side = side.parse::<u32>().ok();
        let side = side.filter(|side| (1..=LARGEST_WEBP).contains(side));
        let side =
            side.ok_or_else(|| format!("expected a side from 1 to {LARGEST_WEBP} pixels"))?;
        let shape = match shape {
            "fit" => Shape::Fit,
            "crop" => Shape::Crop,
            other => {
                return Err(format!(
                    "expected SIDE, SIDE:fit or SIDE:crop, not {other:?}"
                ));
            }
        };
        Ok(Self { side, shape })
    }
}

impl fmt::Display for TargetSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = match self.shape {
            Shape::Fit => "fit",
            Shape::Crop => "crop",
        };
        write!(f, "{}:{shape}", self.side)
    }
}

/// An output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// JPEG of quality 95.
    Jpeg,
    /// Lossless WebP.
    Webp,
    /// PNG.
    Png,
}

impl Encoding {
    /// Returns the file extension of the format.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => "jpg",
            Self::Webp => "webp",
            Self::Png => "png",
        }
    }

    /// Returns the format that is written.
    pub fn format(self) -> Format {
        match self {
            Self::Jpeg => Format::Jpeg,
            Self::Webp => Format::WebP,
            Self::Png => Format::Png,
        }
    }

    /// Returns the maximum side of an image in this format.
    fn largest_side(self) -> u32 {
        match self {
            Self::Jpeg => LARGEST_JPEG,
            Self::Webp => LARGEST_WEBP,
            Self::Png => u32::MAX,
        }
    }

    /// Returns the output format for images of `format` if only their size changes.
    fn of(format: Format) -> Self {
        match format {
            Format::Jpeg => Self::Jpeg,
            Format::WebP => Self::Webp,
            _ => Self::Png,
        }
    }
}

impl FromStr for Encoding {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "jpeg" => Ok(Self::Jpeg),
            "webp" => Ok(Self::Webp),
            "png" => Ok(Self::Png),
            other => Err(format!("expected jpeg, webp or png, not {other:?}")),
        }
    }
}

/// The conversion of images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recode {
    /// The target size. `None` keeps the size.
    pub resize: Option<TargetSize>,
    /// The target format. `None` keeps the format, or uses PNG if it cannot be written.
    pub encode: Option<Encoding>,
}

/// A converted image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recoded {
    /// The content of the file.
    pub bytes: Vec<u8>,
    /// The format of the file.
    pub encoding: Encoding,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

impl Recode {
    /// Returns whether images are unchanged.
    pub fn is_verbatim(&self) -> bool {
        *self == Self::default()
    }

    /// Converts an image. Returns `None` if the file already has the size and format, or is too
    /// large for the format. For `admit` see [`decode_admitted`].
    ///
    /// # Errors
    ///
    /// Fails like [`decode`](crate::decode), and if the image cannot be encoded.
    pub fn apply(
        &self,
        bytes: &[u8],
        limits: &Limits,
        admit: Admit<'_>,
    ) -> Result<Option<Recoded>, DecodeError> {
        let decoded = decode_admitted(bytes, limits, admit)?;
        let format = decoded.format;
        let (width, height) = decoded.upright_size();
        let encoding = self.encode.unwrap_or(Encoding::of(format));
        let is_format = self
            .encode
            .is_none_or(|encoding| encoding.format() == format);
        let target = self
            .resize
            .map_or((width, height), |to| to.size_of(width, height));
        let is_size = target == (width, height);
        if is_format && is_size || target.0.max(target.1) > encoding.largest_side() {
            return Ok(None);
        }
        let image = decoded.upright();
        let image = match self.resize {
            Some(to) => to.apply(&image),
            None => Cow::Borrowed(&image),
        };
        let detail = |detail| DecodeError::Corrupt { format, detail };
        Ok(Some(Recoded {
            bytes: encode(&image, encoding).map_err(detail)?,
            encoding,
            width: image.width,
            height: image.height,
        }))
    }
}

impl TargetSize {
    fn size_of(self, width: u32, height: u32) -> (u32, u32) {
        match self.shape {
            Shape::Crop => (self.side, self.side),
            Shape::Fit if width.max(height) <= self.side => (width, height),
            Shape::Fit => scaled((width, height), self.side, width.max(height)),
        }
    }

    fn apply(self, image: &RgbImage) -> Cow<'_, RgbImage> {
        let (width, height) = self.size_of(image.width, image.height);
        if (width, height) == (image.width, image.height) {
            return Cow::Borrowed(image);
        }
        Cow::Owned(match self.shape {
            Shape::Fit => resize(image, width, height, Filter::Lanczos),
            Shape::Crop => self.crop(image),
        })
    }

    fn crop(self, image: &RgbImage) -> RgbImage {
        let short = image.width.min(image.height);
        let (width, height) = scaled((image.width, image.height), self.side, short);
        let window = Window {
            left: u64::from(width - self.side) / 2,
            top: u64::from(height - self.side) / 2,
            width: self.side,
            height: self.side,
        };
        let full = (u64::from(width), u64::from(height));
        resize_window(image, full, Filter::Lanczos, window)
    }
}

/// Returns a size with the same aspect ratio, in which `from` pixels become `to`, rounded.
fn scaled((width, height): (u32, u32), to: u32, from: u32) -> (u32, u32) {
    let scale = |length: u32| {
        let product = u64::from(length) * u64::from(to) + u64::from(from / 2);
        u32::try_from(product / u64::from(from))
            .unwrap_or(u32::MAX)
            .max(1)
    };
    (scale(width), scale(height))
}

fn encode(image: &RgbImage, encoding: Encoding) -> Result<Vec<u8>, String> {
    let mut file = Cursor::new(Vec::new());
    let (width, height) = (image.width, image.height);
    let colour = ExtendedColorType::Rgb8;
    let written =
        match encoding {
            Encoding::Jpeg => return jpeg::encode(image, JPEG_QUALITY),
            Encoding::Webp => image::codecs::webp::WebPEncoder::new_lossless(&mut file)
                .write_image(&image.data, width, height, colour),
            Encoding::Png => image::codecs::png::PngEncoder::new(&mut file).write_image(
                &image.data,
                width,
                height,
                colour,
            ),
        };
    written.map_err(|e| e.to_string())?;
    Ok(file.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode;

    fn apply(bytes: &[u8], size: Option<&str>, encode: Option<Encoding>) -> Option<Recoded> {
        let resize = size.map(|size| size.parse().unwrap());
        let recode = Recode { resize, encode };
        recode
            .apply(bytes, &Limits::default(), &mut |_| {})
            .unwrap()
    }

    fn picture() -> Vec<u8> {
        let image = RgbImage::from_fn(60, 40, |x, y| [(x * 4) as u8, (y * 6) as u8, 90]);
        encode(&image, Encoding::Png).unwrap()
    }

    #[test]
    fn pictures_get_the_size_and_the_format() {
        let png = picture();
        let size = |to: &str, encoding| {
            let done = apply(&png, Some(to), encoding).unwrap();
            let decoded = decode(&done.bytes, &Limits::default()).unwrap();
            assert_eq!(decoded.format, done.encoding.format());
            assert_eq!(decoded.upright_size(), (done.width, done.height));
            (done.width, done.height)
        };
        assert_eq!(size("30", None), (30, 20));
        assert_eq!(size("30:fit", Some(Encoding::Webp)), (30, 20));
        assert_eq!(size("20:crop", Some(Encoding::Jpeg)), (20, 20));
        assert_eq!(size("80:crop", None), (80, 80), "enlarged");
        assert_eq!(size("1", None), (1, 1));
    }

    #[test]
    fn what_fits_stays_as_it_is() {
        let png = picture();
        assert_eq!(apply(&png, Some("60"), None), None);
        assert_eq!(apply(&png, None, Some(Encoding::Png)), None);
        let webp = apply(&png, None, Some(Encoding::Webp)).unwrap();
        let pixels = |bytes: &[u8]| decode(bytes, &Limits::default()).unwrap().image;
        assert_eq!(pixels(&webp.bytes), pixels(&png), "lossless");
        assert_eq!(apply(&webp.bytes, Some("100"), Some(Encoding::Webp)), None);
    }

    #[test]
    fn sizes_are_read_and_refused() {
        let parse = |text: &str| text.parse::<TargetSize>().map(|size| size.to_string());
        assert_eq!(parse("512").unwrap(), "512:fit");
        assert_eq!(parse("512:crop").unwrap(), "512:crop");
        for text in ["0", "x", "512:stretch", "20000", "-1"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
