"""Choose the kernels that a network runs on, regardless of the environment variable."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from kernels.backend import VARIABLE


@contextmanager
def use_kernels(name: str) -> Iterator[None]:
    """Run the token operations in the `with` statement on the backend `name`, in the whole process.

    Args:
        name: one of `kernels.backend.BACKENDS`.
    """
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = name
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
