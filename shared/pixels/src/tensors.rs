//! Tensors for several models from one decoding of a file.

use crate::decode::{Admit, DecodeError, Decoded, Limits, RgbImage, decode_reduced};
use crate::jpeg::Reduction;
use crate::preprocess::{Fidelity, Number, Preprocess};
use crate::resize::ReducedImage;

/// A decoded, upright image that tensors are written from.
pub struct TensorSource {
    image: RgbImage,
    /// The full size of the image.
    size: (u32, u32),
    reduction: Reduction,
}

impl TensorSource {
    fn new(decoded: Decoded) -> Self {
        let size = match (decoded.orientation, decoded.stored) {
            (5..=8, (width, height)) => (height, width),
            (_, size) => size,
        };
        Self {
            size,
            reduction: decoded.reduction,
            image: decoded.upright(),
        }
    }

    /// Writes the tensor of the image.
    ///
    /// # Panics
    ///
    /// Panics if the length of `out` is not [`Preprocess::tensor_len`], and like
    /// [`Preprocess::pixels`].
    pub fn write<N: Number>(&self, preprocess: &Preprocess, out: &mut [N]) {
        let source = ReducedImage {
            image: &self.image,
            size: self.size,
            by: self.reduction as u32,
        };
        preprocess.write(source, out);
    }
}

/// Decodes an image file for several models, once for each reduction that they take, and calls
/// `write` with each model's index and the image to write its tensor from. Returns for each model
/// whether the file could be decoded for it.
///
/// Each model gets the same image as if it were the only one. `admit` is called before each
/// decoding; the memory of the one before it is free by then.
pub fn decode_for_models(
    bytes: &[u8],
    limits: &Limits,
    admit: Admit<'_>,
    models: &[(&Preprocess, Fidelity)],
    mut write: impl FnMut(usize, &TensorSource),
) -> Vec<Result<(), DecodeError>> {
    let mut results: Vec<Option<Result<(), DecodeError>>> = vec![None; models.len()];
    while let Some(first) = results.iter().position(Option::is_none) {
        // Empty for a file that is not reduced, whatever the model.
        let mut reductions = Vec::new();
        let decoded = decode_reduced(bytes, limits, admit, |width, height| {
            let of = |(model, fidelity): &(&Preprocess, Fidelity)| match fidelity {
                Fidelity::Exact => Reduction::None,
                Fidelity::Approximate => model.reduction(width, height),
            };
            reductions.extend(models.iter().map(of));
            reductions[first]
        });
        let source = decoded.map(TensorSource::new);
        for (model, result) in results.iter_mut().enumerate().skip(first) {
            let is_same = reductions.get(model) == reductions.get(first);
            if is_same && result.is_none() {
                let written = source.as_ref().map(|source| write(model, source));
                *result = Some(written.map_err(Clone::clone));
            }
        }
        if let Ok(source) = source {
            source.image.recycle();
        }
    }
    results.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Filter, Resize};

    fn tensors(bytes: &[u8], models: &[(&Preprocess, Fidelity)]) -> (Vec<Vec<f32>>, usize) {
        let tensor = |(model, _): &(&Preprocess, Fidelity)| vec![0.0; model.tensor_len()];
        let mut tensors: Vec<Vec<f32>> = models.iter().map(tensor).collect();
        let mut decoded = 0;
        let admit = &mut |_| decoded += 1;
        let results = decode_for_models(bytes, &Limits::default(), admit, models, |at, source| {
            source.write(models[at].0, &mut tensors[at]);
        });
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        (tensors, decoded)
    }

    #[test]
    fn models_share_the_decodings_that_they_can_and_get_their_own_tensors() {
        let (width, height) = (800, 640);
        let photo = RgbImage::from_fn(width, height, |x, y| [(x / 4) as u8, (y / 3) as u8, 90]);
        let source = turbojpeg::Image {
            pixels: photo.data.as_slice(),
            width: width as usize,
            pitch: width as usize * 3,
            height: height as usize,
            format: turbojpeg::PixelFormat::RGB,
        };
        let jpeg = turbojpeg::compress(source, 90, turbojpeg::Subsamp::Sub2x2).unwrap();
        let of_edge = |edge| Preprocess::new(Resize::ShortestEdge(edge), Filter::Bicubic);
        // Reduced by 8, by 8, by 2, and not at all.
        let specs = [16, 20, 64, 224].map(of_edge);
        let near = |spec| (spec, Fidelity::Approximate);
        for (models, decodings) in [
            (vec![near(&specs[0])], 1),
            (vec![near(&specs[0]), near(&specs[1])], 1),
            (vec![near(&specs[0]), near(&specs[2]), near(&specs[1])], 2),
            (vec![near(&specs[3]), (&specs[0], Fidelity::Exact)], 1),
            (vec![near(&specs[0]), (&specs[0], Fidelity::Exact)], 2),
        ] {
            let (together, decoded) = tensors(&jpeg, &models);
            assert_eq!(decoded, decodings);
            for (model, tensor) in models.iter().zip(&together) {
                let (alone, _) = tensors(&jpeg, std::slice::from_ref(model));
                assert_eq!(*tensor, alone[0]);
            }
        }
    }

    #[test]
    fn a_damaged_file_is_an_error_for_each_model() {
        let spec = Preprocess::new(Resize::ShortestEdge(16), Filter::Bicubic);
        let models = [(&spec, Fidelity::Approximate), (&spec, Fidelity::Exact)];
        let written = |_, _: &TensorSource| panic!("nothing to write");
        let limits = Limits::default();
        let results = decode_for_models(b"hello", &limits, &mut |_| {}, &models, written);
        assert_eq!(results.len(), 2);
        assert!(results.iter().all(Result::is_err));
    }
}
