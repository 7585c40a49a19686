"""Other layouts of an export: the same numbers in other folders, files, types and shapes."""

import json
import shutil

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def edit(change):
    """Returns a layout that changes the graph."""

    def layout(folder):
        model = onnx.load(folder / "model.onnx")
        change(model.graph)
        onnx.save(model, folder / "model.onnx")
        return folder

    return layout


def pixels(graph):
    return next(value for value in graph.input if value.name == "pixel_values")


def prepend(graph, *nodes, **changes):
    """Inserts nodes between the input and its readers. They read `pixel_values` and write `inner`."""
    for node in graph.node:
        node.input[:] = ["inner" if name == "pixel_values" else name for name in node.input]
    for at, node in enumerate(nodes):
        graph.node.insert(at, node)
    kind = pixels(graph).type.tensor_type
    kind.elem_type = changes.get("element", kind.elem_type)
    if "order" in changes:
        sizes = [onnx.TensorShapeProto.Dimension.FromString(kind.shape.dim[at].SerializeToString()) for at in changes["order"]]
        del kind.shape.dim[:]
        kind.shape.dim.extend(sizes)


def half(graph):
    prepend(graph, helper.make_node("Cast", ["pixel_values"], ["inner"], to=TensorProto.FLOAT), element=TensorProto.FLOAT16)


def nhwc(graph):
    prepend(graph, helper.make_node("Transpose", ["pixel_values"], ["inner"], perm=[0, 3, 1, 2]), order=[0, 2, 3, 1])


def uint8(config):
    """Moves the normalisation into the graph."""
    scale, mean, std = 1 / 255, np.float32(config["image_mean"]), np.float32(config["image_std"])

    def change(graph):
        for name, values in [("scale", scale / std), ("shift", -mean / std)]:
            graph.initializer.append(numpy_helper.from_array(np.float32(values).reshape(1, 3, 1, 1), name))
        prepend(
            graph,
            helper.make_node("Cast", ["pixel_values"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["numbers", "scale"], ["scaled"]),
            helper.make_node("Add", ["scaled", "shift"], ["inner"]),
            element=TensorProto.UINT8,
        )

    return change


def rows(count):
    def change(graph):
        pixels(graph).type.tensor_type.shape.dim[0].dim_value = count

    return change


def half_out(graph):
    """Changes the outputs to 16 bits, too."""
    half(graph)
    for value in graph.output:
        graph.node.append(helper.make_node("Cast", [value.name], [value.name + ".half"], to=TensorProto.FLOAT16))
        value.name += ".half"
        value.type.tensor_type.elem_type = TensorProto.FLOAT16


def square_out(graph):
    """Changes the output to [N, C, 1, 1], as after a global pool that keeps its dimensions."""
    graph.initializer.append(numpy_helper.from_array(np.int64([2, 3]), "axes"))
    value = graph.output[0]
    graph.node.append(helper.make_node("Unsqueeze", [value.name, "axes"], ["square"]))
    value.name = "square"
    value.type.tensor_type.shape.dim.add().dim_value = 1
    value.type.tensor_type.shape.dim.add().dim_value = 1


def hub(folder):
    (folder / "onnx").mkdir()
    (folder / "model.onnx").rename(folder / "onnx" / "model.onnx")
    return folder


def vision(folder):
    hub(folder)
    (folder / "onnx" / "model.onnx").rename(folder / "onnx" / "vision_model.onnx")
    (folder / "onnx" / "text_model.onnx").write_bytes(b"no model")
    return folder


def named_file(folder):
    hub(folder)
    (folder / "onnx" / "model.onnx").rename(folder / "onnx" / "model_q4.onnx")
    return folder / "onnx" / "model_q4.onnx"


def external(folder):
    model = onnx.load(folder / "model.onnx")
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="weights of mine.bin", size_threshold=64)
    return folder


def nested_processor(folder):
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": processor, "processor_class": "CLIPProcessor"}))
    return folder


def untyped(folder):
    """Removes the class from the processor's configuration, as before 2022: only config.json has it."""
    return states(folder, image_processor_type=None)


def states(folder, **keys):
    """Sets keys of the processor."""
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))
    return folder


def timm_states(folder, **keys):
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"] |= keys
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def open_clip_states(folder, **keys):
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["preprocess_cfg"] |= keys
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def copied(folder, target):
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target)
    return target
