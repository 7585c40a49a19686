"""Read published weight files with numpy alone, without torch.

    read_pth(file) -> {name: array}   torch state dict, zip form or the older stream form

A torch file is a pickle, and a pickle can run any code. The reader here knows the few names that a state dict
needs and refuses every other one.
"""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np

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
