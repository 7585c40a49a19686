//! From the bytes of a picture file to numbers: decode within limits, orient, resize, normalise,
//! hash and measure. Pure functions, no I/O.
//!
//! The order of things for one image:
//!
//! ```text
//! bytes --decode--> Decoded --upright--> RgbImage --Preprocess::pixels--> RgbImage --write_tensor--> [f32]
//!                                           |---phash--> u64
//!                                           `---quality--> Quality --technical_quality--> f32
//! ```
//!
//! Three rules hold throughout:
//!
//! - **Strict.** A file that is cut short or damaged is an error, never a half-grey picture
//!   ([`DecodeError`] says which). See [`decode`] for what is still tolerated.
//! - **Bounded.** Sizes are checked from the header before anything is allocated ([`Limits`]).
//! - **As the models were trained.** Decoding, alpha, resizing and cropping give the very bytes that
//!   Pillow and the Hugging Face processors give, so that an embedding computed here equals one
//!   computed there.

mod alpha;
mod axis;
mod buffers;
mod center;
mod decode;
mod format;
mod formats;
mod jpeg;
mod orient;
mod passes;
mod phash;
mod preprocess;
mod quality;
mod raster;
mod recode;
mod resize;
mod tally;
mod thumbnail;
mod torch;

pub use center::Center;
pub use decode::{
    Admit, DecodeError, Decoded, Format, Limits, Measure, RgbImage, decode, decode_admitted,
};
pub use phash::{hamming, phash};
pub use preprocess::{Channels, Crop, Fidelity, Layout, Preprocess, Resampler, Resize, SpecError};
pub use quality::{Quality, quality, technical_quality};
pub use recode::{Encoding, JPEG_QUALITY, Recode, Recoded, Shape, TargetSize};
pub use resize::{Filter, resize};
pub use thumbnail::{Thumbnail, thumbnail};
