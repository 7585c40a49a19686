//! The input of a graph that takes pixels as bytes.

use sluice_pixels::{Layout, Preprocess};

/// How pixels become a model's input: `value * scale + shift`, of each channel.
#[derive(Debug, Clone)]
pub(crate) struct Pixels {
    pub(super) input: String,
    pub(super) scale: Vec<f32>,
    pub(super) shift: Vec<f32>,
    pub(super) shape: [usize; 4],
}

impl Pixels {
    /// Returns how pixels become the model's input of this name.
    pub(crate) fn of(preprocess: &Preprocess, input: &str) -> Self {
        let channels = preprocess.mean.iter().zip(&preprocess.std);
        let of_each = channels.map(|(mean, std)| (preprocess.rescale / std, -mean / std));
        let (scale, shift) = of_each
            .map(|(scale, shift)| (scale as f32, shift as f32))
            .unzip();
        Self {
            input: input.to_owned(),
            scale,
            shift,
            shape: match preprocess.layout {
                Layout::Nchw => [1, 3, 1, 1],
                Layout::Nhwc => [1, 1, 1, 3],
            },
        }
    }
}
