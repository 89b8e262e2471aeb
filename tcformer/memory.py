"""How this process takes memory from the operating system."""

from __future__ import annotations

import ctypes
import sys
from typing import Final

# Parameters of mallopt in glibc's malloc.h.
_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_LARGEST_MMAP_THRESHOLD: Final = 32 << 20  # that glibc would choose itself
_MOST_KEPT: Final = 1 << 30


def keep_freed_memory() -> None:
    """Have this process reuse memory that it has freed, instead of returning it to the operating system.

    On CPUs PyTorch takes the memory of each tensor from the C library and frees it. Of tensors larger than a few MiB,
    glibc returns it to the operating system, which fills it with zeros when it is used again (docs/predict.md: the time
    that this takes). Up to 1 GiB of freed memory is kept. Does nothing where the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        mallopt(_TRIM_THRESHOLD, _MOST_KEPT)
