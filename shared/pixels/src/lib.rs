//! Image files: decode within limits, orient, resize, normalise, hash and measure. Pure functions,
//! no I/O.
//!
//! The steps for one image:
//!
//! ```text
//! bytes --decode--> Decoded --upright--> RgbImage --Preprocess::pixels--> RgbImage --write_tensor--> [f32]
//!                                           |---phash--> u64
//!                                           |---pdq--> Pdq
//!                                           `---quality--> Quality --technical_quality--> f32
//! ```
//!
//! Three rules apply throughout:
//!
//! - **Strict.** A truncated or damaged file is an error, never a partly grey image
//!   ([`DecodeError`] has the kinds). See [`decode`] for what is tolerated.
//! - **Bounded.** Sizes are checked from the header before anything is allocated ([`Limits`]).
//! - **As the models were trained.** Decoding, alpha, resizing and cropping produce the same bytes
//!   as Pillow and the Hugging Face processors, so that embeddings are equal.

mod alpha;
mod axis;
mod buffers;
mod center;
mod counts;
mod decode;
mod format;
mod formats;
mod jpeg;
mod orient;
mod passes;
mod pdq;
mod phash;
mod preprocess;
mod quality;
mod raster;
mod recode;
mod resize;
mod tensors;
mod thumbnail;
mod torch;

pub use center::Center;
pub use decode::{
    Admit, DecodeError, Decoded, Format, Limits, Measure, RgbImage, decode, decode_admitted,
};
pub use pdq::{Pdq, pdq};
pub use phash::{hamming, phash, phash_transformed};
pub use preprocess::{
    Channels, Crop, Fidelity, Layout, Number, Preprocess, Resampler, Resize, SpecError,
};
pub use quality::{Quality, quality, technical_quality};
pub use recode::{Encoding, JPEG_QUALITY, Recode, Recoded, Shape, TargetSize};
pub use resize::{Filter, resize};
pub use tensors::{TensorSource, decode_for_models};
pub use thumbnail::{Thumbnail, thumbnail};
