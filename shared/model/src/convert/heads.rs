//! Heads of CLIP embeddings: LAION's aesthetic predictors and its NSFW detectors.
//!
//! Input `embedding` [N, D]: the projected CLIP image embedding divided by its length. Output `score`
//! [N, 1].

use super::graph::Graph;
use super::{Credit, Tensor, Tensors, tensor, tensorflow, torch, zip};

/// The least standard deviation, as Keras' Normalization has it.
const LEAST: f32 = 1e-7;

/// One linear layer, or several without activation between them, which are one: their product, taken in
/// float64, changes no score by more than the rounding of float32 does. Dropout does nothing here.
pub(super) fn linear(content: &[u8], credit: &Credit<'_>) -> Result<Vec<u8>, String> {
    let state = torch::read(content)?;
    let mut layers = layer_names(&state).into_iter();
    let first = layers
        .next()
        .ok_or("it has no linear layer of float32 numbers")?;
    let (mut kernel, mut bias) = layer(&state, &first)?;
    for next in layers {
        let (matrix, offset) = layer(&state, &next)?;
        kernel = product(&kernel, &matrix)?;
        let moved = product(&bias, &matrix)?;
        bias = Matrix {
            values: moved
                .values
                .iter()
                .zip(&offset.values)
                .map(|(a, b)| a + b)
                .collect(),
            ..moved
        };
    }
    if kernel.columns != 1 {
        return Err(format!(
            "it gives {} numbers, expected one score",
            kernel.columns
        ));
    }
    let mut graph = Graph::with_domain();
    graph.constant("w0", &kernel.as_tensor(&[kernel.rows, 1]));
    graph.constant("b0", &bias.as_tensor(&[1]));
    graph.node("Gemm", &["embedding", "w0", "b0"], "score", &[]);
    Ok(finish(graph, kernel.rows, credit, &[]))
}

/// `layers.N.` for each layer in order; nothing where there is one layer without a name.
fn layer_names(state: &Tensors) -> Vec<String> {
    let numbers = state.keys().filter_map(|key| {
        let number = key.strip_prefix("layers.")?.strip_suffix(".weight")?;
        number.parse::<u32>().ok()
    });
    let mut numbers: Vec<u32> = numbers.collect();
    numbers.sort_unstable();
    if state.contains_key("weight") {
        vec![String::new()]
    } else {
        numbers
            .into_iter()
            .map(|n| format!("layers.{n}."))
            .collect()
    }
}

/// A matrix in float64, row by row.
struct Matrix {
    rows: usize,
    columns: usize,
    values: Vec<f64>,
}

impl Matrix {
    fn as_tensor(&self, shape: &[usize]) -> Tensor {
        Tensor {
            shape: shape.to_vec(),
            values: self.values.iter().map(|&value| value as f32).collect(),
        }
    }
}

/// Returns a layer's kernel [in, out] and bias [1, out].
fn layer(state: &Tensors, prefix: &str) -> Result<(Matrix, Matrix), String> {
    let weight = tensor(state, &format!("{prefix}weight"))?;
    let bias = tensor(state, &format!("{prefix}bias"))?;
    let &[columns, rows] = &weight.shape[..] else {
        return Err(format!("{prefix}weight has the shape {:?}", weight.shape));
    };
    if bias.shape != [columns] {
        return Err(format!("{prefix}bias has the shape {:?}", bias.shape));
    }
    let transposed = (0..rows * columns).map(|i| weight.values[i % columns * rows + i / columns]);
    let kernel = Matrix {
        rows,
        columns,
        values: transposed.map(f64::from).collect(),
    };
    let bias = Matrix {
        rows: 1,
        columns,
        values: bias.values.iter().map(|&value| f64::from(value)).collect(),
    };
    Ok((kernel, bias))
}

fn product(a: &Matrix, b: &Matrix) -> Result<Matrix, String> {
    if a.columns != b.rows {
        return Err("its layers do not fit together".to_owned());
    }
    let mut values = vec![0.0; a.rows * b.columns];
    for (row, out) in a.values.chunks(a.columns).zip(values.chunks_mut(b.columns)) {
        for (factor, line) in row.iter().zip(b.values.chunks(b.columns)) {
            for (sum, value) in out.iter_mut().zip(line) {
                *sum += factor * value;
            }
        }
    }
    Ok(Matrix {
        rows: a.rows,
        columns: b.columns,
        values,
    })
}

/// `(x - mean) / std`, dense layers with ReLU, and a sigmoid. The published model looks some columns up
/// in tables of training values first; NeMo Curator's network has no such step, and neither has this.
pub(super) fn keras(content: &[u8], credit: &Credit<'_>) -> Result<Vec<u8>, String> {
    let variables = tensorflow::read(
        &zip::only(content, "/variables.index")?,
        &zip::only(content, "/variables.data-00000-of-00001")?,
    )?;
    let part = |layer: usize, part: &str| {
        let name = format!("layer_with_weights-{layer}/{part}/.ATTRIBUTES/VARIABLE_VALUE");
        tensor(&variables, &name)
    };
    let (mean, variance) = (part(1, "mean")?, part(1, "variance")?);
    let deviations = variance.values.iter().map(|value| value.sqrt().max(LEAST));
    let deviation = Tensor {
        shape: variance.shape.clone(),
        values: deviations.collect(),
    };
    let mut graph = Graph::with_domain();
    graph.constant("mean", mean);
    graph.constant("std", &deviation);
    graph.node("Sub", &["embedding", "mean"], "centred", &[]);
    graph.node("Div", &["centred", "std"], "normalised", &[]);
    let layers = (2..)
        .take_while(|&layer| part(layer, "kernel").is_ok())
        .count();
    let mut before = "normalised".to_owned();
    for index in 0..layers {
        let [weight, bias, sum, activated] =
            ["w", "b", "dense", "act"].map(|what| format!("{what}{index}"));
        graph.constant(&weight, part(index + 2, "kernel")?);
        graph.constant(&bias, part(index + 2, "bias")?);
        graph.node("Gemm", &[&before, &weight, &bias], &sum, &[]);
        if index + 1 == layers {
            graph.node("Sigmoid", &[&sum], "score", &[]);
        } else {
            graph.node("Relu", &[&sum], &activated, &[]);
        }
        before = activated;
    }
    if layers == 0 {
        return Err("it has no dense layer".to_owned());
    }
    Ok(finish(
        graph,
        mean.values.len(),
        credit,
        &[("variant", "plain-mlp")],
    ))
}

fn finish(graph: Graph, dimension: usize, credit: &Credit<'_>, more: &[(&str, &str)]) -> Vec<u8> {
    let mut metadata = vec![
        ("embedding", "CLIP image embedding, L2-normalised"),
        ("licence", credit.licence),
        ("origin", credit.origin),
    ];
    metadata.extend(more);
    graph.finish(
        credit.name,
        ("embedding", &[dimension]),
        ("score", &[1]),
        &metadata,
    )
}
