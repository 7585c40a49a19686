//! A minimal reader of numpy's file format: `<f4`, C order.

use std::path::Path;

/// The numbers of a two-dimensional array, in rows of equal length.
#[derive(Debug, Clone)]
pub struct Npy {
    width: usize,
    data: Vec<f32>,
}

impl Npy {
    /// Reads a float32 file of the shape [rows, width].
    ///
    /// # Panics
    /// When the file has another type or shape.
    #[expect(clippy::disallowed_methods, reason = "fixtures lie on local disk")]
    pub fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        assert!(bytes.starts_with(b"\x93NUMPY\x01"), "{path:?}");
        let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        let (header, data) = bytes[10..].split_at(length);
        let header = String::from_utf8_lossy(header);
        let plain = header.contains("'<f4'") && header.contains("'fortran_order': False");
        assert!(plain, "{path:?}: {header}");
        let shape = header.split(['(', ')']).nth(1).unwrap_or_default();
        let shape: Vec<usize> = shape
            .split(',')
            .filter_map(|part| part.trim().parse().ok())
            .collect();
        let data: Vec<f32> = data
            .as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect();
        assert_eq!(shape.iter().product::<usize>(), data.len(), "{path:?}");
        assert_eq!(shape.len(), 2, "{path:?}");
        Self {
            width: shape[1],
            data,
        }
    }

    /// Returns the length of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Returns all numbers, row by row.
    pub fn values(&self) -> &[f32] {
        &self.data
    }

    /// Returns the rows in the order of the file.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.data.chunks_exact(self.width)
    }

    /// Returns the row with this index.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.data[index * self.width..][..self.width]
    }
}
