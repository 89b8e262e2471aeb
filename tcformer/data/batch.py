"""Make batches of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Stack samples key by key. Arrays keep their dtype, floats become float32 and integers int64."""
    return {key: torch.stack([_tensor(sample[key]) for sample in samples]) for key in samples[0]}


def evenly_spread(length: int, count: int) -> list[int]:
    """At most `count` evenly spread indices from 0 to `length` - 1."""
    indices: list[int] = np.linspace(0, length - 1, min(count, length)).astype(int).tolist()
    return indices


def _tensor(value: NDArray | float | int) -> Tensor:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    return torch.tensor(value, dtype=torch.float32 if isinstance(value, float) else torch.int64)
