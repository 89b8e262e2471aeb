"""Which backend computes an operation."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import NoReturn

import torch

BACKENDS = ("reference", "torch", "native", "triton", "portable")
VARIABLE = "TCFORMER_KERNELS"
STRICT_VARIABLE = "TCFORMER_STRICT"


def choose_backend(backend: str | None, device: torch.device) -> str:
    """Name of the backend to use: the argument, else TCFORMER_KERNELS, else the fastest one for the device.

    "reference" is the dense specification. "torch" is plain PyTorch and runs anywhere. "native" is C++ for CPUs,
    compiled at its first use. "triton" is for CUDA GPUs. "portable" uses standard operators only, for export.

    Raises:
        ValueError: there is no backend of that name, or it cannot run here.
    """
    name = _requested(backend)
    if not name:
        return fastest_backend(device.type)
    if problem := _why_unavailable(name, device.type):
        raise ValueError(f"backend '{name}' ({_source(backend)}) cannot run here: {problem}")
    return name


def traceable_backend(backend: str | None) -> str | None:
    """The requested backend if it is "reference" or "portable", which autograd and `torch.export` can trace.

    Unlike `choose_backend`, this function does not check what the machine can run, so it can itself be traced.

    Raises:
        ValueError: there is no backend of that name.
    """
    name = _requested(backend)
    return name if name in ("reference", "portable") else None


def choose_strict(strict: bool | None) -> bool:
    """Whether GPUs compare tokens in IEEE float32: the argument, else whether TCFORMER_STRICT is 1."""
    return os.environ.get(STRICT_VARIABLE) == "1" if strict is None else strict


def fastest_backend(device_type: str) -> str:
    """The backend used for tensors on this type of device where none is requested."""
    if device_type == "cuda":
        return "torch" if _why_unavailable("triton", device_type) else "triton"
    return "torch" if device_type != "cpu" or _why_native_unavailable() else "native"


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Context without autocast, for devices that have it; "meta", for example, has none."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def refuse_second_derivative(ctx: object, *grads: object) -> NoReturn:
    """The derivative of an operator that is itself a derivative: there is none, and the message says what to do."""
    raise RuntimeError(
        f"the fast token operations have no second derivatives: set the environment variable {VARIABLE} to portable "
        "before the forward pass, and run both passes in torch.nn.attention.sdpa_kernel(SDPBackend.MATH)"
    )


def backend_module(operation: str, backend: str) -> ModuleType:
    """The module that implements an operation of a folder in one backend, imported at its first use."""
    return import_module("kernels.native" if backend == "native" else f"kernels.{operation}.{backend}_backend")


def _requested(backend: str | None) -> str | None:
    name = backend or os.environ.get(VARIABLE) or None
    if name and name not in BACKENDS:
        raise ValueError(f"unknown backend '{name}' ({_source(backend)}): expected one of {', '.join(BACKENDS)}")
    return name


def _source(backend: str | None) -> str:
    return "argument backend" if backend else f"environment variable {VARIABLE}"


def _why_unavailable(name: str, device_type: str) -> str | None:
    """Why the backend cannot run on this type of device; None if it can."""
    if name == "native":
        return "it needs tensors on a CPU" if device_type != "cpu" else _why_native_unavailable()
    if name == "triton":
        if not _has_triton():
            return "the package triton is not installed"
        if device_type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
            return "it needs tensors on a CUDA GPU"
    return None


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


@cache
def _why_native_unavailable() -> str | None:
    if find_spec("kernels.native") is None:
        return "kernels/native is not part of this installation"
    native = import_module("kernels.native")
    return None if native.available() else native.reason()
