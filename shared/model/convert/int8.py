"""An encoder's weights in 8 bits: FOLDER/model.onnx -> FOLDER/model.int8.onnx, which `--precision int8` runs.

    python int8.py FOLDER

Every matrix product with constant weights gets signed 8-bit weights, scaled for each output column, and quantises its
other side when it runs (ONNX Runtime's dynamic quantisation), so no example pictures are needed. Before that the graph
is given less to do for the same result (transformer.py). Convolutions stay as they are, but for the one that cuts
patches: those of convolution networks need activations calibrated on pictures (README.md tells what becomes of them
without). External data is read; the result is one file.
"""

import os
import sys
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from transformer import multiply_patches, pick_early, shapes_of


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    source = Path(sys.argv[1]) / "model.onnx"
    if not source.exists():
        sys.exit(f"error: no {source}\nhint:  name the folder of a model")
    model = onnx.load(source, load_external_data=False)
    if not has_products(model.graph):
        sys.exit(f"error: {source}: no matrix product with constant weights\nhint:  convolution networks run in float32")
    # Without the external data, for shapes cannot be told of a model above 2 GB in memory.
    shapes = shapes_of(model)
    onnx.load_external_data_for_model(model, str(source.parent))
    pick_early(model.graph, shapes)
    multiply_patches(model.graph, shapes)
    target, partial = source.with_name("model.int8.onnx"), source.with_name("model.int8.onnx.partial")
    quantize_dynamic(
        model,
        partial,
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        weight_type=QuantType.QInt8,  # unsigned ones run at half the speed
        extra_options={"MatMulConstBOnly": True},
    )
    os.replace(partial, target)
    print(f"{target}: {target.stat().st_size / 1e6:.0f} MB")


def has_products(graph):
    weights = {weight.name for weight in graph.initializer}
    products = [node for node in graph.node if node.op_type in ("MatMul", "Gemm")]
    return any(weights.intersection(node.input[1:2]) for node in products)


if __name__ == "__main__":
    main()
