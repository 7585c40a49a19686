//! Which operators are computed in 16 bits.

use half::{bf16, f16};

/// Types of `TensorProto`.
const FLOAT16: u64 = 10;
const BFLOAT16: u64 = 16;

/// Operators that are always computed in 16 bits.
const PRODUCTS: [&str; 3] = ["MatMul", "Gemm", "Conv"];
/// Operators that are computed in 16 bits where all of their inputs are: moves, sums, normalisation.
const FOLLOWERS: [&str; 17] = [
    "Add",
    "Concat",
    "Div",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "LayerNormalization",
    "Mul",
    "Reshape",
    "Slice",
    "Softmax",
    "Split",
    "Squeeze",
    "Sub",
    "Transpose",
    "Unsqueeze",
];
/// The same for float16 only: ONNX Runtime has no bfloat16 kernels for them.
const FLOAT16_FOLLOWERS: [&str; 21] = [
    "Abs",
    "AveragePool",
    "Clip",
    "Dropout",
    "Elu",
    "Erf",
    "Gelu",
    "GlobalAveragePool",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Max",
    "MaxPool",
    "Min",
    "Neg",
    "Pad",
    "Relu",
    "Sigmoid",
    "Tanh",
    "Tile",
    "Where",
];
/// Operators whose results are not float32 numbers, whatever their inputs are.
pub(super) const OTHERS: [&str; 15] = [
    "And",
    "ArgMax",
    "ArgMin",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "IsInf",
    "IsNaN",
    "Less",
    "LessOrEqual",
    "NonZero",
    "Not",
    "Or",
    "Shape",
    "Size",
];
/// Operators that only choose, move, add or bound numbers. A number of the size of a [`MASK`] means the
/// same to them as the largest number of float16.
pub(super) const KEEP_MASKS: [&str; 19] = [
    "Add",
    "Clip",
    "Concat",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "Max",
    "Min",
    "Pad",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Sub",
    "Tile",
    "Transpose",
    "Unsqueeze",
    "Where",
];
/// The smallest magnitude of a number that means infinity: -1e9 and the least float32 are usual in
/// masks of attention.
const MASK: f32 = 1e9;

/// Numbers outside the range of float16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TooLarge {
    /// All of them mean infinity.
    Mask,
    /// They are numbers to compute with.
    Number,
}

impl TooLarge {
    /// Returns what float16 cannot hold of these numbers, or `None` if it holds all.
    pub(super) fn of(values: &[f32]) -> Option<Self> {
        let outside = values.iter().map(|value| value.abs());
        let outside = outside.filter(|&magnitude| magnitude > f16::MAX.to_f32());
        outside
            .map(|magnitude| {
                if magnitude >= MASK {
                    Self::Mask
                } else {
                    Self::Number
                }
            })
            .reduce(|first, second| if first == second { first } else { Self::Number })
    }
}

/// A type of 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    Float16,
    Bfloat16,
}

impl Half {
    /// Returns the type's number in `TensorProto`.
    pub(super) fn element(self) -> u64 {
        match self {
            Self::Float16 => FLOAT16,
            Self::Bfloat16 => BFLOAT16,
        }
    }

    /// Returns numbers in this type. Numbers outside its range become its largest or smallest.
    pub(super) fn bytes(self, values: &[f32]) -> Vec<u8> {
        let (least, most) = match self {
            Self::Float16 => (f16::MIN.to_f32(), f16::MAX.to_f32()),
            Self::Bfloat16 => (bf16::MIN.to_f32(), bf16::MAX.to_f32()),
        };
        let values = values.iter().map(|value| value.clamp(least, most));
        let bits = values.map(|value| match self {
            Self::Float16 => f16::from_f32(value).to_bits(),
            Self::Bfloat16 => bf16::from_f32(value).to_bits(),
        });
        bits.flat_map(u16::to_le_bytes).collect()
    }

    /// Whether an operator is always computed in this type.
    pub(super) fn is_product(self, operator: &str) -> bool {
        // Conv takes bfloat16 since opset 22.
        PRODUCTS.contains(&operator) && (self == Self::Float16 || operator != "Conv")
    }

    /// Whether an operator is computed in this type if all of its inputs are.
    pub(super) fn follows(self, operator: &str) -> bool {
        let of_float16 = || self == Self::Float16 && FLOAT16_FOLLOWERS.contains(&operator);
        FOLLOWERS.contains(&operator) || of_float16()
    }
}
