//! Decodes the first frame of a GIF, on a canvas that covers both the logical screen and the frame.
//!
//! Some encoders write screens that are too small. Browsers and Pillow enlarge them to the first
//! frame.

use std::io::Cursor;

use gif::{ColorOutput, DecodeOptions, MemoryLimit};
use image::ColorType;

use super::ImageHeader;
use crate::decode::{Admit, DecodeError, Decoded, Format, Limits};

pub(super) fn decode(
    bytes: &[u8],
    limits: &Limits,
    admit: Admit<'_>,
) -> Result<Decoded, DecodeError> {
    let fail = |error| Format::Gif.failure(&error, limits);
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::RGBA);
    options.set_memory_limit(MemoryLimit::Unlimited); // The limits are checked here.
    let mut decoder = options.read_info(Cursor::new(bytes)).map_err(fail)?;
    let screen = (decoder.width(), decoder.height());
    limits.check(u32::from(screen.0), u32::from(screen.1), 0)?;
    let first = decoder.next_frame_info().map_err(fail)?;
    let first = first.ok_or_else(|| Format::Gif.truncated("no frame"))?;
    let [left, top, wide, high] = [first.left, first.top, first.width, first.height].map(u32::from);
    let size = (
        u32::from(screen.0).max(left + wide),
        u32::from(screen.1).max(top + high),
    );
    let mut frame = ImageHeader::new(Format::Gif, size);
    if size != (u32::from(screen.0), u32::from(screen.1)) {
        frame.warnings.push(format!(
            "the frame is larger than the logical screen of {}x{}",
            screen.0, screen.1
        ));
    }
    frame.read(ColorType::Rgba8, 4, limits, admit, |canvas| {
        if (wide, high) == size {
            return decoder.read_into_buffer(canvas).map_err(fail);
        }
        let mut pixels = vec![0; wide as usize * high as usize * 4];
        decoder.read_into_buffer(&mut pixels).map_err(fail)?;
        let row = |width: u32| width as usize * 4;
        let lines = canvas.chunks_exact_mut(row(size.0)).skip(top as usize);
        for (line, from) in lines.zip(pixels.chunks_exact(row(wide).max(4))) {
            line[row(left)..][..row(wide)].copy_from_slice(from);
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a GIF with one frame of red pixels.
    fn gif(screen: (u16, u16), frame: (u16, u16, u16, u16)) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = gif::Encoder::new(&mut bytes, screen.0, screen.1, &[]).unwrap();
        let (left, top, width, height) = frame;
        let mut pixels = [200, 0, 0, 255].repeat(usize::from(width) * usize::from(height));
        let frame = gif::Frame {
            left,
            top,
            ..gif::Frame::from_rgba(width, height, &mut pixels)
        };
        encoder.write_frame(&frame).unwrap();
        drop(encoder);
        bytes
    }

    #[test]
    fn the_canvas_holds_screen_and_frame() {
        for (screen, frame, size, warned) in [
            ((4, 3), (0, 0, 4, 3), (4, 3), false),
            ((4, 3), (1, 1, 2, 2), (4, 3), false),
            ((4, 3), (0, 0, 6, 5), (6, 5), true),
            ((4, 3), (3, 0, 2, 2), (5, 3), true),
            ((0, 0), (0, 0, 2, 2), (2, 2), true),
        ] {
            let bytes = gif(screen, frame);
            let decoded = decode(&bytes, &Limits::default(), &mut |_| {}).unwrap();
            let image = &decoded.image;
            assert_eq!((image.width, image.height), size, "{screen:?} {frame:?}");
            assert_eq!(!decoded.warnings.is_empty(), warned, "{screen:?} {frame:?}");
            let red = image.data.chunks_exact(3).filter(|p| *p == [200, 0, 0]);
            assert_eq!(red.count(), usize::from(frame.2 * frame.3));
        }
    }
}
