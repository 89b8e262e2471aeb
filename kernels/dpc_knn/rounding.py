"""Which distances are rounding alone.

Where an image is flat, tokens are equal but for the rounding of the layers before, which depends on the shape of a
batch and on the number of threads. That must not decide which of them become centres.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Fast paths compute |a|^2 + |b|^2 - 2ab, which is off by a few units in the last place of the largest norm. Results
# on flat images have been seen to be stable for all factors from 4 to 32. The C++ kernels (native/src/dpc_knn.cpp) hold
# the same number.
ULPS = 16


def negligible(spread: Tensor) -> Tensor:
    """Squared distances below this count as 0: (...) from (..., N), those of an image's tokens to its first one."""
    return ULPS * torch.finfo(spread.dtype).eps * spread.amax(-1)
