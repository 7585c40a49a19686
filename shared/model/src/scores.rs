//! From a model's output to its scores: activation, then the columns of each score.

use sluice_manifest::{Error, Result};

use crate::spec::{Activation, Spec};

impl Spec {
    /// Returns the scores of each row of an output, one row after the other.
    ///
    /// # Errors
    /// Usage, when the output has fewer columns than the spec asks for.
    pub fn scores(&self, mut output: Vec<f32>, rows: usize) -> Result<Vec<f32>> {
        let width = output.len() / rows.max(1);
        let columns = self.columns();
        let widest = columns.iter().flatten().max();
        if let Some(column) = widest.filter(|column| rows > 0 && **column >= width) {
            return Err(Error::usage(format!(
                "model {:?} gives {width} values, its spec asks for column {column}",
                self.name
            )));
        }
        let labels = self.labels.len();
        if rows > 0 && labels > 0 && width != labels {
            return Err(Error::usage(format!(
                "model {:?} gives {width} values, but it has {labels} labels",
                self.name
            )));
        }
        if let Some(activation) = self.activation {
            let rows = output.chunks_exact_mut(width.max(1));
            rows.for_each(|row| activation.apply(row));
        }
        let rows = output.chunks_exact(width.max(1));
        let sum = |row: &[f32], columns: &[usize]| columns.iter().map(|&at| row[at]).sum();
        let scores = |row| columns.iter().map(move |columns| sum(row, columns));
        Ok(rows.flat_map(scores).collect())
    }
}

impl Activation {
    /// Applies it to a row.
    fn apply(self, row: &mut [f32]) {
        match self {
            Activation::None => {}
            Activation::Softmax => {
                let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                row.iter_mut()
                    .for_each(|value| *value = (*value - largest).exp());
                let sum: f32 = row.iter().sum();
                row.iter_mut().for_each(|value| *value /= sum);
            }
            Activation::Sigmoid => {
                row.iter_mut()
                    .for_each(|value| *value = 1.0 / (1.0 + (-*value).exp()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(spec: &str, output: &[f32], rows: usize) -> Result<Vec<f32>> {
        let text = format!("name = 'x'\nkind = 'head'\nembedder = 'e'\n{spec}");
        Spec::parse(&text, "x")?.scores(output.to_vec(), rows)
    }

    #[test]
    fn probabilities_are_added_and_columns_chosen() {
        let output = [0.0, 2.0_f32.ln(), 0.0, 5.0, 5.0, 5.0];
        let sum = "activation = 'softmax'\nlabels = ['a', 'b', 'c']\n[score]\ncolumn = ['b', 'c']";
        let found = scores(sum, &output, 2).unwrap();
        let expected = [0.75, 2.0 / 3.0];
        assert!(
            found
                .iter()
                .zip(expected)
                .all(|(a, b)| (a - b).abs() < 1e-6),
            "{found:?}"
        );
        let two = "[[scores]]\nname = 'x'\ncolumn = 2\n[[scores]]\nname = 'y'\ncolumn = 0";
        assert_eq!(scores(two, &output, 2).unwrap(), [0.0, 0.0, 5.0, 5.0]);
        let sigmoid = "activation = 'sigmoid'\n[score]\ncolumn = 0";
        assert_eq!(scores(sigmoid, &[0.0, 9.0], 1).unwrap(), [0.5]);
        assert!(scores("[score]\ncolumn = 3", &output, 2).is_err());
        assert!(scores("[score]", &[], 0).unwrap().is_empty());
        let error = scores("labels = ['a', 'b']\n[score]", &output, 2).unwrap_err();
        assert!(error.to_string().contains("3 values"), "{error}");
    }
}
