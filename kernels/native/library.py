"""The compiled library in this process: loaded at its first use, or the reason why it cannot be."""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from dataclasses import dataclass

from torch import Tensor

from kernels.native.build import BuildError, build_library

VARIABLE = "TCFORMER_NATIVE"

_logger = logging.getLogger(__name__)
_lock = threading.Lock()


@dataclass(frozen=True)
class _State:
    library: ctypes.CDLL | None
    reason: str


_state: _State | None = None


def available() -> bool:
    """Whether the C++ functions can be called here. The first call compiles them unless the library is in the cache.

    If they cannot be called, the first call logs one warning. TCFORMER_NATIVE=0 disables them without a warning.
    """
    return _loaded().library is not None


def reason() -> str:
    """Why `available()` is false, in one clause; an empty string if it is true."""
    return _loaded().reason


def call(function: str, *arguments: Tensor | int | None) -> None:
    """Call a function of the library. Tensors are passed as pointers, and None as the null pointer.

    Raises:
        RuntimeError: the library is not available.
        MemoryError: the function ran out of memory.
    """
    library = _loaded().library
    if library is None:
        raise RuntimeError(f"the C++ token operations are not available: {reason()}")
    if getattr(library, function)(*map(_as_argument, arguments)) != 0:
        raise MemoryError(f"the token operation {function} ran out of memory")


def _as_argument(value: Tensor | int | None) -> ctypes.c_void_p | ctypes.c_int64:
    if value is None:
        return ctypes.c_void_p(None)
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    return ctypes.c_int64(value)


def _loaded() -> _State:
    global _state
    if _state is None:
        with _lock:
            if _state is None:
                _state = _load()
    return _state


def _load() -> _State:
    if os.environ.get(VARIABLE) == "0":
        return _State(None, f"the environment variable {VARIABLE} is 0")
    try:
        return _State(_open(), "")
    except BuildError as error:
        _logger.warning("Token operations run in plain PyTorch, which is slower: %s.", error)
        return _State(None, str(error))


def _open() -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(build_library()))
    except OSError:  # damaged since it was compiled
        path = build_library(replace=True)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise BuildError(f"{path} cannot be loaded ({error})") from error
