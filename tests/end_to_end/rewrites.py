"""The rewriting of int8.py before quantisation preserves the numbers, and applies only to suitable graphs.

    python rewrites.py TRANSFORMER.onnx CONVOLUTIONS.onnx
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared/model/convert"))
from transformer import multiply_patches, pick_early, shapes_of  # noqa: E402


def main(transformer, convolutions):
    model = onnx.load(transformer)
    rewritten, shapes = onnx.load(transformer), shapes_of(model)
    pick_early(rewritten.graph, shapes)
    narrow = [node.input[0] for node in rewritten.graph.node if node.output[0].endswith("/first")]
    assert len(narrow) == 2, f"the residual stream and the attention should be narrowed: {narrow}"
    same_numbers(model, rewritten, 0)

    multiply_patches(rewritten.graph, shapes)
    assert not any(node.op_type == "Conv" for node in rewritten.graph.node)
    # The terms of a patch's sum are added in another order.
    same_numbers(model, rewritten, 3e-6)

    pick = next(node for node in model.graph.node if node.op_type == "Gather" and [axis.i for axis in node.attribute] == [1])
    also_all_tokens = onnx.load(transformer)
    also_all_tokens.graph.output.append(onnx.ValueInfoProto(name=pick.input[0]))
    untouched(also_all_tokens, "all tokens are an output", pick_early)

    second_token = onnx.load(transformer)
    second_token.graph.initializer.append(onnx.numpy_helper.from_array(np.array(1), "one"))
    for node in second_token.graph.node:
        if node.name == pick.name:
            node.input[1] = "one"
    untouched(second_token, "the second token is picked", pick_early)

    untouched(onnx.load(convolutions), "convolutions that overlap", pick_early, multiply_patches)


def same_numbers(model, rewritten, tolerance):
    onnx.checker.check_model(rewritten)
    for rows in (1, 3):
        images = np.random.default_rng(rows).standard_normal((rows, 3, 224, 224)).astype(np.float32)
        expected, found = (run(each, images) for each in (model, rewritten))
        difference = np.abs(expected - found).max() / np.abs(expected).max()
        assert difference <= tolerance, f"{rows} images differ by {difference}"


def run(model, images):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["image_embeds"], {"pixel_values": images})[0]


def untouched(model, why, *rewrites):
    before, shapes = model.SerializeToString(deterministic=True), shapes_of(model)
    for rewrite in rewrites:
        rewrite(model.graph, shapes)
        assert model.SerializeToString(deterministic=True) == before, f"{rewrite.__name__} changed a graph though {why}"


if __name__ == "__main__":
    main(*sys.argv[1:])
