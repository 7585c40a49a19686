"""The published CLIP heads (LAION aesthetic V1 and V2, LAION NSFW L/14 and B/32) -> ONNX.

    python heads.py SOURCES OUT [NAME ...]

SOURCES is a folder with the files as published (README.md says which), OUT gets `NAME/model.onnx` for every head
whose file is there, or for the named ones. Only numpy and onnx are needed, neither torch nor tensorflow.

All heads: input `embedding` [N, D] float32, the projected CLIP image embedding divided by its length;
output `score` [N, 1] float32.
"""

import argparse
import os
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from weightfiles import read_pth, read_saved_model_tables, read_tf_bundle

OPSET, ML_OPSET, IR_VERSION = 13, 2, 8

AESTHETIC_V1 = "MIT, Copyright (c) 2022 LAION AI", "LAION-AI/aesthetic-predictor"
AESTHETIC_V2 = "Apache-2.0", "christophschuhmann/improved-aesthetic-predictor"
NSFW = "MIT, Copyright 2022 Christoph Schuhmann", "LAION-AI/CLIP-based-NSFW-Detector"

# The columns that the published NSFW models take for categories, by embedding size (see `category_codes`).
CATEGORY_COLUMNS = {768: [180, 316, 413, 440, 644], 512: [92, 133, 312]}
# Below this many entries a string table of the SavedModel is something else.
SMALLEST_CATEGORY_TABLE = 100


class Builder:
    def __init__(self):
        self.nodes = []
        self.initializers = []

    def const(self, name, array):
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, op, inputs, output, domain="", **attributes):
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, domain=domain, **attributes))
        return output

    def dense(self, x, layers):
        """Fully connected layers [(kernel [in, out], bias [out], activation or None)]; the last gives `score`."""
        for i, (kernel, bias, activation) in enumerate(layers):
            last = i == len(layers) - 1
            weights = [self.const(f"w{i}", kernel.astype(np.float32)), self.const(f"b{i}", bias.astype(np.float32))]
            x = self.node("Gemm", [x, *weights], "score" if last and not activation else f"dense{i}")
            if activation:
                x = self.node(activation, [x], "score" if last else f"act{i}")

    def model(self, name, dim, metadata):
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", dim])],
            [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N", 1])],
            self.initializers,
        )
        opsets = [helper.make_opsetid("", OPSET)]
        if any(node.domain for node in self.nodes):
            opsets.append(helper.make_opsetid("ai.onnx.ml", ML_OPSET))
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="sluice")
        for key, value in sorted(metadata.items()):
            model.metadata_props.add(key=key, value=value)
        onnx.checker.check_model(model)
        return model


def metadata(source, file, **more):
    licence, repository = source
    about = {"licence": licence, "origin": f"{repository} {file}", "embedding": "CLIP image embedding, L2-normalised"}
    return about | more


def aesthetic(path, name, source):
    """V1 is one linear layer, V2 five with no activation between (its dropout does nothing when scoring).

    Five such layers are one: their product, taken in float64, moves no score by more than float32's rounding does
    (1.5e-6), and is a thousandth of the work.
    """
    state = read_pth(path)
    if "weight" in state:
        prefixes = [""]
    else:
        numbers = sorted({int(key.split(".")[1]) for key in state})
        prefixes = [f"layers.{n}." for n in numbers]
    kernel, bias = folded([(state[p + "weight"].T, state[p + "bias"]) for p in prefixes])
    b = Builder()
    b.dense("embedding", [(kernel, bias, None)])
    return b.model(name, kernel.shape[0], metadata(source, os.path.basename(path)))


def folded(layers):
    """The one layer that several without activation between are: x (K1 K2 …) + ((b1 K2 + b2) K3 + …)."""
    kernel, bias = (part.astype(np.float64) for part in layers[0])
    for next_kernel, next_bias in layers[1:]:
        kernel, bias = kernel @ next_kernel.astype(np.float64), bias @ next_kernel.astype(np.float64) + next_bias
    return kernel, bias


def nsfw(path, name, *, savedmodel):
    """(x - mean) / std, then ReLU layers and a sigmoid. `savedmodel` adds the published model's table look-ups."""
    variables = read_tf_bundle(os.path.join(path, "variables", "variables"))

    def variable(n, part):
        return variables.get(f"layer_with_weights-{n}/{part}/.ATTRIBUTES/VARIABLE_VALUE")

    mean, variance = variable(1, "mean"), variable(1, "variance")
    layers, n = [], 2
    while variable(n, "kernel") is not None:
        layers.append((variable(n, "kernel"), variable(n, "bias"), "Relu"))
        n += 1
    layers[-1] = (*layers[-1][:2], "Sigmoid")

    b = Builder()
    x = category_codes(b, "embedding", path, len(mean)) if savedmodel else "embedding"
    x = b.node("Sub", [x, b.const("mean", mean.astype(np.float32))], "centred")
    std = np.maximum(np.sqrt(variance.astype(np.float32)), np.float32(1e-7))  # as keras' Normalization does
    x = b.node("Div", [x, b.const("std", std)], "normalised")
    b.dense(x, layers)
    variant = "savedmodel-exact" if savedmodel else "plain-mlp"
    return b.model(name, len(mean), metadata(NSFW, os.path.basename(path), variant=variant))


def category_codes(b, x, path, dim):
    """The first step of the published SavedModel, which AutoKeras made.

    It took a few columns for categories: it prints the number with "%f", looks the text up in a table of training
    values and goes on with its index (0: not in the table). All other columns pass through, NaN as 0. NeMo Curator's
    network has no such step. Here the text is the number in millionths, rounded.
    """
    columns = CATEGORY_COLUMNS[dim]
    tables = [strings for _, strings in read_saved_model_tables(os.path.join(path, "saved_model.pb"))]
    tables = [strings for strings in tables if len(strings) > SMALLEST_CATEGORY_TABLE]
    if len(tables) != len(columns):  # the constants stand in the order of the columns
        raise ValueError(f"{path}: {len(tables)} category tables, expected {len(columns)}")

    x = b.node("Where", [b.node("IsNaN", [x], "is_nan"), b.const("nan", np.zeros((), np.float32)), x], "no_nan")
    wide = b.node("Cast", [x], "wide", to=TensorProto.DOUBLE)
    scaled = b.node("Mul", [wide, b.const("million", np.full((), 1e6))], "scaled")
    millionths = b.node("Cast", [b.node("Round", [scaled], "rounded")], "millionths", to=TensorProto.INT64)
    codes = []
    for column, strings in zip(columns, tables):
        keys = [round(float(text) * 1e6) for text in strings]
        if len(set(keys)) != len(keys) or b"-0.000000" in strings:
            raise ValueError(f"{path}: the table of column {column} is not one of distinct numbers")
        index = b.const(f"column{column}", np.array([column], np.int64))
        codes.append(
            b.node(
                "LabelEncoder", [b.node("Gather", [millionths, index], f"millionths{column}", axis=1)], f"code{column}",
                domain="ai.onnx.ml", keys_int64s=keys, values_floats=[float(k + 1) for k in range(len(keys))],
                default_float=0.0,
            )
        )  # fmt: skip
    keep = np.ones(dim, np.float32)
    keep[columns] = 0
    place = np.zeros((len(columns), dim), np.float32)
    place[np.arange(len(columns)), columns] = 1
    kept = b.node("Mul", [x, b.const("keep", keep)], "kept")
    placed = b.node("MatMul", [b.node("Concat", codes, "codes", axis=1), b.const("place", place)], "placed")
    return b.node("Add", [kept, placed], "encoded")


# name: (published file or folder, path -> model)
HEADS = {
    "laion-aesthetic-v2": (
        "sac+logos+ava1-l14-linearMSE.pth", lambda path, name: aesthetic(path, name, AESTHETIC_V2)),
    "laion-aesthetic-v1": (
        "sa_0_4_vit_l_14_linear.pth", lambda path, name: aesthetic(path, name, AESTHETIC_V1)),
    "laion-aesthetic-v1-b32": (
        "sa_0_4_vit_b_32_linear.pth", lambda path, name: aesthetic(path, name, AESTHETIC_V1)),
    "laion-nsfw": (
        "clip_autokeras_binary_nsfw", lambda path, name: nsfw(path, name, savedmodel=False)),
    "laion-nsfw-savedmodel": (
        "clip_autokeras_binary_nsfw", lambda path, name: nsfw(path, name, savedmodel=True)),
    "laion-nsfw-b32": (
        "clip_autokeras_nsfw_b32", lambda path, name: nsfw(path, name, savedmodel=False)),
    "laion-nsfw-b32-savedmodel": (
        "clip_autokeras_nsfw_b32", lambda path, name: nsfw(path, name, savedmodel=True)),
}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sources")
    parser.add_argument("out")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(HEADS)}")
    args = parser.parse_args()
    if unknown := set(args.names) - set(HEADS):
        parser.error(f"no such head: {', '.join(sorted(unknown))}")

    made = 0
    for name, (file, convert) in HEADS.items():
        path = os.path.join(args.sources, file)
        if args.names and name not in args.names or not args.names and not os.path.exists(path):
            continue
        target = os.path.join(args.out, name, "model.onnx")
        data = convert(path, name).SerializeToString(deterministic=True)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as output:
            output.write(data)
        made += 1
        print(f"{target}: {len(data)} bytes")
    if not made:
        sys.exit(f"error: none of the published files is in {args.sources}")


if __name__ == "__main__":
    main()
