//! From an output of any shape to one row of numbers for each image.

use crate::spec::Pooling;

/// Returns the output as one row for each image, one after the other.
///
/// # Errors
/// What of the shape does not fit.
pub(crate) fn rows(
    shape: &[i64],
    values: &[f32],
    rows: usize,
    pooling: Option<Pooling>,
) -> Result<Vec<f32>, String> {
    let inner: Vec<usize> = shape.iter().skip(1).map(|&size| size as usize).collect();
    if shape.first().copied() != Some(rows as i64) || values.is_empty() {
        return Err(format!("has shape {shape:?}, expected {rows} rows"));
    }
    let wide = inner.iter().filter(|size| **size != 1).count();
    match (inner.as_slice(), pooling) {
        // One vector, however many dimensions of size 1 are around it.
        _ if wide <= 1 => Ok(values.to_vec()),
        ([tokens, width], Some(Pooling::Cls)) => {
            let images = values.chunks_exact(tokens * width);
            Ok(images.flat_map(|image| &image[..*width]).copied().collect())
        }
        ([tokens, width], Some(Pooling::Mean)) => {
            let images = values.chunks_exact(tokens * width);
            Ok(images
                .flat_map(|image| mean_of_tokens(image, *width))
                .collect())
        }
        ([_, height, width], Some(Pooling::Mean)) => {
            let maps = values.chunks_exact(height * width);
            Ok(maps.map(mean).collect())
        }
        _ => Err(format!(
            "has shape {shape:?} and is not pooled, expected [{rows}, width]"
        )),
    }
}

fn mean(values: &[f32]) -> f32 {
    let sum: f64 = values.iter().map(|&value| f64::from(value)).sum();
    (sum / values.len() as f64) as f32
}

fn mean_of_tokens(tokens: &[f32], width: usize) -> Vec<f32> {
    let mut sums = vec![0.0; width];
    for token in tokens.chunks_exact(width) {
        for (sum, &value) in sums.iter_mut().zip(token) {
            *sum += f64::from(value);
        }
    }
    let count = (tokens.len() / width) as f64;
    sums.into_iter().map(|sum| (sum / count) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_become_one_row_an_image() {
        let values: Vec<f32> = (0..12_u8).map(f32::from).collect();
        let pooled = |shape: &[i64], pooling| rows(shape, &values, 2, pooling);
        let same = Ok(values.clone());
        assert_eq!(pooled(&[2, 6], None), same);
        assert_eq!(pooled(&[2, 6, 1, 1], None), same);
        assert_eq!(pooled(&[2, 1, 6], Some(Pooling::Cls)), same);
        let cls = Some(Pooling::Cls);
        assert_eq!(pooled(&[2, 3, 2], cls), Ok(vec![0.0, 1.0, 6.0, 7.0]));
        let mean = Some(Pooling::Mean);
        assert_eq!(pooled(&[2, 3, 2], mean), Ok(vec![2.0, 3.0, 8.0, 9.0]));
        assert_eq!(pooled(&[2, 2, 1, 3], mean), Ok(vec![1.0, 4.0, 7.0, 10.0]));
        assert_eq!(
            rows(&[1, 3, 2, 2], &values, 1, mean),
            Ok(vec![1.5, 5.5, 9.5])
        );
        assert!(pooled(&[2, 3, 2], None).unwrap_err().contains("pooled"));
        assert!(pooled(&[3, 4], None).unwrap_err().contains("2 rows"));
        assert_eq!(rows(&[2], &[1.0, 2.0], 2, None), Ok(vec![1.0, 2.0]));
    }
}
