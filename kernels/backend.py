"""Which implementation of an operation runs."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch

BACKENDS = ("reference", "torch", "native", "triton", "portable")
VARIABLE = "TCFORMER_KERNELS"
STRICT_VARIABLE = "TCFORMER_STRICT"
# A name from before there was a choice between plain PyTorch and C++ on CPUs.
_OLD_NAME = "cpu"
_FILES = {"reference": "reference", "torch": "cpu", "triton": "triton", "portable": "portable"}


def choose_backend(backend: str | None, device: torch.device) -> str:
    """Name of the implementation to use: the argument, else the environment variable, else the device's fastest.

    "reference" is the dense specification; "torch" is plain PyTorch and runs anywhere; "native" is C++ for CPUs,
    compiled at its first use; "triton" is for CUDA GPUs; "portable" uses standard operators alone, for export.
    "cpu" means "native" where it was built, else "torch".

    Raises:
        ValueError: no such name, or one asked for by name that cannot run here.
    """
    name = backend or os.environ.get(VARIABLE)
    if not name:
        return fastest(device.type)
    if name == _OLD_NAME:
        return fastest("cpu") if device.type == "cpu" else "torch"
    source = "backend=" if backend else f"the environment variable {VARIABLE}"
    if name not in BACKENDS:
        raise ValueError(f"{source} names the kernels '{name}', but there are only: {', '.join(BACKENDS)}")
    if problem := _problem(name, device.type):
        raise ValueError(f"{source} names the kernels '{name}', which cannot run here: {problem}")
    return name


def in_plain_operators(backend: str | None) -> str | None:
    """The implementation if it is "reference" or "portable", which autograd, export and compilers see through.

    Unlike `choose_backend` it asks nothing of the machine, so it can be traced.

    Raises:
        ValueError: no such name.
    """
    name = backend or os.environ.get(VARIABLE) or _OLD_NAME
    if name not in (*BACKENDS, _OLD_NAME):
        source = "backend=" if backend else f"the environment variable {VARIABLE}"
        raise ValueError(f"{source} names the kernels '{name}', but there are only: {', '.join(BACKENDS)}")
    return name if name in ("reference", "portable") else None


def choose_strict(strict: bool | None) -> bool:
    """Whether GPUs compare tokens in IEEE float32: the argument, else whether TCFORMER_STRICT is 1."""
    return os.environ.get(STRICT_VARIABLE) == "1" if strict is None else strict


def fastest(device_type: str) -> str:
    """The implementation used where none is named."""
    if device_type == "cuda":
        return "torch" if _problem("triton", device_type) else "triton"
    return "torch" if device_type != "cpu" or _native_problem() else "native"


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Within, tensors keep their types. Devices without autocast, such as "meta", are as they are."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def implementation(operation: str, backend: str) -> ModuleType:
    """The module that implements an operation, imported at its first use."""
    return import_module(f"kernels.{operation}.{_FILES[backend]}")


def _problem(name: str, device_type: str) -> str | None:
    if name == "native":
        return "it is for tensors on a CPU" if device_type != "cpu" else _native_problem()
    if name == "triton":
        if not _has_triton():
            return "the package triton is not installed"
        if device_type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
            return "it is for tensors on a CUDA GPU"
    return None


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


@cache
def _native_problem() -> str | None:
    if find_spec("kernels.native") is None:
        return "kernels/native is not part of this installation"
    native = import_module("kernels.native")
    return None if native.available() else native.reason()
