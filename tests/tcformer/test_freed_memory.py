"""Freed memory is used again."""

from __future__ import annotations

import subprocess
import sys

import pytest

COUNT_PAGES = """
import ctypes
import resource
from tcformer.memory import keep_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
if {keep}:
    keep_freed_memory()
size, blocks = 20 * 2**20, [0] * 4
for turn in range(8):
    for i in range(4):
        blocks[i] = libc.malloc(size)
    for block in blocks:
        libc.memset(block, 1, size)
    for block in reversed(blocks):
        libc.free(block)
    if turn == 3:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_the_memory_of_large_blocks_is_used_again() -> None:
    def new_pages(keep: bool) -> int:
        command = [sys.executable, "-c", COUNT_PAGES.format(keep=keep)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert new_pages(keep=True) < 0.1 * new_pages(keep=False)
