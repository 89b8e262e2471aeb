"""Freed memory is used again."""

from __future__ import annotations

import subprocess
import sys

import pytest

COUNT_PAGES = """
import resource
import torch
from tcformer.memory import keep_freed_memory

if {keep}:
    keep_freed_memory()
for turn in range(20):
    tensors = [torch.ones(6 * 2**18) for _ in range(16)]  # 6 MiB each
    del tensors
    if turn == 9:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_tensors_are_made_in_the_memory_of_freed_ones():
    def new_pages(keep: bool) -> int:
        command = [sys.executable, "-c", COUNT_PAGES.format(keep=keep)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert new_pages(keep=True) < 0.1 * new_pages(keep=False)
