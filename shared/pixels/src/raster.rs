//! A decoded picture in memory.

use std::fmt;

use crate::buffers;

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
