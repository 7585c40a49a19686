"""Less work in a vision transformer for the same result: two rewrites of an ONNX graph.

    pick_early(graph, shapes)        behind the last attention, only the token that becomes the embedding
    multiply_patches(graph, shapes)  the convolution that cuts an image into patches, as one matrix product

`shapes` are those of `shapes_of`. A graph that is not of this kind stays as it is.
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

# Operations on each number by itself, or on two tensors number by number.
NUMBERWISE = {"Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Sigmoid", "Tanh", "Erf", "Gelu"}


def shapes_of(model):
    """{tensor: lengths of its axes, None where one is not fixed}; tensors of unknown shape are left out."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    tensors = [value for value in (*graph.input, *graph.value_info) if value.type.tensor_type.HasField("shape")]
    return {value.name: [axis.dim_value or None for axis in value.type.tensor_type.shape.dim] for value in tensors}


def pick_early(graph, shapes):
    """Picks the token of the embedding where tokens last depended on each other.

    A transformer ends with a `Gather` of the first token out of [images, tokens, width], and attention alone mixes
    tokens: what stands between the last one and the `Gather` need see no other. That saves a sixteenth of ViT-B/32's
    products, one in 32 of ViT-L/14's.
    """
    constants = constants_of(graph)
    pick = next((node for node in graph.node if is_pick(node, constants, shapes)), None)
    if pick is None:
        return
    users = {output.name: {None} for output in graph.output}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, set()).add(node.output[0])
    # Upwards from the Gather: what sees each token by itself and serves nothing else.
    narrow = {pick.output[0]: pick}
    for node in reversed(graph.node):
        if is_tokenwise(node, constants) and users.get(node.output[0], {None}) <= narrow.keys():
            narrow[node.output[0]] = node
    entering = {name for node in narrow.values() for name in node.input} - narrow.keys() - constants.keys()
    tokens = shapes[pick.input[0]][1]
    if len(narrow) == 1 or any(len(shapes.get(name, [])) != 3 or shapes[name][1] != tokens for name in entering):
        return
    for node in narrow.values():
        node.input[:] = [f"{name}/first" if name in entering else name for name in node.input]
    zero = numpy_helper.from_array(np.zeros(1, np.int64), f"{pick.output[0]}/zero")
    graph.initializer.append(zero)
    nodes = []
    for node in graph.node:
        nodes.append(node)
        for name in entering.intersection(node.output):
            nodes.append(helper.make_node("Gather", [name, zero.name], [f"{name}/first"], f"{name}/first", axis=1))
    del graph.node[:]
    graph.node.extend(nodes)


def is_pick(node, constants, shapes):
    """Whether this takes the first of [images, tokens, width]."""
    if node.op_type != "Gather" or attributes(node).get("axis") != 1 or len(shapes.get(node.input[0], [])) != 3:
        return False
    index = constants.get(node.input[1])
    return index is not None and not index.dims and numpy_helper.to_array(index) == 0


def is_tokenwise(node, constants):
    """Whether each token of what comes out depends on the same token of what goes in."""
    sizes = [list(constants[name].dims) for name in node.input if name in constants]
    match node.op_type:
        case "MatMul":
            return node.input[0] not in constants and len(sizes) == 1 and len(sizes[0]) == 2
        case "LayerNormalization":
            return attributes(node).get("axis", -1) == -1
        case "ReduceMean":
            return attributes(node).get("axes") == [-1]
    return node.op_type in NUMBERWISE and all(len(size) < 2 for size in sizes)


def multiply_patches(graph, shapes):
    """A convolution whose kernels neither overlap nor leave gaps is a product of the patches with one matrix.

    Worth it where products are faster than convolutions, as in 8 bits. The convolution's weights stay behind, unused.
    """
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        patches = patches_of(node, shapes) if node.op_type == "Conv" and node.input[1] in weights else None
        nodes += [node] if patches is None else as_product(graph, node, patches, weights[node.input[1]])
    del graph.node[:]
    graph.node.extend(nodes)


def patches_of(node, shapes):
    """(channels, rows, columns, side) of the patches that a convolution looks at, or None where they are no tiling."""
    images, about = shapes.get(node.input[0], []), attributes(node)
    if len(images) != 4 or None in images[1:] or about.get("group", 1) != 1:
        return None
    _, channels, height, width = images
    side = about.get("kernel_shape", [0])[0]
    plain = about.get("kernel_shape") == about.get("strides") == [side, side] and not any(about.get("pads", [0]))
    plain = plain and about.get("auto_pad", b"NOTSET") == b"NOTSET" and about.get("dilations", [1, 1]) == [1, 1]
    if not plain or side < 2 or height % side or width % side:
        return None
    return channels, height // side, width // side, side


def as_product(graph, node, patches, weights):
    """The nodes that take the place of the convolution `node`: [N, channels, H, W] -> [N, width, rows, columns]."""
    channels, rows, columns, side = patches
    width, name = weights.dims[0], node.output[0]

    def constant(what, values):
        tensor = numpy_helper.from_array(values, f"{name}/{what}")
        graph.initializer.append(tensor)
        return tensor.name

    def shape(what, *lengths):
        # The first 0 keeps the number of images.
        return constant(what, np.array([0, *lengths], np.int64))

    matrix = numpy_helper.to_array(weights).reshape(width, -1).T
    steps = [
        ("Reshape", [node.input[0], shape("cut", channels, rows, side, columns, side)], {}),
        ("Transpose", [], {"perm": [0, 2, 4, 1, 3, 5]}),
        ("Reshape", [shape("patches", rows * columns, channels * side * side)], {}),
        ("MatMul", [constant("matrix", np.ascontiguousarray(matrix))], {}),
        *[("Add", [bias], {}) for bias in node.input[2:]],
        ("Transpose", [], {"perm": [0, 2, 1]}),
        ("Reshape", [shape("map", width, rows, columns)], {}),
    ]
    nodes, given = [], []
    for number, (kind, inputs, about) in enumerate(steps):
        output = name if number == len(steps) - 1 else f"{name}/{number}"
        nodes.append(helper.make_node(kind, [*given, *inputs], [output], output, **about))
        given = [output]
    return nodes


def constants_of(graph):
    """{tensor: its value} of what does not depend on the input."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = node.attribute[0].t
        elif node.op_type == "Identity" and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
    return found


def attributes(node):
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
