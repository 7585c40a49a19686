//! The numbers of a batch: float32, or bytes for models that take pixel values.

use sluice_pixels::{Number, Preprocess, TensorSource};

/// A batch's tensor.
#[derive(Debug, Clone, PartialEq)]
pub enum PixelTensor {
    /// Numbers of any model.
    Float32(Vec<f32>),
    /// Pixel values from 0 to 255.
    Uint8(Vec<u8>),
}

/// The part of a tensor that one image fills.
pub(crate) enum Row<'t> {
    Float32(&'t mut [f32]),
    Uint8(&'t mut [u8]),
}

impl PixelTensor {
    /// Returns an empty tensor.
    pub(crate) fn new(takes_bytes: bool) -> Self {
        if takes_bytes {
            return Self::Uint8(Vec::new());
        }
        Self::Float32(Vec::new())
    }

    /// Makes room for this many numbers. What the numbers are is not specified.
    pub(crate) fn set_len(&mut self, length: usize) {
        match self {
            Self::Float32(numbers) => numbers.resize(length, 0.0),
            Self::Uint8(numbers) => numbers.resize(length, 0),
        }
    }

    /// Returns the rows of `length` numbers from row `first` on.
    pub(crate) fn rows(&mut self, first: usize, length: usize) -> Vec<Row<'_>> {
        fn of<N>(numbers: &mut [N], first: usize, length: usize) -> impl Iterator<Item = &mut [N]> {
            numbers[first * length..].chunks_exact_mut(length)
        }
        match self {
            Self::Float32(it) => of(it, first, length).map(Row::Float32).collect(),
            Self::Uint8(it) => of(it, first, length).map(Row::Uint8).collect(),
        }
    }

    /// Removes the rows of `length` numbers for which `stays` is false.
    pub(crate) fn retain_rows(&mut self, length: usize, stays: impl Fn(usize) -> bool) {
        match self {
            Self::Float32(numbers) => retain_rows(numbers, length, stays),
            Self::Uint8(numbers) => retain_rows(numbers, length, stays),
        }
    }
}

impl Row<'_> {
    /// Writes an image's tensor.
    pub(crate) fn write(&mut self, preprocess: &Preprocess, source: &TensorSource) {
        match self {
            Self::Float32(row) => source.write(preprocess, row),
            Self::Uint8(row) => source.write(preprocess, row),
        }
    }
}

fn retain_rows<N: Number>(numbers: &mut Vec<N>, length: usize, stays: impl Fn(usize) -> bool) {
    let mut kept = 0;
    for row in (0..numbers.len() / length).filter(|&row| stays(row)) {
        if row != kept {
            numbers.copy_within(row * length..(row + 1) * length, kept * length);
        }
        kept += 1;
    }
    numbers.truncate(kept * length);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_stay_move_to_the_front() {
        let mut tensor = PixelTensor::Float32(vec![0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]);
        tensor.retain_rows(2, |row| row % 2 == 1);
        assert_eq!(tensor, PixelTensor::Float32(vec![1.0, 1.5, 3.0, 3.5]));
    }
}
