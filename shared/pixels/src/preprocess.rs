//! Converts an upright image to a model's input, according to the model's spec.
//!
//! The geometry is that of the Hugging Face image processors: with `shortest-edge` the short side
//! becomes n and the long one `int(n * long / short)`; the crop is centred, with the rounding of
//! [`Center`]; a crop larger than the image is padded with zeros.

use serde::{Deserialize, Serialize};

use crate::center::Center;
use crate::decode::{Admit, DecodeError, Limits, RgbImage};
use crate::jpeg::{self, Reduction};
use crate::resize::{Filter, ReducedImage, Window, resize_window};
use crate::tensors::{TensorSource, decode_for_models};
use crate::torch;

/// How closely a tensor must match the one from Pillow and the model's own processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fidelity {
    /// Byte for byte.
    Exact,
    /// Byte for byte, except for large JPEGs. A JPEG with at least eight times the pixels along
    /// each side that it is resized to (1792 on the short side for 224) is reduced by 2, 4 or 8
    /// while it is decoded, to no less than four times those pixels, and then resized. This takes
    /// half the time. The cosine between embeddings of photographs and the exact ones is 0.999 or
    /// more.
    #[default]
    #[serde(rename = "near")]
    Approximate,
}

/// The minimum number of pixels along a side that reduction leaves for each pixel after resizing.
const MARGIN: u64 = 4;

/// The size of an image before cropping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resize {
    /// The short side gets this length, and the aspect ratio is kept.
    ShortestEdge(u32),
    /// The image is stretched to this size, and the aspect ratio is not kept.
    Exact {
        /// The width in pixels.
        width: u32,
        /// The height in pixels.
        height: u32,
    },
}

/// The centred part that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Crop {
    /// The width in pixels.
    pub width: u32,
    /// The height in pixels.
    pub height: u32,
}

impl Crop {
    /// Returns a square crop with sides of `side` pixels.
    pub fn square(side: u32) -> Self {
        Self {
            width: side,
            height: side,
        }
    }
}

/// The library whose resizing is reproduced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resampler {
    /// Pillow, on images.
    #[default]
    Pillow,
    /// torchvision, on tensors of bytes: `nearest`, `bilinear` and `bicubic` only.
    Torchvision,
}

/// The memory layout of a tensor: planes (`nchw`) or pixels (`nhwc`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Planes: all values of a channel, then those of the next one.
    #[default]
    Nchw,
    /// Pixels: the three values of a pixel, then those of the next one.
    Nhwc,
}

/// The order of the channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Channels {
    /// Red, green, blue.
    #[default]
    Rgb,
    /// Blue, green, red, as in Caffe and OpenCV.
    Bgr,
}

/// The preprocessing that a model expects. A section of `model.toml`:
///
/// ```toml
/// resize = { shortest-edge = 224 }
/// filter = "bicubic"
/// crop = { width = 224, height = 224 }
/// mean = [0.48145466, 0.4578275, 0.40821073]
/// std = [0.26862954, 0.26130258, 0.27577711]
/// ```
///
/// Each number of the tensor is `(value * rescale - mean[c]) / std[c]`. `c` is the index in the
/// tensor's own channel order: for `bgr` the first mean is blue's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Preprocess {
    /// The size that the image is resized to before it is cropped.
    pub resize: Resize,
    /// The filter of the resizing.
    pub filter: Filter,
    /// The centred crop after resizing. Without it, the whole image of an `exact` resize is used,
    /// and the centred square of a `shortest-edge` one, because all tensors must have the same
    /// size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<Crop>,
    /// The quality (1 to 100) of a JPEG with 4:2:0 chroma that the pixels are encoded to and
    /// decoded from, for models that were trained on such images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jpeg_round_trip: Option<u8>,
    /// The factor of the pixel values, which are from 0 to 255. 1/255 by default.
    #[serde(default = "one_255th")]
    pub rescale: f64,
    /// The mean of each channel, subtracted after `rescale`. 0 by default.
    #[serde(default)]
    pub mean: [f64; 3],
    /// The standard deviation of each channel, which divides the result. 1 by default.
    #[serde(default = "ones")]
    pub std: [f64; 3],
    /// The memory layout of the tensor.
    #[serde(default)]
    pub layout: Layout,
    /// The order of the channels in the tensor.
    #[serde(default)]
    pub channels: Channels,
    /// The library whose resizing is reproduced.
    #[serde(default, skip_serializing_if = "is_default")]
    pub resampler: Resampler,
    /// The library whose rounding of the crop is reproduced.
    #[serde(default, skip_serializing_if = "is_default")]
    pub center: Center,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn one_255th() -> f64 {
    1.0 / 255.0
}

fn ones() -> [f64; 3] {
    [1.0; 3]
}

/// The type of a tensor's elements.
pub trait Number: Copy + Default + Send + Sync + 'static {
    /// Returns the nearest number of this type.
    fn of(number: f64) -> Self;
}

impl Number for f32 {
    fn of(number: f64) -> Self {
        number as f32
    }
}

/// For models whose input is pixel values from 0 to 255.
impl Number for u8 {
    fn of(number: f64) -> Self {
        number as u8
    }
}

/// Why a [`Preprocess`] is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// The named side of `resize` or `crop` is 0 or above [`Preprocess::MAX_SIDE`].
    #[error("preprocess: {0} is outside 1 to {max}", max = Preprocess::MAX_SIDE)]
    Side(&'static str),
    /// The quality of `jpeg_round_trip` is not from 1 to 100.
    #[error("preprocess: jpeg-round-trip is {0}, outside 1 to 100")]
    Quality(u8),
    /// The named factor is 0, infinite or NaN.
    #[error("preprocess: {0} is zero or not a finite number")]
    Number(&'static str),
    /// `resampler = "torchvision"` does not have this filter.
    #[error("preprocess: resampler torchvision has no filter {0:?}")]
    Filter(Filter),
}

impl Preprocess {
    /// The maximum side of a resize or crop. Models use hundreds; a JPEG has at most 65500.
    pub const MAX_SIDE: u32 = 16_384;

    /// Returns a spec with defaults for everything else.
    pub fn new(resize: Resize, filter: Filter) -> Self {
        Self {
            resize,
            filter,
            crop: None,
            jpeg_round_trip: None,
            rescale: one_255th(),
            mean: [0.0; 3],
            std: ones(),
            layout: Layout::default(),
            channels: Channels::default(),
            resampler: Resampler::default(),
            center: Center::default(),
        }
    }

    /// Checks every number. A valid spec never makes the other functions panic.
    ///
    /// # Errors
    ///
    /// Returns an error if a side or the quality is out of range, a number is zero or not finite,
    /// or the resampler does not have the filter.
    pub fn validate(&self) -> Result<(), SpecError> {
        let side = |name, value: u32| match value {
            1..=Self::MAX_SIDE => Ok(()),
            _ => Err(SpecError::Side(name)),
        };
        match self.resize {
            Resize::ShortestEdge(edge) => side("resize", edge)?,
            Resize::Exact { width, height } => {
                side("resize width", width)?;
                side("resize height", height)?;
            }
        }
        let (width, height) = self.output_size();
        side("crop width", width)?;
        side("crop height", height)?;
        match self.jpeg_round_trip {
            None | Some(1..=100) => {}
            Some(quality) => return Err(SpecError::Quality(quality)),
        }
        if !self.rescale.is_finite() || self.rescale == 0.0 {
            return Err(SpecError::Number("rescale"));
        }
        if self.mean.iter().any(|value| !value.is_finite()) {
            return Err(SpecError::Number("mean"));
        }
        if self.std.iter().any(|&v| !v.is_finite() || v == 0.0) {
            return Err(SpecError::Number("std"));
        }
        let is_torch = self.resampler == Resampler::Torchvision;
        match self.filter {
            Filter::Box | Filter::Lanczos if is_torch => Err(SpecError::Filter(self.filter)),
            _ => Ok(()),
        }
    }

    /// Returns the width and height of the model's input, the same for every image.
    pub fn output_size(&self) -> (u32, u32) {
        match (self.crop, self.resize) {
            (Some(Crop { width, height }), _) => (width, height),
            (None, Resize::ShortestEdge(edge)) => (edge, edge),
            (None, Resize::Exact { width, height }) => (width, height),
        }
    }

    /// Returns the tensor's shape for `rows` images: `[rows, 3, height, width]`, or according to
    /// the layout.
    pub fn tensor_shape(&self, rows: usize) -> [usize; 4] {
        let (width, height) = self.output_size();
        let (width, height) = (width as usize, height as usize);
        match self.layout {
            Layout::Nchw => [rows, 3, height, width],
            Layout::Nhwc => [rows, height, width, 3],
        }
    }

    /// Returns the number of values in one image's tensor: three times width times height.
    pub fn tensor_len(&self) -> usize {
        let (width, height) = self.output_size();
        3 * width as usize * height as usize
    }

    /// Writes the tensor of an image file: decodes it, rotates it upright, and applies
    /// [`Self::pixels`] and [`Self::write_tensor`].
    ///
    /// This is the fastest way. With [`Fidelity::Approximate`] a large JPEG is not decoded in full size.
    /// `admit` is called as by [`decode_admitted`](crate::decode_admitted).
    ///
    /// # Errors
    ///
    /// Fails like [`decode`](crate::decode). `out` is unchanged then.
    ///
    /// # Panics
    ///
    /// Panics if the length of `out` is not [`Self::tensor_len`], and like
    /// [`pixels`](Self::pixels).
    pub fn tensor_of_file<N: Number>(
        &self,
        bytes: &[u8],
        limits: &Limits,
        admit: Admit<'_>,
        fidelity: Fidelity,
        out: &mut [N],
    ) -> Result<(), DecodeError> {
        let write = |_, source: &TensorSource| source.write(self, out);
        let models = [(self, fidelity)];
        let mut results = decode_for_models(bytes, limits, admit, &models, write);
        results.remove(0)
    }

    /// Writes the tensor of an upright image: [`Self::pixels`] and [`Self::write_tensor`] in one.
    ///
    /// # Panics
    ///
    /// Panics if the length of `out` is not [`Self::tensor_len`], and like
    /// [`pixels`](Self::pixels).
    pub fn tensor<N: Number>(&self, image: &RgbImage, out: &mut [N]) {
        self.write(image.into(), out);
    }

    pub(crate) fn write<N: Number>(&self, source: ReducedImage<'_>, out: &mut [N]) {
        let pixels = self.pixels_of(source);
        self.write_tensor(&pixels, out);
        pixels.recycle();
    }

    /// Returns the largest reduction after which the image still has [`MARGIN`] times as many
    /// pixels along each side as after resizing.
    pub(crate) fn reduction(&self, width: u32, height: u32) -> Reduction {
        if self.resampler != Resampler::Pillow || self.filter == Filter::Nearest {
            return Reduction::None;
        }
        let (across, down) = self.resized(width, height);
        let enough = |side: u32, by: Reduction, wanted: u64| {
            u64::from(side.div_ceil(by as u32)) >= MARGIN * wanted
        };
        [Reduction::Eighth, Reduction::Quarter, Reduction::Half]
            .into_iter()
            .find(|&by| enough(width, by, across) && enough(height, by, down))
            .unwrap_or(Reduction::None)
    }

    /// Returns the pixels after resize, crop and JPEG round trip: RGB of [`Self::output_size`].
    ///
    /// # Panics
    ///
    /// Panics if there is a JPEG round trip and the spec is not valid (see
    /// [`validate`](Self::validate)).
    pub fn pixels(&self, image: &RgbImage) -> RgbImage {
        self.pixels_of(image.into())
    }

    fn pixels_of(&self, source: ReducedImage<'_>) -> RgbImage {
        let pixels = self.resize_and_crop(source);
        match self.jpeg_round_trip {
            None => pixels,
            // Unwrap safety: encoding a valid size at a valid quality fails only if memory runs
            // out, and decoding the result does not fail.
            Some(quality) => jpeg::round_trip(&pixels, quality).expect("a valid spec"),
        }
    }

    fn resize_and_crop(&self, source: ReducedImage<'_>) -> RgbImage {
        let (width, height) = self.output_size();
        let (full_width, full_height) = self.resized(source.size.0, source.size.1);
        let across = self.center.span(full_width, width);
        let down = self.center.span(full_height, height);
        let window = Window {
            left: across.start,
            top: down.start,
            width: across.length,
            height: down.length,
        };
        let part = self.resize_window(source, (full_width, full_height), window);
        if (part.width, part.height) == (width, height) {
            return part;
        }
        let mut out = RgbImage::filled(width, height, [0; 3]);
        let stride = out.stride();
        for y in 0..part.height as usize {
            let at = (down.padding as usize + y) * stride + across.padding as usize * 3;
            out.data[at..at + part.stride()].copy_from_slice(part.row(y));
        }
        out
    }

    fn resize_window(
        &self,
        source: ReducedImage<'_>,
        full: (u64, u64),
        window: Window,
    ) -> RgbImage {
        match (self.filter, self.resampler) {
            (Filter::Nearest, library) => {
                torch::nearest_window(source.image, full, library, window)
            }
            (filter, Resampler::Torchvision) => {
                torch::resize_window(source.image, full, filter, window)
            }
            (filter, Resampler::Pillow) => resize_window(source, full, filter, window),
        }
    }

    /// Returns the size of the whole image after resizing.
    fn resized(&self, width: u32, height: u32) -> (u64, u64) {
        match self.resize {
            Resize::Exact { width, height } => (width.into(), height.into()),
            Resize::ShortestEdge(edge) => {
                // Python's `int(edge * long / short)`: an exact product, divided as a double.
                let long = |long: u32, short: u32| {
                    (u64::from(edge) * u64::from(long)) as f64 / f64::from(short.max(1))
                };
                if width <= height {
                    (edge.into(), long(height, width) as u64)
                } else {
                    (long(width, height) as u64, edge.into())
                }
            }
        }
    }

    /// Writes the tensor of pixels returned by [`Self::pixels`].
    ///
    /// # Panics
    ///
    /// Panics if the length of `out` is not 3 x width x height.
    pub fn write_tensor<N: Number>(&self, pixels: &RgbImage, out: &mut [N]) {
        let plane = pixels.width as usize * pixels.height as usize;
        assert_eq!(out.len(), 3 * plane, "tensor length");
        let tables = self.tables();
        // The image's channel for each channel of the tensor.
        let order = match self.channels {
            Channels::Rgb => [0, 1, 2],
            Channels::Bgr => [2, 1, 0],
        };
        let pixels = pixels.data.as_chunks::<3>().0;
        match self.layout {
            Layout::Nchw => {
                for ((out, table), from) in out.chunks_exact_mut(plane).zip(&tables).zip(order) {
                    for (out, pixel) in out.iter_mut().zip(pixels) {
                        *out = table[usize::from(pixel[from])];
                    }
                }
            }
            Layout::Nhwc => {
                for (out, pixel) in out.as_chunks_mut::<3>().0.iter_mut().zip(pixels) {
                    *out = [0, 1, 2].map(|to| tables[to][usize::from(pixel[order[to]])]);
                }
            }
        }
    }

    /// Returns the number for each of the 256 values, for each channel of the tensor.
    fn tables<N: Number>(&self) -> [[N; 256]; 3] {
        std::array::from_fn(|channel| {
            std::array::from_fn(|value| {
                N::of((value as f64 * self.rescale - self.mean[channel]) / self.std[channel])
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(resize: Resize, crop: Option<Crop>) -> Preprocess {
        Preprocess {
            crop,
            rescale: 1.0,
            ..Preprocess::new(resize, Filter::Bicubic)
        }
    }

    #[test]
    fn long_side_is_cut_not_rounded() {
        let clip = spec(Resize::ShortestEdge(224), Some(Crop::square(224)));
        assert_eq!(clip.resized(500, 375), (298, 224)); // 298.67
        assert_eq!(clip.resized(375, 500), (224, 298));
        assert_eq!(clip.resized(1, 10_000), (224, 2_240_000));
        assert_eq!(clip.resized(224, 224), (224, 224));
    }

    #[test]
    fn a_crop_larger_than_the_picture_is_padded_with_zeros() {
        let exact = Resize::Exact {
            width: 3,
            height: 2,
        };
        let spec = spec(
            exact,
            Some(Crop {
                width: 6,
                height: 2,
            }),
        );
        let got = spec.pixels(&RgbImage::filled(3, 2, [9; 3]));
        let row: Vec<u8> = got.row(0).iter().step_by(3).copied().collect();
        assert_eq!(row, [0, 0, 9, 9, 9, 0]); // ceil(3 / 2) zeros before
    }

    #[test]
    fn tensor_layouts_and_channel_orders() {
        let image = RgbImage::from_fn(2, 1, |x, _| [10 + x as u8, 20 + x as u8, 30 + x as u8]);
        let mut spec = spec(
            Resize::Exact {
                width: 2,
                height: 1,
            },
            None,
        );
        spec.mean = [1.0, 2.0, 3.0];
        let write = |spec: &Preprocess| {
            let mut out = vec![0.0; spec.tensor_len()];
            spec.write_tensor(&image, &mut out);
            out
        };
        assert_eq!(write(&spec), [9.0, 10.0, 18.0, 19.0, 27.0, 28.0]);
        spec.channels = Channels::Bgr;
        assert_eq!(write(&spec), [29.0, 30.0, 18.0, 19.0, 7.0, 8.0]);
        spec.layout = Layout::Nhwc;
        assert_eq!(write(&spec), [29.0, 18.0, 7.0, 30.0, 19.0, 8.0]);
    }

    #[test]
    fn only_large_pictures_are_reduced() {
        let clip = spec(Resize::ShortestEdge(224), None);
        let by = |width, height| clip.reduction(width, height) as u32;
        assert_eq!((by(500, 375), by(1790, 2400)), (1, 1));
        assert_eq!((by(1792, 2400), by(4000, 3000), by(6000, 4000)), (2, 2, 4));
        assert_eq!(
            (by(7168, 9000), by(60_000, 60_000), by(60_000, 1)),
            (8, 8, 1)
        );
    }

    #[test]
    fn a_reduced_jpeg_gives_nearly_the_same_upright_tensor() {
        let photo = RgbImage::from_fn(1000, 776, |x, y| {
            let wave = |v: u32, n: f64| 110.0 + 80.0 * (f64::from(v) / n).sin();
            [
                wave(x, 60.0) as u8,
                wave(y, 70.0) as u8,
                wave(x + y, 90.0) as u8,
            ]
        });
        let source = turbojpeg::Image {
            pixels: photo.data.as_slice(),
            width: 1000,
            pitch: 3000,
            height: 776,
            format: turbojpeg::PixelFormat::RGB,
        };
        let jpeg = turbojpeg::compress(source, 90, turbojpeg::Subsamp::Sub2x2).unwrap();
        // An Exif block with orientation 6 after the first marker.
        let mut bytes = jpeg[..2].to_vec();
        bytes.extend_from_slice(b"\xff\xe1\0\x22Exif\0\0II*\0\x08\0\0\0\x01\0");
        bytes.extend_from_slice(b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0");
        bytes.extend_from_slice(&jpeg[2..]);

        let small = spec(Resize::ShortestEdge(24), None);
        assert_eq!(small.reduction(776, 1000), Reduction::Eighth);
        let tensor = |fidelity| {
            let mut out = vec![0.0; small.tensor_len()];
            small
                .tensor_of_file(&bytes, &Limits::default(), &mut |_| {}, fidelity, &mut out)
                .unwrap();
            out
        };
        let (exact, near) = (tensor(Fidelity::Exact), tensor(Fidelity::Approximate));
        let decoded = crate::decode(&bytes, &Limits::default()).unwrap();
        assert_eq!(decoded.orientation, 6);
        let mut whole = vec![0.0; small.tensor_len()];
        small.tensor(&decoded.upright(), &mut whole);
        assert_eq!(exact, whole);
        let furthest = exact
            .iter()
            .zip(&near)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(near != exact && furthest <= 4.0, "{furthest}");
    }

    #[test]
    fn bad_specs_are_named() {
        let good = spec(Resize::ShortestEdge(224), None);
        assert_eq!(good.validate(), Ok(()));
        assert_eq!(good.output_size(), (224, 224));
        let zero = spec(Resize::ShortestEdge(0), None);
        assert_eq!(zero.validate(), Err(SpecError::Side("resize")));
        let mut bad = good.clone();
        bad.jpeg_round_trip = Some(101);
        assert_eq!(bad.validate(), Err(SpecError::Quality(101)));
        bad = good.clone();
        bad.std[2] = 0.0;
        assert_eq!(bad.validate(), Err(SpecError::Number("std")));
    }
}
