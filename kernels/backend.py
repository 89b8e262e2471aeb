"""Which implementation of an operation runs."""

from __future__ import annotations

import os

BACKENDS = ("reference", "cpu")
VARIABLE = "TCFORMER_KERNELS"


def choose_backend(backend: str | None) -> str:
    """Name of the implementation to use: the argument, else the environment variable, else the fast one.

    `reference` is the dense specification. `cpu` is the fast path in plain PyTorch; it computes on whatever
    device its tensors are.

    Raises:
        ValueError: the name is not one of `BACKENDS`.
    """
    name = backend or os.environ.get(VARIABLE) or "cpu"
    if name not in BACKENDS:
        source = "backend=" if backend else f"the environment variable {VARIABLE}"
        raise ValueError(f"{source} names the kernels '{name}', but there are only: {', '.join(BACKENDS)}")
    return name
