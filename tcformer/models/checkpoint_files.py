"""Read PyTorch's checkpoint files (`torch.save`) as data, without executing code in them.

`torch.load(weights_only=True)` refuses a whole file because of a NumPy number, a path or a settings object beside its
weights. This reader skips such objects: it makes tensors, and leaves a `Skipped` in place of every other object. Names
that data never contain (functions, the standard library's modules) are refused. Memory is allocated only for tensors
whose bytes are in the file, when `StoredTensor.load` is called.

Both formats of torch.save are read: zip archives, and the older sequence of pickles followed by the tensors' bytes, in
which the model zoo of mmpose publishes its files.
"""

from __future__ import annotations

import io
import mmap
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from tcformer.checks import is_count
from tcformer.errors import UserError
from tcformer.pickles import check_pickle

_MAGIC_NUMBER: Final = 0x1950A86A20F9469CFC6C  # the first pickle of the older format
_LARGEST_PICKLE: Final = 1 << 28  # bytes; that of a large network has 200 kB
_REPAIR: Final = "download or copy the file again"

#: Types of the elements, by the beginning of the names of PyTorch's storage classes.
_DTYPES: Final = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Untyped": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
}
#: Names of the standard library, NumPy and PyTorch that stand for data: they are skipped. Other names of these packages
#: are refused.
_DATA_NAMES: Final[dict[str, set[str]]] = {
    "argparse": {"Namespace"},
    "builtins": {
        *("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset"),
        *("int", "list", "object", "set", "slice", "str", "tuple"),
    },
    "collections": {"Counter", "OrderedDict", "defaultdict", "deque"},
    "copyreg": {"_reconstructor"},
    "datetime": {"date", "datetime", "time", "timedelta", "timezone"},
    "decimal": {"Decimal"},
    "fractions": {"Fraction"},
    "numpy": {"bool_", "dtype", "ndarray"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy.core.numeric": {"_frombuffer"},
    "pathlib": {"Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath"},
    "torch": {"Size", "Tensor", "device"},
    "torch.nn.parameter": {"Parameter"},
    "torch.serialization": {"_get_layout"},
    "types": {"SimpleNamespace"},
    "typing": {"Any"},
    "uuid": {"UUID"},
}
_NUMPY_TYPES: Final = ("numpy", "numpy.dtypes")  # float64, Float64DType and so on
_PYTHON_2: Final = {"__builtin__": "builtins", "copy_reg": "copyreg", "pathlib._local": "pathlib"}


class Skipped:
    """Stands for an object of a checkpoint that is neither a container nor a tensor."""

    def __new__(cls, *ignored: object, **ignored_too: object) -> Skipped:
        """Ignore what the pickle gives the object."""
        return super().__new__(cls)

    def __init__(self, *ignored: object, **ignored_too: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, item: object) -> None:
        """Ignore an item of a list."""

    extend = add = append


class _Storage(NamedTuple):
    """A one-dimensional piece of memory; several tensors may share it."""

    key: str
    dtype: torch.dtype
    elements: int

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.elements * self.dtype.itemsize


class _StorageType(NamedTuple):
    dtype: torch.dtype


@dataclass
class _File:
    """Where the bytes of the storages are."""

    path: Path
    folder: str = ""  # zip: the name of the folder in the archive, with a slash
    places: dict[str, int] = field(default_factory=dict)  # the older format: the index of the first byte
    loaded: dict[str, Tensor] = field(default_factory=dict)

    @cached_property
    def archive(self) -> zipfile.ZipFile:
        """The open zip file: reading its directory for every tensor would take seconds."""
        return zipfile.ZipFile(self.path)

    def read(self, storage: _Storage) -> Tensor:
        """The elements of a storage as a flat tensor; the same tensor for the same storage."""
        if storage.key not in self.loaded:
            data = self._bytes(storage)
            if len(data) != storage.size:
                raise ValueError(f"expected {storage.size} bytes of the tensor {storage.key}, found {len(data)}")
            empty = torch.empty(0, dtype=storage.dtype)
            self.loaded[storage.key] = torch.frombuffer(bytearray(data), dtype=storage.dtype) if data else empty
        return self.loaded[storage.key]

    def _bytes(self, storage: _Storage) -> bytes:
        if self.folder:
            return _record(self.archive, f"{self.folder}data/{storage.key}", storage.size)
        with self.path.open("rb") as stream:
            stream.seek(self.places[storage.key])
            return stream.read(storage.size) if storage.size <= self.path.stat().st_size else b""


class StoredTensor(NamedTuple):
    """A tensor in a checkpoint file."""

    file: _File
    storage: _Storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def load(self) -> Tensor:
        """Read the tensor.

        Raises:
            UserError: the file does not contain its bytes.
        """
        with _reported(self.file.path):
            flat = self.file.read(self.storage)
            return flat.view(self.dtype).as_strided(self.shape, self.strides, self.offset)


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Turn the many errors of damaged files into a UserError that names the file."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{path}: cannot be read, because it is damaged, is not a PyTorch checkpoint, or has an unknown format "
            f"({reason}); {_REPAIR}"
        ) from error


def read_checkpoint(path: Path) -> object:
    """Read a checkpoint file: containers, numbers and strings, with a `StoredTensor` for each tensor.

    Raises:
        UserError: the file does not exist, is damaged, or names something that data do not contain. Nothing in it was
            executed.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; give the path of a checkpoint")
    with _reported(path):
        with path.open("rb") as stream:
            if stream.read(2) == b"PK":
                return _read_zip(path)
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _read_sequence(path, data)


def _record(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """The bytes of a file in a zip archive, which has at most `most` bytes and is not compressed."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > most:
        raise ValueError(f"{name} is compressed, or has {info.file_size} bytes instead of {most}")
    return archive.read(info)


def _read_zip(path: Path) -> object:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("it is a zip archive without a data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" in names:
            raise UserError(
                f"{path}: is a TorchScript program, not weights; save the weights instead: torch.save(model."
                "state_dict(), file)"
            )
        if f"{folder}byteorder" in names and _record(archive, f"{folder}byteorder", 16) != b"little":
            raise ValueError("it was written on a machine with another byte order")
        data = _record(archive, pickles[0], _LARGEST_PICKLE)
    check_pickle(data)
    return _Unpickler(data, _File(path, folder=folder)).load()


def _read_sequence(path: Path, data: mmap.mmap) -> object:
    file, end = _File(path), 0
    read: list[object] = []
    storages: dict[str, _Storage] = {}
    for _ in range(5):  # a magic number, the version of the format, the system, the content, the names of the storages
        start, end = end, check_pickle(data, end)
        unpickler = _Unpickler(data[start:end], file)
        read.append(unpickler.load())
        storages |= unpickler.storages
        if read[0] != _MAGIC_NUMBER:
            raise ValueError("torch.save did not write it")
    system, content, keys = read[2:]
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("it was written on a machine with another byte order")
    for key in keys if isinstance(keys, list) else ():
        count = int.from_bytes(data[end : end + 8], "little")
        if key not in storages or count != storages[key].elements:
            raise ValueError(f"the tensor {key} has no data")
        file.places[key] = end + 8
        end += 8 + storages[key].size
    return content


class _Unpickler(pickle.Unpickler):
    """Makes containers and `StoredTensor`s, and leaves a `Skipped` for other objects."""

    def __init__(self, data: bytes, file: _File) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        self.file = file
        self.storages: dict[str, _Storage] = {}
        # Bound methods, because a pickle can write to the attributes of a function that it gets.
        self._makers: dict[tuple[str, str], Any] = {
            ("torch._utils", "_rebuild_tensor"): self._make_tensor,
            ("torch._utils", "_rebuild_tensor_v2"): self._make_tensor,
            ("torch._utils", "_rebuild_tensor_v3"): self._make_typed_tensor,
            ("torch._utils", "_rebuild_parameter"): self._make_parameter,
            ("torch._utils", "_rebuild_parameter_with_state"): self._make_parameter,
            ("torch._tensor", "_rebuild_from_type_v2"): self._make_subclass,
            ("collections", "OrderedDict"): OrderedDict,
            ("collections", "Counter"): self._make_dict,
            ("collections", "defaultdict"): self._make_dict,
            ("torch", "Size"): tuple,
            ("_codecs", "encode"): self._make_bytes,
        }

    def find_class(self, module: str, name: str) -> object:
        """Return what a name of the pickle stands for, or raise UserError."""
        module = _PYTHON_2.get(module, module).replace("numpy._core", "numpy.core")
        if (module, name) in self._makers:
            return self._makers[module, name]
        if module in ("torch", "torch.storage", "torch.cuda") and name.endswith("Storage"):
            dtype = _DTYPES.get(name.removesuffix("Storage"))
            return _StorageType(dtype) if dtype else Skipped
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if _is_data(module, name):
            return Skipped
        raise UserError(
            f"{self.file.path}: contains code: it names {module}.{name}, which stands for no data, and nothing in the "
            "file was executed; if you trust it, save its weights alone where it was made: torch.save("
            "model.state_dict(), file)"
        )

    def persistent_load(self, name: object) -> _Storage:
        """The storage of a tensor, which the pickle names."""
        if not isinstance(name, tuple) or len(name) < 5 or name[0] != "storage":
            raise ValueError("a tensor without a place")
        kind, key, _, count = name[1:5]
        if not isinstance(kind, _StorageType) or not isinstance(key, str) or not is_count(count, 0):
            raise ValueError("a tensor of an unknown type")
        if len(name) > 5 and name[5] is not None:
            raise ValueError("a tensor that shares a part of another one's memory")
        storage = _Storage(key, kind.dtype, count)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"two types of the tensor {key}")
        return storage

    def _make_tensor(self, storage: object, offset: object, shape: object, strides: object, *_: object) -> StoredTensor:
        return self._tensor(storage, offset, shape, strides, storage.dtype if isinstance(storage, _Storage) else None)

    def _make_typed_tensor(
        self,
        storage: object,
        offset: object,
        shape: object,
        strides: object,
        requires_grad: object,
        hooks: object,
        dtype: object,
        *_: object,
    ) -> StoredTensor:
        return self._tensor(storage, offset, shape, strides, dtype)

    def _tensor(self, storage: object, offset: object, shape: object, strides: object, dtype: object) -> StoredTensor:
        numbers_fit = (
            isinstance(shape, tuple)
            and isinstance(strides, tuple)
            and len(shape) == len(strides)
            and all(is_count(number, 0) for number in (offset, *shape, *strides))
        )
        if not isinstance(storage, _Storage) or not isinstance(dtype, torch.dtype) or not numbers_fit:
            raise ValueError("a tensor without a shape")
        assert isinstance(offset, int) and isinstance(shape, tuple) and isinstance(strides, tuple)
        return StoredTensor(self.file, storage, dtype, offset, shape, strides)

    def _make_parameter(self, data: object, *_: object) -> object:
        return data

    def _make_subclass(self, make: object, cls: object, arguments: tuple[object, ...], *_: object) -> object:
        """A tensor with attributes of its own, or of a subclass."""
        known = (self._make_tensor, self._make_typed_tensor, self._make_parameter)
        return make(*arguments) if callable(make) and make in known else Skipped()

    def _make_dict(self, *_: object) -> dict[object, object]:
        return {}

    def _make_bytes(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise ValueError(f"bytes in the encoding {encoding!r}")
        return text.encode("latin1")


def _is_data(module: str, name: str) -> bool:
    """Whether a name in a checkpoint stands for data: a setting, a score, a path."""
    if name in _DATA_NAMES.get(module, ()):
        return True
    package = module.split(".")[0]
    if package == "numpy":
        import numpy as np

        return module in _NUMPY_TYPES and isinstance(getattr(np.dtypes if "." in module else np, name, None), type)
    if package == "torch":
        return module == "torch._utils" and name.startswith("_rebuild_")
    # Classes of other packages, such as mmcv's ConfigDict or a trainer's own settings. Their names alone are used.
    return package not in sys.stdlib_module_names and name.rpartition(".")[2].lstrip("_")[:1].isupper()
