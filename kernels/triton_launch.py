"""How Triton kernels are launched: block sizes and register limits.

Block sizes are fixed and never tuned at run time. They determine the order in which numbers are added, and results must
not depend on what else a GPU was doing while a tuner measured.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Launch:
    """Block sizes of one kernel.

    Attributes:
        rows: rows (tokens, pixels, segments) per block.
        channels: channels that a block processes at a time.
        warps: warps per program.
        registers: maximum number of registers per thread. Without a maximum, the assembler aims at a higher occupancy
            and spills a few registers in inner loops; with these, no kernel spills.
        columns: rows of the other side per block, in a kernel that compares rows with rows.
        stages: tiles in flight in pipelined loops.
    """

    rows: int
    channels: int
    warps: int
    registers: int
    columns: int = 0
    stages: int = 3

    @property
    def options(self) -> dict[str, int]:
        """Keyword arguments of Triton's launch."""
        return {"num_warps": self.warps, "num_stages": self.stages, "maxnreg": self.registers}


def architecture(device: torch.device) -> str:
    """ "sm_80" or "sm_90" for GPUs with their own block sizes, else "default"."""
    if device.type != "cuda":
        return "default"
    return {8: "sm_80", 9: "sm_90"}.get(torch.cuda.get_device_capability(device)[0], "default")


def on_device_of(x: Tensor) -> AbstractContextManager[object]:
    """Context in which kernels are launched on the GPU that holds `x`, which may not be the current one."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def round_up(value: int, multiple: int) -> int:
    """Smallest multiple of `multiple` that is at least `value`."""
    return -(-value // multiple) * multiple
