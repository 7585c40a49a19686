"""ONNX files of CLIP's vision transformers and of heads, with random weights, written with numpy alone.

Speed does not depend on the weights' values. The graphs are like those of exporters: decomposed attention,
LayerNormalization as one operator, opset 17. `gpu.py` uses them, so that Sluice's side needs neither torch nor a network.
"""

import numpy

SIZES = {
    "vit-l14": dict(image=224, patch=14, width=1024, heads=16, layers=24, dimension=768),
    "vit-b32": dict(image=224, patch=32, width=768, heads=12, layers=12, dimension=768),
    "tiny": dict(image=32, patch=16, width=64, heads=2, layers=2, dimension=768),
}
# Widths of a head's layers.
HEADS = {"aesthetic": (768, 1024, 128, 64, 16, 1), "nsfw": (768, 64, 512, 256, 1)}
FLOAT, INTEGER = 1, 7

ENCODER = """\
name = "{name}"
kind = "embedder"
licence = "none needed"
origin = "random weights, tests/bench/gpu_models.py"
output = "image_embeds"
dimension = {dimension}
eps = 0.000001

[preprocess]
resize = {{ shortest-edge = {image} }}
filter = "bicubic"
crop = {{ width = {image}, height = {image} }}
mean = [0.48145466, 0.4578275, 0.40821073]
std = [0.26862954, 0.26130258, 0.27577711]
"""

HEAD = """\
name = "{name}"
kind = "head"
licence = "none needed"
origin = "random weights, tests/bench/gpu_models.py"
dimension = 768
embedder = "{embedder}"

[score]
range = [0.0, 1.0]
threshold = 0.5
"""


def write_encoder(folder, name):
    size = SIZES[name]
    graph = Graph(seed=1)
    width, heads, inner = size["width"], size["heads"], size["width"] // size["heads"]
    side = size["image"] // size["patch"]
    tokens = side * side + 1
    patches = graph.weights("patches", (width, 3, size["patch"], size["patch"]), 3 * size["patch"] ** 2)
    attributes = {"strides": [size["patch"]] * 2, "kernel_shape": [size["patch"]] * 2}
    x = graph.node("Conv", ["pixel_values", patches], **attributes)
    x = graph.node("Transpose", [graph.node("Reshape", [x, graph.integers([0, width, -1])])], perm=[0, 2, 1])
    # One token for each image of the batch.
    rows = graph.node("Gather", [graph.node("Shape", ["pixel_values"]), graph.integers([0])], axis=0)
    shape = graph.node("Concat", [rows, graph.integers([1]), graph.integers([width])], axis=0)
    token = graph.node("Expand", [graph.weights("token", (1, 1, width), width), shape])
    x = graph.node("Concat", [token, x], axis=1)
    x = graph.node("Add", [x, graph.weights("places", (1, tokens, width), width)])
    x = graph.normalized("before", x, width)
    for layer in range(size["layers"]):
        normal = graph.normalized(f"{layer}/first", x, width)
        q, k, v = (graph.layer(f"{layer}/{part}", normal, width, width) for part in "qkv")
        split = graph.integers([0, tokens, heads, inner])
        q, k, v = (graph.node("Reshape", [part, split]) for part in (q, k, v))
        q, v = (graph.node("Transpose", [part], perm=[0, 2, 1, 3]) for part in (q, v))
        k = graph.node("Transpose", [k], perm=[0, 2, 3, 1])
        q = graph.node("Mul", [q, graph.constant(numpy.array(inner**-0.5, numpy.float32))])
        likeness = graph.node("Softmax", [graph.node("MatMul", [q, k])], axis=3)
        mixed = graph.node("Transpose", [graph.node("MatMul", [likeness, v])], perm=[0, 2, 1, 3])
        mixed = graph.node("Reshape", [mixed, graph.integers([0, tokens, width])])
        x = graph.node("Add", [x, graph.layer(f"{layer}/given", mixed, width, width)])
        up = graph.layer(f"{layer}/up", graph.normalized(f"{layer}/second", x, width), width, 4 * width)
        gate = graph.node("Sigmoid", [graph.node("Mul", [up, graph.constant(numpy.array(1.702, numpy.float32))])])
        x = graph.node("Add", [x, graph.layer(f"{layer}/down", graph.node("Mul", [up, gate]), 4 * width, width)])
    x = graph.node("Flatten", [graph.node("Gather", [x, graph.integers([0])], axis=1)])
    x = graph.normalized("after", x, width)
    projection = graph.weights("projection", (width, size["dimension"]), width)
    graph.node("MatMul", [x, projection], output="image_embeds")
    folder.mkdir(parents=True)
    ends = ("pixel_values", [3, size["image"], size["image"]]), ("image_embeds", [size["dimension"]])
    (folder / "model.onnx").write_bytes(graph.model(*ends))
    (folder / "model.toml").write_text(ENCODER.format(name=name, **size))


def write_head(folder, kind, encoder):
    graph, widths = Graph(seed=2), HEADS[kind]
    x = "embedding"
    for number, (width, next_width) in enumerate(zip(widths, widths[1:])):
        x = graph.layer(str(number), x, width, next_width)
        if kind == "nsfw" and next_width > 1:
            x = graph.node("Relu", [x])
    graph.node("Sigmoid", [x], output="score")
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(graph.model(("embedding", [768]), ("score", [1])))
    (folder / "model.toml").write_text(HEAD.format(name=folder.name, embedder=encoder))


class Graph:
    """An ONNX graph under construction. The field numbers are those of onnx.proto."""

    def __init__(self, seed):
        self.random, self.nodes, self.constants = numpy.random.default_rng(seed), [], []

    def constant(self, values, name=None):
        name = name or f"constant-{len(self.constants)}"
        kind = INTEGER if values.dtype == numpy.int64 else FLOAT
        sizes = b"".join(number(1, size) for size in values.shape)
        self.constants.append(field(5, sizes + number(2, kind) + field(8, name.encode()) + field(9, values.tobytes())))
        return name

    def integers(self, values):
        return self.constant(numpy.array(values, numpy.int64))

    def weights(self, name, shape, inputs):
        values = self.random.standard_normal(shape, numpy.float32) * numpy.float32(inputs**-0.5)
        return self.constant(values, name)

    def node(self, operator, inputs, output=None, **attributes):
        output = output or f"value-{len(self.nodes)}"
        content = b"".join(field(1, name.encode()) for name in inputs) + field(2, output.encode())
        content += field(4, operator.encode()) + b"".join(field(5, attribute(*item)) for item in attributes.items())
        self.nodes.append(field(1, content))
        return output

    def layer(self, name, x, width, next_width):
        product = self.node("MatMul", [x, self.weights(f"{name}/weight", (width, next_width), width)])
        return self.node("Add", [product, self.weights(f"{name}/bias", (next_width,), width)])

    def normalized(self, name, x, width):
        gain = self.constant(numpy.ones(width, numpy.float32), f"{name}/gain")
        shift = self.constant(numpy.zeros(width, numpy.float32), f"{name}/shift")
        return self.node("LayerNormalization", [x, gain, shift], axis=-1, epsilon=1e-5)

    def model(self, given, result):
        graph = b"".join(self.nodes) + field(2, b"bench") + b"".join(self.constants)
        graph += field(11, value(*given)) + field(12, value(*result))
        return number(1, 8) + field(7, graph) + field(8, field(1, b"") + number(2, 17))


def attribute(name, given):
    name = field(1, name.encode())
    if isinstance(given, list):
        return name + b"".join(number(8, one) for one in given) + number(20, 7)
    if isinstance(given, float):
        return name + varint(2 << 3 | 5) + numpy.float32(given).tobytes() + number(20, 1)
    return name + number(3, given) + number(20, 2)


def value(name, sizes):
    dimensions = [field(2, b"N"), *(number(1, size) for size in sizes)]
    shape = b"".join(field(1, dimension) for dimension in dimensions)
    return field(1, name.encode()) + field(2, field(1, number(1, FLOAT) + field(2, shape)))


def field(tag, content):
    return varint(tag << 3 | 2) + varint(len(content)) + content


def number(tag, given):
    return varint(tag << 3) + varint(given & (1 << 64) - 1)


def varint(given):
    digits = bytearray()
    while given >= 0x80:
        digits.append(given & 0x7F | 0x80)
        given >>= 7
    return bytes(digits + bytes([given]))
