"""Read pickles from the internet (SMPL models, 3DPW sequences) as data, without executing code in them.

A pickle is a program. This unpickler lets it call only the constructors of numpy arrays, numbers and dtypes. Stand-ins
for scipy's sparse matrices and chumpy's arrays only store the state of these objects; the arrays are made from it
afterwards. Any other name stops the reading before anything is called.
"""

from __future__ import annotations

import math
import mmap
import pickle
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from tcformer.errors import UserError
from tcformer.pickles import check_pickle

_SPARSE_FORMATS = ("csc", "csr", "coo")


def load_pickle(path: Path | str, keys: Collection[str] | None = None) -> Any:
    """Read a pickle of plain values, numpy arrays, scipy.sparse matrices and chumpy arrays.

    Python 2 pickles are read with the encoding latin1. chumpy need not be installed and is never imported.

    Args:
        path: the file.
        keys: the entries to return if the file contains a dict; None for all.

    Returns:
        The content, chumpy arrays as numpy arrays.

    Raises:
        UserError: the file does not exist, is not a complete pickle, or names anything else than the above. Nothing in
            it was executed.
    """
    try:
        with open(path, "rb") as file:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                check_pickle(data)
            content = _Unpickler(file, path).load()
        if keys is not None and isinstance(content, dict):
            content = {key: value for key, value in content.items() if key in keys}
        return _plain(content, {})
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); put the file there") from error
    except UserError:
        raise
    except Exception as error:  # a broken pickle may raise anything
        raise UserError(
            f"{path}: expected a complete pickle of numpy arrays, found {type(error).__name__}: {error}; "
            f"download the file again"
        ) from error


class _StandIn:
    """Stands for an object of a class of scipy or chumpy, and stores the state that the pickle gives it."""

    class_name = ""

    def __new__(cls, *ignored: object) -> _StandIn:
        """Create an object without state. A pickle may pass arguments, which are ignored."""
        return super().__new__(cls)

    def __init__(self, *ignored: object) -> None:
        pass

    @property
    def state(self) -> dict[str, Any]:
        """The state that the pickle gives the object."""
        return self.__dict__

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict):
            raise ValueError(f"the state of a {self.class_name} is not a dict")
        self.__dict__.update(state)


def _reconstruct_object(cls: type, base: object, state: object) -> _StandIn:
    """Replaces copyreg._reconstructor, which makes objects in the protocols 0 and 1."""
    if not issubclass(cls, _StandIn):
        raise ValueError(f"a {cls.__name__} made as a plain object")
    return cls()


class _Array(np.ndarray):
    """An array of a pickle. Its memory is allocated when its bytes are there, and never for a shape alone."""

    def __new__(cls, *ignored: object) -> _Array:
        """Refuse what no pickle of numpy does."""
        raise ValueError("an array made by its class")

    def __setstate__(self, state: Any) -> None:
        """Set shape, dtype and values as numpy does, if the values are as many as the shape says."""
        *_, shape, dtype, _, values = state
        count = math.prod(shape)
        found = len(values) if dtype.hasobject else len(values) / max(dtype.itemsize, 1)
        if found != count or (count and not dtype.itemsize):
            raise ValueError(f"{found:g} values in an array of the shape {shape}")
        super().__setstate__(state)


def _make_array(cls: object, *ignored: object) -> NDArray:
    """Replaces numpy's function _reconstruct, which allocates an array of any shape."""
    if cls is not _Array:
        raise ValueError(f"an array of the class {cls!r}")
    array: Any = np.zeros(0)
    maker, *_ = array.__reduce__()
    empty: NDArray = maker(_Array, (0,), b"b")
    return empty


def _make_number(dtype: np.dtype, value: object = None) -> Any:
    """Replaces numpy's function scalar, which allocates a number of any size if it gets no value."""
    if dtype.hasobject or not isinstance(value, bytes | str) or len(value) != dtype.itemsize:
        raise ValueError(f"a number of the type {dtype} without its bytes")
    number: Any = np.float64(0)
    maker, *_ = number.__reduce__()
    return maker(dtype, value)


def _encode(text: str, encoding: str) -> bytes:
    """Replaces _codecs.encode, which Python 3 writes for bytes in protocol 2."""
    if encoding != "latin1":
        raise ValueError(f"bytes in the encoding {encoding!r}")
    return text.encode("latin1")


def _from_buffer(buffer: bytes, dtype: np.dtype, shape: tuple[int, ...], order: Literal["C", "F"]) -> NDArray:
    """Replaces numpy's function of that name, which protocol 5 calls for arrays."""
    return np.frombuffer(buffer, dtype).reshape(shape, order=order)


#: Our functions in place of those that numpy's own pickles call.
_NUMPY_MAKERS: dict[str, Callable[..., Any]] = {"_reconstruct": _make_array, "scalar": _make_number}


class _Unpickler(pickle.Unpickler):
    """Finds the names listed above and refuses all others."""

    def __init__(self, file: BinaryIO, path: Path | str) -> None:
        super().__init__(file, encoding="latin1", errors="strict")
        self.path = path
        # New for each file, because a pickle can write to the classes that it gets.
        self._stand_ins: dict[str, type[_StandIn]] = {}
        self._known: dict[tuple[str, str], Any] = {
            ("numpy", "ndarray"): _Array,
            ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): _encode,
        }
        for package in ("numpy.core", "numpy._core"):
            for name, maker in _NUMPY_MAKERS.items():
                self._known[f"{package}.multiarray", name] = maker
            self._known[f"{package}.numeric", "_frombuffer"] = _from_buffer
        for copyreg, builtins in (("copy_reg", "__builtin__"), ("copyreg", "builtins")):
            self._known[copyreg, "_reconstructor"] = _reconstruct_object
            self._known[builtins, "object"] = "object"
            self._known[builtins, "set"] = set  # chumpy's arrays contain one

    def find_class(self, module: str, name: str) -> object:
        """Return what a name of the pickle stands for, or raise UserError."""
        if (module, name) in self._known:
            return self._known[module, name]
        package = module.split(".")[0]
        if module.startswith("scipy.sparse") and name.removesuffix("_matrix").removesuffix("_array") in _SPARSE_FORMATS:
            return self._stand_in(name[:3])
        if package == "chumpy":
            return self._stand_in("Select" if name == "Select" else "Ch")
        raise UserError(
            f"{self.path}: refused, because it names {module}.{name} where a data file may only name numpy, "
            f"scipy.sparse and chumpy arrays; nothing in it was executed; download the file from its publisher"
        )

    def _stand_in(self, class_name: str) -> type[_StandIn]:
        if class_name not in self._stand_ins:
            self._stand_ins[class_name] = type(class_name, (_StandIn,), {"class_name": class_name})
        return self._stand_ins[class_name]


def _plain(value: Any, done: dict[int, Any]) -> Any:
    """Replace stand-ins by arrays, also inside dicts, lists, tuples and arrays of objects.

    Args:
        value: what the pickle contains.
        done: the results for the containers so far, by their id: a container that is in many others is converted once.

    Raises:
        ValueError: a container contains itself, or a class stands where an array was expected.
    """
    if isinstance(value, type):
        raise ValueError(f"the class {value.__name__} where an array was expected")
    if not isinstance(value, (_StandIn, np.ndarray, dict, list, tuple)):
        return value
    if id(value) not in done:
        done[id(value)] = _UNFINISHED
        done[id(value)] = _plain_container(value, done)
    if done[id(value)] is _UNFINISHED:
        raise ValueError("a container that contains itself")
    return done[id(value)]


_UNFINISHED = object()


def _plain_container(value: Any, done: dict[int, Any]) -> Any:
    if isinstance(value, _StandIn):
        return _array(value, done)
    if isinstance(value, np.ndarray):
        if value.dtype != object:
            return value.view(np.ndarray)
        plain = np.empty(value.shape, object)
        flat = plain.reshape(-1)
        for place, entry in enumerate(value.reshape(-1)):
            flat[place] = _plain(entry, done)
        return plain
    if isinstance(value, dict):
        return {_plain(key, done): _plain(entry, done) for key, entry in value.items()}
    return type(value)(_plain(entry, done) for entry in value)


def _array(stand_in: _StandIn, done: dict[int, Any]) -> Any:
    """The array or sparse matrix that a stand-in stands for."""
    state = stand_in.state
    if stand_in.class_name == "Select":
        values = np.asarray(_plain(state["a"], done)).ravel()[np.asarray(_plain(state["idxs"], done))]
        shape = state.get("preferred_shape")
        return values if shape is None else values.reshape(_plain(shape, done))
    if stand_in.class_name == "Ch":
        if not isinstance(state.get("x"), np.ndarray):
            raise ValueError("a chumpy expression where a chumpy array was expected")
        return np.array(state["x"])
    from scipy import sparse

    state = {name: _plain(value, done) for name, value in state.items()}
    make = getattr(sparse, f"{stand_in.class_name}_matrix")
    shape = state.get("_shape", state.get("shape"))
    if stand_in.class_name == "coo":
        row, column = state["coords"] if "coords" in state else (state["row"], state["col"])
        matrix = make((state["data"], (row, column)), shape=shape)
    else:
        matrix = make((state["data"], state["indices"], state["indptr"]), shape=shape)
        matrix.check_format(full_check=True)  # indices out of bounds would read arbitrary memory
    return matrix
