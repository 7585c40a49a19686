"""Read published weight files with numpy alone: no torch, no tensorflow.

    read_pth(file)                -> {name: array}            torch state dict, zip form or the older stream form
    read_tf_bundle(prefix)        -> {name: array}            TF2 checkpoint: PREFIX.index, PREFIX.data-00000-of-00001
    read_saved_model_tables(path) -> [(name, [bytes, ...])]   string constants of a saved_model.pb

A torch file is a pickle, and a pickle can run any code. The reader here knows the few names that a state dict
needs and refuses every other one.
"""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np

# ---------------------------------------------------------------------------------------------- torch

STORAGE_TYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
STREAM_MAGIC = 0x1950A86A20F9469CFC6C
STREAM_PROTOCOL = 1001


class Storage:
    """A named run of numbers. In the stream form its bytes come after the pickle that mentions it."""

    def __init__(self, dtype, key, count):
        self.dtype, self.key, self.count = dtype, key, count
        self.data = None


class Tensor:
    """A strided view of a storage, turned into an array once the storage has its bytes."""

    def __init__(self, storage, offset, shape, stride):
        self.storage, self.offset = storage, offset
        self.shape, self.stride = tuple(shape), tuple(stride)

    def array(self, name):
        if 0 in self.shape:
            return np.zeros(self.shape, self.storage.dtype)
        end = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.stride)) + 1
        if self.offset < 0 or min(self.stride, default=0) < 0 or end > len(self.storage.data):
            raise ValueError(f"{name}: tensor reaches past its storage")
        start = self.storage.data[self.offset :]
        strides = [s * start.dtype.itemsize for s in self.stride]
        return np.array(np.lib.stride_tricks.as_strided(start, self.shape, strides))


class StateDictUnpickler(pickle.Unpickler):
    def __init__(self, file, storages):
        super().__init__(file, encoding="utf-8")
        self.storages = storages

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, stride, *rest: Tensor(storage, offset, shape, stride)
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda data, *rest: data
        if module == "torch" and name in STORAGE_TYPES:
            return STORAGE_TYPES[name]
        raise pickle.UnpicklingError(f"refused: {module}.{name}")

    def persistent_load(self, pid):
        kind, dtype, key, _device, count = pid[:5]
        if kind not in ("storage", b"storage"):
            raise pickle.UnpicklingError(f"unknown persistent id {kind!r}")
        return self.storages.setdefault(key, Storage(dtype, key, count))


def read_pth(file):
    """The tensors of a torch state dict. `file` is a path or a seekable binary file."""
    if not hasattr(file, "read"):
        with open(file, "rb") as opened:
            return read_pth(opened)
    storages = {}
    state = (_read_zip if zipfile.is_zipfile(file) else _read_stream)(file, storages)
    return {name: value.array(name) for name, value in state.items() if isinstance(value, Tensor)}


def _read_zip(file, storages):
    with zipfile.ZipFile(file) as archive:
        (pickled,) = [n for n in archive.namelist() if n.endswith("/data.pkl")]
        root = pickled.removesuffix("data.pkl")
        state = StateDictUnpickler(io.BytesIO(archive.read(pickled)), storages).load()
        for storage in storages.values():
            storage.data = np.frombuffer(archive.read(f"{root}data/{storage.key}"), storage.dtype, storage.count)
    return state


def _read_stream(file, storages):
    file.seek(0)

    def load():
        return StateDictUnpickler(file, storages).load()

    if load() != STREAM_MAGIC:
        raise ValueError("not a torch file")
    if (protocol := load()) != STREAM_PROTOCOL:
        raise ValueError(f"torch stream protocol {protocol}, expected {STREAM_PROTOCOL}")
    if not load().get("little_endian", True):
        raise ValueError("big-endian torch file")
    state = load()
    for key in load():  # then, in this order: an int64 count and the raw numbers of each storage
        (count,) = struct.unpack("<q", file.read(8))
        storage = storages[key]
        if count != storage.count:
            raise ValueError(f"storage {key}: {count} numbers, expected {storage.count}")
        storage.data = np.frombuffer(file.read(count * storage.dtype.itemsize), storage.dtype, count)
    return state


# ------------------------------------------------------------------------------- protobuf wire format


def _varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _fields(message):
    """(field number, value) of one message; length-delimited values are bytes."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        wire = tag & 7
        if wire == 0:
            value, at = _varint(message, at)
        else:
            if wire == 2:
                size, at = _varint(message, at)
            elif wire in (1, 5):
                size = 8 if wire == 1 else 4
            else:
                raise ValueError(f"protobuf wire type {wire}")
            value, at = message[at : at + size], at + size
        yield tag >> 3, value


def _all(message, number):
    return [value for field, value in _fields(message) if field == number]


# --------------------------------------------------------------------------------------- tensorflow

TF_TYPES = {1: np.dtype("<f4"), 2: np.dtype("<f8"), 3: np.dtype("<i4"), 9: np.dtype("<i8")}
TABLE_MAGIC = bytes.fromhex("57fb808b247547db")


def _table_block(table, offset, size):
    """Key/value pairs of one block of a sorted table: keys share prefixes, restart points stand at the end."""
    if table[offset + size] != 0:
        raise ValueError("compressed table block")
    block = table[offset : offset + size]
    (restarts,) = struct.unpack_from("<I", block, len(block) - 4)
    end = len(block) - 4 - 4 * restarts
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        fresh, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + fresh]
        at += fresh
        yield key, block[at : at + length]
        at += length


def _handle(data, at=0):
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return offset, size, at


def read_tf_bundle(prefix):
    """Every numeric variable of a TF2 checkpoint."""
    with open(prefix + ".index", "rb") as file:
        table = file.read()
    with open(prefix + ".data-00000-of-00001", "rb") as file:
        numbers = file.read()
    if table[-8:] != TABLE_MAGIC:
        raise ValueError(f"{prefix}.index: not a table file")
    footer = table[-48:]
    _, _, at = _handle(footer)  # the metaindex, which is empty
    offset, size, _ = _handle(footer, at)
    variables = {}
    for _, pointer in _table_block(table, offset, size):
        for key, entry in _table_block(table, *_handle(pointer)[:2]):
            if not key:
                continue  # the header
            fields = dict(_fields(entry))
            dtype = TF_TYPES.get(fields.get(1, 0))
            if dtype is None:
                continue
            shape = [dict(_fields(dim)).get(1, 0) for dim in _all(fields.get(2, b""), 2)]
            start = fields.get(4, 0)
            data = numbers[start : start + fields.get(5, 0)]
            variables[key.decode()] = np.frombuffer(data, dtype).reshape(shape).copy()
    return variables


def read_saved_model_tables(path):
    """Every top-level string constant of a SavedModel that has more than one entry, in file order."""
    with open(path, "rb") as file:
        saved_model = file.read()
    tables = []
    for meta_graph in _all(saved_model, 2):
        for graph in _all(meta_graph, 2):
            for node in _all(graph, 1):
                if _all(node, 2) != [b"Const"]:
                    continue
                attributes = [dict(_fields(a)) for a in _all(node, 5)]
                for tensor in [dict(_fields(a[2])).get(8) for a in attributes if a.get(1) == b"value"]:
                    strings = _all(tensor, 8) if tensor is not None else []
                    if len(strings) > 1:
                        tables.append((_all(node, 1)[0].decode(), strings))
    return tables
