//! A minimal reader of numpy's file format: version 1, `|u1`, C order.

use std::path::Path;

/// An array of bytes of shape [rows, channels, height, width].
pub(crate) struct Npy {
    pub shape: Vec<usize>,
    data: Vec<u8>,
}

impl Npy {
    pub(crate) fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        assert!(bytes.starts_with(b"\x93NUMPY\x01"), "{path:?}");
        let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        let (header, data) = bytes[10..].split_at(length);
        let header = std::str::from_utf8(header).unwrap();
        assert!(header.contains("'|u1'") && header.contains("'fortran_order': False"));
        let shape = header.split(['(', ')']).nth(1).unwrap();
        let shape: Vec<usize> = shape
            .split(',')
            .filter_map(|part| part.trim().parse().ok())
            .collect();
        assert_eq!(shape.iter().product::<usize>(), data.len());
        Self {
            shape,
            data: data.to_vec(),
        }
    }

    /// Returns one row of planes [3, h, w] as interleaved pixels.
    pub(crate) fn pixels(&self, row: usize) -> Vec<u8> {
        let plane = self.shape[2] * self.shape[3];
        let planes = &self.data[row * 3 * plane..][..3 * plane];
        (0..plane)
            .flat_map(|i| [planes[i], planes[plane + i], planes[2 * plane + i]])
            .collect()
    }
}
