"""Below which limit distances are rounding errors.

In flat areas of an image, tokens are equal except for the rounding errors of the layers before, which depend on the
batch shape and on the number of threads. These errors must not decide which of the tokens become centres.
"""

from __future__ import annotations

import torch
from torch import Tensor

# In units in the last place (ULP). The fast backends compute |a|^2 + |b|^2 - 2ab, whose error is a few ULPs of the
# largest norm. Results on flat images were stable for all factors from 4 to 32. native/src/dpc_knn.cpp has the same
# number.
LIMIT_ULPS = 16


def rounding_limit(squared_distances: Tensor) -> Tensor:
    """Limit (...) below which squared distances of an image count as 0.

    Args:
        squared_distances: (..., N), from an image's first token to all of its tokens.
    """
    return LIMIT_ULPS * torch.finfo(squared_distances.dtype).eps * squared_distances.amax(-1)
