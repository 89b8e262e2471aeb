"""Run a network with kernels of one's own choosing, whatever the environment says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from kernels.backend import VARIABLE


@contextmanager
def kernels_named(name: str) -> Iterator[None]:
    """Within, operations run on the kernels `name` (see `kernels.backend.BACKENDS`). Holds for the whole process."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = name
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
