"""The order of points in mirrored images."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def flip_permutation(count: int, pairs: Iterable[tuple[int, int]]) -> NDArray[np.int64]:
    """Compute the order of the points in a mirrored image.

    Args:
        count: number of points.
        pairs: left/right pairs; a point in none of them is its own mirror image.

    Returns:
        (count,) read-only: point i of a mirrored image is point `result[i]` of the original. Its own inverse.
    """
    order = np.arange(count)
    for a, b in pairs:
        order[a], order[b] = b, a
    order.setflags(write=False)
    return order
