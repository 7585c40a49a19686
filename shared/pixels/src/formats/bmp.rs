//! Decodes BMP with the `image` crate.

use std::io::Cursor;

use image::ImageDecoder;
use image::codecs::bmp::BmpDecoder;

use super::ImageHeader;
use crate::decode::{Admit, DecodeError, Decoded, Format, Limits};

pub(super) fn decode(
    bytes: &[u8],
    limits: &Limits,
    admit: Admit<'_>,
) -> Result<Decoded, DecodeError> {
    let fail = |error| Format::Bmp.failure(&error, limits);
    let decoder = BmpDecoder::new(Cursor::new(bytes)).map_err(fail)?;
    let frame = ImageHeader::new(Format::Bmp, decoder.dimensions());
    frame.read(decoder.color_type(), 0, limits, admit, |data| {
        decoder.read_image(data).map_err(fail)
    })
}
