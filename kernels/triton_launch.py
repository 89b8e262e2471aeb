"""How the Triton kernels are launched: sizes of blocks by GPU architecture.

The sizes are fixed and kept here, never tuned at run time: the order in which numbers are added follows from
them, and results must not depend on what else a GPU was doing while a tuner measured.
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
        rows: rows (tokens, pixels, segments) of a block.
        channels: channels that a block holds at a time.
        warps: warps of a program.
        registers: bound on a thread's registers. Without one, the assembler goes for the next better occupancy
            and spills a few registers in inner loops; every size here is built without spills.
        columns: rows of the other side, for a kernel that compares rows with rows.
        stages: tiles in flight in the pipelined loops.
    """

    rows: int
    channels: int
    warps: int
    registers: int
    columns: int = 0
    stages: int = 3

    @property
    def options(self) -> dict[str, int]:
        """What Triton's launch takes beside the kernel's own arguments."""
        return {"num_warps": self.warps, "num_stages": self.stages, "maxnreg": self.registers}


def architecture(device: torch.device) -> str:
    """ "sm_80" or "sm_90" for the GPUs that have sizes of their own, else "default"."""
    if device.type != "cuda":
        return "default"
    return {8: "sm_80", 9: "sm_90"}.get(torch.cuda.get_device_capability(device)[0], "default")


def on_device_of(x: Tensor) -> AbstractContextManager[object]:
    """Launch on the GPU that holds `x`, which need not be the current one."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def round_up(value: int, multiple: int) -> int:
    """Least multiple of `multiple` that is not below `value`."""
    return -(-value // multiple) * multiple
