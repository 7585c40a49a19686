//! A decoded image in memory.

use std::fmt;

use crate::buffers;

/// Interleaved 8-bit RGB, rows from top to bottom, without padding: `data.len() == 3 * width *
/// height`.
#[derive(Clone, PartialEq, Eq)]
pub struct RgbImage {
    /// Pixels in a row.
    pub width: u32,
    /// The number of rows.
    pub height: u32,
    /// The values, three for each pixel.
    pub data: Vec<u8>,
}

impl RgbImage {
    /// Creates an image of one colour.
    pub fn filled(width: u32, height: u32, rgb: [u8; 3]) -> Self {
        Self::from_fn(width, height, |_, _| rgb)
    }

    /// Creates an image from a function of column and row.
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

    /// Keeps the memory for this thread's next image. Dropping the image would return it to the
    /// system only to request it again.
    pub fn recycle(self) {
        buffers::give(self.data);
    }

    /// Returns the number of bytes in a row.
    pub(crate) fn stride(&self) -> usize {
        self.width as usize * 3
    }

    /// Returns the bytes of row `y`.
    pub(crate) fn row(&self, y: usize) -> &[u8] {
        &self.data[y * self.stride()..][..self.stride()]
    }
}

impl fmt::Debug for RgbImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RgbImage({}x{})", self.width, self.height)
    }
}
